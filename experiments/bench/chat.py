"""Tokens per second of one and of four chats at once, SmolLM2 135M, greedy, short prompts included.

Run: `python -m experiments.bench.chat [--tokens N] [--quant int8 f32]`; with `TARSIA_OPS=xla` for the
portable path.
"""

import argparse
import threading

from engine import Engine
from engine.generate.request import GenerationRequest, SamplingParams
from experiments.bench.measure import machine, median, peak_memory_mb, timed

MODEL = "smollm2-135m-instruct"
QUESTIONS = (
    "Write a long story about a lighthouse.",
    "Explain how bread is made, step by step.",
    "Describe a walk through a forest in autumn.",
    "Tell me about the history of writing.",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quant", nargs="+", default=["int8", "f32"], choices=["int8", "int4", "f32"])
    options = parser.parse_args()
    print(f"chat: {MODEL}, {options.tokens} new tokens each, {machine()}")
    for quant in options.quant:
        engine = Engine.load(MODEL, quant=quant)
        rates = {chats: rate(engine, chats, options.tokens, options.rounds) for chats in (1, len(QUESTIONS))}
        engine.close()
        shown = "  ".join(f"{chats} at once {value:6.1f} tok/s" for chats, value in rates.items())
        print(f"  {quant:5s} {shown}  peak memory {peak_memory_mb():.0f} MB")


def rate(engine: Engine, chats: int, tokens: int, rounds: int) -> float:
    """New tokens per wall second of all chats together; prompts (about 40 tokens each) are included."""
    sampling = SamplingParams(temperature=0.0, max_tokens=tokens, ignore_eos=True)
    requests = [
        GenerationRequest(tuple(engine.chat_prompt([{"role": "user", "content": question}])), sampling)
        for question in QUESTIONS[:chats]
    ]

    def run() -> None:
        threads = [
            threading.Thread(target=engine.generator.generate, args=(request,)) for request in requests
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    run()
    return chats * tokens / median([timed(run) for _ in range(rounds)]).wall


if __name__ == "__main__":
    main()
