"""Configurations of every supported family, drawn at random: sizes, heads, windows, caps and rotary kinds."""

import random
from collections.abc import Callable
from typing import Any

Drawn = tuple[str, dict[str, Any]]
"""The name of one of transformers' classes of configurations, and what it is made with."""


def _sizes(draw: random.Random) -> dict[str, Any]:
    groups = draw.choice([1, 1, 2, 3, 5])
    kv_heads = draw.choice([1, 1, 2, 3])
    heads = groups * kv_heads
    return {
        "vocab_size": draw.choice([97, 128, 151, 203]),
        "hidden_size": heads * draw.choice([8, 12, 20]),
        "intermediate_size": draw.choice([24, 40, 88, 101]),
        "num_hidden_layers": draw.choice([1, 2, 3, 5]),
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "max_position_embeddings": 128,
        "rms_norm_eps": draw.choice([1e-6, 1e-5, 1e-3]),
        "tie_word_embeddings": draw.random() < 0.5,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }


def _rope(draw: random.Random, head_dim: int, kinds: tuple[str, ...]) -> dict[str, Any]:
    kind = draw.choice(kinds)
    found: dict[str, Any] = {"rope_type": kind, "rope_theta": draw.choice([1e4, 5e5, 1e6])}
    first = draw.choice([16, 32, 64])
    if kind in ("linear", "dynamic", "yarn", "llama3"):
        found["factor"] = draw.choice([2.0, 4.0, 8.0])
    if kind == "llama3":
        found |= {"low_freq_factor": draw.choice([1.0, 0.5]), "high_freq_factor": draw.choice([4.0, 8.0])}
    if kind in ("yarn", "llama3", "longrope"):
        found["original_max_position_embeddings"] = first
    if kind == "yarn":
        extra = [{}, {"attention_factor": 0.9}, {"beta_fast": 16.0, "beta_slow": 2.0}, {"truncate": False}]
        extra += [{"mscale": 0.7, "mscale_all_dim": 1.0}]
        found |= draw.choice(extra)
    if kind == "longrope":
        for name, most in (("short_factor", 2.0), ("long_factor", 9.0)):
            found[name] = sorted(draw.uniform(1, most) for _ in range(head_dim // 2))
        found |= draw.choice([{}, {"factor": 4.0}, {"attention_factor": 1.2}])
    return found


ALL_ROPES = ("default", "default", "linear", "dynamic", "yarn", "llama3", "longrope")


def _headed(draw: random.Random, sizes: dict[str, Any]) -> int:
    """A head_dim, given or left to be divided."""
    if draw.random() < 0.6:
        sizes["head_dim"] = draw.choice([6, 8, 16, 22])
    return int(sizes.get("head_dim") or sizes["hidden_size"] // sizes["num_attention_heads"])


def _llama(draw: random.Random) -> Drawn:
    sizes = _sizes(draw)
    rope = _rope(draw, _headed(draw, sizes), ALL_ROPES)
    biases = {"attention_bias": draw.random() < 0.4, "mlp_bias": draw.random() < 0.4}
    return "LlamaConfig", {**sizes, **biases, "rope_parameters": rope}


def _mistral(draw: random.Random) -> Drawn:
    sizes = _sizes(draw)
    rope = _rope(draw, _headed(draw, sizes), ("default", "linear", "yarn", "llama3"))
    return "MistralConfig", {**sizes, "sliding_window": draw.choice([None, 7, 16]), "rope_parameters": rope}


def _qwen(draw: random.Random, name: str) -> Drawn:
    sizes = _sizes(draw)
    if name == "Qwen3Config":
        sizes["head_dim"] = draw.choice([6, 8, 16, 22])
        sizes["attention_bias"] = draw.random() < 0.3
    rope = _rope(draw, _headed(draw, sizes), ALL_ROPES)
    windows = {"use_sliding_window": draw.random() < 0.6, "sliding_window": draw.choice([5, 16])}
    if draw.random() < 0.5:
        windows["max_window_layers"] = draw.choice([0, 1, 2])
    elif windows["use_sliding_window"]:
        windows["layer_types"] = _types(draw, sizes["num_hidden_layers"])
    return name, {**sizes, **windows, "rope_parameters": rope}


def _types(draw: random.Random, layers: int) -> list[str]:
    return [draw.choice(["full_attention", "sliding_attention"]) for _ in range(layers)]


def _gemma(draw: random.Random) -> Drawn:
    sizes = _sizes(draw)
    sizes |= {"head_dim": draw.choice([6, 16, 22]), "tie_word_embeddings": True}
    return "GemmaConfig", {**sizes, "rope_parameters": _rope(draw, sizes["head_dim"], ("default", "linear"))}


def _gemma2(draw: random.Random) -> Drawn:
    sizes = _sizes(draw)
    sizes |= {"head_dim": draw.choice([6, 16, 22]), "tie_word_embeddings": True}
    sizes |= {"sliding_window": draw.choice([5, 16]), "query_pre_attn_scalar": draw.choice([8, 24, 256])}
    sizes |= {"attn_logit_softcapping": draw.choice([None, 0.5, 50.0])}
    sizes |= {"final_logit_softcapping": draw.choice([None, 1.5, 30.0])}
    return "Gemma2Config", {**sizes, "rope_parameters": _rope(draw, sizes["head_dim"], ("default", "yarn"))}


def _gemma3(draw: random.Random) -> Drawn:
    sizes = _sizes(draw)
    sizes |= {"head_dim": draw.choice([6, 16, 22]), "tie_word_embeddings": True}
    sizes |= {"sliding_window": draw.choice([5, 16]), "query_pre_attn_scalar": draw.choice([8, 24, 256])}
    sizes |= {
        "final_logit_softcapping": draw.choice([None, 1.5]),
        "num_hidden_layers": draw.choice([2, 5, 7]),
    }
    if draw.random() < 0.5:
        sizes["layer_types"] = _types(draw, sizes["num_hidden_layers"])
    everywhere = _rope(draw, sizes["head_dim"], ("default", "linear", "linear", "yarn"))
    local = {"rope_type": "default", "rope_theta": draw.choice([1e4, 2e4])}
    return "Gemma3TextConfig", {
        **sizes,
        "rope_parameters": {"full_attention": everywhere, "sliding_attention": local},
    }


def _phi3(draw: random.Random) -> Drawn:
    sizes = _sizes(draw)
    head_dim = sizes["hidden_size"] // sizes["num_attention_heads"]
    part = draw.choice([1.0, 0.75, 0.5]) if head_dim % 8 == 0 else 1.0
    rope = _rope(draw, int(head_dim * part), ("default", "longrope", "longrope"))
    if part != 1.0:
        rope["partial_rotary_factor"] = part
    first = rope.get("original_max_position_embeddings", 128)
    window = draw.choice([None, 9, 20])
    return "Phi3Config", {
        **sizes,
        "sliding_window": window,
        "original_max_position_embeddings": first,
        "rope_parameters": rope,
    }


def _encoder(draw: random.Random) -> dict[str, Any]:
    heads = draw.choice([1, 2, 3, 5])
    return {
        "vocab_size": draw.choice([97, 128, 203]),
        "hidden_size": heads * draw.choice([8, 12]),
        "intermediate_size": draw.choice([24, 40, 101]),
        "num_hidden_layers": draw.choice([1, 2, 4]),
        "num_attention_heads": heads,
        "max_position_embeddings": 160,
        "pad_token_id": draw.choice([0, 1]),
        "bos_token_id": 0,
        "eos_token_id": 2,
    }


def _bert(draw: random.Random, name: str) -> Drawn:
    sizes = {**_encoder(draw), "layer_norm_eps": draw.choice([1e-12, 1e-5, 1e-3])}
    sizes["hidden_act"] = draw.choice(["gelu", "gelu", "relu", "gelu_new", "silu", "gelu_pytorch_tanh"])
    if name != "MPNetConfig":
        sizes["type_vocab_size"] = draw.choice([1, 2])
    return name, sizes


def _modernbert(draw: random.Random) -> Drawn:
    sizes = {**_encoder(draw), "norm_eps": draw.choice([1e-5, 1e-3]), "cls_token_id": 0, "sep_token_id": 2}
    sizes |= {name: draw.random() < 0.4 for name in ("attention_bias", "mlp_bias", "norm_bias")}
    sizes |= {"local_attention": draw.choice([4, 10, 16]), "classifier_bias": draw.random() < 0.4}
    sizes |= {"classifier_pooling": draw.choice(["cls", "mean"])}
    if draw.random() < 0.5:
        sizes["layer_types"] = _types(draw, sizes["num_hidden_layers"])
    sizes["rope_parameters"] = {
        name: {"rope_type": "default", "rope_theta": draw.choice([1e4, 1.6e5])}
        for name in ("full_attention", "sliding_attention")
    }
    return "ModernBertConfig", sizes


FAMILIES: dict[str, Callable[[random.Random], Drawn]] = {
    "llama": _llama,
    "mistral": _mistral,
    "qwen2": lambda draw: _qwen(draw, "Qwen2Config"),
    "qwen3": lambda draw: _qwen(draw, "Qwen3Config"),
    "gemma": _gemma,
    "gemma2": _gemma2,
    "gemma3": _gemma3,
    "phi3": _phi3,
    "bert": lambda draw: _bert(draw, "BertConfig"),
    "roberta": lambda draw: _bert(draw, "RobertaConfig"),
    "xlm-roberta": lambda draw: _bert(draw, "XLMRobertaConfig"),
    "camembert": lambda draw: _bert(draw, "CamembertConfig"),
    "mpnet": lambda draw: _bert(draw, "MPNetConfig"),
    "modernbert": _modernbert,
}
DECODERS = 8
"""So many of them, the first, generate."""
