"""The kernels of the engine's decode steps on every instruction set that they have code for.

What this processor lacks is compiled all the same, and run by qemu's user mode where that is installed
(Debian: qemu-user, g++-aarch64-linux-gnu); qemu has no AVX-512. Under sanitisers it is this processor's.
"""

import platform
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from dsl.lower import oracle
from dsl.targets.cpu.build import compiler
from tests.dsl.targets.cpu.engine_cases import CASES
from tests.dsl.targets.cpu.programs import Build, Program, right, sanitised

ARM, INTEL = "aarch64", "x86_64"


@dataclass(frozen=True)
class Variant:
    """`needs` are the processor's features as Linux spells them; `emulated` is qemu's processor, if any."""

    machine: str
    march: str
    needs: tuple[str, ...] = ()
    emulated: str | None = None


VARIANTS = {
    "SSE2": Variant(INTEL, "x86-64", (), "max"),
    "AVX2": Variant(INTEL, "haswell", ("avx2", "fma"), "max"),
    "AVX-512": Variant(INTEL, "skylake-avx512", ("avx512bw", "avx512dq", "avx512vl")),
    "AVX-512 VNNI": Variant(INTEL, "cascadelake", ("avx512bw", "avx512dq", "avx512vl", "avx512_vnni")),
    "NEON without dots": Variant(ARM, "armv8-a", (), "max"),
    "NEON": Variant(ARM, "armv8.2-a+dotprod", ("asimddp",), "max"),
}
SAMPLE = ("int8 product of 3x160 and 17", "int4 product of 3x160 and 17")
FLAGS = ("-O3", "-fopenmp-simd", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast")


def build_for(variant: Variant) -> tuple[Build, bool]:
    """How to build for a variant, and whether that can run here. Skips the test if nothing compiles it."""
    native = platform.machine().replace("arm64", ARM) == variant.machine
    used = compiler().path if native else shutil.which(f"{variant.machine.replace('_', '-')}-linux-gnu-g++")
    if used is None:
        pytest.skip(f"not compiled: no C++ compiler for {variant.machine}")
    flags = (*FLAGS, f"-march={variant.march}")
    information = Path("/proc/cpuinfo")
    features = information.read_text().split() if information.exists() else []
    if native and set(variant.needs) <= set(features):
        return Build(used, flags), True
    emulator = shutil.which(f"qemu-{variant.machine}")
    runs = emulator is not None and variant.emulated is not None
    runner = (str(emulator), "-cpu", str(variant.emulated)) if runs else ()
    return Build(used, (*flags, "-static"), runner), runs


def check(case: str, build: Build, folder: Path, *, runs: bool = True) -> None:
    kernel, arrays = CASES[case]()
    program = Program(kernel, arrays, folder, build)
    if not runs:
        pytest.skip("compiled, not run: neither this processor nor a qemu here has the instructions")
    found = program.outputs()
    assert right(found, oracle.run(kernel, *arrays)), found


@pytest.mark.parametrize("case", SAMPLE)
def test_products_are_right_on_neon(case, tmp_path):
    build, runs = build_for(VARIANTS["NEON"])
    check(case, build, tmp_path, runs=runs)


@pytest.mark.soak
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("case", CASES)
def test_every_engine_kernel_is_right_on_every_instruction_set(case, variant, tmp_path):
    build, runs = build_for(VARIANTS[variant])
    check(case, build, tmp_path, runs=runs)


@pytest.mark.soak
@pytest.mark.parametrize("case", CASES)
def test_every_engine_kernel_is_clean_under_sanitisers(case, tmp_path):
    check(case, sanitised(), tmp_path)
