"""Keeps compiled XLA programs on disk, so that a second start compiles nothing.

The cache holds executables: it lives in a folder of the user's own, mode 0700, and is never read from
anywhere else.
"""

from pathlib import Path

import jax

from engine.private_folder import private_folder
from engine.registry import cache_dir


def enable_compile_cache() -> Path | None:
    """Points JAX at our cache folder and returns it. A cache that the user configured stays.

    None where the folder is not ours alone: then everything is compiled anew.
    """
    configured = jax.config.values["jax_compilation_cache_dir"]
    if configured:
        return Path(configured)
    folder = private_folder(cache_dir() / "xla")
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
