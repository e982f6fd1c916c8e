"""`tarsia models quantize` and `warm`, each as a real process."""

import shutil
import zlib
from pathlib import Path

import pytest

from tests.serve.cli.conftest import Tarsia

PARITY = Path(__file__).parents[2] / "fixtures" / "parity"
SENTENCE = "The keeper wound the clockwork every four hours and wrote down the weather.\n"


def test_a_report_tells_kl_and_top1_on_a_text_of_ones_own(tarsia: Tarsia, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(SENTENCE)
    asked = ("models", "quantize", "smollm2-135m-instruct", "--quant", "int8", "--report")
    ran = tarsia(*asked, "--text", "text.txt", "--tokens", "12")
    told = dict(line.split("\t") for line in ran.out.splitlines())
    assert told["model"] == "smollm2-135m-instruct in int8"
    kl, words = told["KL divergence"].split(" ", 1)
    assert words == "nats a token, over 12 tokens" and 0 < float(kl) < 0.05
    assert 80 <= float(told["top-1 agreement"].removesuffix("%")) <= 100


def test_a_packed_folder_chats_as_the_model_does_in_that_form(tarsia: Tarsia, tmp_path: Path) -> None:
    ran = tarsia("models", "quantize", "smollm2-135m-instruct", "--quant", "int4", "--out", "small")
    assert ran.code == 0 and "small: use it as a model's name" in ran.out
    question = ("What is the capital of France?", "--temperature", "0", "--max-tokens", "8", "--json")
    packed = tarsia("chat", "--model", "./small", *question)
    whole = tarsia("chat", *question, environ={"TARSIA_CHAT_QUANT": "int4"})
    assert packed.json["text"] == whole.json["text"] and "Paris" in packed.json["text"]
    again = tarsia("models", "quantize", "smollm2-135m-instruct", "--quant", "int4", "--out", "small")
    assert again.code == 1 and again.err == "tarsia: small exists; name a folder that does not\n"
    other = tarsia("chat", "--model", "./small", "hi", environ={"TARSIA_CHAT_QUANT": "int8"})
    assert other.code == 1 and "packed as int4" in other.err and other.err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("--quant", "int8"), "say what to make of it: --report, --out DIR, or both"),
        (("--quant", "int8", "--report", "--tokens", "0"), "--tokens must be at least 1, not 0"),
        (("--quant", "int8", "--report", "--text", "none.txt"), "none.txt cannot be read as UTF-8 text"),
        (("--quant", "int8", "--report"), "llama has no tokenizer: it cannot read a text"),
        (("--quant", "int8", "--out", "x", "--override", "layers"), "'layers' must be PATTERN=FORM"),
        (("--quant", "int8", "--out", "x", "--override", "a.*=int4"), "no matrix is called 'a.*'; there are"),
        (("--quant", "int8", "--out", "llama"), "llama exists; name a folder that does not"),
    ],
)
def test_errors_are_one_line(tarsia: Tarsia, tmp_path: Path, arguments: tuple[str, ...], line: str) -> None:
    shutil.copytree(PARITY / "llama_gqa_tied", tmp_path / "llama")
    ran = tarsia("models", "quantize", "./llama", *arguments)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith("tarsia: ") and line in ran.err and ran.err.count("\n") == 1


def test_a_damaged_packed_folder_is_one_line(tarsia: Tarsia, tmp_path: Path) -> None:
    shutil.copytree(PARITY / "llama_gqa_tied", tmp_path / "llama")
    made = tarsia("models", "quantize", "./llama", "--quant", "int4", "--out", "small", "--json")
    assert made.json == {"model": "llama", "quant": "int4", "report": None, "out": "small"}
    packed = tmp_path / "small" / "packed.safetensors"
    packed.write_bytes(packed.read_bytes()[:-1])
    ran = tarsia("models", "warm", "./small")
    assert ran.code == 1 and "damaged or truncated packed weights" in ran.err.splitlines()[-1]


def test_a_model_that_was_warmed_compiles_nothing_at_the_next_start(tarsia: Tarsia, tmp_path: Path) -> None:
    cache, llama = tmp_path / "cache", tmp_path / "llama"
    shutil.copytree(PARITY / "llama_gqa_tied", llama)
    environ = {"TARSIA_CACHE_DIR": str(cache), "TARSIA_MAX_CONTEXT": "300", "TARSIA_MAX_SLOTS": "1"}
    first = tarsia("models", "warm", llama, "--json", environ=environ).json
    kept = Path(first["kept"])
    assert kept.parent == cache / "xla" and kept.stat().st_mode & 0o777 == 0o700
    compiled = {path.name for path in kept.glob("*-cache")}
    assert len(compiled) >= first["programs"] > 4
    again = tarsia("models", "warm", llama, environ=environ)
    assert f"{first['programs']} programs ready" in again.out
    assert {path.name for path in kept.glob("*-cache")} == compiled


def test_warming_replaces_damaged_programs(tarsia: Tarsia, tmp_path: Path) -> None:
    cache = str(tmp_path / "cache")
    environ = {"TARSIA_CACHE_DIR": cache, "TARSIA_MAX_CONTEXT": "300", "TARSIA_MAX_SLOTS": "1"}
    asked = ("models", "warm", PARITY / "llama_gqa_tied", "--json")
    kept = Path(tarsia(*asked, environ=environ).json["kept"])
    entries = sorted(kept.glob("*-cache"))
    whole = [entry.read_bytes() for entry in entries]
    assert len(whole) > 1
    for place, (entry, data) in enumerate(zip(entries, whole, strict=True)):
        middle = len(data) // 2
        flipped = data[:middle] + bytes([data[middle] ^ 0x55]) + data[middle + 1 :]
        entry.write_bytes(data[:middle] if place % 2 else flipped)
    again = tarsia(*asked, environ=environ)
    assert again.code == 0 and "Error reading" not in again.err
    assert sorted(kept.glob("*-cache")) == entries
    for entry in entries:
        zlib.decompress(entry.read_bytes())


def test_a_cache_that_others_may_write_is_not_read(tarsia: Tarsia, tmp_path: Path) -> None:
    folder = tmp_path / "cache" / "xla"
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    ran = tarsia(
        "models", "warm", PARITY / "bert_reranker", environ={"TARSIA_CACHE_DIR": str(tmp_path / "cache")}
    )
    assert "others may have written to it" in ran.err
    assert list(folder.iterdir()) == []
