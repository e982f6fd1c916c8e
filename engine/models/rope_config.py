"""RoPE settings as checkpoints spell them: transformers 4, transformers 5 and GGUF."""

from collections.abc import Mapping

from engine.errors import BadCheckpoint, UnsupportedModel
from engine.models.fields import Fields
from engine.ops.rope import RopeConfig

_SUPPORTED = "default, linear, llama3"


def rope_from_hf(fields: Fields, head_dim: int) -> RopeConfig:
    """`rope_theta` beside `rope_scaling` (transformers 4), or both in `rope_parameters` (5)."""
    if fields.values.get("partial_rotary_factor") not in (None, 1, 1.0):
        raise UnsupportedModel(f"{fields.source}: partial_rotary_factor below 1 is not supported")
    scaling = fields.table("rope_parameters" if "rope_parameters" in fields else "rope_scaling")
    if any(isinstance(value, Mapping) for value in scaling.values.values()):
        raise UnsupportedModel(f"{scaling.source}: settings per layer type are not supported")
    theta = scaling.number("rope_theta", fields.number("rope_theta", 10000.0))
    kind = scaling.text("rope_type", scaling.text("type", "default"))
    if kind == "default":
        return RopeConfig(head_dim, theta)
    if kind == "linear":
        return RopeConfig(head_dim, theta, "linear", scaling.number("factor"))
    if kind == "llama3":
        return _llama3(scaling, head_dim, theta)
    raise UnsupportedModel(f"{scaling.source}: rope type {kind[:40]!r} is not supported; {_SUPPORTED} are")


def _llama3(scaling: Fields, head_dim: int, theta: float) -> RopeConfig:
    low, high = scaling.number("low_freq_factor"), scaling.number("high_freq_factor")
    if low >= high:
        raise scaling.bad("high_freq_factor", f"must be above low_freq_factor {low:g}")
    return RopeConfig(
        head_dim,
        theta,
        "llama3",
        factor=scaling.number("factor"),
        low_freq_factor=low,
        high_freq_factor=high,
        original_context=scaling.integer("original_max_position_embeddings", low=1),
    )


def rope_from_gguf(fields: Fields, head_dim: int, factors: tuple[float, ...] = ()) -> RopeConfig:
    """`factors` are the numbers of the file's rope_freqs tensor, empty without one."""
    theta = fields.number("rope.freq_base", 10000.0)
    if fields.integer("rope.dimension_count", head_dim, low=1) != head_dim:
        raise UnsupportedModel(f"{fields.source}: rotating only part of a head is not supported")
    if factors:
        if len(factors) != head_dim // 2 or min(factors) <= 0:
            raise BadCheckpoint(f"{fields.source}: rope_freqs must hold {head_dim // 2} positive numbers")
        return RopeConfig(head_dim, theta, "factors", factors=factors)
    kind = fields.text("rope.scaling.type", "none")
    if kind == "none":
        return RopeConfig(head_dim, theta)
    if kind == "linear":
        return RopeConfig(head_dim, theta, "linear", fields.number("rope.scaling.factor"))
    raise UnsupportedModel(f"{fields.source}: rope scaling {kind[:40]!r} is not supported; {_SUPPORTED} are")
