"""`Generator`: the thread that owns the device's generation state, and the door to it."""

import atexit
import logging
import queue
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType

from engine.errors import ContextLengthExceeded, InvalidRequest, ModelError, Overloaded, UnsupportedInput
from engine.generate.constraint import Constraint
from engine.generate.guide import Guide, GuideMaker
from engine.generate.job import Job
from engine.generate.model import KV_BYTES, DecoderStepModel
from engine.generate.request import Completion, GenerationRequest, Piece, Usage
from engine.generate.scheduler import Event, Scheduler
from engine.generate.step_model import StepModel
from engine.generate.text_stream import TextStream
from engine.models.decoder_config import DecoderConfig
from engine.protocols import Progress
from engine.text.tokenizer import Tokenizer
from engine.weights.checkpoint import Checkpoint

Sink = Callable[[Piece], None]
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class GeneratorStats:
    """A snapshot; counts are since the generator was made."""

    slots_total: int
    slots_live: int
    queued: int
    requests: int
    failed: int
    prompt_tokens: int
    tokens_generated: int
    compile_misses: int
    blocks_total: int
    blocks_held: int
    blocks_cached: int
    prefix_hit_tokens: int
    preemptions: int
    drafted_tokens: int
    accepted_tokens: int


class Ticket:
    """One submitted request. Thread-safe."""

    def __init__(self, job: Job, cancel: Callable[[Job], None]) -> None:
        self._job = job
        self._cancel = cancel

    def cancel(self) -> None:
        """Ends the request within one step; its last piece says "cancelled" unless it was over before."""
        self._cancel(self._job)

    @property
    def usage(self) -> Usage:
        """Tokens so far; the end token is not counted."""
        return Usage(len(self._job.request.prompt_ids), self._job.stream.tokens)


class PieceStream(Iterator[Piece]):
    """The pieces of one reply as they come. Closing it early, or dropping it, cancels the request."""

    def __init__(self, pieces: "queue.SimpleQueue[Piece]", ticket: Ticket) -> None:
        self._pieces = pieces
        self._over = False
        self.ticket = ticket

    def __next__(self) -> Piece:
        if self._over:
            raise StopIteration
        piece = self._pieces.get()
        self._over = piece.finish_reason is not None
        return piece

    def close(self) -> None:
        if not self._over:
            self._over = True
            self.ticket.cancel()

    def __del__(self) -> None:
        self.close()


class Generator:
    """Runs many requests at once on one model. All methods are thread-safe.

    A thread of its own steps the model from the first request until `close`, which ends what is
    still running. An exception in the model ends the requests it touched; the generator goes on.

    Args:
        tokenizer: None gives pieces without text.
        max_slots: most requests that run at once; as the model was built for.
        max_context: most tokens of prompt and reply together, if fewer than the model's.
        max_queue: most requests that wait for a slot.
        eos_ids: end tokens besides the tokenizer's.
        draw_seed: the seeds of requests that bring none.
        clock: seconds, for timeouts.

    >>> with Generator.for_checkpoint(load_checkpoint(path, quant="int8")) as generator:
    ...     for piece in generator.stream(GenerationRequest(tuple(tokenizer.encode("Once")))):
    ...         print(piece.text, end="")
    """

    def __init__(
        self,
        model: StepModel,
        tokenizer: Tokenizer | None,
        *,
        max_slots: int = 4,
        max_context: int | None = None,
        max_queue: int = 64,
        eos_ids: Collection[int] = (),
        draw_seed: Callable[[], int] = lambda: secrets.randbits(63),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._model = model
        self._scheduler = Scheduler(model, slots=max_slots, max_queue=max_queue)
        self._context = min(max_context or model.max_context, model.max_context)
        self._tokenizer = tokenizer
        self._eos_ids = frozenset((*eos_ids, *(tokenizer.eos_ids if tokenizer else ())))
        self._guides = GuideMaker(tokenizer, model.vocab_size, self._eos_ids) if tokenizer else None
        self._draw_seed = draw_seed
        self._clock = clock
        self._slots = max_slots
        self._capacity = max_slots + max_queue
        self._changed = threading.Condition()
        self._inbox: deque[Callable[[], None]] = deque()
        self._sinks: dict[Job, Sink] = {}
        self._requests = self._failed = 0
        self._closing = False
        self._thread: threading.Thread | None = None

    @classmethod
    def for_checkpoint(
        cls,
        checkpoint: Checkpoint,
        *,
        max_slots: int = 4,
        max_context: int | None = None,
        max_queue: int = 64,
        kv_bytes: int = KV_BYTES,
    ) -> "Generator":
        """A generator over a loaded decoder. Raises UnsupportedInput for another kind of model."""
        config = checkpoint.config
        if not isinstance(config, DecoderConfig):
            raise UnsupportedInput(f"{checkpoint.name} is an embedding model: it cannot chat", param="model")
        model = DecoderStepModel(
            checkpoint.params, config, max_slots=max_slots, max_context=max_context, kv_bytes=kv_bytes
        )
        return cls(
            model,
            checkpoint.tokenizer,
            max_slots=max_slots,
            max_context=max_context,
            max_queue=max_queue,
            eos_ids=checkpoint.eos_ids,
        )

    def submit(self, request: GenerationRequest, sink: Sink) -> Ticket:
        """Queues a request. `sink` gets each piece on the generator's thread and must not block.

        Raises InvalidRequest, ContextLengthExceeded or Overloaded, all before any work.
        """
        guide = None if request.constraint is None else self._guide(request.constraint)
        job = Job(request, self._text_stream(request), self._seed(request), guide)
        with self._changed:
            if self._closing:
                raise Overloaded("the model is being unloaded")
            if len(self._sinks) >= self._capacity:
                raise Overloaded(f"{len(self._sinks)} requests run or wait already; try again in a moment")
            self._requests += 1
            self._sinks[job] = sink
            now = self._clock()
            self._post(lambda: self._scheduler.submit(job, now))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="generator", daemon=True)
                self._thread.start()
                # A thread inside XLA while the interpreter ends would crash it.
                atexit.register(self.close)
        return Ticket(job, self._cancel)

    def prepare(self, constraint: Constraint | None) -> None:
        """Compiles a constraint, up to a second of work, so that `submit` finds it done.

        Raises InvalidRequest as `submit` would.
        """
        if constraint is not None:
            self._guide(constraint)

    def stream(self, request: GenerationRequest) -> PieceStream:
        """Submits now, and gives the pieces as they come. Raises as `submit` does."""
        pieces: queue.SimpleQueue[Piece] = queue.SimpleQueue()
        return PieceStream(pieces, self.submit(request, pieces.put))

    def generate(self, request: GenerationRequest) -> Completion:
        """The whole reply. Raises ModelError if the model fails in the middle, Overloaded after a timeout."""
        stream = self.stream(request)
        taken = list(stream)
        reason = taken[-1].finish_reason or "stop"
        if reason == "error":
            raise ModelError(taken[-1].error or "generation failed")
        if reason == "deadline":
            raise Overloaded(f"the timeout of {request.timeout} seconds passed before the reply was done")
        tokens = tuple(token for piece in taken for token in piece.token_ids)
        logprobs = tuple(one for piece in taken for one in piece.logprobs)
        text = "".join(piece.text for piece in taken)
        return Completion(text, tokens, reason, stream.ticket.usage, logprobs)

    def stats(self) -> GeneratorStats:
        scheduler = self._scheduler
        return GeneratorStats(
            slots_total=self._slots,
            slots_live=scheduler.live,
            queued=max(len(self._sinks) - scheduler.live, 0),
            requests=self._requests,
            failed=self._failed,
            prompt_tokens=scheduler.prompt_tokens,
            tokens_generated=scheduler.generated_tokens,
            compile_misses=self._model.compile_misses,
            blocks_total=scheduler.memory.count,
            blocks_held=scheduler.memory.held,
            blocks_cached=scheduler.memory.cached,
            prefix_hit_tokens=scheduler.memory.hit_tokens,
            preemptions=scheduler.preemptions,
            drafted_tokens=self._model.drafted,
            accepted_tokens=self._model.accepted,
        )

    def warm(self, progress: Progress | None = None, context: int | None = None) -> None:
        """`StepModel.warm` on the caller's thread; requests may come meanwhile."""
        self._model.warm(progress, context)

    def close(self) -> None:
        """Ends every request as "cancelled" and the thread with them. A second call does nothing."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        atexit.unregister(self.close)
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def __enter__(self) -> "Generator":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _text_stream(self, request: GenerationRequest) -> TextStream:
        prompt, sampling = request.prompt_ids, request.sampling
        if not prompt:
            raise InvalidRequest("the prompt is empty", param="prompt")
        self._check_tokens(prompt, "prompt")
        self._check_tokens(sampling.stop_token_ids, "stop_token_ids")
        self._check_tokens([token for token, _ in sampling.logit_bias], "logit_bias")
        if sampling.stop and self._tokenizer is None:
            raise InvalidRequest("stop strings need a model with a tokenizer", param="stop")
        wanted = 1 if sampling.max_tokens is None else sampling.max_tokens
        if len(prompt) + wanted > self._context:
            raise ContextLengthExceeded(
                f"the prompt has {len(prompt)} tokens and max_tokens is {wanted}, "
                f"but the context holds {self._context}: shorten one of them",
                param="messages",
            )
        return TextStream(
            sampling,
            self._context - len(prompt) if sampling.max_tokens is None else wanted,
            eos_ids=self._eos_ids,
            token_bytes=self._tokenizer.token_bytes if self._tokenizer else lambda _: b"",
            skip=self._tokenizer.special_ids if self._tokenizer else (),
        )

    def _check_tokens(self, tokens: Iterable[int], param: str) -> None:
        unknown = next((token for token in tokens if not 0 <= token < self._model.vocab_size), None)
        if unknown is not None:
            reason = f"token id {unknown} is outside the vocabulary of {self._model.vocab_size}"
            raise InvalidRequest(reason, param=param)

    def _guide(self, constraint: Constraint) -> Guide:
        if self._guides is None or not self._eos_ids:
            reason = "constrained replies need a model with a tokenizer and an end token"
            raise InvalidRequest(reason, param=constraint.param)
        return self._guides.make(constraint)

    def _seed(self, request: GenerationRequest) -> int:
        return self._draw_seed() if request.sampling.seed is None else request.sampling.seed

    def _cancel(self, job: Job) -> None:
        with self._changed:
            self._post(lambda: self._scheduler.cancel(job))

    def _post(self, command: Callable[[], None]) -> None:
        self._inbox.append(command)
        self._changed.notify()

    def _run(self) -> None:
        while self._wait():
            self._deliver(self._step())
        for job in list(self._sinks):
            self._scheduler.cancel(job)
        self._deliver(self._scheduler.take_events())

    def _wait(self) -> bool:
        """Sleeps until there is work and takes in what was posted; False when closing."""
        with self._changed:
            self._changed.wait_for(lambda: self._closing or self._inbox or self._scheduler.busy)
            commands, self._inbox = self._inbox, deque()
        for command in commands:
            command()
        return not self._closing

    def _step(self) -> list[Event]:
        try:
            return self._scheduler.step(self._clock())
        except Exception:
            _log.exception("the scheduler failed; its requests end with an error")
            self._scheduler.fail_all("generation failed inside the server; its log has the details")
            return self._scheduler.take_events()

    def _deliver(self, events: list[Event]) -> None:
        for job, piece in events:
            sink = self._sinks.get(job)
            if piece.finish_reason is not None:
                # Before the sink runs: it may submit the next request at once.
                self._sinks.pop(job, None)
                self._failed += piece.finish_reason == "error"
            if sink is None:
                continue
            try:
                sink(piece)
            except Exception:
                _log.exception("a receiver of generated text failed; its request is cancelled")
                self._drop(job)

    def _drop(self, job: Job) -> None:
        if job in self._sinks:
            self._sinks[job] = lambda piece: None
            self._cancel(job)
