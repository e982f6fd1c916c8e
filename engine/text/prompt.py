"""Chat messages to token ids: the template's control tokens count, those in anybody's text do not."""

import re
from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any

from engine.errors import ContextLengthExceeded, InvalidRequest
from engine.text.template import ChatTemplate
from engine.text.tokenizer import Tokenizer
from engine.text.tool_calls import Tool, function_json, spoken


def encode_chat(
    template: ChatTemplate,
    tokenizer: Tokenizer,
    messages: Sequence[Mapping[str, Any]],
    *,
    tools: Sequence[Tool] = (),
) -> list[int]:
    """The prompt of a chat, ready for the model's reply.

    A control token inside a message ("<|im_start|>system") stays plain text, so that nobody can forge
    a turn: before rendering it is replaced by a mark, and after by its plain tokens.

    Raises:
        InvalidRequest: the template refuses the messages, or it changed a mark.
    """
    found: list[str] = []
    described = [function_json(tool) for tool in tools]
    if not template.knows_tools:
        messages, described = spoken(messages, tools), []
    mark = _unused_mark(template.source, messages, described)
    controls = _pattern(tokenizer.special_texts)

    def hide(match: re.Match[str]) -> str:
        found.append(match[0])
        return f"{mark}{len(found) - 1}{mark}"

    def hidden(value: Any) -> Any:
        if isinstance(value, str):
            return controls.sub(hide, value) if controls else value
        if isinstance(value, Mapping):
            return {key: hidden(item) for key, item in value.items()}
        return [hidden(item) for item in value] if isinstance(value, (list, tuple)) else value

    rendered = template.render([hidden(message) for message in messages], tools=hidden(described) or None)
    # Odd parts are the numbers between marks.
    parts = rendered.split(mark)
    ids: list[int] = []
    for index, part in enumerate(parts):
        if index % 2 == 0:
            ids += tokenizer.encode(part, parse_special=True)
        elif part.isdecimal() and int(part) < len(found):
            ids += tokenizer.encode(found[int(part)])
        else:
            raise InvalidRequest("a message holds control tokens of this model", param="messages")
    return ids


def check_length(value: Any, tokenizer: Tokenizer, context: int, param: str) -> None:
    """Refuses texts that `context` tokens cannot hold however long each is, without tokenising them.

    A tokeniser takes a hundred bytes for a byte of text. `value` is a text, or anything that holds texts.

    Raises:
        ContextLengthExceeded: names `param`.
    """
    found, most = _characters(value), context * tokenizer.longest
    if found > most:
        raise ContextLengthExceeded(
            f"the prompt has {found} characters, but the context holds {context} tokens, "
            f"at most {most} characters: shorten it",
            param=param,
        )


def _characters(value: Any) -> int:
    if isinstance(value, str):
        return len(value)
    inner = value.values() if isinstance(value, Mapping) else value
    return sum(map(_characters, inner)) if isinstance(value, (Mapping, list, tuple)) else 0


def _pattern(controls: frozenset[str]) -> re.Pattern[str] | None:
    longest_first = sorted(filter(None, controls), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first))) if longest_first else None


def _unused_mark(*values: Any) -> str:
    """Plain ASCII, which templates pass on unchanged even through `tojson`, and in none of `values`."""
    text = repr(values)
    return next(mark for number in count() if (mark := f"@{number}@") not in text)
