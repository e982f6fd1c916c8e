"""One reply as it grows: tokens in, pieces of text out, and the reason it ends."""

from collections.abc import Callable, Collection
from dataclasses import replace

from engine.generate.request import FinishReason, Piece, SamplingParams, TokenLogprobs
from engine.text.detokenize import Detokenizer
from engine.text.stops import StopMatcher


class TextStream:
    """Knows when a reply is over: end token, stop string or length. A plain object, no model.

    Args:
        max_tokens: most tokens of the reply.
        eos_ids: tokens that end it, beside the request's own; they are neither text nor counted.
        token_bytes, skip: as `Detokenizer` takes them.
    """

    def __init__(
        self,
        sampling: SamplingParams,
        max_tokens: int,
        *,
        eos_ids: Collection[int],
        token_bytes: Callable[[int], bytes],
        skip: Collection[int] = (),
    ) -> None:
        self._left = max_tokens
        own = () if sampling.ignore_eos else eos_ids
        self.ends = frozenset((*own, *sampling.stop_token_ids))
        self._detokenizer = Detokenizer(token_bytes, skip)
        self._stops = StopMatcher(sampling.stop)
        self._reason: FinishReason | None = None
        self.tokens = 0

    @property
    def finished(self) -> bool:
        return self._reason is not None

    def push(self, token_id: int, logprobs: TokenLogprobs | None = None) -> Piece:
        """The piece that one more token gives; it has a `finish_reason` if the reply is over."""
        if token_id in self.ends:
            return self._last("stop")
        self.tokens += 1
        self._left -= 1
        text = self._stops.push(self._detokenizer.push(token_id))
        known = Piece(text, (token_id,), logprobs=() if logprobs is None else (logprobs,))
        if self._stops.stopped:
            return self._last("stop", known)
        return self._last("length", known) if self._left == 0 else known

    def end(self, reason: FinishReason, error: str | None = None) -> Piece:
        """The last piece of a reply that something outside of it ends."""
        return self._last(reason, error=error)

    def _last(self, reason: FinishReason, known: Piece = Piece(""), error: str | None = None) -> Piece:
        text = known.text
        if not self._stops.stopped:
            text += self._stops.push(self._detokenizer.flush())
        # The flushed mark may itself complete a stop string.
        self._reason = "stop" if self._stops.stopped else reason
        return replace(known, text=text + self._stops.flush(), finish_reason=self._reason, error=error)
