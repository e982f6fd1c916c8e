"""The body of a chat completion, and its messages as the engine takes them."""

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

from engine.errors import InvalidRequest, UnsupportedInput
from engine.generate.constraint import Constraint
from engine.generate.request import MOST_TOP_LOGPROBS
from engine.text.tool_calls import Tool
from serve.routes.sampling import CompletionFields
from serve.routes.tools import (
    ResponseFormat,
    ToolCall,
    ToolChoice,
    ToolField,
    response_constraint,
    tools_of,
)

__all__ = ["ChatRequest"]

_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "tool"}


class ContentPart(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")

    type: str
    text: str | None = None


class ChatMessage(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")

    role: str
    content: str | list[ContentPart] | None = None
    tool_calls: list[ToolCall] | None = None


class ChatRequest(CompletionFields):
    messages: list[ChatMessage]
    max_completion_tokens: int | None = None
    response_format: ResponseFormat | None = None
    tools: list[ToolField] | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    functions: list[Any] | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    audio: Any = None

    unsupported: ClassVar[tuple[str, ...]] = ("functions", "audio")

    @property
    def new_tokens(self) -> int | None:
        """The newer name wins where both are given."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    @property
    def likeliest(self) -> int | None:
        if self.top_logprobs is not None and not self.logprobs:
            raise InvalidRequest("top_logprobs needs logprobs to be true", param="top_logprobs")
        if self.top_logprobs is not None and not 0 <= self.top_logprobs <= MOST_TOP_LOGPROBS:
            raise InvalidRequest(f"top_logprobs must be 0 to {MOST_TOP_LOGPROBS}", param="top_logprobs")
        return (self.top_logprobs or 0) if self.logprobs else None

    def tools_and_constraint(self) -> tuple[list[Tool], Constraint | None]:
        """The tools that the model is told of, and what they ask of its reply."""
        parallel = True if self.parallel_tool_calls is None else self.parallel_tool_calls
        return tools_of(self.tools or [], self.tool_choice or "auto", parallel)

    def _constraints(self) -> list[Constraint]:
        called = self.tools_and_constraint()[1]
        formatted = self.response_format and response_constraint(self.response_format)
        return [*super()._constraints(), *(one for one in (called, formatted) if one)]

    def chat(self) -> list[dict[str, Any]]:
        """The messages as role and text, with the calls that an assistant made.

        Raises:
            InvalidRequest: none at all, an unknown role, or calls that are no JSON.
            UnsupportedInput: an image, audio or file part; `param` says which.
        """
        if not self.messages:
            raise InvalidRequest("messages must hold at least one message", param="messages")
        return [_message(message, f"messages[{i}]") for i, message in enumerate(self.messages)]


def _message(message: ChatMessage, place: str) -> dict[str, Any]:
    if message.role not in _ROLES:
        raise InvalidRequest(
            f"{place}.role must be one of {', '.join(_ROLES)}, not {message.role[:40]!r}",
            param=f"{place}.role",
        )
    if message.content is None and message.role != "assistant":
        raise InvalidRequest(f"{place}.content must be a string or a list of parts", param=f"{place}.content")
    found: dict[str, Any] = {"role": _ROLES[message.role]}
    found["content"] = _text(message.content, f"{place}.content")
    if message.tool_calls:
        if message.role != "assistant":
            raise InvalidRequest(f"{place}: only an assistant calls tools", param=f"{place}.tool_calls")
        found["tool_calls"] = [
            call.for_template(f"{place}.tool_calls[{n}]") for n, call in enumerate(message.tool_calls)
        ]
    return found


def _text(content: str | list[ContentPart] | None, place: str) -> str:
    if not isinstance(content, list):
        return content or ""
    for index, part in enumerate(content):
        if part.type != "text":
            raise UnsupportedInput(
                f"{place}[{index}]: this model reads text only, not a part of type {part.type[:40]!r}",
                param=f"{place}[{index}]",
            )
        if part.text is None:
            raise InvalidRequest(f"{place}[{index}].text is missing", param=f"{place}[{index}].text")
    return "\n".join(part.text or "" for part in content)
