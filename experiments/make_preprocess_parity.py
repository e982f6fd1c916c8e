"""Writes tests/fixtures/preprocess.npz: what transformers' and timm's own preprocessing make of small images.

    python -m experiments.make_preprocess_parity       # needs the bench extra

Each case is a preprocessor_config.json (or timm's pretrained_cfg) as JSON, an image and the pixel values.
"""

import json
from pathlib import Path

import numpy as np
import timm.data
from PIL import Image
from transformers import (
    BitImageProcessorPil,
    CLIPImageProcessorPil,
    DeiTImageProcessorPil,
    SiglipImageProcessorPil,
    ViTImageProcessorPil,
)

OUT = Path(__file__).parents[1] / "tests" / "fixtures" / "preprocess.npz"
SHAPES = ((50, 81), (97, 40), (33, 33), (13, 20))
PROCESSORS = (
    (ViTImageProcessorPil, {"size": {"height": 32, "width": 24}}),
    (
        ViTImageProcessorPil,
        {"size": 32, "resample": 3, "image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]},
    ),
    (ViTImageProcessorPil, {"size": {"height": 32, "width": 32}, "resample": 0}),
    (ViTImageProcessorPil, {"size": {"height": 32, "width": 32}, "resample": 1}),
    (ViTImageProcessorPil, {"size": {"height": 32, "width": 32}, "do_normalize": False}),
    (ViTImageProcessorPil, {"size": {"height": 32, "width": 32}, "do_rescale": False}),
    (ViTImageProcessorPil, {"size": {"height": 32, "width": 32}, "rescale_factor": 1 / 127.5}),
    (CLIPImageProcessorPil, {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}),
    (CLIPImageProcessorPil, {"size": 33, "crop_size": 32}),
    (CLIPImageProcessorPil, {"size": 24, "crop_size": {"height": 33, "width": 31}}),
    (CLIPImageProcessorPil, {"do_resize": False, "crop_size": 28}),
    (
        SiglipImageProcessorPil,
        {"size": {"height": 28, "width": 32}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3},
    ),
    (
        BitImageProcessorPil,
        {"size": {"shortest_edge": 37}, "crop_size": {"height": 32, "width": 32}, "resample": 3},
    ),
    (DeiTImageProcessorPil, {"size": {"height": 36, "width": 36}, "crop_size": {"height": 32, "width": 32}}),
)
TIMM = (
    {"crop_pct": 0.9, "interpolation": "bicubic", "mean": [0.5] * 3, "std": [0.5] * 3},
    {"crop_pct": 1.0, "interpolation": "bilinear"},
    {"crop_pct": 0.95, "interpolation": "bicubic", "crop_mode": "squash"},
    {
        "interpolation": "bicubic",
        "mean": [0.48145466, 0.4578275, 0.40821073],
        "std": [0.2686, 0.2613, 0.2758],
    },
)
SIDE = 31


def main() -> None:
    random, out, cases = np.random.default_rng(5), {}, []
    for number, (height, width) in enumerate(SHAPES):
        smooth = np.asarray(
            Image.fromarray(random.integers(0, 256, (9, 9, 3), np.uint8)).resize((width, height), 3)
        )
        noise = random.integers(-20, 21, smooth.shape)
        out[f"image{number}"] = np.clip(smooth + noise, 0, 255).astype(np.uint8)
    images = [out[f"image{number}"] for number in range(len(SHAPES))]
    for kind, options in PROCESSORS:
        name = kind.__name__.removesuffix("Pil")
        processor = kind(**options)
        add(
            out,
            cases,
            {"image_processor_type": name, **options},
            images,
            lambda x, p=processor: p(x)["pixel_values"][0],
        )
    for options in TIMM:
        transform = timm_transform(options)
        add(
            out,
            cases,
            {"pretrained_cfg": options},
            images,
            lambda x, t=transform: t(Image.fromarray(x)).numpy(),
        )
    np.savez_compressed(OUT, cases=json.dumps(cases), **out)
    print(f"{OUT}: {OUT.stat().st_size / 1e3:.0f} KB, {len(cases)} cases")


def timm_transform(options):
    config = timm.data.resolve_data_config({}, pretrained_cfg={"input_size": (3, SIDE, SIDE), **options})
    return timm.data.create_transform(**config)


def add(out, cases, settings, images, run) -> None:
    for number, image in enumerate(images):
        out[f"pixels{len(cases)}"] = np.asarray(run(image), np.float32)
        cases.append({"settings": settings, "image": number})


if __name__ == "__main__":
    main()
