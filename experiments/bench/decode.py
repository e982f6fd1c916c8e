"""Decode steps of SmolLM2 135M beside llama.cpp: the same weights, batch, context and number of threads.

Tokens a second by wall and by CPU time of the whole process, medians of interleaved rounds, one child process
for each number of threads. Ours at int8 stands beside Q8_0, at int4 beside Q4_0; the file itself (Q4_1) is
what int4 holds exactly. Q8_0 and Q4_0 files are made once, in the models' cache folder.
Run: `python -m experiments.bench.decode [--threads 1 2] [--batch 1 4] [--context 128]`.
"""

import argparse
import functools
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

MODEL = "smollm2-135m-instruct"
STEPS = 16
PLAIN_LAYOUT = "TARSIA_BENCH_PLAIN_LAYOUT"
"""Set where llama.cpp must not lay weights out anew: its tiles of AMX crash on some virtual machines."""
PAIRS = (("int8", "Q8_0"), ("int4", "Q4_0"), ("int4", "Q4_1"))
"""Ours beside theirs."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--context", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        measure(options.batch, options.context, options.rounds, options.threads[0])
        return 0
    given = [*map(str, ("--context", options.context, "--rounds", options.rounds, "--batch", *options.batch))]
    codes = [_child(count, given) for count in options.threads]
    return max(map(abs, codes))


def _child(threads: int, given: list[str]) -> int:
    """A process of its own on `threads` processors: XLA sizes its pool when it starts."""
    allowed = sorted(os.sched_getaffinity(0))[-threads:]
    command = [sys.executable, "-m", "experiments.bench.decode", "--child", "--threads", str(threads), *given]

    def run(**more: str) -> int:
        environment = {**os.environ, **more}
        pinned = lambda: os.sched_setaffinity(0, allowed)  # noqa: E731
        return subprocess.run(command, preexec_fn=pinned, env=environment).returncode

    code = run()
    if code == -signal.SIGSEGV:
        print("llama.cpp crashes with weights laid out for this processor (AMX?); again without", flush=True)
        code = run(**{PLAIN_LAYOUT: "1"})
    return code


def measure(batches: list[int], context: int, rounds: int, threads: int) -> None:
    from experiments.bench.measure import interleaved, machine

    print(f"decode: {MODEL}, context {context}, {threads} thread(s), {machine()}")
    print(f"  {'batch':>5s} {'contender':>10s} {'tok/s CPU':>10s} {'tok/s wall':>10s}")
    for batch in batches:
        steps: dict[str, Callable[[], object]] = {}
        for kind in ("int8", "int4"):
            steps[kind] = ours(kind, batch, context)
        for kind in ("Q8_0", "Q4_0", "Q4_1"):
            steps[kind] = theirs(kind, batch, context, threads)
        spans = interleaved(steps, rounds)
        made = batch * STEPS
        for name, span in spans.items():
            print(f"  {batch:5d} {name:>10s} {made / span.cpu:10.1f} {made / span.wall:10.1f}")
        for mine, other in PAIRS:
            cpu, wall = spans[other].cpu / spans[mine].cpu, spans[other].wall / spans[mine].wall
            print(f"  {batch:5d} {mine} / {other}: {cpu:.2f} by CPU time, {wall:.2f} by wall", flush=True)


def prompt(length: int) -> list[int]:
    return np.random.default_rng(0).integers(100, 5000, length).tolist()


def ours(quant: str, batch: int, context: int) -> Callable[[], object]:
    """A function that makes STEPS more tokens in each of `batch` sequences that began with `context`."""
    from engine.generate.kv_pool import blocks_for
    from engine.generate.model import DecoderStepModel
    from engine.generate.request import SamplingParams
    from engine.generate.step_model import Opening
    from engine.registry import resolve
    from engine.weights.checkpoint import load_checkpoint

    checkpoint = load_checkpoint(resolve(MODEL).path, quant=quant)
    model = DecoderStepModel(checkpoint.params, checkpoint.config, max_slots=batch, max_context=512)
    each = blocks_for(model.max_context)
    tables = [(slot, range(1 + slot * each, 1 + (slot + 1) * each)) for slot in range(batch)]
    for slot, table in tables:
        model.start(slot, Opening(tuple(prompt(context)), SamplingParams(temperature=0), 0))
        done = 0
        while done < context:
            done += model.prefill(slot, table, done).positions

    def steps() -> None:
        for _ in range(STEPS):
            model.decode(tables)

    return steps


def theirs(kind: str, batch: int, context: int, threads: int) -> Callable[[], object]:
    """The same by llama.cpp, through its C interface; the argmax in NumPy."""
    import llama_cpp as lc

    quiet()
    loading = lc.llama_model_default_params()
    loading.use_extra_bufts = PLAIN_LAYOUT not in os.environ
    model = lc.llama_model_load_from_file(str(_file(kind)).encode(), loading)
    params = lc.llama_context_default_params()
    params.n_ctx, params.n_batch, params.n_ubatch, params.n_seq_max = 512 * batch, 512, 512, batch
    params.n_threads = params.n_threads_batch = threads
    state = lc.llama_init_from_model(model, params)
    size = lc.llama_vocab_n_tokens(lc.llama_model_get_vocab(model))
    room = lc.llama_batch_init(512, 0, 1)

    def feed(items: list[tuple[int, int, int, bool]]) -> None:
        room.n_tokens = len(items)
        for i, (token, position, sequence, wanted) in enumerate(items):
            room.token[i], room.pos[i], room.n_seq_id[i] = token, position, 1
            room.seq_id[i][0], room.logits[i] = sequence, wanted
        if lc.llama_decode(state, room) != 0:
            raise RuntimeError("llama_decode failed")

    def best(place: int) -> int:
        return int(np.ctypeslib.as_array(lc.llama_get_logits_ith(state, place), shape=(size,)).argmax())

    for sequence in range(batch):
        feed([(token, i, sequence, i == context - 1) for i, token in enumerate(prompt(context))])
    last, length = [5] * batch, context

    def steps() -> None:
        nonlocal last, length
        for _ in range(STEPS):
            feed([(last[s], length, s, True) for s in range(batch)])
            last, length = [best(s) for s in range(batch)], length + 1

    return steps


def llama_logits(kind: str, tokens: list[int]) -> np.ndarray:
    """llama.cpp's logits after each token, fed one by one: (tokens, vocab)."""
    import llama_cpp as lc

    model = lc.Llama(str(_file(kind)), n_ctx=512, n_threads=1, verbose=False)
    found = []
    for token in tokens:
        model.eval([token])
        row = lc.llama_get_logits_ith(model.ctx, -1)
        found.append(np.array(np.ctypeslib.as_array(row, shape=(model.n_vocab(),))))
    return np.stack(found)


def _file(kind: str) -> Path:
    """The model's own file, or one requantised from it, kept in the cache folder."""
    import llama_cpp as lc

    from engine.registry import cache_dir, resolve

    own = resolve(MODEL).path
    made = cache_dir() / "bench" / f"{MODEL}.{kind}.gguf"
    if kind == "Q4_1" or made.exists():
        return own if kind == "Q4_1" else made
    made.parent.mkdir(parents=True, exist_ok=True)
    return requantised(own, getattr(lc, f"LLAMA_FTYPE_MOSTLY_{kind}"), made)


def requantised(source: Path, file_type: int, target: Path) -> Path:
    """`target`, made by llama.cpp's converter from `source`; `file_type` is one of LLAMA_FTYPE."""
    import llama_cpp as lc

    params = lc.llama_model_quantize_default_params()
    params.ftype, params.allow_requantize = file_type, True
    begun = target.with_suffix(".part")
    if lc.llama_model_quantize(str(source).encode(), str(begun).encode(), params) != 0:
        raise RuntimeError(f"llama.cpp could not convert {source}")
    return begun.rename(target)


def quiet() -> None:
    """Sends llama.cpp's log nowhere."""
    import llama_cpp as lc

    lc.llama_log_set(_silent(lc), None)


@functools.cache
def _silent(lc: Any) -> Any:
    """A sink for llama.cpp's log, which must outlive the library's use of it."""
    return lc.llama_log_callback(lambda *_: None)


if __name__ == "__main__":
    sys.exit(main())
