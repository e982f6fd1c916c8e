"""A chat's reply that may call tools: text and calls told apart, whole and in OpenAI's deltas."""

import secrets
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from engine.generate.request import FinishReason, TokenLogprobs
from engine.text.tool_calls import CallArguments, CallStart, ToolCallParser, ToolEvent
from serve.streaming.replies import ChatReply, Choice

__all__ = ["ToolReply"]


@dataclass(frozen=True)
class ToolReply(ChatReply):
    """Belongs to one response: it keeps a parser for each of its choices."""

    _parsers: dict[int, ToolCallParser] = field(default_factory=lambda: defaultdict(ToolCallParser))

    def increments(
        self, index: int, text: str, logprobs: Sequence[TokenLogprobs] = (), *, offset: int = 0
    ) -> Iterator[dict[str, Any]]:
        deltas = [_delta_of(event) for event in self._parsers[index].push(text)]
        if logprobs and not deltas:
            deltas = [{"content": ""}]
        for number, delta in enumerate(deltas):
            yield self._delta(index, delta, logprobs=() if number else logprobs)

    def endings(self, index: int, reason: FinishReason) -> Iterator[dict[str, Any]]:
        for event in self._parsers[index].end():
            yield self._delta(index, _delta_of(event))
        yield self._delta(index, {}, self._reason(index, reason))

    def _message(self, index: int, choice: Choice) -> dict[str, Any]:
        parser = self._parsers[index]
        text, calls = "", list[dict[str, Any]]()
        for event in (*parser.push(choice.text), *parser.end()):
            if isinstance(event, str):
                text += event
            elif isinstance(event, CallStart):
                calls.append(_call(event.name))
            else:
                calls[event.index]["function"]["arguments"] += event.text
        message: dict[str, Any] = {"role": "assistant", "content": text or None, "refusal": None}
        return message | ({"tool_calls": calls} if calls else {"content": text})

    def _reason(self, index: int, reason: FinishReason | None) -> str | None:
        return "tool_calls" if reason == "stop" and self._parsers[index].calls else reason


def _delta_of(event: ToolEvent) -> dict[str, Any]:
    if isinstance(event, CallStart):
        return {"tool_calls": [{"index": event.index, **_call(event.name)}]}
    if isinstance(event, CallArguments):
        return {"tool_calls": [{"index": event.index, "function": {"arguments": event.text}}]}
    return {"content": event}


def _call(name: str) -> dict[str, Any]:
    return {
        "id": f"call_{secrets.token_hex(12)}",
        "type": "function",
        "function": {"name": name, "arguments": ""},
    }
