"""Images per second of vision transformers in float32, beside torch and ONNX Runtime in the same run.

ViT-Ti and ViT-B (patch 16, 224 pixels, random weights, the same for all) at batch 1 and 8, from prepared
pixels to logits. Ratios by CPU time of the whole process and by wall, and the largest difference of logits.
Run: `python -m experiments.bench.vision [--threads 1] [--png FILE]`.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

SIZES = {
    "ViT-Ti": {"hidden_size": 192, "intermediate_size": 768, "num_attention_heads": 3},
    "ViT-B": {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12},
}
BATCHES = (1, 8)
Run = Callable[[np.ndarray], np.ndarray]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, help="processors to use; all by default")
    parser.add_argument("--png", type=Path, help="a picture of the ratios")
    options = parser.parse_args()
    if options.threads:
        # Before JAX and torch start: both size their pools then.
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.threads])
    from experiments.bench.measure import machine, peak_memory_mb

    threads = len(os.sched_getaffinity(0))
    print(f"vision: f32, {threads} thread(s), {machine()}", flush=True)
    ratios: dict[str, float] = {}
    for size in SIZES:
        contenders = load(size, threads)
        for batch in BATCHES:
            ratios |= compare(size, batch, contenders, options.rounds)
    print(f"  peak memory {peak_memory_mb():.0f} MB")
    if not ratios:
        print("  no peers: pip install 'tarsia[bench]' adds torch and ONNX Runtime")
    if options.png and ratios:
        from experiments.bench.picture import draw

        draw(ratios, f"vision: f32, {threads} thread(s)", options.png)
    return 0


def compare(size: str, batch: int, contenders: dict[str, Run], rounds: int) -> dict[str, float]:
    """Prints a block; {peer: how many times as fast ours is by wall}."""
    from experiments.bench.measure import interleaved

    pixels = np.random.default_rng(0).standard_normal((batch, 3, 224, 224), np.float32)
    runs: dict[str, Callable[[], object]] = {
        name: lambda run=run: run(pixels) for name, run in contenders.items()
    }
    spans = interleaved(runs, rounds, in_a_row=12 if batch == 1 else 4)
    mine = spans.pop("tarsia")
    print(f"  {size}, batch {batch}: {batch / mine.wall:.2f} images/s", flush=True)
    found = {}
    for name, span in spans.items():
        apart = float(np.abs(contenders["tarsia"](pixels) - contenders[name](pixels)).max())
        found[f"{name}, {size} x {batch}"] = span.wall / mine.wall
        print(
            f"    {batch / span.wall:7.2f} by {name}: ours {span.wall / mine.wall:.2f}x by wall, "
            f"{span.cpu / mine.cpu:.2f}x by CPU time, logits within {apart:.1e}",
            flush=True,
        )
    return found


def load(size: str, threads: int) -> dict[str, Run]:
    """Ours and those that are installed, with one checkpoint's weights."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        theirs = peers(size, threads, Path(folder))
        return {"tarsia": ours(Path(folder)), **theirs}


def ours(folder: Path) -> Run:
    from engine import Engine

    model = Engine.load(folder)
    return lambda pixels: model.vision.logits(pixels)


def peers(size: str, threads: int, folder: Path) -> dict[str, Run]:
    """Writes the checkpoint into `folder`."""
    import torch
    import transformers

    torch.manual_seed(0)
    torch.set_num_threads(threads)
    config = transformers.ViTConfig(**SIZES[size], num_labels=1000, attn_implementation="sdpa")
    model = transformers.ViTForImageClassification(config).eval()
    model.save_pretrained(folder)

    def run_torch(pixels: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            found: np.ndarray = model(pixel_values=torch.from_numpy(pixels)).logits.numpy()
        return found

    return {"torch": run_torch, "ONNX Runtime": onnx_runtime(model, threads, folder)}


def onnx_runtime(model: Any, threads: int, folder: Path) -> Run:
    import onnxruntime
    import torch

    class Logits(torch.nn.Module):  # type: ignore[misc,name-defined]
        def forward(self, pixels: Any) -> Any:
            return model(pixel_values=pixels).logits

    target = str(folder / "model.onnx")
    shapes = ({0: torch.export.Dim("batch")},)
    with torch.no_grad():
        torch.onnx.export(
            *(Logits().eval(), (torch.zeros(2, 3, 224, 224),), target),
            **{"input_names": ["pixels"], "dynamic_shapes": shapes, "dynamo": True},
        )
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(target, settings, providers=["CPUExecutionProvider"])

    def run(pixels: np.ndarray) -> np.ndarray:
        found: np.ndarray = session.run(None, {"pixels": pixels})[0]
        return found

    return run


if __name__ == "__main__":
    sys.exit(main())
