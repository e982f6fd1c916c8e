"""Keeps compiled XLA programs on disk, so that a second start compiles nothing.

The cache holds executables: it lives in a folder of the user's own, mode 0700, and is never read from
anywhere else. JAX keys each by the program (so by our source and all shapes), its own version, the platform
and the compiler's options; the folder's name adds the processor, since homes are shared by machines.

Serialised executables, which would spare the tracing too, take as long to load: SmolLM2 135M is at its first
token after 3.1 s of CPU either way, and warm for all requests after 7.0 s rather than 8.5. They are
pickles and do not know the native kernels that they call, so they are not worth that.
"""

import hashlib
import platform
import zlib
from pathlib import Path

import jax
from jaxlib import version as jaxlib_version

from engine.private_folder import private_folder
from engine.registry import cache_dir

_ZSTD = b"\x28\xb5\x2f\xfd"


def enable_compile_cache() -> Path | None:
    """Points JAX at our cache folder and returns it. A cache that the user configured stays.

    None where the folder is not ours alone: then everything is compiled anew.
    """
    configured = jax.config.values["jax_compilation_cache_dir"]
    if configured:
        return Path(configured)
    parent = private_folder(cache_dir() / "xla")
    folder = None if parent is None else private_folder(parent / _machine())
    if folder is None:
        return None
    settings = {
        "jax_compilation_cache_dir": str(folder),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    for name, value in settings.items():
        jax.config.update(name, value)  # type: ignore[no-untyped-call]
    return folder


def drop_damaged(folder: Path) -> int:
    """Deletes the entries of our cache that fail their checksum, and tells how many there were.

    JAX reads them as missing, with a warning, but never writes over them: one that a killed process left
    half-written would be compiled at every start. The checksum is zlib's; entries in zstd are left alone, as
    are folders that the user configured. 336 entries take 0.2 s.
    """
    if not folder.is_relative_to(cache_dir() / "xla"):
        return 0
    damaged = [path for path in folder.glob("*-cache") if not _intact(path.read_bytes())]
    for path in damaged:
        path.unlink(missing_ok=True)
    return len(damaged)


def _intact(entry: bytes) -> bool:
    if entry.startswith(_ZSTD):
        return True
    reader = zlib.decompressobj()
    try:
        reader.decompress(entry)
    except zlib.error:
        return False
    return reader.eof


def _machine() -> str:
    """16 hex digits of JAX's versions and of what the processor can do."""
    told = [jax.__version__, jaxlib_version.__version__, platform.machine(), platform.processor()]
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        lines = cpuinfo.read_text(errors="replace").splitlines()
        told += sorted({line for line in lines if line.startswith(("flags", "Features", "model name"))})
    return hashlib.sha256(repr(told).encode()).hexdigest()[:16]
