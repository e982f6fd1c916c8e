"""The C++ of every library kernel under AddressSanitizer and UBSan: it is clean, and swaps show."""

import pytest

from dsl.lower import oracle
from tests.dsl.kernels.catalogue import CASES, specialised
from tests.dsl.targets.cpu.broken_sources import Mutated

SAMPLE = ("flash_attention", "int4_linear", "kv_append")
LEFT = {"flash_attention windowed": ["arguments swapped"]}
"""In the version for ragged blocks, which only the last block runs: its loop then begins with keys that the
mask hides, which is more work for the same result. In the version without guards the same swap shows."""


def unseen(name, folder):
    case = CASES[name]
    kernel, arrays = specialised(case, case.telling and case.telling())
    left = Mutated(kernel, arrays, folder).survivors(oracle.run(kernel, *arrays))
    return [each.what for each in left]


@pytest.mark.parametrize("name", SAMPLE)
def test_a_kernel_is_clean_and_swapped_operands_show(name, tmp_path):
    assert unseen(name, tmp_path) == LEFT.get(name, [])


@pytest.mark.soak
@pytest.mark.parametrize("name", CASES)
def test_every_kernel_is_clean_and_every_swap_shows(name, tmp_path):
    assert unseen(name, tmp_path) == LEFT.get(name, [])
