"""Log-probabilities as OpenAI writes them: per token for chats, in four lists for text completions."""

from collections.abc import Callable, Sequence
from typing import Any

from engine.generate.request import TokenLogprobs

__all__ = ["TokenBytes", "chat_logprobs", "text_logprobs"]

TokenBytes = Callable[[int], bytes]

_LOWEST = -9999.0
"""In place of minus infinity, which JSON does not have; OpenAI's own stand-in."""


def chat_logprobs(tokens: Sequence[TokenLogprobs], token_bytes: TokenBytes) -> dict[str, Any] | None:
    """`choices[].logprobs` of a chat completion or chunk; None where none were asked for."""
    if not tokens:
        return None

    def entry(token_id: int, logprob: float) -> dict[str, Any]:
        raw = token_bytes(token_id)
        text = raw.decode(errors="replace")
        return {"token": text, "logprob": max(logprob, _LOWEST), "bytes": list(raw)}

    content = [
        entry(one.token_id, one.logprob) | {"top_logprobs": [entry(*likely) for likely in one.top]}
        for one in tokens
    ]
    return {"content": content, "refusal": None}


def text_logprobs(
    tokens: Sequence[TokenLogprobs], token_bytes: TokenBytes, offset: int
) -> dict[str, Any] | None:
    """`choices[].logprobs` of a text completion; `offset` characters come before the first token.

    Of two likeliest tokens with the same text the likelier one is listed.
    """
    if not tokens:
        return None
    texts = [token_bytes(one.token_id).decode(errors="replace") for one in tokens]
    offsets = []
    for text in texts:
        offsets.append(offset)
        offset += len(text)
    return {
        "tokens": texts,
        "token_logprobs": [max(one.logprob, _LOWEST) for one in tokens],
        "top_logprobs": [_by_text(one.top, token_bytes) for one in tokens] if tokens[0].top else None,
        "text_offset": offsets,
    }


def _by_text(top: Sequence[tuple[int, float]], token_bytes: TokenBytes) -> dict[str, float]:
    backwards = reversed(top)
    return {token_bytes(token).decode(errors="replace"): max(value, _LOWEST) for token, value in backwards}
