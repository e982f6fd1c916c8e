"""What one generation is asked for and what it gives: plain frozen data, no tensors."""

from dataclasses import dataclass
from typing import Literal

from engine.errors import InvalidRequest

FinishReason = Literal["stop", "length", "cancelled", "error"]


@dataclass(frozen=True)
class SamplingParams:
    """How tokens are chosen. The defaults are plain sampling; `temperature=0` is greedy.

    Args:
        max_tokens: most new tokens; None means up to the end of the context.
        temperature: 0 is greedy, in [0, 2].
        top_k: keep the k likeliest tokens; 0 keeps all.
        top_p: keep the smallest set whose probability reaches p, in (0, 1].
        min_p: drop tokens less likely than min_p times the likeliest, in [0, 1).
        repetition_penalty: divides positive (multiplies negative) logits of seen tokens (CTRL, 2019), > 0.
        presence_penalty: subtracted once from the logits of generated tokens, in [-2, 2].
        frequency_penalty: subtracted per occurrence from the logits of generated tokens, in [-2, 2].
        seed: same seed and request give the same text; None draws one.
        stop: strings that end the text and are not part of it; they may span tokens.
        ignore_eos: go on past the model's end token (benchmarks).
    """

    max_tokens: int | None = None
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    ignore_eos: bool = False

    def __post_init__(self) -> None:
        ranges: tuple[tuple[str, bool, str], ...] = (
            ("max_tokens", self.max_tokens is None or self.max_tokens >= 1, "at least 1"),
            ("temperature", 0.0 <= self.temperature <= 2.0, "in [0, 2]"),
            ("top_k", self.top_k >= 0, "0 or more"),
            ("top_p", 0.0 < self.top_p <= 1.0, "in (0, 1]"),
            ("min_p", 0.0 <= self.min_p < 1.0, "in [0, 1)"),
            ("repetition_penalty", 0.0 < self.repetition_penalty <= 10.0, "in (0, 10]"),
            ("presence_penalty", -2.0 <= self.presence_penalty <= 2.0, "in [-2, 2]"),
            ("frequency_penalty", -2.0 <= self.frequency_penalty <= 2.0, "in [-2, 2]"),
            ("stop", len(self.stop) <= 16 and all(self.stop), "at most 16 non-empty strings"),
        )
        for name, valid, wanted in ranges:
            if not valid:
                raise InvalidRequest(f"{name} must be {wanted}, not {getattr(self, name)!r}", param=name)


@dataclass(frozen=True)
class GenerationRequest:
    prompt_ids: tuple[int, ...]
    sampling: SamplingParams = SamplingParams()


@dataclass(frozen=True)
class Piece:
    """One increment of a stream. The last piece, and only it, has a `finish_reason`.

    `text` is valid UTF-8 on its own and never holds part of a stop string; it may be empty.
    `token_ids` are the tokens that became known since the piece before.
    """

    text: str
    token_ids: tuple[int, ...] = ()
    finish_reason: FinishReason | None = None
    error: str | None = None


@dataclass(frozen=True)
class Usage:
    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True)
class Completion:
    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    usage: Usage
