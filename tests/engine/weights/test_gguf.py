import jax.numpy as jnp
import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFReader
from gguf.quants import dequantize as reference_dequantize

from engine.errors import UnsupportedModel
from engine.models import decoder
from engine.ops.jit import compile
from engine.ops.quant import dequantize
from engine.weights import load_checkpoint
from engine.weights.gguf import SUPPORTED_TYPES, GgufSource
from engine.weights.gguf_container import read_gguf
from tests.engine.weights.gguf_files import HEADS, HIDDEN, llama_tensors, write_llama

Types = GGMLQuantizationType


def interleaved(weights: np.ndarray, heads: int) -> np.ndarray:
    """As llama.cpp's converter writes q and k: row i of a head's first half beside row i of its second."""
    half = len(weights) // heads // 2
    order = [h * 2 * half + part * half + i for h in range(heads) for i in range(half) for part in (0, 1)]
    return weights[order]


@pytest.mark.parametrize("name", SUPPORTED_TYPES)
def test_every_type_reads_back_as_the_gguf_package_expands_it(name, tmp_path):
    path = tmp_path / "model.gguf"
    written = write_llama(path, Types[name])
    source = GgufSource(read_gguf(path))
    for tensor in GGUFReader(path).tensors:
        if "attn_q" in tensor.name or "attn_k" in tensor.name:
            continue
        expected = reference_dequantize(tensor.data, tensor.tensor_type)
        assert source.shape(tensor.name) == expected.shape
        np.testing.assert_array_equal(source.array(tensor.name), expected)
        assert np.isfinite(expected).all()
    assert set(source.names()) == set(written)


@pytest.mark.parametrize("name", SUPPORTED_TYPES)
def test_every_type_loads_as_int8_close_to_its_float32(name, tmp_path):
    path = tmp_path / "model.gguf"
    write_llama(path, Types[name])
    exact, packed = (load_checkpoint(path, quant=quant).params["layers"][0] for quant in ("f32", "int8"))
    for module in ("q", "k", "v", "o", "gate", "up", "down"):
        wide, restored = exact[module]["weight"], dequantize(packed[module]["weight"])
        assert packed[module]["weight"].kind == "int8"
        assert np.abs(wide - restored).max() <= np.abs(wide).max() / 250


@pytest.mark.parametrize(("name", "quant"), [("Q8_0", "int8"), ("Q4_0", "int4"), ("Q4_1", "int4")])
def test_blocks_that_fit_are_taken_over_bit_for_bit(name, quant, tmp_path):
    path = tmp_path / "model.gguf"
    write_llama(path, Types[name])
    exact, packed = (load_checkpoint(path, quant=q).params["layers"][0] for q in ("f32", quant))
    for module in ("q", "k", "v", "o", "gate", "up", "down"):
        np.testing.assert_array_equal(dequantize(packed[module]["weight"]), exact[module]["weight"])


def test_int4_keeps_the_vocabulary_in_int8(tmp_path):
    write_llama(tmp_path / "model.gguf", Types.Q4_1)
    params = load_checkpoint(tmp_path / "model.gguf", quant="int4").params
    assert params["embed"].kind == "int8"
    assert params["layers"][0]["up"]["weight"].kind == "int4"


@pytest.mark.parametrize("kind", [Types.F32, Types.F16, Types.Q8_0])
def test_q_and_k_of_llama_come_back_in_half_split_order(kind, tmp_path):
    tensors = llama_tensors()
    straight = dict(tensors)
    for name, heads in (("blk.0.attn_q.weight", HEADS), ("blk.0.attn_k.weight", 2)):
        tensors[name] = interleaved(straight[name], heads)
    write_llama(tmp_path / "llama.gguf", kind, tensors=tensors)
    layer = load_checkpoint(tmp_path / "llama.gguf").params["layers"][0]
    tolerance = {"F32": 0, "F16": 1e-3, "Q8_0": 5e-3}[kind.name]
    np.testing.assert_allclose(layer["q"]["weight"], straight["blk.0.attn_q.weight"], atol=tolerance)
    np.testing.assert_allclose(layer["k"]["weight"], straight["blk.0.attn_k.weight"], atol=tolerance)


def test_q_and_k_of_qwen2_are_left_in_order(tmp_path):
    tensors = llama_tensors()
    write_llama(tmp_path / "qwen.gguf", tensors=tensors, architecture="qwen2")
    layer = load_checkpoint(tmp_path / "qwen.gguf").params["layers"][0]
    np.testing.assert_array_equal(layer["q"]["weight"], tensors["blk.0.attn_q.weight"])


def test_biases_of_llama_are_put_back_in_order_too(tmp_path):
    tensors = llama_tensors()
    straight = np.arange(HIDDEN, dtype=np.float32)
    sizes = {"q": HIDDEN, "k": HIDDEN // 2, "v": HIDDEN // 2}
    for name, size in sizes.items():
        tensors[f"blk.0.attn_{name}.bias"] = np.zeros(size, np.float32)
    tensors["blk.0.attn_q.bias"] = interleaved(straight, HEADS)
    write_llama(tmp_path / "bias.gguf", tensors=tensors)
    np.testing.assert_array_equal(
        load_checkpoint(tmp_path / "bias.gguf").params["layers"][0]["q"]["bias"], straight
    )


def test_rope_factors_in_the_file_take_effect(tmp_path):
    tensors = llama_tensors()
    write_llama(tmp_path / "plain.gguf", tensors=tensors)
    factors = np.linspace(1, 8, HIDDEN // HEADS // 2, dtype=np.float32)
    write_llama(tmp_path / "scaled.gguf", tensors={**tensors, "rope_freqs.weight": factors})
    plain, scaled = (load_checkpoint(tmp_path / f"{name}.gguf") for name in ("plain", "scaled"))
    assert scaled.config.rope.factors == tuple(map(float, factors))
    tokens = jnp.arange(12)[None]
    a, b = (compile(decoder.forward, static_argnums=1)(m.params, m.config, tokens) for m in (plain, scaled))
    np.testing.assert_allclose(a[:, 0], b[:, 0], atol=1e-5)
    assert np.abs(a[:, -1] - b[:, -1]).max() > 1e-3


@pytest.mark.parametrize("name", ["Q5_1", "IQ4_XS", "TQ1_0"])
def test_other_types_are_refused_by_name(name, tmp_path):
    kind = Types[name]
    path = tmp_path / "model.gguf"
    write_llama(path, Types.F32)
    file = bytearray(path.read_bytes())
    at = file.index(b"blk.0.ffn_up.weight") + len("blk.0.ffn_up.weight") + 4 + 16
    file[at : at + 4] = int(kind).to_bytes(4, "little")
    path.write_bytes(file)
    with pytest.raises(UnsupportedModel, match=f"blk.0.ffn_up.weight' has type {name}.*Q8_0"):
        load_checkpoint(path)
