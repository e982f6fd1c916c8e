"""Chats by the real client of OpenAI against a real server with the real model."""

import asyncio

import openai
import pytest

MODEL = "smollm2-135m-instruct"
HELLO = [{"role": "user", "content": "Name three colours of the rainbow."}]


def say(client: openai.OpenAI, **options):
    options = {"max_tokens": 16, "temperature": 0} | options
    return client.chat.completions.create(model=MODEL, messages=HELLO, **options)


def test_a_whole_reply_has_text_reason_and_usage(client):
    reply = say(client)
    assert reply.object == "chat.completion" and reply.model == MODEL
    assert reply.choices[0].message.role == "assistant"
    assert len(reply.choices[0].message.content) > 10
    assert reply.choices[0].finish_reason in ("stop", "length")
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens
    assert 10 < reply.usage.prompt_tokens < 100
    assert 1 < reply.usage.completion_tokens <= 16


def test_a_stream_adds_up_to_the_whole_reply(client):
    chunks = list(say(client, stream=True))
    assert chunks[0].choices[0].delta.role == "assistant"
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == say(client).choices[0].message.content
    assert [c.choices[0].finish_reason for c in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1].choices[0].finish_reason == say(client).choices[0].finish_reason
    assert len({chunk.id for chunk in chunks}) == 1
    assert len(chunks) > 8


def test_the_usage_chunk_comes_last_when_asked_for(client):
    chunks = list(say(client, stream=True, stream_options={"include_usage": True}))
    assert chunks[-1].choices == []
    assert chunks[-1].usage == say(client).usage
    assert all(chunk.usage is None for chunk in chunks[:-1])


def test_a_stop_string_ends_the_text_and_is_not_part_of_it(client):
    text = say(client).choices[0].message.content
    stop = text[len(text) // 2 : len(text) // 2 + 4]
    cut = say(client, stop=[stop, "never said"])
    assert cut.choices[0].message.content == text[: text.index(stop)]
    assert cut.choices[0].finish_reason == "stop"
    streamed = say(client, stop=stop, stream=True)
    assert "".join(c.choices[0].delta.content or "" for c in streamed) == text[: text.index(stop)]


def test_the_same_seed_gives_the_same_text_and_another_one_another(client):
    def text(seed: int) -> str:
        return say(client, temperature=1.0, seed=seed, max_tokens=8).choices[0].message.content

    assert text(7) == text(7)
    assert len({text(seed) for seed in (1, 2, 3)}) > 1


def test_max_completion_tokens_bounds_the_reply(client):
    reply = say(client, max_tokens=openai.omit, max_completion_tokens=3)
    assert reply.usage.completion_tokens == 3
    assert reply.choices[0].finish_reason == "length"


def test_several_choices_come_whole_and_streamed_by_index(client):
    whole = say(client, n=2, temperature=1.0, seed=5)
    texts = [choice.message.content for choice in whole.choices]
    assert [choice.index for choice in whole.choices] == [0, 1] and texts[0] != texts[1]
    streamed = ["", ""]
    for chunk in say(client, n=2, temperature=1.0, seed=5, stream=True):
        streamed[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert streamed == texts


def test_text_parts_and_developer_messages_are_understood(client):
    reply = client.chat.completions.create(
        model=MODEL,
        messages=[
            {"role": "developer", "content": "Answer briefly."},
            {"role": "user", "content": [{"type": "text", "text": "Say hello."}]},
        ],
        max_tokens=8,
    )
    assert reply.choices[0].message.content


def test_four_chats_at_once_all_stream(server):
    async def one(client: openai.AsyncOpenAI, question: str) -> tuple[float, float, str]:
        clock = asyncio.get_running_loop().time
        stream = await client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": question}],
            max_tokens=48,
            temperature=0,
            stream=True,
            extra_body={"ignore": "unknown fields"},
        )
        first, text = 0.0, ""
        async for chunk in stream:
            content = chunk.choices[0].delta.content
            first = first or (clock() if content else 0.0)
            text += content or ""
        return first, clock(), text

    async def main():
        questions = [f"Tell me a story about {thing}." for thing in ("a cat", "rain", "a ship", "bread")]
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none") as client:
            return await asyncio.gather(*(one(client, question) for question in questions))

    runs = asyncio.run(main())
    assert all(len(text) > 40 for _, _, text in runs)
    # All had begun before the first one ended: they decoded together.
    assert max(first for first, _, _ in runs) < min(last for _, last, _ in runs)


def test_log_probabilities_come_whole_and_streamed(client):
    whole = say(client, logprobs=True, top_logprobs=2, max_tokens=6).choices[0]
    content = whole.logprobs.content
    assert b"".join(bytes(one.bytes) for one in content).decode() == whole.message.content
    assert all(one.top_logprobs[0].token == one.token and one.logprob <= 0 for one in content)
    streamed = [
        one
        for chunk in say(client, logprobs=True, top_logprobs=2, max_tokens=6, stream=True)
        if chunk.choices[0].logprobs
        for one in chunk.choices[0].logprobs.content
    ]
    assert streamed == content
    assert say(client, max_tokens=2).choices[0].logprobs is None


def test_plain_completions_report_log_probabilities_in_their_own_shape(client):
    asked = {"model": MODEL, "prompt": "One, two,", "max_tokens": 4, "temperature": 0, "logprobs": 2}
    choice = client.completions.create(**asked).choices[0]
    assert "".join(choice.logprobs.tokens) == choice.text
    assert choice.logprobs.text_offset[:2] == [0, len(choice.logprobs.tokens[0])]
    assert [len(top) for top in choice.logprobs.top_logprobs] == [2] * 4
    offsets = [
        offset
        for chunk in client.completions.create(**asked, stream=True)
        if chunk.choices[0].logprobs
        for offset in chunk.choices[0].logprobs.text_offset
    ]
    assert offsets == choice.logprobs.text_offset


def test_a_biased_token_is_all_that_is_said(client):
    token = say(client, logprobs=True, max_tokens=1).choices[0].logprobs.content[0]
    forced = say(client, logit_bias={"49000": 100}, max_tokens=3, logprobs=True).choices[0].logprobs.content
    assert len({one.token for one in forced}) == 1 and forced[0].token != token.token


def test_plain_completions_go_on_from_the_prompt(client):
    reply = client.completions.create(
        model=MODEL, prompt="The capital of France is", max_tokens=8, temperature=0
    )
    assert "Paris" in reply.choices[0].text
    streamed = client.completions.create(
        model=MODEL, prompt="The capital of France is", max_tokens=8, temperature=0, stream=True
    )
    assert "".join(chunk.choices[0].text for chunk in streamed) == reply.choices[0].text


def test_models_are_listed_and_found(client):
    assert {model.id for model in client.models.list()} == {MODEL, "all-minilm-l6-v2", "vit-fashion"}
    assert client.models.retrieve(MODEL).id == MODEL
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("org/model")
