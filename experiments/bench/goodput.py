"""Many chats with one long beginning, arriving at random, over HTTP: our server beside llama.cpp's own.

Each round has a new beginning of some 1,000 tokens, the same for both servers, which take turns; chats come
as a Poisson process, each with a question of its own and a reply of a fixed length, greedy. Same weights
(Q8_0 and ours in int8), one client, all cores. Goodput: tokens a second, from the first chat's arrival to the
last one's end, of the chats whose first token and whose mean gap between tokens were in time.
Run: `python -m experiments.bench.goodput [--rate 4] [--png FILE]`; it builds llama.cpp's server first.
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import math
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import psutil

from experiments.bench.llama import model_file
from experiments.bench.llama_server import llama_server
from experiments.bench.measure import machine
from experiments.bench.peers import SMOLLM2

SENTENCE = (
    "The keeper of the northern lamp wrote down the wind, the height of the sea and every vessel that passed "
    "the island; in the evening he cleaned the glass, and the captain of the mail boat brought him letters, "
    "paper, copper wire and rope from the market on the other side of the stone bridge."
)
CONTEXT = 2048
PREFIX_WORDS = 880
"""Come to 1,000 tokens with SmolLM2's vocabulary, give or take a few."""


@dataclass(frozen=True)
class Chat:
    """Seconds of one chat: `first` from its arrival to its first token, `gaps` between pieces after it."""

    arrived: float
    first: float
    ended: float
    tokens: int
    gaps: tuple[float, ...]

    @property
    def per_token(self) -> float:
        return (self.ended - self.arrived - self.first) / max(1, self.tokens - 1)


@dataclass(frozen=True)
class Round:
    """`cpu`: seconds of processor time of the server; `memory`: the most it was seen with, MB."""

    chats: tuple[Chat, ...]
    cpu: float
    memory: float

    def throughput(self) -> float:
        """Tokens a second, from the first arrival to the last end."""
        return self._rate(self.chats)

    def goodput(self, first: float, gap: float) -> float:
        """The same of the chats that were in time."""
        return self._rate(tuple(c for c in self.chats if c.first <= first and c.per_token <= gap))

    def _rate(self, counted: tuple[Chat, ...]) -> float:
        span = max(c.ended for c in self.chats) - min(c.arrived for c in self.chats)
        return sum(c.tokens for c in counted) / span


@dataclass(frozen=True)
class Load:
    """What one round asks of a server."""

    chats: int
    rate: float
    tokens: int
    seed: int

    def prompts(self) -> list[list[dict[str, str]]]:
        draw = random.Random(self.seed)
        system = "Keep this log in mind. " + " ".join(draw.choices(SENTENCE.split(), k=PREFIX_WORDS))
        words = SENTENCE.split()
        asked = [f"Chat {n}: what of {' and '.join(draw.sample(words, 3))}?" for n in range(self.chats)]
        return [[{"role": "system", "content": system}, {"role": "user", "content": text}] for text in asked]

    def arrivals(self) -> list[float]:
        draw = random.Random(self.seed + 1)
        at, found = 0.0, []
        for _ in range(self.chats):
            found.append(at)
            at += draw.expovariate(self.rate)
        return found


@dataclass(frozen=True)
class Server:
    name: str
    url: str
    process: psutil.Process

    def cpu(self) -> float:
        """Seconds of processor time so far, of all its threads."""
        times = self.process.cpu_times()
        return times.user + times.system


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--chats", type=int, default=16)
    parser.add_argument("--rate", type=float, default=4.0, help="chats that arrive in a second")
    parser.add_argument("--tokens", type=int, default=64, help="of each reply")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--first", type=float, default=3.0, help="seconds in which a first token is in time")
    parser.add_argument("--gap", type=float, default=0.15, help="seconds a token in which a reply is in time")
    parser.add_argument("--png", type=Path)
    options = parser.parse_args()
    asked = f"{options.chats} chats, {options.rate:g} a second, {options.tokens} tokens each"
    print(f"goodput: {asked}, {machine()}", flush=True)
    with (
        tempfile.TemporaryDirectory() as folder,
        ours(Path(folder), options) as mine,
        theirs(options) as peer,
    ):
        results = asyncio.run(measured([mine, peer], options))
    report(results, options)
    return 0


async def measured(servers: list[Server], options: argparse.Namespace) -> dict[str, list[Round]]:
    found: dict[str, list[Round]] = {server.name: [] for server in servers}
    for number in range(-1, options.rounds):
        load = Load(options.chats, options.rate, options.tokens, 100 + number)
        for server in servers:
            told = await one_round(server, load)
            progress(f"  {server.name}, round {number + 1}: {told.throughput():.1f} tok/s")
            if number >= 0:
                found[server.name].append(told)
    return found


def progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


async def one_round(server: Server, load: Load) -> Round:
    before, begun = server.cpu(), time.perf_counter()
    memory = [server.process.memory_info().rss]

    async def watch() -> None:
        while True:
            memory.append(server.process.memory_info().rss)
            await asyncio.sleep(0.2)

    async with httpx2.AsyncClient(timeout=300, limits=httpx2.Limits(max_connections=None)) as client:
        watcher = asyncio.create_task(watch())
        pairs = zip(load.arrivals(), load.prompts(), strict=True)
        chats = await asyncio.gather(*(chat(client, server.url, load, begun, at, text) for at, text in pairs))
        watcher.cancel()
    return Round(tuple(chats), server.cpu() - before, max(memory) / 2**20)


async def chat(
    client: httpx2.AsyncClient, url: str, load: Load, begun: float, at: float, messages: list[dict[str, str]]
) -> Chat:
    await asyncio.sleep(max(0.0, begun + at - time.perf_counter()))
    body = {
        **{"messages": messages, "stream": True, "max_tokens": load.tokens, "temperature": 0},
        **{"ignore_eos": True, "cache_prompt": True, "stream_options": {"include_usage": True}},
    }
    arrived = time.perf_counter()
    times, tokens = [], 0
    async with client.stream("POST", f"{url}/v1/chat/completions", json=body) as reply:
        if reply.status_code != 200:
            raise RuntimeError(f"{url} answers {reply.status_code}: {(await reply.aread())[:300]!r}")
        async for event in events(reply):
            if any(choice["delta"].get("content") for choice in event["choices"]):
                times.append(time.perf_counter())
            tokens = (event.get("usage") or {}).get("completion_tokens", tokens)
    if tokens != load.tokens or not times:
        raise RuntimeError(f"{url} gave {tokens} tokens for {load.tokens}")
    gaps = tuple(b - a for a, b in itertools.pairwise(times))
    return Chat(arrived - begun, times[0] - arrived, times[-1] - begun, tokens, gaps)


async def events(reply: httpx2.Response) -> AsyncIterator[dict[str, Any]]:
    async for line in reply.aiter_lines():
        if line.startswith("data: ") and line != "data: [DONE]":
            yield json.loads(line.removeprefix("data: "))


def report(results: dict[str, list[Round]], options: argparse.Namespace) -> None:
    for name, rounds in results.items():
        firsts = [chat.first for each in rounds for chat in each.chats]
        gaps = [gap * 1e3 for each in rounds for chat in each.chats for gap in chat.gaps]
        good = statistics.median(each.goodput(options.first, options.gap) for each in rounds)
        every = statistics.median(each.throughput() for each in rounds)
        print(
            f"  {name}: {good:.1f} tok/s in time of {every:.1f}; first token p50 {at(firsts, 50):.2f} s, "
            f"p99 {at(firsts, 99):.2f} s; between tokens p50 {at(gaps, 50):.1f}, p99 {at(gaps, 99):.1f} ms; "
            f"{statistics.median(each.cpu for each in rounds):.1f} processor seconds; "
            f"{max(each.memory for each in rounds):.0f} MB"
        )
    pairs = list(zip(*results.values(), strict=True))
    ratios = {
        "goodput": [_ratio(_goodput(a, options), _goodput(b, options)) for a, b in pairs],
        "tokens a second": [a.throughput() / b.throughput() for a, b in pairs],
        "tokens a processor second": [b.cpu / a.cpu for a, b in pairs],
    }
    print("  " + ", ".join(f"{name} {statistics.median(found):.2f}x" for name, found in ratios.items()))
    if options.png:
        draw(results, options.png)


def _ratio(a: float, b: float) -> float:
    """Infinite where the other had no chat in time."""
    return a / b if b else math.inf


def _goodput(told: Round, options: argparse.Namespace) -> float:
    return told.goodput(options.first, options.gap)


def at(values: list[float], percent: int) -> float:
    return sorted(values)[min(len(values) - 1, len(values) * percent // 100)]


def draw(results: dict[str, list[Round]], target: Path) -> None:
    """Time to the first token and between tokens, as shares of chats and of tokens."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, both = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    for name, rounds in results.items():
        chats = [chat for each in rounds for chat in each["chats"]]
        for axes, values in zip(
            both, ([c.first for c in chats], [g for c in chats for g in c.gaps]), strict=True
        ):
            axes.ecdf(values, label=name)
    for axes, label in zip(both, ("seconds to the first token", "seconds between tokens"), strict=True):
        axes.set(xlabel=label, ylabel="share")
        axes.legend()
    figure.savefig(target)
    print(f"  drawn in {target}")


@contextlib.contextmanager
def ours(data: str, options: argparse.Namespace) -> Iterator[Server]:
    port = free_port()
    environ = {
        **os.environ,
        **{"TARSIA_CHAT_MODEL": str(model_file(SMOLLM2, "Q8_0")), "TARSIA_CHAT_QUANT": "int8"},
        **{"TARSIA_MAX_SLOTS": str(options.chats), "TARSIA_MAX_CONTEXT": str(CONTEXT)},
        **{"TARSIA_ACCESS_LOG": "off", "TARSIA_DATA_DIR": data},
    }
    command = [str(Path(sys.executable).with_name("tarsia")), "serve", "--port", str(port)]
    with running("tarsia", command, port, "/readyz", environ) as server:
        yield server


@contextlib.contextmanager
def theirs(options: argparse.Namespace) -> Iterator[Server]:
    port, cores = free_port(), str(psutil.cpu_count(logical=True))
    command = [
        *(str(llama_server()), "--model", str(model_file(SMOLLM2, "Q8_0")), "--port", str(port), "--no-ui"),
        *("--parallel", str(options.chats), "--ctx-size", str(CONTEXT * options.chats), "--kv-unified"),
        *("--threads", cores, "--threads-batch", cores),
    ]
    with running("llama.cpp", command, port, "/health", dict(os.environ)) as server:
        yield server


@contextlib.contextmanager
def running(
    name: str, command: list[str], port: int, ready: str, environ: dict[str, str]
) -> Iterator[Server]:
    """A server in a process of its own, once it answers that it is ready."""
    process = subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url, limit = f"http://127.0.0.1:{port}", time.monotonic() + 180
    try:
        while not answers(url + ready):
            if process.poll() is not None or time.monotonic() > limit:
                raise RuntimeError(f"{name} did not start: {' '.join(command)}")
            time.sleep(0.2)
        yield Server(name, url, psutil.Process(process.pid))
    finally:
        process.terminate()
        process.wait(30)


def answers(url: str) -> bool:
    with contextlib.suppress(httpx2.HTTPError):
        return httpx2.get(url, timeout=5).status_code == 200
    return False


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


if __name__ == "__main__":
    sys.exit(main())
