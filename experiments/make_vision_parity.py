"""Makes parity fixtures of vision transformers: tiny random checkpoints with transformers' or timm's outputs.

Needs the bench extra. Run: `python -m experiments.make_vision_parity tests/fixtures/parity`; a folder that is
there already stays. Each io.npz holds `pixel_values` and the outputs that its name says; `large_*` belong to
an image of another size than the position table's.
"""

import argparse
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
import transformers as t
from safetensors.torch import save_file

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


TEXT = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 60}
BOTH: dict[str, Callable[[], Any]] = {
    "siglip_both": lambda: t.SiglipModel(
        t.SiglipConfig(
            text_config={**TEXT, "intermediate_size": 32, "max_position_embeddings": 9},
            vision_config=MLP,
        )
    ),
    "clip_largest_id": lambda: t.CLIPModel(
        t.CLIPConfig(
            text_config={
                **TEXT,
                "intermediate_size": 48,
                "max_position_embeddings": 12,
                "eos_token_id": 2,
                "hidden_act": "gelu",
                "layer_norm_eps": 1e-3,
            },
            vision_config={**MLP, "hidden_act": "gelu", "image_size": 28, "patch_size": 9},
            projection_dim=20,
        )
    ),
}
TIMM = {
    "timm_registers": ("vit_small_patch14_reg4_dinov2", {"num_classes": 5}),
    "timm_map_pooling": ("vit_base_patch16_siglip_224", {"num_classes": 0}),
    "timm_gated": ("vit_giant_patch14_dinov2", {"num_classes": 0}),
    "timm_distilled": ("deit_tiny_distilled_patch16_224", {"num_classes": 5}),
    "timm_mean_qk_norm": ("vit_tiny_patch16_224", {"num_classes": 5, "qk_norm": True, "global_pool": "avg"}),
}
TIMM_SIZES = {"img_size": 21, "patch_size": 7, "embed_dim": 24, "depth": 2, "num_heads": 3}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    into = parser.parse_args().folder
    for name, (build, output, called, other_size) in FAMILIES.items():
        if not (into / name).exists():
            model = randomised(build())
            record(into / name, called, partial(output, model), other_size)
            model.save_pretrained(into / name)
    for name, build_both in BOTH.items():
        if not (into / name).exists():
            model = randomised(build_both())
            record_both(into / name, model)
            model.save_pretrained(into / name)
    for name, (architecture, arguments) in TIMM.items():
        if not (into / name).exists():
            arguments = TIMM_SIZES | arguments
            model = randomised(timm.create_model(architecture, dynamic_img_size=True, **arguments))
            record(into / name, "logits" if arguments["num_classes"] else "features", model, {})
            save_file(model.state_dict(), into / name / "model.safetensors")
            settings = {
                "architecture": architecture,
                "global_pool": model.global_pool,
                "model_args": arguments,
            }
            (into / name / "config.json").write_text(json.dumps(settings, indent=1))


def randomised(model: Any) -> Any:
    """Fresh norms and scales are ones and zeros, which would hide a wrong name."""
    torch.manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


def record(folder: Path, called: str, run: Callable[..., torch.Tensor], other_size: dict[str, Any]) -> None:
    pixels, large = torch.randn(2, 3, 21, 21), torch.randn(1, 3, 35, 28)
    with torch.no_grad():
        found = {called: run(pixels), f"large_{called}": run(large, **other_size)}
    folder.mkdir(parents=True)
    inputs = {"pixel_values": pixels, "large_pixel_values": large}
    np.savez(folder / "io.npz", **{key: value.numpy() for key, value in (inputs | found).items()})


def record_both(folder: Path, model: Any) -> None:
    """Texts of random tokens that end with the largest id and are filled up to the most positions."""
    side, text = model.config.vision_config.image_size, model.config.text_config
    pixels = torch.randn(2, 3, side, side)
    ids = torch.randint(1, 58, (3, text.max_position_embeddings))
    for row, length in enumerate((5, 7, text.max_position_embeddings)):
        ids[row, length - 1], ids[row, length:] = 59, 0
    with torch.no_grad():
        found = model(pixel_values=pixels, input_ids=ids)
    outputs = {name: found[name].numpy() for name in ("image_embeds", "text_embeds", "logits_per_image")}
    folder.mkdir(parents=True)
    inputs = {"pixel_values": pixels.numpy(), "input_ids": ids.numpy().astype(np.int32)}
    np.savez(folder / "io.npz", **inputs, **outputs)


if __name__ == "__main__":
    main()
