"""Kernels in numba. Each has a twin in JAX or NumPy of the same name and arguments, under `index.graph`."""

import importlib.util
import logging
import os
from functools import cache
from types import ModuleType

_logger = logging.getLogger(__name__)


def native() -> bool:
    """Whether the kernels are used: numba is there, and `TARSIA_OPS=xla` does not ask for JAX alone."""
    return os.environ.get("TARSIA_OPS", "") != "xla" and _installed()


@cache
def _installed() -> bool:
    found = importlib.util.find_spec("numba") is not None
    if not found:
        _logger.warning("numba is missing: vectors are searched 3 times slower; pip install numba adds it")
    return found


def searching() -> ModuleType:
    """`search_graph`, `search_bits`, `scan_nodes`; if native, `search_blocks`, `scan_rows`, `rotate` too."""
    if native():
        from stores.index.kernels import search

        return search
    from stores.index.graph import jax_search

    return jax_search


def warm() -> None:
    """Has the kernels of searching ready, which are compiled once a machine: before a query needs them."""
    searching()


def building() -> ModuleType:
    """`merge_leaf`, `prune_rows` and `add_reverse`."""
    if native():
        from stores.index.kernels import prune

        return prune
    from stores.index.graph import prune as jax_prune

    return jax_prune
