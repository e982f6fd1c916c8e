"""What tuning found: kept in the cache under the device's identity, looked up while JAX traces.

A record only says which backend and keywords to prefer: the backend still compiles and checks the kernel
before its first use, so a record that is stale or from elsewhere can cost speed and nothing else.

    >>> softmax.tune(x)
    >>> tuned.export(Path("tuned.json"))   # all records of this cache
    >>> tuned.load(Path("tuned.json"))     # on a machine of the same kind
"""

import dataclasses
import json
import re
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsl.ir.types import RefType
from dsl.lang.errors import TunedError
from dsl.runtime.cache import Cache, default_folder, key_of, opened
from dsl.runtime.device import identity

if TYPE_CHECKING:
    from dsl.lang.kernel import KernelFunction

FORMAT = 1
FILE = "tuned.json"
Value = int | float | str


@dataclass(frozen=True)
class Trial:
    """A candidate: its seconds a run, or why it was dropped."""

    backend: str
    keywords: Mapping[str, Value]
    seconds: float | None
    reason: str | None = None

    def __str__(self) -> str:
        words = " ".join(f"{name}={value}" for name, value in self.keywords.items())
        told = self.reason if self.seconds is None else f"{self.seconds * 1e6:.4g} us"
        return f"{' '.join([self.backend, words]).strip()}: {told}"


@dataclass(frozen=True)
class TunedCall:
    """The fastest candidate of one call signature on one kind of device; `print` it for all trials.

    Attributes:
        key: its name in the cache: the IR, what was searched, the device.
        keywords: what to give the kernel beside the caller's own keywords.
    """

    key: str
    kernel: str
    device: str
    backend: str
    keywords: Mapping[str, Value]
    seconds: float
    trials: tuple[Trial, ...]

    def __str__(self) -> str:
        lines = [f"{self.kernel} on {self.device}: {self.backend}"]
        order = sorted(self.trials, key=lambda each: (each.seconds is None, each.seconds or 0.0))
        return "\n".join(lines + [f"  {each}" for each in order])


def key_for(
    function: "KernelFunction", refs: tuple[RefType, ...], meta: Mapping[str, Hashable], platform: str
) -> str:
    """Changes with the kernel's code, the shapes, the keywords given, the search and the device."""
    texts = (str(function.specialise(refs, target, meta)) for target in (None, "xla"))
    given = repr(sorted(meta)), repr(sorted(function.search.items()))
    return key_of("tuned", str(FORMAT), *texts, *given, platform, identity(platform))


def lookup(
    function: "KernelFunction", refs: tuple[RefType, ...], meta: Mapping[str, Hashable], platform: str
) -> TunedCall | None:
    """The record of a call, or None. Read from disk once a process, and again after `keep` or `load`."""
    folder = default_folder()
    if not folder.is_dir():
        return None
    return _looked_up(function, refs, tuple(sorted(meta.items())), platform, folder)


@lru_cache(maxsize=1024)
def _looked_up(
    function: "KernelFunction",
    refs: tuple[RefType, ...],
    meta: tuple[tuple[str, Hashable], ...],
    platform: str,
    folder: Path,
) -> TunedCall | None:
    cache = opened(folder)
    return _read(cache, key_for(function, refs, dict(meta), platform)) if cache else None


def _read(cache: Cache, key: str) -> TunedCall | None:
    """An entry's record; None when there is none or it is not of this format."""
    entry = cache.load(key)
    try:
        return _record(json.loads((entry / FILE).read_text())) if entry else None
    except (OSError, ValueError, TunedError):
        return None


def keep(record: TunedCall) -> None:
    """Puts a record in the cache, in the place of an older one. Raises OSError when it cannot be kept."""
    cache = Cache(default_folder())
    text = json.dumps(dataclasses.asdict(record), indent=1)
    cache.replace(record.key, {FILE: text.encode()})
    _looked_up.cache_clear()


def export(path: Path) -> int:
    """Writes all records of the cache as JSON; gives their number."""
    cache = opened(default_folder())
    names = sorted(each.parent.name for each in default_folder().glob(f"[!.]*/{FILE}"))
    records = [found for name in names if cache and (found := _read(cache, name))]
    listed = [dataclasses.asdict(record) for record in records]
    path.write_text(json.dumps({"format": FORMAT, "tuned": listed}, indent=1) + "\n")
    return len(records)


def load(path: Path) -> int:
    """Takes records that `export` wrote into the cache; gives their number.

    Those of other kinds of device are kept too, and never match here. Raises TunedError for a file that
    is not of this form, before anything is taken, and OSError.
    """
    try:
        told = json.loads(path.read_text())
    except ValueError as error:
        raise TunedError(f"{path}: not JSON: {error}") from None
    if not isinstance(told, dict) or told.get("format") != FORMAT or not isinstance(told.get("tuned"), list):
        raise TunedError(f'{path}: not a file of tuned kernels ({{"format": {FORMAT}, "tuned": [...]}})')
    records = [_placed(path, number, each) for number, each in enumerate(told["tuned"])]
    for record in records:
        keep(record)
    return len(records)


def _placed(path: Path, number: int, told: Any) -> TunedCall:
    try:
        return _record(told)
    except TunedError as error:
        raise TunedError(f"{path}: record {number}: {error}") from None


def _record(told: Any) -> TunedCall:
    """Raises TunedError."""
    _expect(isinstance(told, dict), "it is not an object")
    _only(told, (field.name for field in dataclasses.fields(TunedCall)))
    for name in ("key", "kernel", "device", "backend"):
        _expect(isinstance(told[name], str) and told[name] != "", f"{name} is no text")
    _expect(re.fullmatch(r"[0-9a-f]{40}", told["key"]) is not None, "key is not 40 hexadecimal digits")
    _expect(isinstance(told["trials"], list), "trials is no list")
    trials = tuple(_trial(each) for each in told["trials"])
    seconds = _seconds(told["seconds"])
    return TunedCall(
        **{**told, "keywords": _keywords(told["keywords"]), "seconds": seconds, "trials": trials}
    )


def _trial(told: Any) -> Trial:
    _expect(isinstance(told, dict), "a trial is not an object")
    _only(told, (field.name for field in dataclasses.fields(Trial)))
    _expect(isinstance(told["backend"], str), "a trial's backend is no text")
    _expect(told["reason"] is None or isinstance(told["reason"], str), "a trial's reason is no text")
    seconds = None if told["seconds"] is None else _seconds(told["seconds"])
    return Trial(told["backend"], _keywords(told["keywords"]), seconds, told["reason"])


def _keywords(told: Any) -> dict[str, Value]:
    right = isinstance(told, dict) and all(isinstance(value, int | float | str) for value in told.values())
    _expect(right, "keywords are no object of numbers and words")
    found: dict[str, Value] = told
    return found


def _seconds(told: Any) -> float:
    right = isinstance(told, int | float) and not isinstance(told, bool) and 0 < told < 1e6
    _expect(right, "seconds are no positive number")
    return float(told)


def _only(told: dict[str, Any], names: Iterable[str]) -> None:
    wanted = set(names)
    _expect(set(told) == wanted, f"its fields are {sorted(told)}, not {sorted(wanted)}")


def _expect(right: bool, problem: str) -> None:
    if not right:
        raise TunedError(problem)
