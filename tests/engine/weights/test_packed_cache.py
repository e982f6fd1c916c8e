import logging
import multiprocessing
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from engine.ops.quant import quantize as quantize_matrix
from engine.weights.packed_cache import PackedCache
from engine.weights.policy import Policy
from engine.weights.tree import unflatten
from tests.engine.weights.trees import assert_same_bits, files_end_at

SHAPES = {"layers.0.q.weight": (2048, 2048), "norm": (64,)}
"""As many elements as it takes to be kept."""
INT8 = Policy("int8")


def model(seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    matrix = rng.standard_normal(SHAPES["layers.0.q.weight"], dtype=np.float32)
    return unflatten({"layers.0.q.weight": quantize_matrix(matrix, "int8"), "norm": jnp.arange(64.0)})


class Counted:
    """A way to build a model that counts how often it is taken."""

    def __init__(self, build: Callable[[], dict[str, Any]] = model) -> None:
        self.build, self.times = build, 0

    def __call__(self) -> dict[str, Any]:
        self.times += 1
        return self.build()


@pytest.fixture(scope="module")
def made() -> dict[str, Any]:
    return model()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"weights")
    return path


@pytest.fixture
def cache(tmp_path: Path) -> PackedCache:
    folder = tmp_path / "packed"
    folder.mkdir()
    return PackedCache(folder)


def entries(cache: PackedCache) -> list[Path]:
    return sorted(cache.folder.iterdir())


def test_the_second_start_builds_nothing_and_has_the_same_bits(
    cache: PackedCache, source: Path, made: dict[str, Any]
) -> None:
    build = Counted(lambda: made)
    first, second = (cache.params([source], "id", INT8, SHAPES, build) for _ in range(2))
    assert build.times == 1
    assert_same_bits(first, made)
    assert_same_bits(second, made)


def test_another_content_policy_or_file_is_another_entry(
    cache: PackedCache, source: Path, made: dict[str, Any]
) -> None:
    build = Counted(lambda: made)
    cache.params([source], "id", INT8, SHAPES, build)
    cache.params([source], "other", INT8, SHAPES, build)
    cache.params([source], "id", Policy("int8", (("norm", "f32"),)), SHAPES, build)
    cache.params([source], "id", Policy("int4"), SHAPES, build)
    # Of the same size, and changed where the identity's samples may not look.
    source.write_bytes(b"Weights")
    os.utime(source, (1, 1))
    cache.params([source], "id", INT8, SHAPES, build)
    assert build.times == 5 == len(entries(cache))


def test_another_source_of_ours_is_another_entry(
    cache: PackedCache, source: Path, made: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    build = Counted(lambda: made)
    cache.params([source], "id", INT8, SHAPES, build)
    monkeypatch.setattr("engine.weights.packed_cache.source_digest", lambda *folders: "of another version")
    cache.params([source], "id", INT8, SHAPES, build)
    assert build.times == 2


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[: len(data) // 2],
        lambda data: b"",
        lambda data: data[:-9] + bytes([data[-9] ^ 1]) + data[-8:],
        lambda data: b"\xff" * 64,
    ],
    ids=["cut", "empty", "one bit", "noise"],
)
def test_a_damaged_entry_is_built_again_and_replaced(
    cache: PackedCache,
    source: Path,
    made: dict[str, Any],
    damage: Callable[[bytes], bytes],
    caplog: pytest.LogCaptureFixture,
) -> None:
    build = Counted(lambda: made)
    cache.params([source], "id", INT8, SHAPES, build)
    [entry] = entries(cache)
    entry.write_bytes(damage(entry.read_bytes()))
    with caplog.at_level(logging.WARNING):
        assert_same_bits(cache.params([source], "id", INT8, SHAPES, build), made)
    assert "quantising again" in caplog.text
    assert_same_bits(cache.params([source], "id", INT8, SHAPES, build), made)
    assert build.times == 2 and entries(cache) == [entry]


def test_small_and_float_models_are_not_kept(cache: PackedCache, source: Path, made: dict[str, Any]) -> None:
    build = Counted(lambda: made)
    cache.params([source], "id", Policy("f32"), SHAPES, build)
    cache.params([source], "id", INT8, {"layers.0.q.weight": (2048, 2047)}, build)
    assert build.times == 2 and entries(cache) == []


def test_a_full_disk_costs_only_the_time_saved(
    cache: PackedCache, source: Path, made: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    with files_end_at(1 << 20), caplog.at_level(logging.WARNING):
        assert_same_bits(cache.params([source], "id", INT8, SHAPES, lambda: made), made)
    assert "not kept for the next start" in caplog.text
    assert entries(cache) == []


def test_what_was_loaded_longest_ago_goes_first(source: Path, tmp_path: Path, made: dict[str, Any]) -> None:
    cache, build = PackedCache(tmp_path / "packed", limit=10 << 20), Counted(lambda: made)
    cache.folder.mkdir()
    for identity in ("a", "b"):
        cache.params([source], identity, INT8, SHAPES, build)
    for entry in entries(cache):
        os.utime(entry, (1000, 1000))
    cache.params([source], "a", INT8, SHAPES, build)
    cache.params([source], "c", INT8, SHAPES, build)
    cache.params([source], "a", INT8, SHAPES, build)
    assert build.times == 3
    cache.params([source], "b", INT8, SHAPES, build)
    assert build.times == 4 and len(entries(cache)) == 2


def test_what_killed_processes_left_goes_after_an_hour(
    cache: PackedCache, source: Path, made: dict[str, Any]
) -> None:
    old, young = cache.folder / ".partial-old", cache.folder / ".partial-young"
    old.write_bytes(b"half")
    young.write_bytes(b"half")
    os.utime(old, (time.time() - 4000,) * 2)
    cache.params([source], "id", INT8, SHAPES, lambda: made)
    assert young.exists() and not old.exists()


def _start(folder: Path, source: Path, together: Any, told: Any) -> None:
    together.wait(timeout=120)
    build = Counted()
    found = PackedCache(folder).params([source], "id", INT8, SHAPES, build)
    leaf = found["layers"][0]["q"]["weight"]
    told.put((np.asarray(leaf.values).tobytes(), np.asarray(leaf.scale).tobytes()))


def test_two_processes_that_start_at_once_both_get_it_and_leave_one_entry(
    cache: PackedCache, source: Path, made: dict[str, Any]
) -> None:
    context = multiprocessing.get_context("spawn")
    together, told = context.Barrier(2), context.Queue()
    both = [context.Process(target=_start, args=(cache.folder, source, together, told)) for _ in range(2)]
    for process in both:
        process.start()
    found = [told.get(timeout=120) for _ in both]
    for process in both:
        process.join(timeout=60)
    leaf = made["layers"][0]["q"]["weight"]
    assert found == [(np.asarray(leaf.values).tobytes(), np.asarray(leaf.scale).tobytes())] * 2
    assert [path.suffix for path in entries(cache)] == [".safetensors"]
