"""RoPE settings as checkpoints spell them: transformers 4, transformers 5 and GGUF."""

import math
from collections.abc import Mapping

from engine.errors import BadCheckpoint, UnsupportedModel
from engine.models.fields import Fields
from engine.ops.rope import RopeConfig

_SUPPORTED = "default, linear, dynamic, llama3, yarn, longrope"
_LARGEST_FACTOR = 1e6

GLOBAL, LOCAL = "full_attention", "sliding_attention"
"""Layer types that may have RoPE settings of their own."""
_MAX_POSITIONS = {
    "llama": 2048,
    "phi3": 4096,
    **dict.fromkeys(("gemma", "gemma2", "modernbert"), 8192),
    **dict.fromkeys(("qwen2", "qwen3"), 32768),
    **dict.fromkeys(("gemma3_text", "mistral"), 131072),
}
"""What transformers takes if max_position_embeddings is left out, by model_type."""


def max_positions(fields: Fields) -> int:
    """The longest sequence the model was trained for, in tokens."""
    default = _MAX_POSITIONS.get(str(fields.values.get("model_type")), 2048)
    return fields.integer("max_position_embeddings", default, low=1)


def rope_from_hf(fields: Fields, head_dim: int) -> RopeConfig:
    """One for all layers: `rope_theta` beside `rope_scaling` (4), or both in `rope_parameters` (5)."""
    scaling = fields.table("rope_parameters" if "rope_parameters" in fields else "rope_scaling")
    if any(isinstance(value, Mapping) for value in scaling.values.values()):
        raise UnsupportedModel(f"{scaling.source}: settings per layer type are not supported in this model")
    return _from_table(fields, scaling, head_dim, fields.number("rope_theta", 10000.0))


def ropes_by_layer_type(
    fields: Fields, head_dim: int, thetas: dict[str, tuple[str, float]]
) -> dict[str, RopeConfig]:
    """Settings for GLOBAL and LOCAL layers apart.

    Args:
        thetas: for each of the two the key of transformers 4 that holds its theta, and the default.
            There `rope_scaling` is meant for the global layers alone.
    """
    table = fields.table("rope_parameters")
    if table.values and not any(name in table.values for name in thetas):
        raise UnsupportedModel(f"{table.source}: must have settings for {GLOBAL} and {LOCAL} layers")
    found = {}
    for name, (key, default) in thetas.items():
        scaling = table.table(name)
        if not table.values and name == GLOBAL:
            scaling = fields.table("rope_scaling")
        found[name] = _from_table(fields, scaling, head_dim, fields.number(key, default))
    return found


def _from_table(fields: Fields, scaling: Fields, head_dim: int, theta: float) -> RopeConfig:
    theta = scaling.number("rope_theta", theta)
    dim = rotary_dim(scaling if "partial_rotary_factor" in scaling else fields, head_dim)
    kind = scaling.text("rope_type", scaling.text("type", "default"))
    if fields.values.get("model_type") == "phi3" and kind in ("su", "yarn"):
        kind = "longrope"
    if kind == "default":
        return RopeConfig(dim, theta)
    if kind == "linear":
        return RopeConfig(dim, theta, "linear", _factor(scaling))
    if kind == "dynamic":
        return _dynamic(fields, scaling, dim, theta)
    readers = {"llama3": _llama3, "yarn": _yarn, "longrope": _longrope}
    if kind not in readers:
        raise UnsupportedModel(
            f"{scaling.source}: rope type {kind[:40]!r} is not supported; {_SUPPORTED} are"
        )
    longest = max_positions(fields)
    # A number beside the table wins, as in transformers: Phi-3 keeps its first context there.
    first = scaling.integer("original_max_position_embeddings", longest, low=1)
    first = fields.integer("original_max_position_embeddings", first, low=1)
    return readers[kind](scaling, dim, theta, first, longest)


def rotary_dim(fields: Fields, head_dim: int) -> int:
    """How many numbers of a head are rotated, by `partial_rotary_factor`."""
    part = fields.number("partial_rotary_factor", 1.0)
    dim = int(head_dim * part)
    if part == 1:
        return head_dim
    if part > 1 or dim < 2 or dim % 2:
        raise fields.bad("partial_rotary_factor", f"must leave an even part of the {head_dim} of a head")
    return dim


def _factor(scaling: Fields, default: float | None = None) -> float:
    factor = scaling.number("factor", default)
    if factor > _LARGEST_FACTOR:
        raise scaling.bad("factor", f"must be at most {_LARGEST_FACTOR:g}")
    return factor


def _dynamic(fields: Fields, scaling: Fields, dim: int, theta: float) -> RopeConfig:
    if dim < 4:
        raise scaling.bad("rope_type", "needs heads of at least 4 rotated numbers")
    longest = max_positions(fields)
    return RopeConfig(dim, theta, "dynamic", _factor(scaling), original_context=longest)


def _llama3(scaling: Fields, dim: int, theta: float, first: int, longest: int) -> RopeConfig:
    low, high = scaling.number("low_freq_factor"), scaling.number("high_freq_factor")
    if low >= high:
        raise scaling.bad("high_freq_factor", f"must be above low_freq_factor {low:g}")
    factor = _factor(scaling)
    return RopeConfig(dim, theta, "llama3", factor, low, high, original_context=first)


def _yarn(scaling: Fields, dim: int, theta: float, first: int, longest: int) -> RopeConfig:
    factor = _factor(scaling, longest / first)
    return yarn(
        scaling,
        RopeConfig(
            dim,
            theta,
            "yarn",
            factor,
            low_freq_factor=scaling.number("beta_slow", 1.0),
            high_freq_factor=scaling.number("beta_fast", 32.0),
            original_context=first,
            scale=scaling.number("attention_factor", _yarn_scale(scaling, factor)),
            whole_steps=scaling.flag("truncate", True),
        ),
    )


def yarn(fields: Fields, config: RopeConfig) -> RopeConfig:
    """`config` itself, its numbers checked."""
    if config.theta <= 1 or config.low_freq_factor > config.high_freq_factor:
        raise BadCheckpoint(f"{fields.source}: yarn needs a theta above 1 and beta_slow up to beta_fast")
    return config


def _yarn_scale(scaling: Fields, factor: float) -> float:
    """Attention is sharpened by 0.1 ln(factor) + 1 (Peng et al., 2023), or by DeepSeek's quotient of two."""
    if "mscale" in scaling and "mscale_all_dim" in scaling:
        upper, lower = scaling.number("mscale"), scaling.number("mscale_all_dim")
        return sharpening(factor, upper) / sharpening(factor, lower)
    return sharpening(factor)


def sharpening(factor: float, weight: float = 1.0) -> float:
    return 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1.0


def _longrope(scaling: Fields, dim: int, theta: float, first: int, longest: int) -> RopeConfig:
    stretch = _factor(scaling, longest / first)
    scale = math.sqrt(1 + math.log(stretch) / math.log(max(first, 2))) if stretch > 1 else 1.0
    return RopeConfig(
        dim,
        theta,
        "factors",
        original_context=first,
        factors=_numbers(scaling, "short_factor", dim // 2),
        long_factors=_numbers(scaling, "long_factor", dim // 2),
        scale=scaling.number("attention_factor", scale),
    )


def _numbers(fields: Fields, key: str, count: int) -> tuple[float, ...]:
    values = fields.values.get(key)
    if not isinstance(values, list) or len(values) != count:
        raise BadCheckpoint(f"{fields.source}: {key} must be a list of {count} numbers")
    return tuple(Fields({key: value}, fields.source).number(key) for value in values)


def rope_from_gguf(
    fields: Fields, head_dim: int, context: int, factors: Mapping[str, tuple[float, ...]]
) -> RopeConfig:
    """The settings in GGUF metadata, its keys without the architecture's name.

    Args:
        context: the longest sequence, for what the metadata leave out.
        factors: the numbers of the file's tensors rope_freqs, rope_factors_short and
            rope_factors_long, those it has.
    """
    theta = fields.number("rope.freq_base", 10000.0)
    dim = fields.integer("rope.dimension_count", head_dim, low=2, high=head_dim)
    if dim % 2:
        raise fields.bad("rope.dimension_count", "must be even")
    for name, numbers in factors.items():
        if len(numbers) != dim // 2 or min(numbers) <= 0:
            raise BadCheckpoint(f"{fields.source}: {name} must hold {dim // 2} positive numbers")
    if "rope_freqs" in factors:
        return RopeConfig(dim, theta, "factors", factors=factors["rope_freqs"])
    first = fields.integer("rope.scaling.original_context_length", context, low=1)
    if "rope_factors_short" in factors and "rope_factors_long" in factors:
        return RopeConfig(
            dim,
            theta,
            "factors",
            original_context=first,
            factors=factors["rope_factors_short"],
            long_factors=factors["rope_factors_long"],
            scale=fields.number("rope.scaling.attn_factor", 1.0),
        )
    return _scaled_gguf(fields, dim, theta, first)


def _scaled_gguf(fields: Fields, dim: int, theta: float, first: int) -> RopeConfig:
    kind = fields.text("rope.scaling.type", "none")
    if kind == "none":
        return RopeConfig(dim, theta)
    if kind not in ("linear", "yarn"):
        raise UnsupportedModel(
            f"{fields.source}: rope scaling {kind[:40]!r} is not supported; {_SUPPORTED} are"
        )
    factor = _factor(Fields({"factor": fields.values.get("rope.scaling.factor")}, fields.source))
    if kind == "linear":
        return RopeConfig(dim, theta, "linear", factor)
    extra = fields.number("rope.scaling.yarn_attn_factor", fields.number("rope.scaling.attn_factor", 1.0))
    return yarn(
        fields,
        RopeConfig(
            dim,
            theta,
            "yarn",
            factor,
            low_freq_factor=fields.number("rope.scaling.yarn_beta_slow", 1.0),
            high_freq_factor=fields.number("rope.scaling.yarn_beta_fast", 32.0),
            original_context=first,
            scale=sharpening(factor) * extra,
        ),
    )
