"""Ten million characters to a chat model: one line of refusal, little time and hardly any memory."""

import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine import Engine
from engine.errors import ContextLengthExceeded
from engine.text.prompt import check_length
from engine.text.tool_calls import Tool

HUGE = {
    "words": "word " * 2_000_000,
    "one letter": "a" * 10_000_000,
    "zeros": "\0" * 10_000_000,
    "emoji": "🌤️" * 5_000_000,
    "control tokens": "<|im_start|>" * 840_000,
}


@pytest.fixture(scope="module")
def chat(smollm2_path: Path) -> Iterator[Engine]:
    engine = Engine.load("smollm2-135m-instruct", max_slots=1)
    engine.generate("x", max_tokens=1)
    yield engine
    engine.close()


@pytest.mark.parametrize("name", HUGE)
@pytest.mark.parametrize("way", ["text", "message", "parts", "tool"])
def test_it_is_refused_in_one_line(chat: Engine, way: str, name: str) -> None:
    text, parts = HUGE[name], [{"type": "text", "text": HUGE[name]}]
    tracemalloc.start()
    with pytest.raises(ContextLengthExceeded, match="shorten it") as caught:
        if way == "text":
            chat.generate(text, max_tokens=1)
        elif way == "tool":
            chat.chat_prompt([{"role": "user", "content": "hi"}], [Tool("f", "", {"description": text})])
        else:
            chat.chat_prompt([{"role": "user", "content": text if way == "message" else parts}])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 200


def test_what_could_fit_is_tokenised_and_counted(chat: Engine) -> None:
    longest = chat.tokenizer.longest
    assert longest == max(len(chat.token_bytes(token)) for token in range(chat.tokenizer.vocab_size))
    with pytest.raises(ContextLengthExceeded, match=r"has \d+ tokens"):
        chat.generate("word " * (2048 * longest // 5), max_tokens=1)


def test_a_context_full_of_the_longest_token_is_taken(chat: Engine) -> None:
    whole = [chat.token_bytes(token).decode("utf-8", "replace") for token in range(chat.tokenizer.vocab_size)]
    text = max(whole, key=len) * 2048
    assert len(text) > 100_000
    check_length(text, chat.tokenizer, 2048, "prompt")
