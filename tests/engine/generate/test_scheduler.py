"""Slots never leak, every stream ends once, and the first come are the first served."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from engine.errors import Overloaded
from engine.generate.request import GenerationRequest, Piece, SamplingParams
from engine.generate.scheduler import CHUNK_ALONE, CHUNK_SHARED, Job, Scheduler
from engine.generate.step_model import NO_TOKEN
from engine.generate.text_stream import TextStream
from tests.engine.generate.scripted import ScriptedModel, counting

EOS = 255


def one_byte(token_id: int) -> bytes:
    return bytes([token_id])


def job(prompt: tuple[int, ...] = (65,), max_tokens: int = 4, **sampling: object) -> Job:
    params = SamplingParams(max_tokens=max_tokens, temperature=0, **sampling)
    stream = TextStream(params, max_tokens, eos_ids=(EOS,), token_bytes=one_byte)
    return Job(GenerationRequest(prompt, params), stream, seed=0)


def drain(scheduler: Scheduler) -> dict[Job, list[Piece]]:
    pieces: dict[Job, list[Piece]] = {}
    for _ in range(10_000):
        if not scheduler.busy:
            return pieces
        for one, piece in scheduler.step():
            pieces.setdefault(one, []).append(piece)
    raise AssertionError("the scheduler never comes to rest")


def text(pieces: list[Piece]) -> str:
    return "".join(piece.text for piece in pieces)


def test_a_reply_ends_at_its_length():
    scheduler = Scheduler(ScriptedModel(), slots=1, max_queue=1)
    one = job(max_tokens=3)
    scheduler.submit(one)
    pieces = drain(scheduler)[one]
    assert text(pieces) == "BCD"
    assert [piece.finish_reason for piece in pieces] == [None, None, "length"]
    assert (scheduler.prompt_tokens, scheduler.generated_tokens) == (1, 3)


@pytest.mark.parametrize(
    ("options", "out", "reason"),
    [
        ({"stop": ("DE",)}, "BC", "stop"),
        ({"stop": ("zz",)}, "BCDEFG", "length"),
        ({"stop": ("GH",)}, "BCDEFG", "length"),
        ({}, "BCDEFG", "length"),
    ],
)
def test_stop_strings_end_a_reply(options: dict[str, object], out: str, reason: str):
    scheduler = Scheduler(ScriptedModel(), slots=1, max_queue=1)
    one = job(max_tokens=6, **options)
    scheduler.submit(one)
    pieces = drain(scheduler)[one]
    assert (text(pieces), pieces[-1].finish_reason) == (out, reason)


@pytest.mark.parametrize(("ignore_eos", "count", "reason"), [(False, 2, "stop"), (True, 9, "length")])
def test_the_end_token_ends_a_reply_unless_ignored(ignore_eos: bool, count: int, reason: str):
    scheduler = Scheduler(ScriptedModel(), slots=1, max_queue=1)
    one = job(prompt=(252,), max_tokens=9, ignore_eos=ignore_eos)
    scheduler.submit(one)
    pieces = drain(scheduler)[one]
    assert sum(len(piece.token_ids) for piece in pieces) == one.stream.tokens == count
    assert pieces[-1].finish_reason == reason


def test_the_first_come_are_the_first_served():
    model = ScriptedModel()
    scheduler = Scheduler(model, slots=2, max_queue=8)
    jobs = [job(prompt=(65, index), max_tokens=2 + index % 2) for index in range(6)]
    for one in jobs:
        scheduler.submit(one)
    firsts = list(drain(scheduler))
    assert firsts == jobs


def test_a_long_prompt_delays_running_streams_by_one_chunk_a_step():
    model = ScriptedModel(max_context=4000)
    scheduler = Scheduler(model, slots=2, max_queue=2)
    running, long = job(max_tokens=50), job(prompt=(1,) * 300, max_tokens=1)
    scheduler.submit(running)
    scheduler.step()
    scheduler.submit(long)
    while long.prefilled < 300:
        events = scheduler.step()
        assert any(one is running and piece.token_ids for one, piece in events)
    sizes = [arguments[2] for name, arguments in model.calls if name == "prefill" and arguments[0] == 1]
    assert sizes == [CHUNK_SHARED] * 4 + [300 - 4 * CHUNK_SHARED]


def test_a_prompt_alone_runs_in_large_chunks():
    model = ScriptedModel(max_context=4000)
    scheduler = Scheduler(model, slots=2, max_queue=2)
    scheduler.submit(job(prompt=(1,) * 600, max_tokens=1))
    drain(scheduler)
    assert [arguments[2] for name, arguments in model.calls] == [CHUNK_ALONE, CHUNK_ALONE, 88]


def test_cancelling_frees_the_slot_within_one_step():
    model = ScriptedModel()
    scheduler = Scheduler(model, slots=1, max_queue=2)
    first, second = job(max_tokens=100), job(prompt=(97,), max_tokens=2)
    scheduler.submit(first)
    scheduler.submit(second)
    scheduler.step()
    scheduler.cancel(first)
    scheduler.cancel(first)
    events = scheduler.step()
    assert [piece.finish_reason for one, piece in events if one is first] == ["cancelled"]
    assert any(one is second for one, _ in events)


def test_a_full_queue_refuses():
    scheduler = Scheduler(ScriptedModel(), slots=1, max_queue=2)
    for _ in range(3):
        scheduler.submit(job())
    with pytest.raises(Overloaded):
        scheduler.submit(job())
    assert len(drain(scheduler)) == 3


def test_logits_that_are_no_numbers_end_one_stream_only():
    def script(prompt: tuple[int, ...], done: int) -> int:
        return NO_TOKEN if prompt[0] == 0 and done == 1 else counting(prompt, done)

    scheduler = Scheduler(ScriptedModel(script), slots=2, max_queue=2)
    bad, good = job(prompt=(0, 65)), job(prompt=(65,))
    scheduler.submit(bad)
    scheduler.submit(good)
    pieces = drain(scheduler)
    assert pieces[bad][-1].finish_reason == "error"
    assert "not a number" in (pieces[bad][-1].error or "")
    assert text(pieces[good]) == "BCDE"


def test_a_prompt_that_fails_ends_alone():
    def script(prompt: tuple[int, ...], done: int) -> int:
        if prompt[0] == 0:
            raise RuntimeError("no memory\nfor this")
        return counting(prompt, done)

    model = ScriptedModel(script)
    scheduler = Scheduler(model, slots=2, max_queue=2)
    good, bad = job(prompt=(65,)), job(prompt=(0,))
    scheduler.submit(good)
    scheduler.submit(bad)
    pieces = drain(scheduler)
    assert [piece.error for piece in pieces[bad]] == ["generation failed: no memory"]
    assert text(pieces[good]) == "BCDE"
    assert not model.resets


def test_a_failed_batch_ends_its_streams_and_the_next_ones_run():
    def script(prompt: tuple[int, ...], done: int) -> int:
        if prompt[0] == 0 and done == 2:
            raise RuntimeError("device lost")
        return counting(prompt, done)

    model = ScriptedModel(script)
    scheduler = Scheduler(model, slots=2, max_queue=4)
    jobs = [job(prompt=(65,)), job(prompt=(0,)), job(prompt=(65,))]
    for one in jobs:
        scheduler.submit(one)
    pieces = drain(scheduler)
    assert [pieces[one][-1].finish_reason for one in jobs] == ["error", "error", "length"]
    assert model.resets == 1
    assert not model.prompts


class SchedulerMachine(RuleBasedStateMachine):
    """Random submits, cancels, failures and steps."""

    jobs = Bundle("jobs")

    def __init__(self) -> None:
        super().__init__()
        self.failing = False
        self.model = ScriptedModel(self.script)
        self.scheduler = Scheduler(self.model, slots=2, max_queue=3)
        self.accepted: list[Job] = []
        self.pieces: dict[Job, list[Piece]] = {}
        self.started: list[Job] = []

    def script(self, prompt: tuple[int, ...], done: int) -> int:
        if self.failing:
            self.failing = False
            raise RuntimeError("now and then")
        return counting(prompt, done)

    @rule(target=jobs, length=st.integers(1, 150), max_tokens=st.integers(1, 6), last=st.integers(60, 254))
    def submit(self, length: int, max_tokens: int, last: int) -> Job:
        one = job(prompt=(1,) * (length - 1) + (last,), max_tokens=max_tokens, stop=("AB",))
        try:
            self.scheduler.submit(one)
        except Overloaded:
            assert self.scheduler.queued >= 3
        else:
            self.accepted.append(one)
            self.pieces[one] = []
        return one

    @rule(one=jobs)
    def cancel(self, one: Job) -> None:
        if one in self.pieces:
            self.scheduler.cancel(one)

    @rule()
    def fail_next(self) -> None:
        self.failing = True

    @rule()
    def step(self) -> None:
        for one, piece in self.scheduler.step():
            assert not any(old.finish_reason for old in self.pieces[one]), "a piece after the last"
            self.pieces[one].append(piece)
            if piece.token_ids and one not in self.started:
                self.started.append(one)

    @invariant()
    def slots_are_held_by_live_jobs_alone(self) -> None:
        assert self.scheduler.live <= 2
        assert len(self.model.prompts) == self.scheduler.live

    @invariant()
    def jobs_start_in_the_order_they_came(self) -> None:
        order = [self.accepted.index(one) for one in self.started]
        assert order == sorted(order)

    def teardown(self) -> None:
        for _ in range(2_000):
            if not self.scheduler.busy:
                break
            self.step()
        assert not self.model.prompts
        assert self.scheduler.live == 0
        for one in self.accepted:
            assert [bool(piece.finish_reason) for piece in self.pieces[one]].count(True) == 1


SchedulerMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
TestScheduler = SchedulerMachine.TestCase


@settings(max_examples=60, deadline=None)
@given(
    data=st.text(alphabet="aé日🚀<>", max_size=12),
    stops=st.lists(st.text("aé日<", min_size=1, max_size=3), max_size=2),
)
def test_pieces_are_whole_characters_and_never_part_of_a_stop(data: str, stops: list[str]):
    tokens = data.encode()
    if not tokens:
        return
    params = SamplingParams(temperature=0, stop=tuple(stops))
    stream = TextStream(params, len(tokens), eos_ids=(), token_bytes=one_byte)
    pieces: list[Piece] = []
    for token in tokens:
        pieces.append(stream.push(token))
        if stream.finished:
            break
    assert stream.finished
    out = text(pieces)
    ends = [data.find(stop) + len(stop) for stop in stops if stop in data]
    if ends:
        first = min(ends)
        longest = max(len(stop) for stop in stops if data[:first].endswith(stop))
        assert out == data[: first - longest]
        assert pieces[-1].finish_reason == "stop"
    else:
        assert out == data
        assert pieces[-1].finish_reason == "length"
