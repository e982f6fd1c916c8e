"""Measuring which backend and which tile sizes run a call fastest on this device.

Candidates are the backends of the platform, each with its own defaults and with every point of the
kernel's `search`; `xla` is always among them, and it wins unless another is faster by `MARGIN`. Each is
built, compared with the reference, and timed in turn with the others, so that a disturbance meets all
alike. Never done behind a caller's back: by `kernel.tune(...)`, or with TARSIA_DSL_AUTOTUNE=1 for calls
outside of a trace. One tuning runs at a time in a process.
"""

import itertools
import statistics
import threading
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from numpy.typing import NDArray

from dsl.ir.ops import Kernel
from dsl.lang.errors import KernelError
from dsl.lower.oracle_target import TARGET as ORACLE
from dsl.runtime import targets, tuned
from dsl.runtime.device import identity
from dsl.runtime.profile import PROFILE, Tuned, kind_of
from dsl.runtime.select import is_traced, refusal
from dsl.runtime.selfcheck import differs, on_device
from dsl.runtime.targets import Resourceful
from dsl.runtime.tuned import Trial, TunedCall, Value

if TYPE_CHECKING:
    from dsl.lang.kernel import Call, KernelFunction

MARGIN = 0.05
"""How much faster than `xla` another must be: less is noise, and XLA fuses with what is around a call."""
ROUNDS, LEAST_ROUNDS = 9, 3
WINDOW = 0.002
"""Seconds that one sample takes at least: short runs are repeated."""
HOPELESS = 4.0
"""A candidate this many times slower than the best is timed once."""
MOST_POINTS = 32
Clock = Callable[[], float]
Run = Callable[[], object]
Keywords = Mapping[str, Value]
_lock = threading.Lock()


@dataclass(frozen=True)
class Candidate:
    """A kernel on a backend, ready to run on the arrays of the call."""

    backend: str
    keywords: Keywords
    run: Run


def tune(
    function: "KernelFunction",
    given: "Call",
    meta: Mapping[str, Hashable],
    *,
    seconds: float = 30.0,
    clock: Clock = time.perf_counter,
) -> TunedCall:
    """Measures a call on its arrays and keeps the result, which later calls of this signature use.

    `seconds` bounds the building of candidates and, again, the timing; a compilation is not cut short.
    Raises KernelError inside of a trace and when no candidate runs.
    """
    if is_traced(given.arrays) or not all(hasattr(x, "__array__") for x in given.arrays):
        raise KernelError(f"{function.name}: tuning measures arrays; call .tune(...) outside of jit")
    platform = jax.default_backend()
    with _lock:
        started = clock()
        trials = _raced(function, given, meta, platform, clock, seconds)
        spent = clock() - started
    best = fastest([each for each in trials if each.seconds is not None])
    record = TunedCall(
        key=tuned.key_for(function, given.refs, meta, platform),
        kernel=function.name,
        device=identity(platform),
        backend=best.backend,
        keywords=best.keywords,
        seconds=best.seconds or 0.0,
        trials=trials,
    )
    tuned.keep(record)
    PROFILE.record(Tuned(record.kernel, platform, record.backend, record.seconds, len(trials), spent))
    return record


def _raced(
    function: "KernelFunction",
    given: "Call",
    meta: Mapping[str, Hashable],
    platform: str,
    clock: Clock,
    seconds: float,
) -> tuple[Trial, ...]:
    """All candidates of a call: those that were timed, then those that were dropped."""
    started = clock()
    arrays = jax.device_put([np.asarray(x) for x in given.arrays], jax.devices(platform)[0])
    kernels = _kernels(function, given, meta, platform)
    ready, dropped = _prepared(kernels, arrays, platform, lambda: clock() - started > seconds)
    if not ready:
        told = "; ".join(map(str, dropped))
        raise KernelError(f"{function.name}: no candidate can be timed on {platform} ({told})")
    times = measure([each.run for each in ready], clock=clock, seconds=seconds)
    timed = [Trial(each.backend, each.keywords, took) for each, took in zip(ready, times, strict=True)]
    return (*timed, *dropped)


def fastest(trials: Sequence[Trial]) -> Trial:
    """The fastest of timed trials, or the fastest of `xla` where no other is faster by `MARGIN`."""
    best = min(trials, key=lambda each: each.seconds or 0.0)
    of_xla = [each for each in trials if each.backend == "xla"]
    portable = min(of_xla, key=lambda each: each.seconds or 0.0, default=best)
    near = (portable.seconds or 0.0) * (1 - MARGIN) <= (best.seconds or 0.0)
    return portable if near else best


def points(function: "KernelFunction", meta: Mapping[str, Hashable]) -> list[Keywords]:
    """The defaults, then every combination of what `search` gives for keywords that the caller did not."""
    search = {name: values for name, values in sorted(function.search.items()) if name not in meta}
    combinations = itertools.product(*search.values())
    found: list[Keywords] = [dict(zip(search, each, strict=True)) for each in combinations]
    if len(found) > MOST_POINTS:
        raise KernelError(
            f"{function.name}: search gives {len(found)} points, and {MOST_POINTS} is the limit"
        )
    return [{}, *(each for each in found if each)]


def _kernels(
    function: "KernelFunction", given: "Call", meta: Mapping[str, Hashable], platform: str
) -> Iterator[tuple[str, Keywords, Kernel | str]]:
    """Backend, keywords, and the kernel they give or why there is none; each kernel once, `xla` first."""
    seen: set[tuple[str, Kernel]] = set()
    for point in points(function, meta):
        for name in ("xla", *targets.measured(platform)):
            try:
                kernel = function.specialise(given.refs, name, {**meta, **point})
            except KernelError as error:
                yield name, point, str(error)
                continue
            if (name, kernel) not in seen:
                seen.add((name, kernel))
                yield name, point, kernel


def _prepared(
    kernels: Iterable[tuple[str, Keywords, Kernel | str]],
    arrays: list[jax.Array],
    platform: str,
    is_late: Callable[[], bool],
) -> tuple[list[Candidate], list[Trial]]:
    """Candidates that run and are right; and those that were dropped, with the reason."""
    ready: list[Candidate] = []
    dropped: list[Trial] = []
    absent: set[str] = set()
    expected: Sequence[NDArray[Any]] | None = None
    for name, point, kernel in kernels:
        if name in absent:
            continue
        if isinstance(kernel, str):
            found: Run | str = kernel
        elif ready and is_late():
            found = "not tried: the time was spent"
        else:
            expected = expected or _reference(kernel, arrays, platform)
            found = _built(name, kernel, arrays, platform, expected)
        if isinstance(found, str):
            if kind_of(found) in ("platform", "missing"):
                absent.add(name)
            dropped.append(Trial(name, point, None, str(found)))
        else:
            ready.append(Candidate(name, point, found))
    return ready, dropped


def _reference(kernel: Kernel, arrays: list[jax.Array], platform: str) -> Sequence[NDArray[Any]]:
    """What the call gives by XLA, or by the oracle where XLA refuses or is wrong."""
    target: targets.Target = targets.target("xla")
    device = jax.devices(platform)[0]
    if target.refuses(kernel) is not None or on_device(kernel, target.build(kernel), device) is not None:
        target = ORACLE
    return [np.asarray(x) for x in jax.jit(target.build(kernel))(*arrays)]


def _built(
    name: str, kernel: Kernel, arrays: list[jax.Array], platform: str, expected: Sequence[NDArray[Any]]
) -> Run | str:
    """A run of a candidate, or why it is dropped."""
    target = targets.target(name)
    reason = refusal(target, kernel, platform)
    if reason is not None:
        return reason
    taken = target.resources(kernel) if isinstance(target, Resourceful) else ()
    spilled = sum(each.spilled or 0 for each in taken)
    if spilled:
        return f"it spills {spilled} B of registers"
    try:
        call: Any = jax.jit(target.build(kernel))
        found = [np.asarray(x) for x in call(*arrays)]
    except Exception as error:  # a backend raises what it likes when it runs: it is the reason
        lines = str(error).strip().splitlines() or [""]
        return f"{type(error).__name__}: {lines[-1][:200]}"  # of a traceback in it, the line that says what
    reason = differs(kernel, expected, found)
    if reason is not None:
        return f"wrong on these arrays: {reason}"
    wait: Any = jax.block_until_ready
    return lambda: wait(call(*arrays))


def measure(runs: Sequence[Run], *, clock: Clock, seconds: float) -> list[float]:
    """The median over rounds of the seconds that each run takes, the runs taking turns.

    At least `LEAST_ROUNDS` rounds, at most `ROUNDS`, and no new one after `seconds`. A hopeless run is
    left out after the first round.
    """
    started = clock()
    once = [_timed(run, 1, clock) for run in runs]
    repeats = [max(1, min(1000, int(WINDOW / max(took, 1e-9)))) for took in once]
    samples: list[list[float]] = [[] for _ in runs]
    racing = set(range(len(runs)))
    for turn in range(ROUNDS):
        if turn >= LEAST_ROUNDS and clock() - started > seconds:
            break
        for number in sorted(racing):
            samples[number].append(_timed(runs[number], repeats[number], clock))
        if turn == 0:
            best = min(each[0] for each in samples)
            racing = {number for number in racing if samples[number][0] <= HOPELESS * best}
    return [statistics.median(each) for each in samples]


def _timed(run: Run, times: int, clock: Clock) -> float:
    begun = clock()
    for _ in range(times):
        run()
    return (clock() - begun) / times
