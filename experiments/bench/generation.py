"""What sharing prefixes and guessing ahead gain: first token of a known prompt, tokens per second of a copy.

Run: `python -m experiments.bench.generation [--rounds N]`. Process CPU time, contenders interleaved.
"""

import argparse
from collections.abc import Callable

from engine import Engine
from experiments.bench.measure import interleaved, machine

MODEL = "smollm2-135m-instruct"
TEXT = (
    "The lamp at Skerry Point was lit for the first time in the spring of 1861. Its keeper, Mr. Alder, wrote "
    "down the wind and the height of the sea every morning, and every evening he cleaned the glass."
)
TASKS = {
    "a story": "Write a long story about a lighthouse.",
    "a copy": f"Repeat this text word for word, twice:\n{TEXT}",
}
TOKENS = 96


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    print(f"generation: {MODEL} int8, {machine()}")
    prefixes(rounds)
    guesses(rounds)


def prefixes(rounds: int) -> None:
    """The first token of a chat with a system prompt of some 300 tokens, new or seen before."""
    engine = Engine.load(MODEL, max_slots=1)
    count = iter(range(10**9))

    def first_token(system: str) -> Callable[[], None]:
        def run() -> None:
            number = next(count)
            text = f"{number} {system}" if system.startswith("new") else system
            messages = [
                {"role": "system", "content": text},
                {"role": "user", "content": f"Question {number}?"},
            ]
            engine.chat(messages, temperature=0, max_tokens=1)

        return run

    spans = interleaved({"new": first_token("new " + TEXT * 6), "known": first_token(TEXT * 6)}, rounds)
    engine.close()
    shown = "  ".join(f"{name} {span.cpu * 1000:.0f} ms" for name, span in spans.items())
    print(f"  first token after a system prompt: {shown}  ratio {spans['new'].cpu / spans['known'].cpu:.1f}x")


def guesses(rounds: int) -> None:
    engines = {"alone": Engine.load(MODEL, speculate=0), "guessing": Engine.load(MODEL, speculate=3)}
    for task, question in TASKS.items():
        messages = [{"role": "user", "content": question}]

        def reply(engine: Engine, messages: list[dict[str, str]] = messages) -> None:
            engine.chat(messages, temperature=0, max_tokens=TOKENS)

        spans = interleaved({name: lambda one=one: reply(one) for name, one in engines.items()}, rounds)
        print(f"  {task}: guessing {spans['alone'].cpu / spans['guessing'].cpu:.2f}x as fast")
    for engine in engines.values():
        engine.close()


if __name__ == "__main__":
    main()
