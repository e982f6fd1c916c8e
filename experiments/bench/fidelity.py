"""How far quantised decode steps are from float32: KL divergence and top-1 agreement, token by token.

SmolLM2 135M reads a text one token at a time, through the decode path with its native kernels; the reference
is the same weights in float32 on the portable path. llama.cpp's formats stand beside ours.
Run: `python -m experiments.bench.fidelity [--tokens N]`.
"""

import argparse
import os
from collections.abc import Iterable

import numpy as np

from engine.generate.fidelity import Logits, agreement, decode_logits, exact_logits
from engine.quantization import SAMPLE_TEXT
from engine.registry import resolve
from engine.weights.checkpoint import load_checkpoint
from experiments.bench.llama import Llama
from experiments.bench.peers import SMOLLM2 as MODEL


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=180)
    options = parser.parse_args()
    reference = load_checkpoint(resolve(MODEL).path, quant="f32")
    tokens = reference.tokenizer.encode(SAMPLE_TEXT)[: options.tokens]
    exact = [np.asarray(row) for row in exact_logits(reference.params, reference.config, tokens)]
    os.environ["TARSIA_OPS"] = "xla"
    report("int8, portable", stepwise("int8", tokens), exact)
    os.environ["TARSIA_OPS"] = ""
    for quant in ("int8", "int4"):
        report(f"{quant}, native", stepwise(quant, tokens), exact)
    for kind in ("Q8_0", "Q4_1", "Q4_0"):
        report(f"llama.cpp {kind}", llama_logits(kind, tokens), exact)


def stepwise(quant: str, tokens: list[int]) -> Iterable[Logits]:
    model = load_checkpoint(resolve(MODEL).path, quant=quant)
    return decode_logits(model.params, model.config, tokens)


def llama_logits(kind: str, tokens: list[int]) -> Iterable[Logits]:
    """llama.cpp's logits after each token, fed one by one."""
    llama = Llama(MODEL, kind, 1, 512, 1)
    for place, token in enumerate(tokens):
        llama.feed([(token, place, 0, True)])
        yield llama.logits(0).copy()


def report(name: str, logits: Iterable[Logits], exact: list[np.ndarray]) -> None:
    found = agreement(exact, logits)
    print(f"  {name:16s} KL {found.kl:.5f}  top-1 {found.top1:.3f}  ({found.tokens} tokens)", flush=True)


if __name__ == "__main__":
    main()
