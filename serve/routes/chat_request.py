"""The body of a chat completion, and its messages as the engine takes them."""

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

from engine.errors import InvalidRequest, UnsupportedInput
from engine.generate.request import MOST_TOP_LOGPROBS
from serve.routes.sampling import CompletionFields

__all__ = ["ChatRequest"]

_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
_TOOL_ROLES = frozenset({"tool", "function"})


class ContentPart(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")

    type: str
    text: str | None = None


class ChatMessage(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")

    role: str
    content: str | list[ContentPart] | None = None
    tool_calls: list[Any] | None = None


class ResponseFormat(BaseModel):
    type: str


class ChatRequest(CompletionFields):
    messages: list[ChatMessage]
    max_completion_tokens: int | None = None
    response_format: ResponseFormat | None = None
    tools: list[Any] | None = None
    functions: list[Any] | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    audio: Any = None

    unsupported: ClassVar[tuple[str, ...]] = ("tools", "functions", "audio")

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

    def refuse_unsupported(self) -> None:
        super().refuse_unsupported()
        if self.response_format is not None and self.response_format.type != "text":
            raise UnsupportedInput(
                f"response_format {self.response_format.type!r} is not supported; only 'text' is",
                param="response_format",
            )

    def chat(self) -> list[dict[str, str]]:
        """The messages as role and text.

        Raises:
            InvalidRequest: none at all, or an unknown role.
            UnsupportedInput: an image, audio or file part, or a tool's message; `param` says which.
        """
        if not self.messages:
            raise InvalidRequest("messages must hold at least one message", param="messages")
        return [_message(message, f"messages[{i}]") for i, message in enumerate(self.messages)]


def _message(message: ChatMessage, place: str) -> dict[str, str]:
    if message.role in _TOOL_ROLES or message.tool_calls:
        raise UnsupportedInput(f"{place}: tools are not supported", param=place)
    if message.role not in _ROLES:
        raise InvalidRequest(
            f"{place}.role must be one of {', '.join(_ROLES)}, not {message.role[:40]!r}",
            param=f"{place}.role",
        )
    if message.content is None and message.role != "assistant":
        raise InvalidRequest(f"{place}.content must be a string or a list of parts", param=f"{place}.content")
    return {"role": _ROLES[message.role], "content": _text(message.content, f"{place}.content")}


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
