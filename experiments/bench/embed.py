"""Sentences per second of MiniLM in float32, beside sentence-transformers and ONNX Runtime in the same run.

Ratios by CPU time of the whole process and by wall, and the lowest cosine to sentence-transformers' vectors.
Tokenising counts for all three. Run: `python -m experiments.bench.embed [--threads 1] [--png FILE]`.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

MODEL = "all-minilm-l6-v2"
SENTENCE = (
    "the store keeps each vector in a log that is flushed before a write is acknowledged and then "
    "sealed into a segment whose files never change again until a merge replaces them"
)
SHAPES = ((1, 32), (1, 128), (1, 256), (32, 32), (32, 128))
Encode = Callable[[list[str]], np.ndarray[Any, Any]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, help="processors to use; all by default")
    parser.add_argument("--png", type=Path, help="a picture of the ratios")
    options = parser.parse_args()
    if options.threads:
        # Before JAX and torch start: both size their pools then.
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.threads])
    from engine import Engine
    from experiments.bench.measure import machine, peak_memory_mb

    engine, peers = Engine.load(MODEL), load_peers()
    threads = len(os.sched_getaffinity(0))
    print(f"embed: {MODEL} f32, {threads} thread(s), {machine()}", flush=True)
    ratios: dict[str, float] = {}
    for batch, length in SHAPES:
        texts = make_texts(batch, length)
        for name, ratio in compare(engine.embed, peers, texts, length, options.rounds).items():
            ratios[f"{name}, {batch} x {length}"] = ratio
    print(f"  peak memory {peak_memory_mb():.0f} MB")
    if not peers:
        print("  no peers: pip install 'tarsia[bench]' adds sentence-transformers and ONNX Runtime")
    if options.png and ratios:
        from experiments.bench.picture import draw

        draw(ratios, f"embed: {MODEL}, {threads} thread(s)", options.png)
    return 0


def compare(
    ours: Encode, peers: dict[str, Encode], texts: list[str], length: int, rounds: int
) -> dict[str, float]:
    """Prints a block; {peer: how many times its CPU time ours takes, inverted}."""
    from experiments.bench.measure import interleaved

    contenders = {"tarsia": ours, **peers}
    runs: dict[str, Callable[[], object]] = {
        name: lambda encode=encode: encode(texts) for name, encode in contenders.items()
    }
    spans = interleaved(runs, rounds)
    mine = spans.pop("tarsia")
    print(f"  {len(texts)} x {length} tokens: {len(texts) / mine.wall:.1f} sentences/s", flush=True)
    found = {}
    for name, span in spans.items():
        cosine = float(np.min(np.sum(ours(texts) * peers[name](texts), axis=1)))
        found[name] = span.cpu / mine.cpu
        print(
            f"    {len(texts) / span.wall:9.1f} by {name}: ours {found[name]:.2f}x by CPU time, "
            f"{span.wall / mine.wall:.2f}x by wall, lowest cosine {cosine:.7f}",
            flush=True,
        )
    return found


def make_texts(batch: int, length: int) -> list[str]:
    """Texts of about `length` tokens each, all different."""
    rng = np.random.default_rng(0)
    return [" ".join(rng.choice(SENTENCE.split(), size=length - 2)) for _ in range(batch)]


def load_peers() -> dict[str, Encode]:
    """Those that are installed."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError:
        return {}
    from engine.registry import resolve

    model = SentenceTransformer(str(resolve(MODEL).path), device="cpu")

    def encode(texts: list[str]) -> np.ndarray[Any, Any]:
        found: np.ndarray[Any, Any] = model.encode(
            texts, batch_size=32, normalize_embeddings=True, show_progress_bar=False
        )
        return found

    return {"sentence-transformers": encode, "ONNX Runtime": onnx_runtime(model)}


def onnx_runtime(model: Any) -> Encode:
    """The same transformer as an ONNX graph, with its mean over tokens, tokenised by the same tokeniser."""
    import onnxruntime
    import torch

    transformer, tokenizer = model[0].auto_model, model.tokenizer
    names = ["input_ids", "attention_mask", "token_type_ids"]

    class Pooled(torch.nn.Module):  # type: ignore[misc,name-defined]
        def forward(self, *inputs: Any) -> Any:
            states = transformer(**dict(zip(names, inputs, strict=True))).last_hidden_state
            weights = inputs[1][..., None].to(states.dtype)
            return torch.nn.functional.normalize((states * weights).sum(1) / weights.sum(1), dim=-1)

    example = tokenizer(["a lamp", "the sea and the lamp"], padding=True, return_tensors="pt")
    axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length")}
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        target = str(Path(folder) / "model.onnx")
        given = tuple(example[name] for name in names)
        torch.onnx.export(
            *(Pooled().eval(), given, target),
            **{"input_names": names, "dynamic_shapes": (tuple(axes for _ in names),), "dynamo": True},
        )
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = len(os.sched_getaffinity(0))
        session = onnxruntime.InferenceSession(target, settings, providers=["CPUExecutionProvider"])

    def encode(texts: list[str]) -> np.ndarray[Any, Any]:
        batch = tokenizer(texts, padding=True, truncation=True, max_length=256, return_tensors="np")
        found: np.ndarray[Any, Any] = session.run(None, {name: batch[name] for name in names})[0]
        return found

    return encode


if __name__ == "__main__":
    sys.exit(main())
