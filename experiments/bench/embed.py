"""Sentences per second of MiniLM, beside sentence-transformers in the same run (bench extra), and the
lowest cosine between the two. Run: `python -m experiments.bench.embed`.
"""

import argparse
import os
from typing import Any

import numpy as np

from engine import Engine
from engine.registry import resolve
from experiments.bench.measure import interleaved, machine, peak_memory_mb

MODEL = "all-minilm-l6-v2"
SENTENCE = (
    "the store keeps each vector in a log that is flushed before a write is acknowledged and then "
    "sealed into a segment whose files never change again until a merge replaces them"
)
SHAPES = ((1, 32), (1, 128), (1, 256), (32, 32), (32, 128))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    engine = Engine.load(MODEL)
    peer = load_peer()
    print(f"embed: {MODEL} f32, {machine()}")
    for batch, length in SHAPES:
        print(f"  {batch:3d} x {length:3d} tokens  {compare(engine, peer, batch, length, options.rounds)}")
    print(f"  peak memory {peak_memory_mb():.0f} MB")
    if peer is None:
        print("  no peer: pip install 'tarsia[bench]' adds sentence-transformers")


def compare(engine: Engine, peer: Any, batch: int, length: int, rounds: int) -> str:
    """One line: sentences per wall second of each, their ratio, and how well the vectors agree."""
    texts = make_texts(engine, batch, length)
    if peer is None:
        span = interleaved({"tarsia": lambda: engine.embed(texts)}, rounds)["tarsia"]
        return f"tarsia {batch / span.wall:7.1f}/s"

    def encode() -> np.ndarray:
        return peer.encode(texts, batch_size=32, normalize_embeddings=True, show_progress_bar=False)

    spans = interleaved({"tarsia": lambda: engine.embed(texts), "peer": encode}, rounds)
    rates = {name: batch / span.wall for name, span in spans.items()}
    cosine = float(np.min(np.sum(engine.embed(texts) * encode(), axis=1)))
    return (
        f"tarsia {rates['tarsia']:7.1f}/s  sentence-transformers {rates['peer']:7.1f}/s  "
        f"ratio {rates['tarsia'] / rates['peer']:.2f}  lowest cosine {cosine:.7f}"
    )


def make_texts(engine: Engine, batch: int, length: int) -> list[str]:
    """Texts of about `length` tokens each, all different."""
    rng = np.random.default_rng(0)
    return [" ".join(rng.choice(SENTENCE.split(), size=length - 2)) for _ in range(batch)]


def load_peer() -> Any:
    os.environ["HF_HUB_OFFLINE"] = "1"
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError:
        return None
    return SentenceTransformer(str(resolve(MODEL).path), device="cpu")


if __name__ == "__main__":
    main()
