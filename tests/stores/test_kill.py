"""A real process, killed at random moments, again and again on the same database."""

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from stores import Database
from tests.stores.crash_writer import OPTIONS, vector_of

Model = dict[str, int]
ROOT = Path(__file__).parents[2]


def run_and_kill(folder: Path, seed: int, operations: int, delay: float) -> list[str]:
    """The writer's lines up to its death: some time after so many operations were acknowledged."""
    command = [sys.executable, "-m", "tests.stores.crash_writer", str(folder), str(seed)]
    env = {**os.environ, "JAX_PLATFORMS": "cpu"}
    with subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        lines = []
        while operations >= 0 and (line := writer.stdout.readline()):
            lines.append(line)
            operations -= not line.startswith("trying")
        try:
            writer.wait(timeout=delay)
            raise AssertionError("the writer ended by itself")
        except subprocess.TimeoutExpired:
            os.kill(writer.pid, signal.SIGKILL)
        return lines + writer.stdout.readlines()


def apply_line(model: Model, line: str) -> Model:
    kind, batch, *ids = line.split()
    kept = {id: number for id, number in model.items() if id not in ids}
    return kept if kind == "delete" else {**kept, **dict.fromkeys(ids, int(batch))}


def contents(folder: Path) -> Model:
    with Database.open(folder, options=OPTIONS) as database:
        rows = database.collection("rows")
        rows.verify()
        found = list(rows)
        for row in found:
            batch = row.metadata["batch"]
            assert row.vector.tolist() == vector_of(batch, row.id).tolist()
            assert row.text == f"row {row.id} of batch {batch}"
        assert len({row.id for row in found}) == len(found)
        return {row.id: row.metadata["batch"] for row in found}


def kill_repeatedly(folder: Path, seed: int, kills: int) -> None:
    chance = random.Random(seed)
    model: Model = {}
    acknowledged = 0
    for kill in range(kills):
        lines = run_and_kill(folder, seed * 10_000 + kill, chance.randint(0, 60), chance.uniform(0, 0.05))
        # The pipe may end within a line: what was not said to its end was not said.
        said = [line for line in lines if line.endswith("\n") and line != "ready\n"]
        for line in said:
            if not line.startswith("trying"):
                model = apply_line(model, line)
                acknowledged += 1
        in_flight = model
        if said and said[-1].startswith("trying"):
            in_flight = apply_line(model, said[-1].removeprefix("trying "))
        found = contents(folder)
        assert found in (model, in_flight), f"seed {seed}, kill {kill}"
        model = found
    assert acknowledged > 10 * kills


def test_acknowledged_rows_survive_kill_9_and_batches_are_whole(tmp_path: Path) -> None:
    kill_repeatedly(tmp_path / "db", seed=1, kills=15)


@pytest.mark.soak
def test_acknowledged_rows_survive_hundreds_of_kills(tmp_path: Path) -> None:
    seed = int(os.environ.get("TARSIA_KILL_SEED", "2"))
    kill_repeatedly(tmp_path / "db", seed, kills=int(os.environ.get("TARSIA_KILLS", "500")))
