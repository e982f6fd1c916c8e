"""The fields that chat and text completions share, and what of OpenAI's we do not do."""

from dataclasses import replace
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from engine.errors import InvalidRequest, UnsupportedInput
from engine.generate.constraint import Constraint
from engine.generate.request import GenerationRequest, SamplingParams

__all__ = ["CompletionFields", "StreamOptions"]

MAX_CHOICES = 16
_Int64 = Annotated[int, Field(ge=-(2**63), le=2**63 - 1)]
_Count = Annotated[int, Field(ge=1, le=2**31 - 1)]

_SAMPLING_FIELDS = (
    "seed",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "typical_p",
    "min_tokens",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "ignore_eos",
)


class StreamOptions(BaseModel):
    include_usage: bool = False


class CompletionFields(BaseModel):
    """Unknown fields are ignored, as clients send many; known ones that would change the answer and
    that we cannot honour are refused by `refuse_unsupported`, rather than ignored in silence.
    """

    model_config = ConfigDict(strict=True, extra="ignore")

    model: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = None
    max_tokens: _Count | None = None
    stop: str | list[str] | None = None
    seed: _Int64 | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    typical_p: float | None = None
    min_tokens: int | None = None
    stop_token_ids: list[int] | None = None
    ignore_eos: bool | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    guided_json: dict[str, Any] | None = None
    guided_regex: str | None = None
    guided_choice: list[str] | None = None
    priority: int | None = None
    timeout: float | None = None

    unsupported: ClassVar[tuple[str, ...]] = ()

    def refuse_unsupported(self) -> None:
        """Raises UnsupportedInput for the first field that is set and cannot be honoured."""
        for name in self.unsupported:
            if getattr(self, name):
                raise UnsupportedInput(f"{name} is not supported; leave it out", param=name)

    @property
    def wants_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage

    def sampling(self) -> list[SamplingParams]:
        """One set of parameters per choice; a given seed goes up by one from choice to choice.

        Raises:
            InvalidRequest: a value out of range; `param` names it.
        """
        given = {n: value for n in _SAMPLING_FIELDS if (value := getattr(self, n)) is not None}
        stop = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())
        first = SamplingParams(
            max_tokens=self.new_tokens,
            stop=tuple(s for s in stop if s),
            stop_token_ids=tuple(self.stop_token_ids or ()),
            logit_bias=tuple(_bias(token, value) for token, value in (self.logit_bias or {}).items()),
            logprobs=self.likeliest,
            **given,
        )
        seed = self.seed
        return [
            first if seed is None else replace(first, seed=(seed + index) % 2**63)
            for index in range(self.n or 1)
        ]

    def requests(self, prompt: tuple[int, ...]) -> list[GenerationRequest]:
        """One request per choice. Raises InvalidRequest as `sampling` does."""
        constraint = self.constraint()
        return [
            GenerationRequest(prompt, one, self.priority or 0, self.timeout, constraint)
            for one in self.sampling()
        ]

    def constraint(self) -> Constraint | None:
        """What the reply must look like. Raises InvalidRequest for two ways of saying it at once."""
        given = self._constraints()
        if len(given) > 1:
            names = " and ".join(sorted(one.param for one in given))
            raise InvalidRequest(f"{names} cannot be combined", param=given[1].param)
        return given[0] if given else None

    def _constraints(self) -> list[Constraint]:
        found = []
        if self.guided_json is not None:
            found.append(Constraint.json_schema(self.guided_json, "guided_json"))
        if self.guided_regex is not None:
            found.append(Constraint.regex(self.guided_regex))
        if self.guided_choice is not None:
            found.append(Constraint.choice(self.guided_choice))
        return found

    @property
    def new_tokens(self) -> int | None:
        return self.max_tokens

    @property
    def likeliest(self) -> int | None:
        """How many likeliest tokens to report beside each token; None reports no log-probability."""
        return None


def _bias(token: str, value: float) -> tuple[int, float]:
    if not token.isascii() or not token.isdecimal() or len(token) > 9:
        raise InvalidRequest(
            f"logit_bias maps token ids to numbers; {token[:40]!r} is no token id", param="logit_bias"
        )
    return int(token), value
