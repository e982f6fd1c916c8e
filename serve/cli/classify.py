"""`tarsia classify`: what images show, one line for each as soon as it is known."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from engine import Engine
from engine.errors import FeatureDisabled, FileError, InvalidRequest, TarsiaError
from engine.vision.limits import ImageLimits
from engine.vision.pipeline import Prediction, ViT
from serve.cli.files import NamedFile, named_images
from serve.cli.output import print_json, stages
from serve.config import load_settings

_WIDEST_NAME = 40


def run(
    files: Sequence[Path],
    flags: Mapping[str, Any],
    config_file: Path | None,
    *,
    top_k: int,
    labels: str | None,
    overlay: Path | None,
    method: str,
    as_json: bool,
) -> None:
    """Files that cannot be read are one line each on stderr; then the command fails, when all are done."""
    settings = load_settings(flags, config_file=config_file).settings
    if not settings.vision_model:
        raise FeatureDisabled("vision_model is empty: name an image model with --model")
    images = named_images(files)
    if overlay is not None and len(images) != 1:
        raise InvalidRequest(f"--overlay explains one image, not {len(images)}")
    limits = ImageLimits(max_bytes=settings.max_upload_bytes, max_pixels=settings.max_image_pixels)
    with stages() as stage:
        stage(f"load {settings.vision_model}", 0, 1)
        model = Engine.load(settings.vision_model).vision
        stage(f"load {settings.vision_model}", 1, 1)
    results: list[dict[str, Any]] = []
    chosen = None if labels is None else [label.strip() for label in labels.split(",") if label.strip()]
    found = model.stream([image.path for image in images], top_k, labels=chosen, limits=limits)
    for image, prediction in zip(images, found, strict=True):
        if isinstance(prediction, FileError):
            prediction = type(prediction)(image.name, prediction.reason)
            print(f"tarsia: {prediction}", file=sys.stderr)
        elif not as_json:
            print(_line(image, prediction, images), flush=True)
        results.append(_result(image.name, prediction))
    if as_json:
        print_json({"model": model.name, "images": results})
    bad = sum("error" in result for result in results)
    if bad:
        raise TarsiaError(f"{bad} of {len(images)} images could not be read")
    if overlay is not None:
        _explain(model, images[0], overlay, method, limits)


def _line(image: NamedFile, prediction: Prediction, images: Sequence[NamedFile]) -> str:
    """Aligned for people, tab-separated for a pipe."""
    named = [(best.label, f"{best.probability:.1%}") for best in prediction]
    if not sys.stdout.isatty():
        return "\t".join([image.name, *(part for pair in named for part in pair)])
    width = min(max(len(each.name) for each in images), _WIDEST_NAME)
    return f"{image.name:{width}}  " + ", ".join(f"{label} {share}" for label, share in named)


def _result(name: str, prediction: Prediction | FileError) -> dict[str, Any]:
    if isinstance(prediction, FileError):
        return {"file": name, "error": {"code": prediction.code, "message": str(prediction)}}
    return {
        "file": name,
        "labels": [{"label": best.label, "probability": best.probability} for best in prediction],
    }


def _explain(model: ViT, image: NamedFile, overlay: Path, method: str, limits: ImageLimits) -> None:
    explain = model.saliency if method == "saliency" else model.attention_rollout
    overlay.write_bytes(explain(image.path, limits=limits).png())
    print(f"tarsia: wrote {overlay}", file=sys.stderr)
