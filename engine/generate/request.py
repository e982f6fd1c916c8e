"""What one generation is asked for and what it gives: plain frozen data, no tensors."""

import math
from dataclasses import dataclass
from typing import Literal

from engine.errors import InvalidRequest
from engine.generate.constraint import Constraint

FinishReason = Literal["stop", "length", "cancelled", "deadline", "error"]

MOST_TOP_LOGPROBS = 20
LOWEST_PRIORITY, HIGHEST_PRIORITY = 10, -10
MOST_BIASES = 1024
MOST_STOP_TOKENS = 64


@dataclass(frozen=True)
class SamplingParams:
    """How tokens are chosen. The defaults are plain sampling; `temperature=0` is greedy.

    Args:
        max_tokens: most new tokens; None means up to the end of the context.
        temperature: 0 is greedy, in [0, 2].
        top_k: keep the k likeliest tokens; 0 keeps all.
        top_p: keep the smallest set whose probability reaches p, in (0, 1].
        min_p: drop tokens less likely than min_p times the likeliest, in [0, 1).
        typical_p: keep the tokens whose surprise is nearest to the expected one, up to this
            probability (Meister et al., 2022), in (0, 1].
        repetition_penalty: divides positive (multiplies negative) logits of seen tokens (CTRL, 2019), > 0.
        presence_penalty: subtracted once from the logits of generated tokens, in [-2, 2].
        frequency_penalty: subtracted per occurrence from the logits of generated tokens, in [-2, 2].
        logit_bias: (token id, number in [-100, 100]) pairs, added to those tokens' logits.
        seed: same seed and request give the same text; None draws one.
        min_tokens: end tokens are not drawn before so many tokens; stop strings still count.
        stop: strings that end the text and are not part of it; they may span tokens.
        stop_token_ids: tokens that end the text as the model's own end token does.
        logprobs: report the log-probability of each token and of so many likeliest ones, 0 to 20,
            by the model's own distribution: before penalties, bias and temperature. None reports none.
        ignore_eos: go on past the model's end token (benchmarks).
    """

    max_tokens: int | None = None
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    typical_p: float = 1.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    seed: int | None = None
    min_tokens: int = 0
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    logprobs: int | None = None
    ignore_eos: bool = False

    def __post_init__(self) -> None:
        ranges: tuple[tuple[str, bool, str], ...] = (
            ("max_tokens", self.max_tokens is None or self.max_tokens >= 1, "at least 1"),
            ("temperature", 0.0 <= self.temperature <= 2.0, "in [0, 2]"),
            ("top_k", self.top_k >= 0, "0 or more"),
            ("top_p", 0.0 < self.top_p <= 1.0, "in (0, 1]"),
            ("min_p", 0.0 <= self.min_p < 1.0, "in [0, 1)"),
            ("typical_p", 0.0 < self.typical_p <= 1.0, "in (0, 1]"),
            ("repetition_penalty", 0.0 < self.repetition_penalty <= 10.0, "in (0, 10]"),
            ("presence_penalty", -2.0 <= self.presence_penalty <= 2.0, "in [-2, 2]"),
            ("frequency_penalty", -2.0 <= self.frequency_penalty <= 2.0, "in [-2, 2]"),
            ("min_tokens", self.min_tokens >= 0, "0 or more"),
            ("stop", len(self.stop) <= 16 and all(self.stop), "at most 16 non-empty strings"),
            (
                "stop_token_ids",
                len(self.stop_token_ids) <= MOST_STOP_TOKENS,
                f"at most {MOST_STOP_TOKENS} token ids",
            ),
            (
                "logprobs",
                self.logprobs is None or 0 <= self.logprobs <= MOST_TOP_LOGPROBS,
                f"0 to {MOST_TOP_LOGPROBS}",
            ),
            (
                "logit_bias",
                len(self.logit_bias) <= MOST_BIASES
                and all(math.isfinite(bias) and abs(bias) <= 100 for _, bias in self.logit_bias),
                f"at most {MOST_BIASES} tokens with numbers in [-100, 100]",
            ),
        )
        for name, valid, wanted in ranges:
            if not valid:
                given = repr(getattr(self, name))
                shown = given if len(given) <= 80 else f"{given[:80]}..."
                raise InvalidRequest(f"{name} must be {wanted}, not {shown}", param=name)
        if self.max_tokens is not None and self.min_tokens > self.max_tokens:
            raise InvalidRequest(
                f"min_tokens is {self.min_tokens}, more than max_tokens, {self.max_tokens}",
                param="min_tokens",
            )


@dataclass(frozen=True)
class GenerationRequest:
    """
    Args:
        priority: lower goes first, from -10 to 10; each step is worth a fixed number of later arrivals,
            so nobody waits for ever.
        constraint: what the text of the reply must look like.
        timeout: seconds after which it ends with reason "deadline", waiting or running; None for never.
    """

    prompt_ids: tuple[int, ...]
    sampling: SamplingParams = SamplingParams()
    priority: int = 0
    timeout: float | None = None
    constraint: Constraint | None = None

    def __post_init__(self) -> None:
        if not HIGHEST_PRIORITY <= self.priority <= LOWEST_PRIORITY:
            wanted = f"from {HIGHEST_PRIORITY} (first) to {LOWEST_PRIORITY} (last)"
            raise InvalidRequest(f"priority must be {wanted}, not {self.priority}", param="priority")
        if self.timeout is not None and not 0 < self.timeout < math.inf:
            raise InvalidRequest(f"timeout must be a number of seconds, not {self.timeout}", param="timeout")
        if self.constraint is not None and self.sampling.ignore_eos:
            raise InvalidRequest("a constrained reply ends where its grammar does", param="ignore_eos")


@dataclass(frozen=True)
class TokenLogprobs:
    """A token's natural log-probability, and (token id, log-probability) of the likeliest, best first."""

    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class Piece:
    """One increment of a stream. The last piece, and only it, has a `finish_reason`.

    `text` is valid UTF-8 on its own and never holds part of a stop string; it may be empty.
    `token_ids` are the tokens that became known since the piece before; `logprobs` has one entry for
    each of them if the request asked for it, and is empty otherwise.
    """

    text: str
    token_ids: tuple[int, ...] = ()
    finish_reason: FinishReason | None = None
    error: str | None = None
    logprobs: tuple[TokenLogprobs, ...] = ()


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
    logprobs: tuple[TokenLogprobs, ...] = ()
