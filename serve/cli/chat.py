"""`tarsia chat`: one message, or a conversation that streams."""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from engine import Engine
from engine.errors import TarsiaError
from serve.cli.output import print_json, stages
from serve.config import load_settings

Message = dict[str, str]


def run(
    message: str | None,
    system: str | None,
    flags: Mapping[str, Any],
    config_file: Path | None,
    *,
    sampling: Mapping[str, Any],
    as_json: bool,
) -> None:
    settings = load_settings(flags, config_file=config_file).settings
    with stages() as stage:
        stage(f"load {settings.chat_model}", 0, 1)
        engine = Engine.load(
            settings.chat_model, quant=settings.quant, max_slots=1, max_context=settings.max_context
        )
    history: list[Message] = [{"role": "system", "content": system}] if system else []
    try:
        if message is not None:
            _answer_once(engine, [*history, {"role": "user", "content": message}], sampling, as_json=as_json)
        else:
            _converse(engine, history, sampling)
    finally:
        engine.close()


def _answer_once(
    engine: Engine, messages: list[Message], sampling: Mapping[str, Any], *, as_json: bool
) -> None:
    if not as_json:
        _stream(engine, messages, sampling)
        return
    done = engine.chat(messages, **sampling)
    print_json(
        {
            "text": done.text,
            "finish_reason": done.finish_reason,
            "prompt_tokens": done.usage.prompt_tokens,
            "completion_tokens": done.usage.completion_tokens,
        }
    )


def _converse(engine: Engine, history: list[Message], sampling: Mapping[str, Any]) -> None:
    if sys.stdin.isatty():
        print(f"{engine.name}; an empty line or Ctrl-D ends the conversation", file=sys.stderr)
    for line in _lines():
        history.append({"role": "user", "content": line})
        try:
            reply = _stream(engine, history, sampling)
        except TarsiaError as error:
            print(f"tarsia: {error}", file=sys.stderr)
            history.pop()
            continue
        history.append({"role": "assistant", "content": reply})


def _lines() -> Iterator[str]:
    while True:
        try:
            line = input("> " if sys.stdin.isatty() else "")
        except EOFError:
            return
        if not line.strip():
            return
        yield line


def _stream(engine: Engine, messages: list[Message], sampling: Mapping[str, Any]) -> str:
    text = ""
    for piece in engine.chat(messages, stream=True, **sampling):
        text += piece.text
        print(piece.text, end="", flush=True)
    print()
    return text
