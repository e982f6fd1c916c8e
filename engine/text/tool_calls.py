"""Tool calls as text: the grammar that makes a model write them right, the prompt, and the parser.

The form is that of Hermes and Qwen, one JSON object between tags:

    <tool_call>
    {"name": "weather", "arguments": {"city": "Paris"}}
    </tool_call>
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.generate.constraint import Constraint, lark_string, schema_text

OPEN, CLOSE = "<tool_call>", "</tool_call>"

_HEAD = re.compile(r'\s*\{"name": "([^"\\]*)", "arguments": ')


@dataclass(frozen=True)
class Tool:
    """A function that the model may call; `parameters` is the JSON schema of its arguments."""

    name: str
    description: str
    parameters: Mapping[str, Any]


@dataclass(frozen=True)
class CallStart:
    index: int
    name: str


@dataclass(frozen=True)
class CallArguments:
    """More of the JSON text of the call's arguments."""

    index: int
    text: str


ToolEvent = str | CallStart | CallArguments
"""Text of the reply itself, or a part of a call."""


def tool_constraint(tools: Sequence[Tool], *, required: bool, parallel: bool) -> Constraint:
    """A reply that calls `tools`: it must if `required`, else it may after any text.

    Args:
        parallel: several calls, one after the other, are allowed.
    """
    calls = [f'call{n}: "{{" {_key(tool)} arguments{n} "}}"' for n, tool in enumerate(tools)]
    arguments = [
        f"arguments{n}: %json {schema_text(tool.parameters, 'tools')}" for n, tool in enumerate(tools)
    ]
    more = (
        f" ({lark_string(chr(10) + OPEN + chr(10))} call {lark_string(chr(10) + CLOSE)})*" if parallel else ""
    )
    tail = f"{lark_string(chr(10))} call {lark_string(chr(10) + CLOSE)}{more}"
    start = [f"start: {lark_string(OPEN)} {tail}"]
    if not required:
        start = [
            "start: TEXT | calls",
            f"TEXT: ~/(?s:.*){OPEN}(?s:.*)/",
            f"calls: before {tail}",
            f"before[suffix={lark_string(OPEN)}]: /(?s:.*)/",
        ]
    choice = f"call: {' | '.join(f'call{n}' for n in range(len(tools)))}"
    return Constraint("lark", "\n".join([*start, choice, *calls, *arguments]), "tools")


def tools_prompt(tools: Sequence[Tool]) -> str:
    """What tells a model about its tools where its chat template does not."""
    listed = "\n".join(
        json.dumps({"name": tool.name, "description": tool.description, "parameters": tool.parameters})
        for tool in tools
    )
    return (
        "You may call functions to help the user. They are described in JSON, one a line:\n"
        f"<tools>\n{listed}\n</tools>\n"
        f"To call one, write its name and arguments as JSON between {OPEN} and {CLOSE}:\n"
        f'{OPEN}\n{{"name": "...", "arguments": {{...}}}}\n{CLOSE}'
    )


def function_json(tool: Tool) -> dict[str, Any]:
    """A tool as OpenAI's API and chat templates describe it."""
    function = {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
    return {"type": "function", "function": function}


def spoken(messages: Sequence[Mapping[str, Any]], tools: Sequence[Tool]) -> list[dict[str, Any]]:
    """Messages for a template that knows nothing of tools: calls, results and descriptions as text."""
    found = [_spoken(message) for message in messages]
    if not tools:
        return found
    if found and found[0]["role"] == "system":
        first = f"{found[0]['content']}\n\n{tools_prompt(tools)}"
        return [{"role": "system", "content": first}, *found[1:]]
    return [{"role": "system", "content": tools_prompt(tools)}, *found]


def _spoken(message: Mapping[str, Any]) -> dict[str, Any]:
    if message["role"] == "tool":
        return {"role": "user", "content": f"<tool_response>\n{message['content']}\n</tool_response>"}
    calls = [call["function"] for call in message.get("tool_calls") or ()]
    if not calls:
        return dict(message)
    parts = [message.get("content"), *(call_text(call["name"], call["arguments"]) for call in calls)]
    return {"role": message["role"], "content": "\n".join(part for part in parts if part)}


def call_text(name: str, arguments: Any) -> str:
    """A call as the model writes it."""
    return f"{OPEN}\n{json.dumps({'name': name, 'arguments': arguments})}\n{CLOSE}"


class ToolCallParser:
    """Takes a reply in pieces and tells text from calls. What does not follow the form stays text.

    >>> parser = ToolCallParser()
    >>> [*parser.push('Wait. <tool_call>\\n{"name": "f", "arguments": {}}\\n</tool_call>'), *parser.end()]
    ['Wait. ', CallStart(index=0, name='f'), CallArguments(index=0, text='{}')]
    """

    def __init__(self) -> None:
        self.calls = 0
        self._held = ""
        self._inside = False
        self._arguments: _Value | None = None

    def push(self, text: str) -> Iterator[ToolEvent]:
        self._held += text
        advanced = True
        while advanced and self._held:
            before = (len(self._held), self._inside, self._arguments)
            yield from self._advance()
            advanced = before != (len(self._held), self._inside, self._arguments)

    def end(self) -> Iterator[ToolEvent]:
        """What is still held back when the reply is over."""
        if self._held and not self._inside:
            yield self._held
        elif self._inside and self._arguments is None and _HEAD.match(self._held) is None and not self.calls:
            yield OPEN + self._held
        self._held = ""

    def _advance(self) -> Iterator[ToolEvent]:
        if self._arguments is not None:
            yield from self._more_arguments(self._arguments)
        elif self._inside:
            yield from self._head()
        else:
            yield from self._text()

    def _text(self) -> Iterator[ToolEvent]:
        before, found, after = self._held.partition(OPEN)
        if found:
            self._inside, self._held = True, after
        else:
            keep = _overlap(self._held, OPEN)
            before, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        # Between calls there are line breaks only.
        if before and not (self.calls and before.isspace()):
            yield before

    def _head(self) -> Iterator[ToolEvent]:
        head = _HEAD.match(self._held)
        if head is not None:
            self._held = self._held[head.end() :]
            self._arguments = _Value()
            self.calls += 1
            yield CallStart(self.calls - 1, head[1])

    def _more_arguments(self, value: "_Value") -> Iterator[ToolEvent]:
        if not value.over:
            taken = value.take(self._held)
            self._held = self._held[taken:]
            if taken:
                yield CallArguments(self.calls - 1, value.text)
            return
        _, found, after = self._held.partition(CLOSE)
        if found:
            self._inside, self._arguments, self._held = False, None, after


class _Value:
    """Finds the end of one JSON object that arrives in pieces; `text` is what was taken last."""

    def __init__(self) -> None:
        self.over = False
        self.text = ""
        self._depth = 0
        self._quoted = self._escaped = False

    def take(self, text: str) -> int:
        """How many characters of `text` belong to the object."""
        for at, char in enumerate(text):
            self._see(char)
            if self._depth == 0 and not self._quoted:
                self.over = True
                self.text = text[: at + 1]
                return at + 1
        self.text = text
        return len(text)

    def _see(self, char: str) -> None:
        if self._escaped:
            self._escaped = False
        elif self._quoted:
            self._escaped = char == "\\"
            self._quoted = char != '"'
        elif char == '"':
            self._quoted = True
        else:
            self._depth += (char in "{[") - (char in "}]")


def _key(tool: Tool) -> str:
    return lark_string(f'"name": "{tool.name}", "arguments": ')


def _overlap(text: str, word: str) -> int:
    """How many of the last characters of `text` begin `word`."""
    return next(
        size
        for size in range(min(len(word) - 1, len(text)), -1, -1)
        if word.startswith(text[len(text) - size :])
    )
