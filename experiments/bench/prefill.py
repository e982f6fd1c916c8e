"""Reading a prompt, up to its first token, beside llama.cpp: the same weights and number of threads.

Tokens a second as `decode` tells them. Ours reads a prompt in the scheduler's pieces, llama.cpp in one.
Run: `python -m experiments.bench.prefill [--model NAME] [--threads 1 2] [--length 512] [--png FILE]`.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from experiments.bench.llama import Llama
from experiments.bench.measure import machine
from experiments.bench.peers import SMOLLM2, child, pairs, prompt, report
from experiments.bench.picture import draw


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=SMOLLM2)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--length", type=int, nargs="+", default=[64, 512], help="of the prompt, at most 512")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--png", type=Path, help="with one number of threads")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        measure(options)
        return 0
    given = ["--model", options.model, "--rounds", str(options.rounds)]
    given += ["--length", *map(str, options.length)] + (["--png", str(options.png)] if options.png else [])
    return max(child("experiments.bench.prefill", count, given) for count in options.threads)


def measure(options: argparse.Namespace) -> None:
    (threads,), model = options.threads, options.model
    title = f"prefill: {model}, {threads} thread(s)"
    print(f"{title}, {machine()}", flush=True)
    chosen, ratios = pairs(model), {}
    for length in options.length:
        print(f"  {length} tokens")
        reads = {mine: ours(model, mine, length) for mine, _ in chosen}
        reads |= {other: theirs(model, other, length, threads) for _, other in chosen}
        for pair, ratio in report(reads, chosen, length, options.rounds).items():
            ratios[f"{pair}, {length} tokens"] = ratio
    if options.png:
        draw(ratios, title, options.png)


def ours(name: str, quant: str, length: int) -> Callable[[], object]:
    from engine.generate.kv_pool import blocks_for
    from engine.generate.model import DecoderStepModel
    from engine.generate.request import SamplingParams
    from engine.generate.step_model import Opening
    from engine.registry import resolve
    from engine.weights.checkpoint import load_checkpoint

    checkpoint = load_checkpoint(resolve(name).path, quant=quant)
    model = DecoderStepModel(checkpoint.params, checkpoint.config, max_slots=1, max_context=1024)
    table = range(1, 1 + blocks_for(model.max_context))
    opening = Opening(tuple(prompt(length)), SamplingParams(temperature=0), 0)

    def read() -> None:
        model.start(0, opening)
        done = 0
        while done < length:
            done += model.prefill(0, table, done).positions

    return read


def theirs(name: str, kind: str, length: int, threads: int) -> Callable[[], object]:
    llama = Llama(name, kind, 1, 1024, threads)
    tokens = [(token, i, 0, i == length - 1) for i, token in enumerate(prompt(length))]

    def read() -> None:
        llama.forget()
        llama.feed(tokens)
        llama.logits(length - 1).argmax()

    return read


if __name__ == "__main__":
    sys.exit(main())
