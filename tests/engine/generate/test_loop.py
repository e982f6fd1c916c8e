"""The generator's thread: streams end once, errors stay where they belong, `close` leaves nothing."""

import queue
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from engine.errors import ContextLengthExceeded, InvalidRequest, ModelError, Overloaded
from engine.generate.loop import Generator, Ticket
from engine.generate.request import GenerationRequest, Piece, SamplingParams, Usage
from engine.generate.step_model import Opening
from tests.engine.generate.scripted import ScriptedModel, counting

WAIT = 20.0


class Gate:
    """Holds the model, until opened, before each token of a prompt that starts with 0, and before
    each but the first if it starts with 2."""

    def __init__(self) -> None:
        self.opened = threading.Event()
        self.reached = threading.Event()

    def script(self, prompt: tuple[int, ...], done: int) -> int:
        if prompt[0] == 0 or (prompt[0] == 2 and done):
            self.reached.set()
            assert self.opened.wait(WAIT)
        if prompt[0] == 1 and done == 2:
            raise RuntimeError("boom")
        return counting(prompt, done)


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.opened.set()


@pytest.fixture
def generator(gate: Gate) -> Iterator[Generator]:
    with Generator(ScriptedModel(gate.script), None, max_slots=2, max_queue=2) as generator:
        yield generator


def request(*prompt: int, max_tokens: int | None = 3, **options: object) -> GenerationRequest:
    return GenerationRequest(prompt, SamplingParams(max_tokens=max_tokens, temperature=0, **options))


def collect(pieces: "queue.SimpleQueue[Piece]") -> list[Piece]:
    taken = [pieces.get(timeout=WAIT)]
    while taken[-1].finish_reason is None:
        taken.append(pieces.get(timeout=WAIT))
    return taken


def submit(generator: Generator, request: GenerationRequest) -> tuple[Ticket, "queue.SimpleQueue[Piece]"]:
    pieces: queue.SimpleQueue[Piece] = queue.SimpleQueue()
    return generator.submit(request, pieces.put), pieces


def eventually(condition: Callable[[], object], value: object) -> None:
    deadline = time.monotonic() + WAIT
    while condition() != value:
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_generate_gives_the_whole_reply(generator: Generator):
    completion = generator.generate(request(65))
    assert completion.token_ids == (66, 67, 68)
    assert completion.finish_reason == "length"
    assert completion.usage == Usage(prompt_tokens=1, completion_tokens=3)


def test_no_max_tokens_means_to_the_end_of_the_context(generator: Generator):
    assert len(generator.generate(request(65, max_tokens=None)).token_ids) == 255


def test_many_requests_at_once_each_get_their_own(gate: Gate):
    with Generator(ScriptedModel(gate.script), None, max_slots=3, max_queue=50) as generator:
        streams = [submit(generator, request(60 + n, max_tokens=1 + n % 7))[1] for n in range(40)]
        for n, pieces in enumerate(streams):
            tokens = [token for piece in collect(pieces) for token in piece.token_ids]
            assert tokens == [61 + n + i for i in range(1 + n % 7)]
        stats = generator.stats()
        assert (stats.slots_total, stats.slots_live, stats.queued) == (3, 0, 0)
        assert (stats.requests, stats.failed, stats.prompt_tokens) == (40, 0, 40)


@pytest.mark.parametrize(
    ("bad", "error", "match"),
    [
        (request(), InvalidRequest, "empty"),
        (request(65, 256), InvalidRequest, "256"),
        (request(-1), InvalidRequest, "-1"),
        (request(*[65] * 200, max_tokens=57), ContextLengthExceeded, "200 tokens and max_tokens is 57.* 256"),
        (request(*[65] * 256, max_tokens=None), ContextLengthExceeded, "256"),
        (request(65, stop=("x",)), InvalidRequest, "tokenizer"),
        (request(65, stop_token_ids=(256,)), InvalidRequest, "token id 256"),
        (request(65, logit_bias=((300, 1.0),)), InvalidRequest, "token id 300"),
    ],
)
def test_what_cannot_run_is_refused_before_it_starts(
    generator: Generator, bad: GenerationRequest, error: type[Exception], match: str
):
    with pytest.raises(error, match=match):
        generator.submit(bad, lambda piece: None)
    assert generator.stats().requests == 0


def test_a_prompt_may_fill_the_context_to_the_last_token(generator: Generator):
    assert len(generator.generate(request(*[65] * 255, max_tokens=1)).token_ids) == 1


def test_a_smaller_context_can_be_set(gate: Gate):
    with (
        Generator(ScriptedModel(gate.script), None, max_context=8) as generator,
        pytest.raises(ContextLengthExceeded, match="8"),
    ):
        generator.generate(request(65, max_tokens=8))


def test_a_full_queue_refuses_and_recovers(generator: Generator, gate: Gate):
    streams = [submit(generator, request(0, 65))[1] for _ in range(4)]
    with pytest.raises(Overloaded):
        generator.submit(request(65), lambda piece: None)
    gate.opened.set()
    assert all(collect(pieces)[-1].finish_reason == "length" for pieces in streams)
    assert generator.generate(request(65)).finish_reason == "length"


def test_a_request_may_be_submitted_from_the_last_piece_of_another(gate: Gate):
    done: queue.SimpleQueue[Piece] = queue.SimpleQueue()
    with Generator(ScriptedModel(gate.script), None, max_slots=1, max_queue=0) as generator:

        def again(piece: Piece) -> None:
            if piece.finish_reason:
                generator.submit(request(65, max_tokens=1), done.put)

        generator.submit(request(65, max_tokens=1), again)
        assert done.get(timeout=WAIT).finish_reason == "length"


def test_cancelling_frees_the_slot(generator: Generator, gate: Gate):
    ticket, pieces = submit(generator, request(0, 65, max_tokens=100))
    gate.reached.wait(WAIT)
    ticket.cancel()
    ticket.cancel()
    gate.opened.set()
    assert collect(pieces)[-1].finish_reason == "cancelled"
    eventually(lambda: generator.stats().slots_live, 0)
    assert ticket.usage.completion_tokens < 100


def test_a_queued_request_can_be_cancelled(generator: Generator, gate: Gate):
    for _ in range(2):
        submit(generator, request(0, 65))
    ticket, pieces = submit(generator, request(65))
    ticket.cancel()
    gate.opened.set()
    assert [piece.finish_reason for piece in collect(pieces)] == ["cancelled"]


@pytest.mark.parametrize("taken", [0, 1])
def test_closing_a_stream_early_cancels_it(generator: Generator, gate: Gate, taken: int):
    stream = generator.stream(request(2, 65, max_tokens=200))
    for _ in range(taken):
        next(stream)
    stream.close()
    gate.opened.set()
    assert list(stream) == []
    eventually(lambda: generator.stats().queued + generator.stats().slots_live, 0)
    assert stream.ticket.usage.completion_tokens < 200


def test_dropping_a_stream_cancels_it(generator: Generator, gate: Gate):
    for _ in generator.stream(request(2, 65, max_tokens=200)):
        break
    gate.opened.set()
    eventually(lambda: generator.stats().slots_live, 0)
    assert generator.stats().tokens_generated < 200


def test_a_model_that_fails_ends_the_batch_and_the_next_request_runs(generator: Generator):
    with pytest.raises(ModelError, match="boom"):
        generator.generate(request(1, 65, max_tokens=9))
    assert generator.generate(request(65)).token_ids == (66, 67, 68)
    assert generator.stats().failed == 1


def test_a_receiver_that_fails_loses_its_request_only(generator: Generator):
    def broken(piece: Piece) -> None:
        raise RuntimeError("client went away")

    generator.submit(request(65, max_tokens=200), broken)
    assert generator.generate(request(65)).finish_reason == "length"
    eventually(lambda: generator.stats().slots_live, 0)
    assert generator.stats().queued == 0


def test_close_ends_what_runs_and_what_waits(gate: Gate):
    generator = Generator(ScriptedModel(gate.script), None, max_slots=1, max_queue=4)
    streams = [submit(generator, request(0, 65, max_tokens=100))[1] for _ in range(3)]
    gate.reached.wait(WAIT)
    closer = threading.Thread(target=generator.close)
    closer.start()
    gate.opened.set()
    closer.join(WAIT)
    assert not closer.is_alive()
    for pieces in streams:
        assert collect(pieces)[-1].finish_reason == "cancelled"
        assert pieces.empty()
    with pytest.raises(Overloaded):
        generator.submit(request(65), lambda piece: None)
    generator.close()


def test_close_before_the_first_request(gate: Gate):
    Generator(ScriptedModel(gate.script), None).close()


def test_no_thread_runs_before_the_first_request(gate: Gate):
    before = threading.active_count()
    generator = Generator(ScriptedModel(gate.script), None)
    assert threading.active_count() == before
    generator.generate(request(65))
    assert threading.active_count() == before + 1
    generator.close()
    assert threading.active_count() == before


def test_warm_reaches_the_model():
    model = ScriptedModel()
    Generator(model, None).warm()
    assert model.warmed


def test_requests_without_a_seed_get_different_ones():
    seeds: list[int] = []

    class Recording(ScriptedModel):
        def start(self, slot: int, opening: Opening) -> None:
            seeds.append(opening.seed)
            super().start(slot, opening)

    with Generator(Recording(), None) as generator:
        for seed in (None, None, 7):
            generator.generate(request(65, seed=seed))
    assert len(set(seeds)) == 3
    assert seeds[2] == 7
