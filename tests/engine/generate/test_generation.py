"""Whole generations through the thread: the tiny reference model, and SmolLM2 with real text."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.errors import UnsupportedInput
from engine.generate.loop import Generator
from engine.generate.model import DecoderStepModel
from engine.generate.request import Completion, GenerationRequest, Piece, SamplingParams
from engine.text.prompt import encode_chat
from engine.text.template import ChatTemplate
from engine.weights.checkpoint import Checkpoint, load_checkpoint
from tests.engine.generate.conftest import Parity


@pytest.fixture
def tiny(step_model: DecoderStepModel) -> Iterator[Generator]:
    with Generator(step_model, None, max_slots=4) as generator:
        yield generator


def ask(parity: Parity, count: int, **options: Any) -> GenerationRequest:
    options = {"temperature": 0.0, **options}
    return GenerationRequest(parity.prompt, SamplingParams(max_tokens=count, ignore_eos=True, **options))


def all_at_once(generator: Generator, requests: list[GenerationRequest]) -> list[Completion]:
    done: dict[int, Completion] = {}

    def one(index: int) -> None:
        done[index] = generator.generate(requests[index])

    threads = [threading.Thread(target=one, args=(index,)) for index in range(len(requests))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return [done[index] for index in range(len(requests))]


def test_greedy_tokens_are_the_references_in_every_slot(tiny: Generator, parity: Parity):
    counts = [24, 3, 11, 18, 24, 7, 1]
    replies = all_at_once(tiny, [ask(parity, count) for count in counts])
    assert [reply.token_ids for reply in replies] == [parity.greedy[:count] for count in counts]


def test_a_seed_gives_the_same_tokens_alone_and_beside_others(tiny: Generator, parity: Parity):
    sampled = ask(parity, 20, temperature=1.0, top_p=0.95, seed=5)
    alone = tiny.generate(sampled)
    others = [ask(parity, 15, temperature=1.3, seed=6), ask(parity, 20), ask(parity, 9, top_k=4, seed=5)]
    together = all_at_once(tiny, [others[0], sampled, *others[1:]])
    assert together[1].token_ids == alone.token_ids
    assert tiny.generate(ask(parity, 20, temperature=1.0, top_p=0.95, seed=6)).token_ids != alone.token_ids


def test_cancelling_in_the_middle_frees_the_slot_for_a_right_reply(tiny: Generator, parity: Parity):
    streams = [tiny.stream(ask(parity, 100)) for _ in range(4)]
    for stream in streams:
        next(stream)
        stream.close()
    assert tiny.generate(ask(parity, 24)).token_ids == parity.greedy
    assert tiny.stats().slots_live == 0


def test_an_embedding_model_cannot_generate(minilm_path: Path):
    with pytest.raises(UnsupportedInput, match="cannot chat"):
        Generator.for_checkpoint(load_checkpoint(minilm_path))


@pytest.fixture(scope="module")
def smollm2(smollm2_path: Path) -> Checkpoint:
    return load_checkpoint(smollm2_path, quant="int8")


@pytest.fixture(scope="module")
def chat(smollm2: Checkpoint) -> Iterator[Generator]:
    with Generator.for_checkpoint(smollm2, max_slots=2, max_context=512) as generator:
        yield generator


def chat_request(checkpoint: Checkpoint, text: str, **options: Any) -> GenerationRequest:
    assert checkpoint.tokenizer is not None
    system = {"role": "system", "content": "You are a helpful AI assistant."}
    messages = [system, {"role": "user", "content": text}]
    ids = encode_chat(ChatTemplate(checkpoint.chat_template), checkpoint.tokenizer, messages)
    options = {"max_tokens": 24, "temperature": 0.0, **options}
    return GenerationRequest(tuple(ids), SamplingParams(**options))


FRANCE = "What is the capital of France?"


def test_smollm2_knows_the_capital_of_france(smollm2: Checkpoint, chat: Generator):
    reply = chat.generate(chat_request(smollm2, FRANCE))
    assert "Paris" in reply.text
    assert reply.finish_reason == "stop"
    assert "<|" not in reply.text
    assert reply.usage.completion_tokens == len(reply.token_ids)


def test_a_stop_string_over_several_tokens_cuts_the_text_before_it(smollm2: Checkpoint, chat: Generator):
    whole = chat.generate(chat_request(smollm2, FRANCE)).text
    stop = "ital of Fr"
    pieces: list[Piece] = list(chat.stream(chat_request(smollm2, FRANCE, stop=(stop,))))
    assert "".join(piece.text for piece in pieces) == whole[: whole.index(stop)]
    assert pieces[-1].finish_reason == "stop"


def test_characters_over_several_tokens_stream_whole(smollm2: Checkpoint, chat: Generator):
    tokenizer = smollm2.tokenizer
    assert tokenizer is not None
    prompt = tuple(tokenizer.encode("🙂🚀🙂🚀🙂🚀🙂🚀🙂🚀🙂🚀"))
    sampling = SamplingParams(max_tokens=17, temperature=0)
    pieces = list(chat.stream(GenerationRequest(prompt, sampling)))
    text = "".join(piece.text for piece in pieces)
    tokens = [token for piece in pieces for token in piece.token_ids]
    assert text.startswith("🚀🚀")
    assert "�" not in text[:-1]
    assert text == b"".join(map(tokenizer.token_bytes, tokens)).decode("utf-8", errors="replace")
    assert sum(not piece.text for piece in pieces) >= 3
