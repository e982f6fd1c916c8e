"""Random vision transformers beside transformers and timm: sizes and options nobody chose.

Draws configurations by seed, writes each as a checkpoint, loads it with the engine and compares outputs, at
the size of its position table and at another where the family allows that. Prints a row for each; exit status
1 if any differs by more than 1e-4 of the outputs' largest number (of 1 at least).
Run (needs the bench extra): `python -m experiments.held_out_vision --seeds 10`.
"""

import argparse
import json
import random
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
import transformers as t
from safetensors.torch import save_file

from engine import Engine
from engine.models import clip, vit
from engine.models.clip_config import ClipConfig

TOLERANCE = 1e-4
Outputs = Iterator[tuple[str, np.ndarray, np.ndarray]]
"""What is compared, ours, theirs."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10, help="checkpoints of each family")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    options = parser.parse_args()
    worst, bad = 0.0, 0
    for family, build in FAMILIES.items():
        for seed in range(options.first, options.first + options.seeds):
            with tempfile.TemporaryDirectory() as folder:
                found = check(build, random.Random(f"{family} {seed}"), seed, Path(folder) / family)
            worst, bad = max(worst, found), bad + (found > TOLERANCE)
            told = "  DIFFERS" if found > TOLERANCE else ""
            print(f"{family:24s} {seed:4d}  {found:.1e}{told}", flush=True)
    count = len(FAMILIES) * options.seeds
    print(f"{count} checkpoints, largest difference {worst:.1e}, {bad} beyond {TOLERANCE:g}")
    return int(bad > 0)


def check(build: Callable[..., Any], draw: random.Random, seed: int, folder: Path) -> float:
    """The largest difference of the outputs of one random model."""
    torch.manual_seed(seed)
    model, compare = build(draw)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * (0.2 if parameter.ndim == 1 else 0.08))
    model.eval()
    if isinstance(model, t.PreTrainedModel):
        model.save_pretrained(folder, max_shard_size=draw.choice(["5GB", "20KB"]))
    else:
        save_timm(model, folder)
    with torch.no_grad():
        pairs = list(compare(model, Engine.load(folder), draw))
    return max(float(np.abs(a - b).max() / max(1.0, np.abs(b).max())) for _, a, b in pairs)


def sizes(draw: random.Random) -> dict[str, Any]:
    heads, patch = draw.choice([1, 2, 3, 5]), draw.choice([3, 4, 7])
    return {
        "hidden_size": heads * draw.choice([8, 12, 20]),
        "num_attention_heads": heads,
        "num_hidden_layers": draw.choice([1, 2, 3]),
        "patch_size": patch,
        "image_size": patch * draw.choice([2, 3, 5]),
        "num_channels": draw.choice([3, 3, 1]),
    }


def images(model: Any, draw: random.Random, *, other: bool) -> Iterator[torch.Tensor]:
    """Of the native size, with pixels left over perhaps, and of another size."""
    config = getattr(model.config, "vision_config", model.config)
    side, patch, channels = config.image_size, config.patch_size, config.num_channels
    yield torch.randn(2, channels, side, side)
    if other:
        yield torch.randn(1, channels, side + patch * draw.choice([1, 3]), side + patch * draw.choice([2, 4]))


def classifier_or_states(model: Any, engine: Engine, draw: random.Random, **options: Any) -> Outputs:
    for pixels in images(model, draw, other=True):
        theirs = model(pixel_values=pixels, **options)
        ours = vit.logits if engine.config.labels else vit.hidden_states
        given = getattr(theirs, "logits", None)
        wanted = theirs.last_hidden_state if given is None else given
        yield "output", np.asarray(ours(engine.params, engine.config, pixels.numpy())), wanted.numpy()


def vit_like(draw: random.Random, family: str, heads: list[str]) -> Any:
    base = sizes(draw) | {
        "intermediate_size": draw.choice([24, 40, 61]),
        "hidden_act": draw.choice(["gelu", "gelu_new", "relu", "quick_gelu", "silu"]),
        "layer_norm_eps": draw.choice([1e-12, 1e-6, 1e-3]),
        "qkv_bias": draw.random() < 0.7,
        "num_labels": draw.choice([2, 7]),
    }
    config = getattr(t, f"{family}Config")(**base)

    def compare(model: Any, engine: Engine, draw: random.Random) -> Outputs:
        return classifier_or_states(model, engine, draw, interpolate_pos_encoding=True)

    return getattr(t, family + draw.choice(heads))(config), compare


def dino_like(draw: random.Random, family: str) -> Any:
    base = sizes(draw) | {
        "mlp_ratio": draw.choice([2, 3, 4]),
        "use_swiglu_ffn": draw.random() < 0.5,
        "layer_norm_eps": draw.choice([1e-6, 1e-4]),
        "layerscale_value": draw.choice([1.0, 0.1]),
        "qkv_bias": draw.random() < 0.7,
        "hidden_act": draw.choice(["gelu", "relu"]),
        "num_labels": 5,
    }
    if family == "Dinov2WithRegisters":
        base["num_register_tokens"] = draw.choice([1, 2, 4])
    config = getattr(t, f"{family}Config")(**base)
    return getattr(t, family + draw.choice(["Model", "ForImageClassification"]))(config), classifier_or_states


def towers(draw: random.Random, family: str) -> tuple[dict[str, Any], dict[str, Any]]:
    acts = ["gelu", "quick_gelu", "gelu_pytorch_tanh"]
    vision = sizes(draw) | {
        "intermediate_size": draw.choice([24, 40]),
        "hidden_act": draw.choice(acts),
        "layer_norm_eps": draw.choice([1e-6, 1e-5, 1e-3]),
    }
    vision["image_size"] += draw.choice([0, 1, 2])
    heads = draw.choice([1, 2, 3])
    text = {
        "hidden_size": vision["hidden_size"] if family == "Siglip" else heads * 8,
        "num_attention_heads": vision["num_attention_heads"] if family == "Siglip" else heads,
        "num_hidden_layers": draw.choice([1, 2, 3]),
        "intermediate_size": draw.choice([20, 33]),
        "hidden_act": draw.choice(acts),
        "layer_norm_eps": draw.choice([1e-6, 1e-3]),
        "vocab_size": 70,
        "max_position_embeddings": draw.choice([8, 13, 20]),
        "pad_token_id": 0,
    }
    if family == "CLIP":
        text["eos_token_id"] = draw.choice([2, 69])
    return text, vision


def both(draw: random.Random, family: str) -> Any:
    text, vision = towers(draw, family)
    more = {"projection_dim": draw.choice([16, 23])} if family == "CLIP" else {}
    config = getattr(t, f"{family}Config")(text_config=text, vision_config=vision, **more)

    def compare(model: Any, engine: Engine, draw: random.Random) -> Outputs:
        longest = text["max_position_embeddings"]
        ids = torch.randint(3, 68, (3, longest))
        ids[0, longest // 2], ids[0, longest // 2 + 1 :], ids[1:, -1] = 69, 0, 69
        [pixels] = images(model, draw, other=False)
        theirs = model(pixel_values=pixels, input_ids=ids)
        assert isinstance(engine.config, ClipConfig)
        ours = clip.forward(engine.params, engine.config, pixels.numpy(), ids.numpy())
        yield "logits", np.asarray(ours), theirs.logits_per_image.numpy()

    return getattr(t, f"{family}Model")(config), compare


def tower(draw: random.Random, family: str) -> Any:
    _, vision = towers(draw, family)
    projects = family == "CLIP" and draw.random() < 0.5
    config = getattr(t, f"{family}VisionConfig")(**vision, **({"projection_dim": 19} if projects else {}))

    def compare(model: Any, engine: Engine, draw: random.Random) -> Outputs:
        for pixels in images(model, draw, other=True):
            theirs = model(pixel_values=pixels, interpolate_pos_encoding=True)
            wanted = theirs.image_embeds if projects else theirs.pooler_output
            ours = vit.features(engine.params, engine.config, pixels.numpy())
            yield "features", np.asarray(ours), wanted.numpy()

    return getattr(t, f"{family}VisionModel{'WithProjection' if projects else ''}")(config), compare


TIMM = (
    "vit_small_patch16_224",
    "vit_small_patch14_reg4_dinov2",
    "deit3_small_patch16_224",
    "vit_base_patch16_siglip_224",
)


def timm_like(draw: random.Random) -> Any:
    patch, heads = draw.choice([4, 7]), draw.choice([1, 2, 3])
    arguments = {
        "img_size": patch * draw.choice([2, 3]),
        "patch_size": patch,
        "embed_dim": heads * draw.choice([8, 16]),
        "depth": draw.choice([1, 2, 3]),
        "num_heads": heads,
        "num_classes": draw.choice([0, 5]),
        "qkv_bias": draw.random() < 0.7,
        "qk_norm": draw.random() < 0.3,
    }
    model = timm.create_model(draw.choice(TIMM), dynamic_img_size=True, **arguments)
    model.arguments = arguments

    def compare(model: Any, engine: Engine, draw: random.Random) -> Outputs:
        side = arguments["img_size"]
        for shape in ((side, side), (side + patch, side + 2 * patch)):
            pixels = torch.randn(2, 3, *shape)
            ours = vit.logits if engine.config.labels else vit.features
            found = ours(engine.params, engine.config, pixels.numpy())
            yield "output", np.asarray(found), model(pixels).numpy()

    return model, compare


def save_timm(model: Any, folder: Path) -> None:
    folder.mkdir(parents=True)
    save_file(model.state_dict(), folder / "model.safetensors")
    settings = {
        "architecture": model.pretrained_cfg["architecture"],
        "global_pool": model.global_pool,
        "model_args": model.arguments,
    }
    (folder / "config.json").write_text(json.dumps(settings))


FAMILIES: dict[str, Callable[[random.Random], Any]] = {
    "vit": lambda draw: vit_like(draw, "ViT", ["Model", "ForImageClassification"]),
    "deit": lambda draw: vit_like(
        draw, "DeiT", ["Model", "ForImageClassification", "ForImageClassificationWithTeacher"]
    ),
    "dinov2": lambda draw: dino_like(draw, "Dinov2"),
    "dinov2_with_registers": lambda draw: dino_like(draw, "Dinov2WithRegisters"),
    "clip_vision_model": lambda draw: tower(draw, "CLIP"),
    "siglip_vision_model": lambda draw: tower(draw, "Siglip"),
    "clip": lambda draw: both(draw, "CLIP"),
    "siglip": lambda draw: both(draw, "Siglip"),
    "timm": timm_like,
}


if __name__ == "__main__":
    sys.exit(main())
