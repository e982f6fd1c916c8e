"""Slots never leak, every stream ends once, and the first come are the first served."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import Overloaded
from engine.generate.job import ARRIVALS_A_PRIORITY, Job
from engine.generate.request import GenerationRequest, Piece, SamplingParams
from engine.generate.scheduler import Scheduler
from engine.generate.step_model import NO_TOKEN
from engine.generate.text_stream import TextStream
from tests.engine.generate.scripted import ScriptedModel, counting

EOS = 255


def one_byte(token_id: int) -> bytes:
    return bytes([token_id])


def job(
    prompt: tuple[int, ...] = (65,),
    max_tokens: int = 4,
    *,
    priority: int = 0,
    timeout: float | None = None,
    **sampling: object,
) -> Job:
    params = SamplingParams(max_tokens=max_tokens, temperature=0, **sampling)
    stream = TextStream(params, max_tokens, eos_ids=(EOS,), token_bytes=one_byte)
    return Job(GenerationRequest(prompt, params, priority, timeout), stream, seed=0)


def drain(scheduler: Scheduler) -> dict[Job, list[Piece]]:
    pieces: dict[Job, list[Piece]] = {}
    for _ in range(10_000):
        if not scheduler.busy:
            return pieces
        for one, piece in scheduler.step(0.0):
            pieces.setdefault(one, []).append(piece)
    raise AssertionError("the scheduler never comes to rest")


def text(pieces: list[Piece]) -> str:
    return "".join(piece.text for piece in pieces)


def test_a_reply_ends_at_its_length():
    scheduler = Scheduler(ScriptedModel(), slots=1, max_queue=1)
    one = job(max_tokens=3)
    scheduler.submit(one, 0.0)
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
    scheduler.submit(one, 0.0)
    pieces = drain(scheduler)[one]
    assert (text(pieces), pieces[-1].finish_reason) == (out, reason)


@pytest.mark.parametrize(("ignore_eos", "count", "reason"), [(False, 2, "stop"), (True, 9, "length")])
def test_the_end_token_ends_a_reply_unless_ignored(ignore_eos: bool, count: int, reason: str):
    scheduler = Scheduler(ScriptedModel(), slots=1, max_queue=1)
    one = job(prompt=(252,), max_tokens=9, ignore_eos=ignore_eos)
    scheduler.submit(one, 0.0)
    pieces = drain(scheduler)[one]
    assert sum(len(piece.token_ids) for piece in pieces) == one.stream.tokens == count
    assert pieces[-1].finish_reason == reason


def test_a_stop_token_of_the_request_ends_it_and_is_not_counted():
    scheduler = Scheduler(ScriptedModel(), slots=1, max_queue=1)
    one = job(max_tokens=9, stop_token_ids=(68,), ignore_eos=True)
    scheduler.submit(one, 0.0)
    pieces = drain(scheduler)[one]
    assert (text(pieces), pieces[-1].finish_reason, one.stream.tokens) == ("BC", "stop", 2)


def test_the_first_come_are_the_first_served():
    model = ScriptedModel()
    scheduler = Scheduler(model, slots=2, max_queue=8)
    jobs = [job(prompt=(65, index), max_tokens=2 + index % 2) for index in range(6)]
    for one in jobs:
        scheduler.submit(one, 0.0)
    firsts = list(drain(scheduler))
    assert firsts == jobs


def test_a_long_prompt_delays_running_streams_by_one_chunk_a_step():
    model = ScriptedModel(max_context=4000, cell=64)
    scheduler = Scheduler(model, slots=2, max_queue=2)
    running, long = job(max_tokens=50), job(prompt=(1,) * 300, max_tokens=1)
    scheduler.submit(running, 0.0)
    scheduler.step(0.0)
    scheduler.submit(long, 0.0)
    while not long.stream.finished:
        events = scheduler.step(0.0)
        assert any(one is running and piece.token_ids for one, piece in events)
    sizes = [arguments[2] for name, arguments in model.calls if name == "prefill" and arguments[0] == 1]
    assert sizes == [64] * 4 + [300 - 4 * 64]


def test_cancelling_frees_the_slot_within_one_step():
    model = ScriptedModel()
    scheduler = Scheduler(model, slots=1, max_queue=2)
    first, second = job(max_tokens=100), job(prompt=(97,), max_tokens=2)
    scheduler.submit(first, 0.0)
    scheduler.submit(second, 0.0)
    scheduler.step(0.0)
    scheduler.cancel(first)
    scheduler.cancel(first)
    events = scheduler.step(0.0)
    assert [piece.finish_reason for one, piece in events if one is first] == ["cancelled"]
    assert any(one is second for one, _ in [*events, *scheduler.step(0.0)])


def test_a_full_queue_refuses():
    scheduler = Scheduler(ScriptedModel(), slots=1, max_queue=2)
    for _ in range(3):
        scheduler.submit(job(), 0.0)
    with pytest.raises(Overloaded):
        scheduler.submit(job(), 0.0)
    assert len(drain(scheduler)) == 3


def test_a_priority_goes_first_but_never_before_all_that_came_earlier():
    scheduler = Scheduler(ScriptedModel(), slots=1, max_queue=99)
    usual = [job(prompt=(65, index), max_tokens=1) for index in range(40)]
    urgent = job(prompt=(97,), max_tokens=1, priority=-1)
    for one in [*usual, urgent]:
        scheduler.submit(one, 0.0)
    started = list(drain(scheduler))
    assert started.index(urgent) == 40 - (ARRIVALS_A_PRIORITY - 1)
    assert [one for one in started if one is not urgent] == usual


def test_an_urgent_flood_does_not_starve_the_least():
    scheduler = Scheduler(ScriptedModel(), slots=1, max_queue=9)
    patient = job(prompt=(65,), max_tokens=1, priority=10)
    scheduler.submit(patient, 0.0)
    before = 0
    while not patient.stream.finished:
        scheduler.submit(job(prompt=(97,), max_tokens=1, priority=-10), 0.0)
        scheduler.step(0.0)
        before += 1
        assert before <= 20 * ARRIVALS_A_PRIORITY + 1
    assert before > ARRIVALS_A_PRIORITY


@pytest.mark.parametrize("slots", [0, 1])
def test_a_deadline_ends_what_waits_and_what_runs(slots: int):
    scheduler = Scheduler(ScriptedModel(), slots=slots, max_queue=2)
    one = job(max_tokens=100, timeout=5.0)
    scheduler.submit(one, now=10.0)
    assert all(piece.finish_reason is None for _, piece in scheduler.step(14.9))
    assert [piece.finish_reason for _, piece in scheduler.step(15.0)] == ["deadline"]
    assert not scheduler.busy and not scheduler.tables()


def test_a_second_prompt_finds_what_the_first_has_computed():
    model = ScriptedModel(cell=8)
    scheduler = Scheduler(model, slots=2, max_queue=2)
    system = tuple(range(20))
    for last in (65, 97):
        scheduler.submit(job(prompt=(*system, last)), 0.0)
    drain(scheduler)
    prefills = [arguments for name, arguments in model.calls if name == "prefill"]
    assert prefills == [(0, 0, 8), (0, 8, 8), (0, 16, 5), (1, 16, 5)]
    assert scheduler.memory.hit_tokens == 16


def test_a_prompt_that_is_known_to_its_end_still_computes_its_last_tokens():
    model = ScriptedModel(cell=8)
    scheduler = Scheduler(model, slots=1, max_queue=2)
    for _ in range(2):
        scheduler.submit(job(prompt=(1,) * 15 + (65,)), 0.0)
        pieces = drain(scheduler)
        assert [text(one) for one in pieces.values()] == ["BCDE"]
    assert [arguments for name, arguments in model.calls if name == "prefill"][2:] == [(0, 8, 8)]


def test_short_memory_preempts_the_last_and_changes_nobodys_reply():
    model = ScriptedModel(max_context=24, blocks=8, block_size=4, cell=8)
    scheduler = Scheduler(model, slots=3, max_queue=2)
    jobs = [job(prompt=(65 + index,) * 9, max_tokens=12) for index in range(3)]
    for one in jobs:
        scheduler.submit(one, 0.0)
    pieces = drain(scheduler)
    assert scheduler.preemptions > 0
    assert [text(pieces[one]) for one in jobs] == ["BCDEFGHIJKLM", "CDEFGHIJKLMN", "DEFGHIJKLMNO"]


def test_logits_that_are_no_numbers_end_one_stream_only():
    def script(prompt: tuple[int, ...], done: int) -> int:
        return NO_TOKEN if prompt[0] == 0 and done == 1 else counting(prompt, done)

    scheduler = Scheduler(ScriptedModel(script), slots=2, max_queue=2)
    bad, good = job(prompt=(0, 65)), job(prompt=(65,))
    scheduler.submit(bad, 0.0)
    scheduler.submit(good, 0.0)
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
    scheduler.submit(good, 0.0)
    scheduler.submit(bad, 0.0)
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
        scheduler.submit(one, 0.0)
    pieces = drain(scheduler)
    assert [pieces[one][-1].finish_reason for one in jobs] == ["error", "error", "length"]
    assert model.resets == 1
    assert not model.sequences


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
