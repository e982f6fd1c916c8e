"""The JSON of OpenAI's chat and text completions, whole and in chunks."""

import secrets
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from engine.generate.request import FinishReason, Piece, TokenLogprobs, Usage
from serve.streaming.logprobs import TokenBytes, chat_logprobs, text_logprobs

__all__ = ["ChatReply", "Choice", "TextReply", "usage_json"]


@dataclass
class Choice:
    """One sequence as it grows."""

    text: str = ""
    finish_reason: FinishReason | None = None
    logprobs: list[TokenLogprobs] = field(default_factory=list)

    def add(self, piece: Piece) -> None:
        self.text += piece.text
        self.logprobs += piece.logprobs
        self.finish_reason = piece.finish_reason


def usage_json(usage: Usage) -> dict[str, int]:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }


@dataclass(frozen=True)
class _Reply:
    """`with_usage` is the client's `stream_options.include_usage`: then every chunk has the key.

    `token_bytes` is what each token adds to a text, for log-probabilities.
    """

    model: str
    token_bytes: TokenBytes
    with_usage: bool = False
    created: int = field(default_factory=lambda: int(time.time()))
    id: str = ""

    def _body(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "choices": choices,
        }

    def _chunk(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return self._body(kind, choices) | ({"usage": None} if self.with_usage else {})


@dataclass(frozen=True)
class ChatReply(_Reply):
    id: str = field(default_factory=lambda: f"chatcmpl-{secrets.token_hex(12)}")

    def opening(self, index: int) -> dict[str, Any]:
        return self._delta(index, {"role": "assistant", "content": ""})

    def increments(
        self, index: int, text: str, logprobs: Sequence[TokenLogprobs] = (), *, offset: int = 0
    ) -> Iterator[dict[str, Any]]:
        yield self._delta(index, {"content": text}, logprobs=logprobs)

    def endings(self, index: int, reason: FinishReason) -> Iterator[dict[str, Any]]:
        yield self._delta(index, {}, reason)

    def usage_chunk(self, usage: Usage) -> dict[str, Any]:
        return self._body("chat.completion.chunk", []) | {"usage": usage_json(usage)}

    def whole(self, choices: Sequence[Choice], usage: Usage) -> dict[str, Any]:
        listed = [
            {
                "index": index,
                "message": self._message(index, choice),
                "logprobs": chat_logprobs(choice.logprobs, self.token_bytes),
                "finish_reason": self._reason(index, choice.finish_reason),
            }
            for index, choice in enumerate(choices)
        ]
        return self._body("chat.completion", listed) | {"usage": usage_json(usage)}

    def _message(self, index: int, choice: Choice) -> dict[str, Any]:
        return {"role": "assistant", "content": choice.text, "refusal": None}

    def _reason(self, index: int, reason: FinishReason | None) -> str | None:
        return reason

    def _delta(
        self,
        index: int,
        delta: dict[str, Any],
        reason: str | None = None,
        logprobs: Sequence[TokenLogprobs] = (),
    ) -> dict[str, Any]:
        shown = chat_logprobs(logprobs, self.token_bytes)
        choice = {"index": index, "delta": delta, "logprobs": shown, "finish_reason": reason}
        return self._chunk("chat.completion.chunk", [choice])


@dataclass(frozen=True)
class TextReply(_Reply):
    id: str = field(default_factory=lambda: f"cmpl-{secrets.token_hex(12)}")

    def opening(self, index: int) -> None:
        """Text completions have no opening chunk."""

    def increments(
        self, index: int, text: str, logprobs: Sequence[TokenLogprobs] = (), *, offset: int = 0
    ) -> Iterator[dict[str, Any]]:
        """`offset` characters of this choice were sent before."""
        shown = text_logprobs(logprobs, self.token_bytes, offset)
        yield self._chunk("text_completion", [_text_choice(index, text, None, shown)])

    def endings(self, index: int, reason: FinishReason) -> Iterator[dict[str, Any]]:
        yield self._chunk("text_completion", [_text_choice(index, "", reason, None)])

    def usage_chunk(self, usage: Usage) -> dict[str, Any]:
        return self._body("text_completion", []) | {"usage": usage_json(usage)}

    def whole(self, choices: Sequence[Choice], usage: Usage) -> dict[str, Any]:
        listed = [
            _text_choice(
                index,
                choice.text,
                choice.finish_reason,
                text_logprobs(choice.logprobs, self.token_bytes, 0),
            )
            for index, choice in enumerate(choices)
        ]
        return self._body("text_completion", listed) | {"usage": usage_json(usage)}


def _text_choice(
    index: int, text: str, reason: FinishReason | None, logprobs: dict[str, Any] | None
) -> dict[str, Any]:
    return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": reason}
