"""Records of tuning: they outlive a process, bear damage and rivals, and travel as JSON."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import jax.numpy as jnp
import pytest

import dsl
from dsl import TunedError
from dsl.runtime import tuned
from dsl.runtime.cache import Cache
from dsl.runtime.tuned import Trial, TunedCall

PROGRAM = """
import sys
import jax.numpy as jnp
import dsl
from dsl.runtime import targets
from tests.dsl.runtime.rivals import Native

@dsl.kernel(grid=2, out=lambda x: dsl.like(x), search={"BM": (4, 8)})
def doubled(x, o, *, BM=8):
    rows = dsl.tile(dsl.pid(0) * 6, 6)
    o[rows, :] = x[rows, :] * 2.0

targets.register(Native("native"))
targets.MEASURED["cpu"] = ("native",)
x = jnp.ones((12, 7))
if "tune" in sys.argv:
    for _ in range(int(sys.argv[2])):
        record = doubled.tune(x)
told = doubled.explain(x)
print(told.tuned.key if told.tuned else None, told.tuned and told.backend == told.tuned.backend)
"""


def start(folder, *words):
    env = {**os.environ, "TARSIA_DSL_CACHE": str(folder), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", PROGRAM, *words]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True)


def said(process):
    told = process.communicate(timeout=120)[0].split()
    assert process.returncode == 0
    return told


def test_another_process_follows_the_record_and_a_damaged_one_is_no_record(own_cache):
    key, follows = said(start(own_cache, "tune", "1"))
    assert follows == "True" and said(start(own_cache)) == [key, "True"]
    (own_cache / key / tuned.FILE).write_text('{"backend": "native"')  # as a crash of the machine leaves it
    assert said(start(own_cache)) == ["None", "None"]
    assert said(start(own_cache, "tune", "1")) == [key, "True"]


def test_two_processes_that_tune_at_once_leave_one_whole_record(own_cache):
    both = [start(own_cache, "tune", "6") for _ in range(2)]
    (key, first), (other, second) = (said(each) for each in both)
    assert key == other and (first, second) == ("True", "True")
    assert [path.name for path in own_cache.iterdir()] == [key]
    assert tuned.export(own_cache / "out.json") == 1


def record(key="a" * 40, **changes):
    trials = (Trial("cpu", {"BM": 8}, 1e-5), Trial("metal", {}, None, "Metal needs macOS"))
    whole = TunedCall(key, "softmax", "a device", "cpu", {"BM": 8}, 1e-5, trials)
    return replace(whole, **changes)


def test_records_travel_as_json(own_cache, tmp_path, monkeypatch):
    mine = [record(), record("b" * 40, kernel="norm", keywords={}, backend="xla")]
    for each in mine:
        tuned.keep(each)
    assert tuned.export(tmp_path / "tuned.json") == 2
    elsewhere = tmp_path / "elsewhere"
    monkeypatch.setenv("TARSIA_DSL_CACHE", str(elsewhere))
    assert tuned.load(tmp_path / "tuned.json") == 2
    assert tuned.export(tmp_path / "again.json") == 2
    assert (tmp_path / "again.json").read_text() == (tmp_path / "tuned.json").read_text()


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda told: told.pop("tuned"), "not a file of tuned kernels"),
        (lambda told: told.update(format=99), "not a file of tuned kernels"),
        (lambda told: told["tuned"][0].pop("backend"), "record 0: its fields are"),
        (lambda told: told["tuned"][0].update(key="../../home"), "record 0: key is not 40 hexadecimal"),
        (lambda told: told["tuned"][0].update(seconds=-1), "record 0: seconds are no positive number"),
        (lambda told: told["tuned"][0].update(seconds=True), "record 0: seconds are no positive number"),
        (lambda told: told["tuned"][0].update(keywords={"BM": [8]}), "keywords are no object of numbers"),
        (lambda told: told["tuned"][0].update(trials=[3]), "a trial is not an object"),
        (lambda told: told["tuned"].append(7), "record 1: it is not an object"),
    ],
)
def test_a_file_of_another_form_is_an_error_and_nothing_of_it_is_taken(own_cache, tmp_path, damage, problem):
    tuned.keep(record())
    tuned.export(tmp_path / "tuned.json")
    (own_cache / ("a" * 40) / tuned.FILE).unlink()
    told = json.loads((tmp_path / "tuned.json").read_text())
    damage(told)
    (tmp_path / "bad.json").write_text(json.dumps(told))
    with pytest.raises(TunedError, match=rf"bad\.json: .*{problem}"):
        tuned.load(tmp_path / "bad.json")
    assert tuned.export(tmp_path / "after.json") == 0


def test_a_file_that_is_not_json_is_an_error(tmp_path):
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(TunedError, match=r"x\.json: not JSON"):
        tuned.load(tmp_path / "x.json")


def test_an_entry_of_another_format_is_no_record(own_cache):
    Cache(own_cache).store("d" * 40, {tuned.FILE: b'{"format": 0}'})
    tuned.keep(record())
    assert tuned.export(own_cache / "out.json") == 1


def test_a_record_belongs_to_the_code_the_shape_the_keywords_and_the_device(monkeypatch):
    def made(factor):
        @dsl.kernel(grid=1, out=lambda x: dsl.like(x))
        def scaled(x, o, *, BM=8):
            o[:] = x[:] * factor

        return scaled

    def key(kernel, x, **meta):
        return tuned.key_for(kernel, kernel.prepare((x,), None, meta).refs, meta, "cpu")

    x, kernel = jnp.ones(7), made(2.0)
    keys = {key(kernel, x), key(made(3.0), x), key(kernel, jnp.ones(8)), key(kernel, x, BM=8)}
    assert len(keys) == 4 and key(made(2.0), x) in keys
    monkeypatch.setattr(tuned, "identity", lambda platform: "another device")
    assert key(kernel, x) not in keys
