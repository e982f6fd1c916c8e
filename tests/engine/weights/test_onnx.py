"""Image backbones out of ONNX graphs: the weights are those of the model that was exported."""

import random
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from engine import Engine
from engine.errors import BadCheckpoint, ModelError, UnsupportedModel
from engine.models import vit
from engine.weights.checkpoint import checkpoint_kind, load_checkpoint
from engine.weights.onnx_container import read_onnx
from tests.engine.weights.onnx_files import exported, model, node, part, tensor, varint

PARITY = Path(__file__).parents[2] / "fixtures" / "parity"
REFERENCE = np.load(Path(__file__).parents[2] / "fixtures" / "dinov2_reference.npz")


def widened(tensors):
    """The tiny fixture has three heads of 16; a graph does not say so, and real ones are of 64."""
    return {name: array for name, array in tensors.items() if "mask_token" not in name}


@pytest.fixture
def tensors():
    return widened(load_file(PARITY / "dinov2_hf" / "model.safetensors"))


def test_an_exported_backbone_has_the_weights_of_its_checkpoint(tensors, tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(exported(tensors))
    found, expected = load_checkpoint(path), load_checkpoint(PARITY / "dinov2_hf")
    assert found.kind == checkpoint_kind(path) == "vision" and found.name == "model"
    assert found.config.grid == expected.config.grid and found.config.num_layers == expected.config.num_layers
    assert found.config.layer_scale and found.config.pooling == "cls"
    pixels = jnp.asarray(np.load(PARITY / "dinov2_hf" / "io.npz")["pixel_values"])
    np.testing.assert_array_equal(
        vit.hidden_states(found.params, expected.config, pixels),
        vit.hidden_states(expected.params, expected.config, pixels),
    )


def test_the_real_model_gives_the_states_of_onnx_runtime(dinov2_path):
    """Made by running the graph itself up to its backbone's last norm."""
    eng = Engine.load("dinov2-small")
    assert eng.kind == "vision" and eng.config.image_size == (518, 518) and eng.config.num_heads == 6
    states = vit.hidden_states(eng.params, eng.config, jnp.asarray(REFERENCE["pixel_values"], jnp.float32))
    np.testing.assert_allclose(states[:, 0], REFERENCE["cls"], atol=1e-4)
    np.testing.assert_allclose(states[:, 1:].mean(axis=1), REFERENCE["mean"], atol=1e-4)
    assert eng.embed([np.full((30, 40, 3), 90, np.uint8)]).shape == (1, 384)


def test_a_half_precision_tensor_is_read_and_an_integer_one_refused(tmp_path):
    path = tmp_path / "a.onnx"
    half, whole = np.arange(4, dtype=np.float16), np.arange(4, dtype=np.int64)
    path.write_bytes(model(tensor("a.b", half, kind=10), tensor("c.d", whole, kind=7)))
    tensors = read_onnx(path).tensors
    assert tensors["a.b"].array().tolist() == [0, 1, 2, 3]
    with pytest.raises(UnsupportedModel, match="float32, float16 or float64"):
        tensors["c.d"].array()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "cannot be read"),
        (b"hello", "damaged"),
        (part(7, b"")[:-1] + b"\x05", "ends beyond"),
        (varint(1 << 3) + varint(8), "is not an ONNX file"),
        (model() + model(), "is not an ONNX file"),
        (varint(7 << 3) + varint(1), "is not an ONNX file"),
        (model(part(5, part(1, varint(3)) + varint(2 << 3) + varint(1) + part(9, b"1234"))), "has 4 bytes"),
        (model(part(5, part(1, varint(1 << 50)) + varint(2 << 3) + varint(1))), "has shape"),
        (model(part(5, part(1, varint(1) * 90))), "too many axes"),
        (b"\xff" * 20, "does not end"),
        (varint(7 << 3 | 3), "wire type 3"),
    ],
)
def test_a_damaged_file_is_refused_by_name(tmp_path, data, words):
    path = tmp_path / "bad.onnx"
    path.write_bytes(data)
    with pytest.raises(BadCheckpoint, match=words) as caught:
        load_checkpoint(path)
    assert str(path) in str(caught.value)


def test_weights_in_other_files_are_refused(tmp_path):
    path = tmp_path / "outside.onnx"
    path.write_bytes(model(part(5, part(8, b"a.weight") + varint(14 << 3) + varint(1))))
    with pytest.raises(UnsupportedModel, match="lie in other files"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ("-encoder.layer.1.mlp.fc2.weight", BadCheckpoint, "lack 'encoder.layer.1.mlp.fc2.weight'"),
        ("-embeddings.position_embeddings", BadCheckpoint, "no table of positions"),
        ("-embeddings.patch_embeddings.projection.weight", UnsupportedModel, "is no ViT or DINOv2"),
        ("+embeddings.extra.bias", BadCheckpoint, "no place for"),
    ],
)
def test_graphs_of_other_models_are_refused(tensors, tmp_path, change, error, words):
    if change[0] == "-":
        tensors.pop(change[1:])
    else:
        tensors[change[1:]] = np.ones(3, np.float32)
    path = tmp_path / "other.onnx"
    path.write_bytes(exported(tensors))
    with pytest.raises(error, match=words):
        load_checkpoint(path)


def test_any_damage_is_our_error_and_nothing_else(tensors, tmp_path):
    whole, rng, path = exported(tensors), random.Random(3), tmp_path / "damaged.onnx"
    for _ in range(150):
        data = bytearray(whole)
        for _ in range(rng.randint(1, 8)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        path.write_bytes(data[: rng.randrange(len(data))] if rng.random() < 0.3 else data)
        try:
            load_checkpoint(path)
        except ModelError as error:
            assert str(path) in str(error)


def test_a_product_without_a_bias_names_nothing(tmp_path):
    path = tmp_path / "a.onnx"
    matrix = tensor("onnx::MatMul_1", np.ones((2, 3), np.float32))
    product, sum_ = node("MatMul", ["x", "onnx::MatMul_1"], ["y"]), node("Add", ["y", "z"], ["w"])
    path.write_bytes(model(matrix, product, sum_))
    with pytest.raises(UnsupportedModel, match="is no ViT or DINOv2"):
        load_checkpoint(path)
