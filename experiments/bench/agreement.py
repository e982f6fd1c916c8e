"""Greedy tokens beside llama.cpp on real checkpoints: the same weights in float32, the same prompts.

llama.cpp rounds activations to int8 wherever weights are quantised, so its own converter first makes each
file float32 (in a temporary folder, up to 2.6 GB), and its keys and values are float32 too; ours reads the
file as it is. Both tokenise the prompts. Where they choose differently and llama.cpp's two best logits are
closer than TIE, either is right, and ours goes on from llama.cpp's token. Others make the exit status 1.
Gemma's log-probabilities are 1e-3 apart and the others' 1e-5: llama.cpp's GELU is a table of float16.
Run: `python -m experiments.bench.agreement [--models NAME...] [--tokens 32]`; missing models are pulled.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import llama_cpp as lc
import numpy as np

from engine import Engine
from engine.pull import pull
from engine.quantization import SAMPLE_TEXT as TEXT
from engine.text.template import ChatTemplate
from experiments.bench.llama import quiet, requantised

MODELS = ("smollm2-135m-instruct", "qwen2.5-coder-0.5b-instruct", "gemma-3-270m")
TIE = 0.05
CONTEXT = 1024
FLOAT32 = 0
"""To ggml, of tensors and of whole files."""
CHATS = (
    "What is the capital of France?",
    "Write a Python function that reverses a linked list.",
    "Erkläre in zwei Sätzen, warum der Himmel blau ist. 🌤️",
    "Translate to Japanese: The train leaves at 7:45 from platform 3.",
    f"Summarise in one sentence:\n\n{TEXT}",
)
TEXTS = (
    "The capital of France is",
    "def fibonacci(n):\n    if n < 2:\n        return n\n",
    "Il était une fois, dans un petit village,",
    "1, 1, 2, 3, 5, 8, 13,",
    # Longer than the window of Gemma 3, which is 512.
    f"{TEXT}\n\n{TEXT}\n\n{TEXT}\n\nThe lamp turns once in",
)


@dataclass(frozen=True)
class Step:
    """What llama.cpp chose, how far its logit is above the next best, and its log-probability."""

    token: int
    margin: float
    logprob: float


@dataclass
class Row:
    """One prompt: `apart` is the most between the log-probabilities that the two give llama.cpp's token."""

    prompt: int
    same: int = 0
    ties: int = 0
    wrong: int = 0
    apart: float = 0.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=list(MODELS), metavar="NAME")
    parser.add_argument("--tokens", type=int, default=32)
    options = parser.parse_args()
    quiet()
    print(f"{options.tokens} greedy tokens after each prompt, ours and llama.cpp's in float32")
    print(f"  {'model':28s} {'prompt':>6s} {'same':>5s} {'ties':>5s} {'wrong':>5s} {'apart':>8s}")
    return max(_compare(name, options.tokens) for name in options.models)


def _compare(name: str, count: int) -> int:
    """Prints a row for each prompt; 1 if anything is wrong."""
    pull(name)
    engine = Engine.load(name, quant="f32", max_slots=1, max_context=CONTEXT)
    template = engine.checkpoint.chat_template
    texts = TEXTS if template is None else [_rendered(engine, template, chat) for chat in CHATS]
    wrong = 0
    with tempfile.TemporaryDirectory() as scratch:
        file = requantised(engine.checkpoint.path, FLOAT32, Path(scratch) / "float32.gguf")
        exact = {"type_k": FLOAT32, "type_v": FLOAT32}
        peer = lc.Llama(str(file), n_ctx=CONTEXT, n_batch=CONTEXT, verbose=False, **exact)
        for text in texts:
            row = _row(engine, peer, text, count, chat=template is not None)
            apart = f"{row.apart:8.1e}"
            print(
                f"  {name:28s} {row.prompt:6d} {row.same:5d} {row.ties:5d} {row.wrong:5d} {apart}", flush=True
            )
            wrong += row.wrong
        peer.close()
    engine.close()
    return int(wrong > 0)


def _rendered(engine: Engine, template: str, text: str) -> str:
    """The text of a chat, control tokens written out."""
    known = (engine.tokenizer.bos_id, engine.tokenizer.eos_ids[0])
    bos, eos = ("" if token is None else engine.tokenizer.decode([token]) for token in known)
    return ChatTemplate(template, bos, eos).render([{"role": "user", "content": text}])


def _row(engine: Engine, peer: Any, text: str, count: int, *, chat: bool) -> Row:
    prompt = engine.tokenizer.encode(text, parse_special=chat, add_special=not chat)
    theirs = peer.tokenize(text.encode(), add_bos=not chat, special=chat)
    if prompt != theirs:
        raise SystemExit(f"llama.cpp has other tokens for {text[:60]!r}:\n{theirs}\n{prompt}")
    row, steps = Row(len(prompt)), _greedy(peer, prompt, count)
    done = 0
    while done < count:
        known = [*prompt, *(step.token for step in steps[:done])]
        options = {"temperature": 0.0, "ignore_eos": True, "logprobs": 0}
        reply = engine.generate(known, max_tokens=count - done, **options)
        for ours, step in zip(reply.logprobs, steps[done:], strict=True):
            done += 1
            if ours.token_id != step.token:
                row.ties += step.margin < TIE
                row.wrong += step.margin >= TIE
                break
            row.same += 1
            row.apart = max(row.apart, abs(ours.logprob - step.logprob))
    return row


def _greedy(peer: Any, prompt: Sequence[int], count: int) -> list[Step]:
    peer.reset()
    peer.eval(list(prompt))
    steps = []
    for _ in range(count):
        row = lc.llama_get_logits_ith(peer.ctx, -1)
        logits = np.array(np.ctypeslib.as_array(row, shape=(peer.n_vocab(),)), np.float64)
        second, best = np.sort(logits)[-2:]
        steps.append(Step(int(logits.argmax()), best - second, -np.log(np.exp(logits - best).sum())))
        peer.eval([steps[-1].token])
    return steps


if __name__ == "__main__":
    sys.exit(main())
