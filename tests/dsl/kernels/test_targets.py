"""Every kernel of the library on every target that runs here, against the float64 oracle.

The simulated GPUs in f32 are in tests/dsl/targets/sim/test_mutation.py, with what they are built for.
"""

import jax
import numpy as np
import pytest

from tests.dsl.kernels.catalogue import CASES
from tests.dsl.kernels.errors import TOLERANCE, arguments, error, expected, note, table, worst

NARROW = [name for name, case in CASES.items() if case.narrow]
SAMPLE = ("softmax", "matmul", "flash_attention")
TARGETS = ("xla", "pallas", "cpu", "sim:cuda", "sim:metal")


@pytest.mark.parametrize("name", CASES)
def test_the_oracle_is_the_plain_expression(name):
    found = jax.jit(CASES[name].plain)(*arguments(name))
    assert note(name, "plain", "f32", worst(found, expected(name))) < TOLERANCE["f32"]


@pytest.mark.parametrize("target", ("xla", "pallas", "cpu"))
@pytest.mark.parametrize("name", CASES)
def test_a_target_agrees_with_the_oracle(name, target):
    assert error(name, target) < TOLERANCE["f32"]


@pytest.mark.parametrize("dtype", ("f16", "bf16"))
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", SAMPLE)
def test_narrow_storage_is_rounded_once(name, target, dtype):
    assert error(name, target, dtype) < TOLERANCE[dtype]


@pytest.mark.soak
@pytest.mark.parametrize("dtype", ("f16", "bf16"))
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", [name for name in NARROW if name not in SAMPLE])
def test_every_kernel_in_narrow_storage(name, target, dtype):
    assert error(name, target, dtype) < TOLERANCE[dtype]


def test_the_table_of_errors_has_a_row_a_kernel_and_a_column_a_target(monkeypatch, tmp_path):
    monkeypatch.setenv("TARSIA_DSL_ERRORS", str(tmp_path / "errors"))
    note("softmax", "xla", "f32", 1e-6)
    note("matmul", "sim:cuda", "f16", worst(np.array([1.5]), [np.array([1.0])]))
    assert table((tmp_path / "errors").read_text().splitlines()).splitlines() == [
        "| kernel | dtype | xla | sim:cuda |",
        "|---|---|---|---|",
        "| softmax | f32 | 1.0e-06 |  |",
        "| matmul | f16 |  | 2.5e-01 |",
    ]
