import math

import pytest

from engine.errors import BadCheckpoint, UnsupportedModel
from engine.models.decoder_config import DecoderConfig
from engine.models.decoder_gguf import decoder_from_gguf
from engine.models.decoder_hf import decoder_from_hf

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
    return decoder_from_hf({**LLAMA, **changes})


def test_defaults_follow_transformers():
    config = read(num_key_value_heads=None)
    assert (config.num_kv_heads, config.head_dim, config.rope.theta) == (4, 16, 10000.0)
    assert not (config.tied or config.qkv_bias or config.qk_norm)


@pytest.mark.parametrize(
    ("architecture", "kv_heads", "context"),
    [
        ("llama", 64, 2048),
        ("phi3", 64, 4096),
        ("mistral", 8, 131072),
        ("qwen2", 32, 32768),
        ("qwen3", 32, 32768),
        ("gemma", 16, 8192),
        ("gemma2", 4, 8192),
        ("gemma3_text", 4, 131072),
    ],
)
def test_what_is_left_out_is_what_the_family_has(architecture, kv_heads, context):
    """As `transformers.<Family>Config()` of 5.24 says; there null means a pair for each head."""
    given = {**LLAMA, "model_type": architecture, "num_attention_heads": 64, "hidden_size": 512}
    del given["num_key_value_heads"], given["max_position_embeddings"]
    config = decoder_from_hf(given)
    assert (config.num_kv_heads, config.max_context) == (kv_heads, context)
    assert decoder_from_hf({**given, "num_key_value_heads": None}).num_kv_heads == 64


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
        ({"model_type": "mamba"}, "mamba.*gemma, gemma2, gemma3_text, llama, mistral, phi3, qwen2, qwen3"),
        ({"rope_scaling": {"rope_type": "axial", "factor": 4.0}}, "axial.*yarn, longrope"),
        ({"model_type": "gemma3_text", "use_bidirectional_attention": True}, "bidirectional"),
        ({"model_type": "qwen2", "is_causal": False}, "bidirectional"),
        ({"model_type": "gemma2", "hidden_activation": "relu"}, "relu.*gelu_pytorch_tanh"),
        ({"layer_types": ["sliding_attention", "full_attention"]}, "sliding windows"),
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantization_config"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor.*phi3"),
        ({"rope_parameters": {"full_attention": {"rope_theta": 1e4}}}, "per layer type"),
    ],
)
def test_what_it_does_not_compute_is_refused_by_name(changes, named):
    with pytest.raises(UnsupportedModel, match=named):
        read(**changes)


LAYERS = ["sliding_attention", "full_attention"]


@pytest.mark.parametrize(
    ("changes", "windows"),
    [
        ({"model_type": "llama", "sliding_window": 64}, (None, None)),
        ({"model_type": "mistral", "sliding_window": 64}, (64, 64)),
        ({"model_type": "mistral", "sliding_window": None}, (None, None)),
        ({"model_type": "mistral"}, (4096, 4096)),
        ({"model_type": "phi3"}, (None, None)),
        ({"model_type": "phi3", "sliding_window": 64}, (64, 64)),
        ({"model_type": "qwen2", "use_sliding_window": False, "sliding_window": 64}, (None, None)),
        ({"model_type": "qwen2", "use_sliding_window": True, "max_window_layers": 1}, (None, 4096)),
        ({"model_type": "qwen3", "use_sliding_window": True, "layer_types": LAYERS}, (4096, None)),
        ({"model_type": "gemma2", "sliding_window": 64}, (64, None)),
        ({"model_type": "gemma3_text", "sliding_window": 64}, (64, 64)),
        ({"model_type": "gemma3_text", "sliding_window": 64, "sliding_window_pattern": 2}, (64, None)),
        ({"model_type": "gemma3_text", "sliding_window": 64, "layer_types": LAYERS[::-1]}, (None, 64)),
    ],
)
def test_each_layer_has_the_window_that_transformers_gives_it(changes, windows):
    config = read(**changes)
    assert tuple(config.window(layer) for layer in range(2)) == windows


def test_gemma3_has_two_ropes_in_the_spelling_of_transformers_4_and_5():
    scaling = {"rope_type": "linear", "factor": 8.0}
    old = read(model_type="gemma3_text", rope_theta=2e6, rope_local_base_freq=3e4, rope_scaling=scaling)
    local = {"rope_type": "default", "rope_theta": 3e4}
    both = {"full_attention": {**scaling, "rope_theta": 2e6}, "sliding_attention": local}
    new = read(model_type="gemma3_text", rope_parameters=both)
    assert (old.rope, old.local_rope) == (new.rope, new.local_rope)
    assert (old.rope.theta, old.rope.factor) == (2e6, 8.0)
    assert (old.local_rope.theta, old.local_rope.kind) == (3e4, "default")
    plain = read(model_type="gemma3_text")
    assert (plain.rope.theta, plain.local_rope.theta, plain.head_dim, plain.tied) == (1e6, 1e4, 256, True)


def test_gemma2_caps_unless_told_not_to():
    caps = {"attn_logit_softcapping": None, "final_logit_softcapping": 20.0}
    assert read(model_type="gemma2").attn_softcap == 50.0
    assert read(model_type="gemma2").final_softcap == 30.0
    told = read(model_type="gemma2", **caps)
    assert (told.attn_softcap, told.final_softcap) == (None, 20.0)
    assert read(model_type="llama", **caps).final_softcap is None


@pytest.mark.parametrize(("family", "eps"), [("llama", 1e-6), ("gemma2", 1e-6), ("phi3", 1e-5)])
def test_an_eps_that_is_left_out_is_that_of_the_family(family, eps):
    assert read(model_type=family, rms_norm_eps=None).norm_eps == eps


def test_phi3_keeps_its_first_context_beside_the_rope_table():
    longrope = {"type": "su", "short_factor": [1.0] * 8, "long_factor": [2.0] * 8}
    rope = read(model_type="phi3", rope_scaling=longrope, original_max_position_embeddings=64).rope
    assert (rope.original_context, rope.long_factors) == (64, (2.0,) * 8)
    assert rope.scale == pytest.approx((1 + math.log(4) / math.log(64)) ** 0.5)


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
        ({"rope_scaling": {"type": "yarn", "factor": 1e300}}, "factor must be at most"),
        ({"rope_scaling": {"type": "yarn", "factor": 2.0}, "rope_theta": 0.5}, "theta above 1"),
        ({"rope_scaling": {"type": "longrope", "short_factor": [1.0]}}, "short_factor must be a list of 8"),
        ({"model_type": "phi3", "partial_rotary_factor": 0.2}, "even part of the 16"),
        ({"model_type": "phi3", "partial_rotary_factor": 1.5}, "even part of the 16"),
        ({"model_type": "gemma2", "layer_types": ["sliding_attention"]}, "layer_types must list"),
        ({"model_type": "gemma2", "layer_types": [[], {}]}, "layer_types must list"),
        ({"tie_word_embeddings": "yes"}, "tie_word_embeddings must be true or false"),
    ],
)
def test_a_wrong_value_is_named(changes, named):
    with pytest.raises(BadCheckpoint, match=named):
        read(**changes)


def test_gguf_tells_biases_and_a_tied_head_by_its_tensors():
    plain = decoder_from_gguf(GGUF, ["token_embd.weight", "output.weight"])
    assert (plain.tied, plain.qkv_bias, plain.num_kv_heads) == (False, False, 4)
    biased = decoder_from_gguf(GGUF, ["token_embd.weight", "blk.0.attn_q.bias"])
    assert (biased.tied, biased.qkv_bias, biased.rope.theta) == (True, True, 1e6)


def test_gguf_rope_factors_become_part_of_the_configuration():
    config = decoder_from_gguf(GGUF, [], rope_factors={"rope_freqs": (1.0,) * 8})
    assert config.rope.kind == "factors"
    with pytest.raises(BadCheckpoint, match="rope_freqs must hold 8 positive numbers"):
        decoder_from_gguf(GGUF, [], rope_factors={"rope_freqs": (1.0, 0.0)})
    both = {"rope_factors_short": (1.0,) * 8, "rope_factors_long": (2.0,) * 8}
    first = {"qwen2.rope.scaling.original_context_length": 64}
    rope = decoder_from_gguf({**GGUF, **first}, [], rope_factors=both).rope
    assert (rope.original_context, rope.long_factors) == (64, (2.0,) * 8)


def gguf(architecture: str, **more: object) -> DecoderConfig:
    values = {key.replace("qwen2", architecture): value for key, value in GGUF.items()}
    values |= {f"{architecture}.{key}": value for key, value in more.items()}
    return decoder_from_gguf({**values, "general.architecture": architecture}, [])


def test_gguf_leaves_gemmas_pattern_scale_and_caps_to_the_reader():
    small = gguf("gemma3", **{"attention.sliding_window": 32, "block_count": 7})
    assert small.windows == (32, 32, 32, 32, 32, None, 32)
    assert (small.local_rope.theta, small.embed_scale, small.query_scale) == (1e4, 8.0, None)
    largest = gguf("gemma3", block_count=62)
    assert largest.query_scale == pytest.approx((64 / 4) ** -0.5)
    second = gguf("gemma2")
    assert (second.windows, second.attn_softcap, second.final_softcap) == ((4096, None), 50.0, 30.0)


def test_gguf_yarn_is_read():
    more = {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0, "context_length": 128}
    rope = gguf("qwen3", **more, **{"rope.scaling.original_context_length": 32}).rope
    assert (rope.kind, rope.factor, rope.original_context) == ("yarn", 4.0, 32)
    assert rope.scale == pytest.approx(0.1 * math.log(4) + 1)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"general.architecture": "mamba"}, "mamba.*gemma3, llama, phi3, qwen2, qwen3"),
        ({"qwen2.expert_count": 8}, "experts"),
        ({"qwen2.rope.scaling.type": "longrope"}, "longrope"),
    ],
)
def test_gguf_variants_are_refused_by_name(changes, named):
    with pytest.raises(UnsupportedModel, match=named):
        decoder_from_gguf({**GGUF, **changes}, [])
