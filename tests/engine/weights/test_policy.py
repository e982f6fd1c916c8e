import numpy as np
import pytest

from engine.errors import InvalidRequest
from engine.ops.quant import dequantize
from engine.weights.policy import Policy, form_of, quantize
from engine.weights.tree import flatten
from tests.engine.weights.trees import assert_same_bits, random_tree, shapes_of


def test_tables_stay_int8_in_int4_and_vectors_float32() -> None:
    forms = {name: form_of(leaf) for name, leaf in flatten(random_tree("int4")).items()}
    assert forms["embed"] == "int8"
    assert forms["layers.1.q.weight"] == "int4"
    assert {forms[name] for name in ("norm", "layers.0.q.bias", "layers.0.attn_norm")} == {"f32"}


def test_the_first_override_that_fits_decides() -> None:
    forms = flatten(random_tree("int4", ("layers.0.*=f32", "layers.*=int8", "embed=int4")))
    assert form_of(forms["layers.0.q.weight"]) == "f32"
    assert form_of(forms["layers.1.q.weight"]) == "int8"
    assert form_of(forms["embed"]) == "int4"


def test_an_override_of_a_vector_changes_nothing() -> None:
    with pytest.raises(InvalidRequest, match=r"no matrix is called 'norm'; there are embed, layers\.\*\.q"):
        Policy.of("int8", ["norm=int4"]).check(shapes_of(random_tree("f32")))


@pytest.mark.parametrize("override", ["layers.0.q.weight", "=int8", "layers.*=int3", "layers.*="])
def test_an_override_that_says_no_form_is_refused_in_one_line(override: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        Policy.of("int8", [override])
    assert "\n" not in str(caught.value)


def test_quantising_again_gives_what_is_there_and_other_forms_round_what_it_stands_for() -> None:
    small = random_tree("int4")
    assert_same_bits(quantize(small, "int4"), small)
    wide = quantize(small, "f32")
    leaf = flatten(small)["layers.0.q.weight"]
    np.testing.assert_array_equal(flatten(wide)["layers.0.q.weight"], dequantize(leaf))
