"""Makes parity fixtures of vision transformers: tiny random checkpoints with transformers' own outputs.

Needs the bench extra. Run: `python -m experiments.make_vision_parity tests/fixtures/parity`; a folder that is
there already stays. Each io.npz holds `pixel_values` and the outputs that its name says; `large_*` belong to
an image of another size than the position table's.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers as t

SIZES = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "image_size": 21,
    "patch_size": 7,
}
MLP = {**SIZES, "intermediate_size": 40}
DINO = {**SIZES, "use_swiglu_ffn": True, "num_register_tokens": 2, "num_labels": 5}


def classified(model: Any, pixels: torch.Tensor, **options: Any) -> torch.Tensor:
    return model(pixel_values=pixels, **options).logits


def pooled(model: Any, pixels: torch.Tensor, **options: Any) -> torch.Tensor:
    return model(pixel_values=pixels, **options).pooler_output


def projected(model: Any, pixels: torch.Tensor, **options: Any) -> torch.Tensor:
    return model(pixel_values=pixels, **options).image_embeds


INTERPOLATED = {"interpolate_pos_encoding": True}
FAMILIES: dict[str, tuple[Callable[[], Any], Callable[..., torch.Tensor], str, dict[str, Any]]] = {
    "deit_distilled": (
        lambda: t.DeiTForImageClassificationWithTeacher(t.DeiTConfig(**MLP, num_labels=5)),
        classified,
        "logits",
        INTERPOLATED,
    ),
    "dinov2_registers_gated": (
        lambda: t.Dinov2WithRegistersForImageClassification(t.Dinov2WithRegistersConfig(**DINO)),
        classified,
        "logits",
        {},
    ),
    "siglip_tower": (
        lambda: t.SiglipVisionModel(t.SiglipVisionConfig(**MLP)),
        pooled,
        "features",
        INTERPOLATED,
    ),
    "clip_tower": (
        lambda: t.CLIPVisionModelWithProjection(t.CLIPVisionConfig(**MLP, projection_dim=16)),
        projected,
        "features",
        INTERPOLATED,
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    for name, (build, output, called, other_size) in FAMILIES.items():
        folder = parser.parse_args().folder / name
        if folder.exists():
            continue
        torch.manual_seed(7)
        model = build().eval()
        with torch.no_grad():
            # Fresh norms and scales are ones and zeros, which would hide a wrong name.
            for parameter in model.parameters():
                parameter.add_(0.2 * torch.randn_like(parameter))
            pixels, large = torch.randn(2, 3, 21, 21), torch.randn(1, 3, 35, 28)
            found = {called: output(model, pixels), f"large_{called}": output(model, large, **other_size)}
        model.save_pretrained(folder)
        inputs = {"pixel_values": pixels, "large_pixel_values": large}
        arrays = {key: value.numpy() for key, value in (inputs | found).items()}
        np.savez(folder / "io.npz", **arrays)


if __name__ == "__main__":
    main()
