import pytest

from engine.errors import BadCheckpoint, UnsupportedModel
from engine.models.decoder_config import DecoderConfig

LLAMA = {
    "model_type": "llama",
    "vocab_size": 100,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
}
GGUF = {
    "general.architecture": "qwen2",
    "qwen2.vocab_size": 100,
    "qwen2.embedding_length": 64,
    "qwen2.feed_forward_length": 128,
    "qwen2.block_count": 2,
    "qwen2.attention.head_count": 4,
    "qwen2.context_length": 256,
    "qwen2.rope.freq_base": 1e6,
}


def read(**changes) -> DecoderConfig:
    return DecoderConfig.from_hf({**LLAMA, **changes})


def test_defaults_follow_transformers():
    config = read(num_key_value_heads=None)
    assert (config.num_kv_heads, config.head_dim, config.rope.theta) == (4, 16, 10000.0)
    assert not (config.tied or config.qkv_bias or config.qk_norm)


def test_rope_is_read_in_the_spelling_of_transformers_4_and_5():
    scaling = {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 128,
    }
    old = read(rope_theta=5e5, rope_scaling=scaling)
    new = read(rope_parameters={**scaling, "rope_theta": 5e5})
    assert old.rope == new.rope
    assert (new.rope.theta, new.rope.kind, new.rope.factor) == (5e5, "llama3", 8.0)
    assert read(rope_scaling={"type": "linear", "factor": 2.0}).rope.kind == "linear"


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"model_type": "gemma3_text"}, "gemma3_text.*llama, mistral, qwen2, qwen3"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "yarn"),
        ({"rope_scaling": {"type": "dynamic", "factor": 4.0}}, "dynamic"),
        ({"model_type": "qwen2", "use_sliding_window": True, "sliding_window": 64}, "sliding windows"),
        ({"layer_types": ["sliding_attention", "full_attention"]}, "sliding windows"),
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantization_config"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ({"rope_parameters": {"full_attention": {"rope_theta": 1e4}}}, "per layer type"),
    ],
)
def test_what_it_does_not_compute_is_refused_by_name(changes, named):
    with pytest.raises(UnsupportedModel, match=named):
        read(**changes)


def test_mistral_has_the_window_it_states_or_transformers_means():
    assert read(model_type="mistral", sliding_window=64).sliding_window == 64
    assert read(model_type="mistral", sliding_window=None).sliding_window is None
    assert read(model_type="mistral").sliding_window == 4096
    assert read(model_type="qwen2", use_sliding_window=False, sliding_window=64).sliding_window is None


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"hidden_size": "64"}, "hidden_size must be an integer"),
        ({"hidden_size": True}, "hidden_size must be an integer"),
        ({"hidden_size": -64}, "hidden_size must be an integer in"),
        ({"hidden_size": 10**30}, "hidden_size must be an integer in"),
        ({"hidden_size": 66}, "not a multiple of the 4 attention heads"),
        ({"num_key_value_heads": 3}, "not a multiple of its 3 key-value heads"),
        ({"num_key_value_heads": 0}, "num_key_value_heads"),
        ({"head_dim": 15}, "head_dim 15; it must be even"),
        ({"vocab_size": None}, "vocab_size is missing"),
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps"),
        ({"rope_theta": -1}, "rope_theta"),
        ({"rope_scaling": "linear"}, "rope_scaling must be an object"),
        ({"rope_scaling": {"type": "linear"}}, "factor is missing"),
        ({"tie_word_embeddings": "yes"}, "tie_word_embeddings must be true or false"),
    ],
)
def test_a_wrong_value_is_named(changes, named):
    with pytest.raises(BadCheckpoint, match=named):
        read(**changes)


def test_gguf_tells_biases_and_a_tied_head_by_its_tensors():
    plain = DecoderConfig.from_gguf(GGUF, ["token_embd.weight", "output.weight"])
    assert (plain.tied, plain.qkv_bias, plain.num_kv_heads) == (False, False, 4)
    biased = DecoderConfig.from_gguf(GGUF, ["token_embd.weight", "blk.0.attn_q.bias"])
    assert (biased.tied, biased.qkv_bias, biased.rope.theta) == (True, True, 1e6)


def test_gguf_rope_factors_become_part_of_the_configuration():
    config = DecoderConfig.from_gguf(GGUF, [], rope_factors=(1.0,) * 8)
    assert config.rope.kind == "factors"
    with pytest.raises(BadCheckpoint, match="8 positive numbers"):
        DecoderConfig.from_gguf(GGUF, [], rope_factors=(1.0, 0.0))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"general.architecture": "mamba"}, "mamba.*llama, qwen2, qwen3"),
        ({"qwen2.expert_count": 8}, "experts"),
        ({"qwen2.rope.scaling.type": "yarn"}, "yarn"),
        ({"qwen2.rope.dimension_count": 8}, "part of a head"),
    ],
)
def test_gguf_variants_are_refused_by_name(changes, named):
    with pytest.raises(UnsupportedModel, match=named):
        DecoderConfig.from_gguf({**GGUF, **changes}, [])
