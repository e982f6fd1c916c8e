"""Threads of XLA that wait for the next kernel: each task given runs once, and results do not change."""

import subprocess
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import jax
import numpy as np
import pytest

import dsl.targets.cpu.build as build
from dsl.kernels.matmul import matmul
from dsl.kernels.softmax import softmax

PROGRAM = """
#include "seats.h"
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

static std::atomic<long> ran{0};
struct Task { int plain; };
static void task(void *data) {
  auto *own = (Task *)data;
  if (own->plain++ != 0) abort();  // a second run of one task; ThreadSanitizer sees a race on it
  ran++;
  delete own;
}

int main() {
  void *memory = aligned_alloc(64, seat_bytes());
  for (long i = 0; i < seat_bytes(); i++) ((char *)memory)[i] = 0;
  if (give(task, nullptr)) return 2;  // nobody has handed over seats yet
  seat(memory);
  if (give(task, nullptr)) return 3;  // nobody sits
  std::atomic<bool> over{false};
  std::atomic<long> given{0}, refused{0};
  std::vector<std::thread> helpers, givers;
  for (int i = 0; i < 3; i++) helpers.emplace_back([&] { while (!over) linger(); });
  for (int i = 0; i < 3; i++)
    givers.emplace_back([&] {
      for (int n = 0; n < ROUNDS; n++) {
        auto *own = new Task{0};
        if (give(task, own)) given++;
        else refused++, delete own, std::this_thread::yield();
      }
    });
  for (auto &each : givers) each.join();
  over = true;
  for (auto &each : helpers) each.join();
  for (int i = 0; i < SEATS; i++)
    if (seats[i].state != EMPTY) return 4;
  printf("%ld %ld %ld\\n", ran.load(), given.load(), refused.load());
  return 0;
}
"""


@pytest.mark.parametrize("sanitizer", ["thread", "address,undefined"])
def test_each_task_runs_once_and_every_seat_is_left_empty(tmp_path, sanitizer):
    source, program = tmp_path / "seats.cc", tmp_path / "seats"
    source.write_text(PROGRAM)
    header = next(path.parent for path in build._HEADERS if path.name == "seats.h")
    flags = ("-std=c++17", "-O1", "-g", "-pthread", f"-fsanitize={sanitizer}", f"-I{header}", "-DROUNDS=9999")
    command = [build.compiler().path, *flags, source, "-o", program]
    made = subprocess.run(command, capture_output=True, text=True)
    if "-fsanitize" in made.stderr or "cannot find" in made.stderr:
        pytest.skip(f"the compiler has no {sanitizer} sanitizer")
    assert made.returncode == 0, made.stderr
    done = subprocess.run([program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    ran, given, refused = map(int, done.stdout.split())
    assert ran == given > 0
    assert given + refused == 3 * 9999


def test_kernels_of_several_threads_at_once_get_the_bits_they_get_alone():
    draw = np.random.default_rng(0).standard_normal
    a, b = draw((300, 200)).astype(np.float32), draw((200, 160)).astype(np.float32)
    rows = draw((512, 700)).astype(np.float32)
    calls = [
        jax.jit(lambda: matmul(matmul(a, b, backend="cpu"), b.T, backend="cpu")),
        jax.jit(partial(softmax, rows, backend="cpu")),
        jax.jit(partial(matmul, b.T, a.T, backend="cpu")),
    ]
    assert "#define SPLIT true" in matmul.source("cpu", a, b)
    assert "#define SPLIT true" in softmax.source("cpu", rows)
    alone = [np.asarray(call()) for call in calls]

    def many(number):
        return all(
            np.array_equal(np.asarray(calls[(number + i) % 3]()), alone[(number + i) % 3]) for i in range(60)
        )

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(many, range(4))) == [True] * 4
