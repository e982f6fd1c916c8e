"""Decode steps beside llama.cpp: the same weights, batch, context and number of threads.

Tokens a second by CPU time of the whole process and by wall, medians of interleaved rounds, one child process
for each number of threads. Ours at int8 stands beside Q8_0, at int4 beside Q4_0 (and Q4_1, which is what
SmolLM2's file is and int4 holds exactly); with TARSIA_OPS=xla, so without native kernels, float32 beside F32.
Files of other kinds are made once, in the models' cache folder.
Run: `python -m experiments.bench.decode [--model NAME] [--threads 1 2] [--batch 1 4 8] [--png FILE]`.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from experiments.bench.llama import Llama
from experiments.bench.measure import machine
from experiments.bench.peers import SMOLLM2, child, pairs, prompt, report
from experiments.bench.picture import draw

STEPS = 16
ROOM = 512
"""Tokens of a sequence at most."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=SMOLLM2)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 4, 8])
    parser.add_argument("--context", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--png", type=Path, help="with one number of threads")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        measure(options)
        return 0
    given = ["--model", options.model, "--context", str(options.context), "--rounds", str(options.rounds)]
    given += ["--batch", *map(str, options.batch)] + (["--png", str(options.png)] if options.png else [])
    return max(child("experiments.bench.decode", count, given) for count in options.threads)


def measure(options: argparse.Namespace) -> None:
    (threads,), model = options.threads, options.model
    title = f"decode: {model}, context {options.context}, {threads} thread(s)"
    print(f"{title}, {machine()}", flush=True)
    chosen, ratios = pairs(model), {}
    for batch in options.batch:
        print(f"  batch {batch}")
        steps = {mine: ours(model, mine, batch, options.context) for mine, _ in chosen}
        steps |= {other: theirs(model, other, batch, options.context, threads) for _, other in chosen}
        for pair, ratio in report(steps, chosen, batch * STEPS, options.rounds).items():
            ratios[f"{pair}, batch {batch}"] = ratio
    if options.png:
        draw(ratios, title, options.png)


def ours(name: str, quant: str, batch: int, context: int) -> Callable[[], object]:
    """A function that makes STEPS more tokens in each of `batch` sequences that began with `context`."""
    from engine.generate.kv_pool import blocks_for
    from engine.generate.model import DecoderStepModel
    from engine.generate.request import SamplingParams
    from engine.generate.step_model import Opening
    from engine.registry import resolve
    from engine.weights.checkpoint import load_checkpoint

    checkpoint = load_checkpoint(resolve(name).path, quant=quant)
    model = DecoderStepModel(checkpoint.params, checkpoint.config, max_slots=batch, max_context=ROOM)
    each = blocks_for(model.max_context)
    tables = [(slot, range(1 + slot * each, 1 + (slot + 1) * each)) for slot in range(batch)]
    for slot, table in tables:
        model.start(slot, Opening(tuple(prompt(context)), SamplingParams(temperature=0), 0))
        done = 0
        while done < context:
            done += model.prefill(slot, table, done).positions

    def steps() -> None:
        for _ in range(STEPS):
            model.decode(tables)

    return steps


def theirs(name: str, kind: str, batch: int, context: int, threads: int) -> Callable[[], object]:
    """The same by llama.cpp; the argmax in NumPy."""
    llama = Llama(name, kind, batch, ROOM, threads)
    for sequence in range(batch):
        llama.feed([(token, i, sequence, i == context - 1) for i, token in enumerate(prompt(context))])
    last, length = [5] * batch, context

    def steps() -> None:
        nonlocal last, length
        for _ in range(STEPS):
            llama.feed([(last[s], length, s, True) for s in range(batch)])
            last, length = [int(np.argmax(llama.logits(s))) for s in range(batch)], length + 1

    return steps


if __name__ == "__main__":
    sys.exit(main())
