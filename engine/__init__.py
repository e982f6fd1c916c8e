"""Models, documents and embeddings as pure functions behind one scheduler.

Names load on first use, so that `import engine` imports no JAX and touches no device.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.api import Engine as Engine
    from engine.documents.qa import DocumentQA as DocumentQA
    from engine.generate.constraint import Constraint as Constraint
    from engine.generate.request import SamplingParams as SamplingParams

_HOMES = {
    "Constraint": "engine.generate.constraint",
    "Engine": "engine.api",
    "DocumentQA": "engine.documents.qa",
    "SamplingParams": "engine.generate.request",
}
__all__ = ["Constraint", "DocumentQA", "Engine", "SamplingParams"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'engine' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
