"""What a measurement belongs to: the processor, and the versions that made the code it ran."""

import hashlib
import os
import platform as host
from functools import lru_cache
from pathlib import Path

import jax
from jaxlib import version as jaxlib_version


@lru_cache(maxsize=8)
def identity(platform: str) -> str:
    """One line for people and for keys: the first device of a JAX platform, and the versions of JAX."""
    device = jax.devices(platform)[0]
    kind = _processor() if device.platform == "cpu" else f"{device.device_kind}"
    return f"{kind}, jax {jax.__version__}, jaxlib {jaxlib_version.__version__}"


def _processor() -> str:
    """Model, cores, and a digest of the instruction set, which a virtual machine may cut down."""
    told = _cpuinfo()
    model = told.get("model name") or host.processor() or host.machine()
    flags = told.get("flags") or told.get("Features") or host.machine()
    digest = hashlib.sha256(" ".join(sorted(flags.split())).encode()).hexdigest()[:8]
    return f"{model}, {os.cpu_count()} cores, isa {digest}"


def _cpuinfo() -> dict[str, str]:
    """The first processor of /proc/cpuinfo; {} where there is none."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return {}
    lines = text.split("\n\n")[0].splitlines()
    return {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
