"""Thousands of requests to an int8 model with native kernels, short memory and everything going on.

Each greedy reply is, token for token, the one the request gets alone; every block comes back; every
stream ends once, with a reason.
"""

import random
from collections import Counter
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from engine.errors import Overloaded
from engine.generate.job import Job
from engine.generate.model import DecoderStepModel, holds_bits
from engine.generate.request import GenerationRequest, Piece, SamplingParams
from engine.generate.scheduler import Scheduler
from engine.generate.text_stream import TextStream
from engine.models.decoder import parameter_shapes
from engine.models.decoder_config import DecoderConfig
from engine.ops.quant import quantize
from engine.ops.rope import RopeConfig
from engine.weights.checkpoint import load_checkpoint
from engine.weights.tree import unflatten

CONTEXT = 256
CONFIG = DecoderConfig(
    architecture="llama",
    vocab_size=512,
    hidden_size=256,
    intermediate_size=512,
    num_layers=2,
    num_heads=4,
    num_kv_heads=4,
    head_dim=64,
    max_context=CONTEXT,
    norm_eps=1e-5,
    rope=RopeConfig(64, 10_000.0),
    tied=True,
)
QUEUE, LONGEST = 12, 40
CONTEXTS_OF_MEMORY = 2
"""The pool holds so many whole contexts, so that sequences are preempted now and then."""


def tiny_params() -> dict[str, Any]:
    """So scaled that replies wander at first and then repeat themselves, which makes guesses come true."""
    noise = np.random.default_rng(1)
    flat: dict[str, Any] = {}
    for name, shape in parameter_shapes(CONFIG).items():
        drawn = noise.normal(size=shape, scale=1.0 if len(shape) == 1 else 0.037).astype(np.float32)
        flat[name] = jnp.asarray(np.abs(drawn) + 0.5) if len(shape) == 1 else quantize(drawn, "int8")
    return unflatten(flat)


class Clients:
    def __init__(self, seed: int, slots: int, params: dict[str, Any], config: DecoderConfig = CONFIG) -> None:
        self.random = random.Random(seed)
        assert holds_bits(params, config)
        block_bytes = 8 * config.num_layers * config.num_kv_heads * config.head_dim * 32
        self.model = DecoderStepModel(
            params,
            config,
            max_slots=slots,
            max_context=CONTEXT,
            kv_bytes=CONTEXTS_OF_MEMORY * CONTEXT // 32 * block_bytes,
            speculate=3,
        )
        self.plain = DecoderStepModel(params, config, max_slots=1, max_context=CONTEXT)
        self.scheduler = Scheduler(self.model, slots=slots, max_queue=QUEUE)
        system = [tuple(self.random.choices(range(512), k=length)) for length in (150, 70, 3)]
        self.prompts = [
            (*self.random.choice(system), *self.random.choices(range(512), k=self.random.randint(1, 60)))
            for _ in range(60)
        ]
        self.alone: dict[tuple[int, ...], list[int]] = {}
        self.open: dict[Job, list[Piece]] = {}
        self.reasons: Counter[str] = Counter()

    def reference(self, prompt: tuple[int, ...]) -> list[int]:
        """The greedy tokens of a request that runs alone, on a model of its own."""
        if prompt not in self.alone:
            scheduler = Scheduler(self.plain, slots=1, max_queue=1)
            scheduler.submit(self.job(prompt, SamplingParams(temperature=0, max_tokens=LONGEST)), 0.0)
            found = []
            while scheduler.busy:
                found += [token for _, piece in scheduler.step(0.0) for token in piece.token_ids]
            self.alone[prompt] = found
        return self.alone[prompt]

    def job(self, prompt: tuple[int, ...], sampling: SamplingParams, **options: Any) -> Job:
        stream = TextStream(sampling, sampling.max_tokens or 1, eos_ids=(), token_bytes=lambda _: b"x")
        return Job(GenerationRequest(prompt, sampling, **options), stream, seed=self.random.getrandbits(40))

    def submit(self) -> bool:
        prompt = self.random.choice(self.prompts)
        greedy = self.random.random() < 0.8
        stops = tuple(self.reference(prompt)[-1:]) if self.random.random() < 0.2 else ()
        sampling = SamplingParams(
            temperature=0 if greedy else 1.0,
            max_tokens=self.random.randint(1, LONGEST),
            stop_token_ids=stops,
            frequency_penalty=0.0 if greedy else self.random.choice([0.0, 0.5]),
            logprobs=self.random.choice([None, None, 2]),
        )
        one = self.job(prompt, sampling, priority=self.random.choice([0, 0, -1, 2]))
        try:
            self.scheduler.submit(one, 0.0)
        except Overloaded:
            return False
        self.open[one] = []
        return True

    def step(self) -> None:
        if self.open and self.random.random() < 0.03:
            self.scheduler.cancel(self.random.choice(list(self.open)))
        for one, piece in self.scheduler.step(0.0):
            self.open[one].append(piece)
            if piece.finish_reason is not None:
                self.check(one, self.open.pop(one))

    def check(self, one: Job, pieces: list[Piece]) -> None:
        reason, sampling = pieces[-1].finish_reason, one.request.sampling
        self.reasons[str(reason)] += 1
        tokens = [token for piece in pieces for token in piece.token_ids]
        if sampling.temperature == 0:
            wanted = self.reference(one.prompt)[: len(tokens) + 1]
            assert tokens == wanted[: len(tokens)]
            if reason == "stop":
                assert wanted[len(tokens)] in sampling.stop_token_ids
        if reason == "length":
            assert len(tokens) == sampling.max_tokens

    def run(self, count: int) -> None:
        submitted = 0
        while submitted < count or self.scheduler.busy:
            if submitted < count and self.random.random() < 0.5:
                submitted += self.submit()
            self.step()
        assert not self.open and not self.scheduler.tables()
        assert self.scheduler.memory.held == 0
        self.scheduler.memory.check([])
        assert sum(self.reasons.values()) == count
        assert set(self.reasons) == {"length", "stop", "cancelled"}


def test_many_requests_get_what_they_get_alone():
    clients = Clients(0, 4, tiny_params())
    clients.run(120)
    assert clients.scheduler.preemptions > 0
    assert clients.scheduler.memory.hit_tokens > 500
    assert clients.model.accepted > 0


@pytest.mark.soak
def test_ten_thousand_requests_get_what_they_get_alone():
    clients = Clients(1, 12, tiny_params())
    clients.run(10_000)
    assert clients.scheduler.preemptions > 10


@pytest.mark.soak
def test_two_hundred_requests_to_smollm2_get_what_they_get_alone(smollm2_path):
    checkpoint = load_checkpoint(smollm2_path, quant="int8")
    clients = Clients(2, 8, checkpoint.params, checkpoint.config)
    clients.run(200)
    assert clients.scheduler.preemptions > 0
