"""`tarsia ask` and `ingest` over the example documents, as real processes on real models."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import httpx2
import pypdf
import pytest

from engine.documents.parse import parse_document
from tests.serve.cli.conftest import Tarsia

EXAMPLES = Path(__file__).parents[3] / "examples"
KEYS = ["question", "answered", "answer", "kind", "extractive", "generated", "citations"]
ANSWERABLE = json.loads((EXAMPLES / "questions.json").read_text())["answerable"]


def example_files() -> list[Path]:
    return sorted(p for p in (EXAMPLES / "documents").iterdir() if p.suffix in {".pdf", ".html"})


def test_an_answer_cites_a_quote_that_stands_on_its_page(tarsia: Tarsia) -> None:
    question = next(q for q in ANSWERABLE if q["document"].endswith(".pdf"))
    ran = tarsia("ask", question["question"], *example_files(), "--json")
    answer = ran.json
    assert (ran.code, list(answer), answer["answered"]) == (0, KEYS, True)
    best = answer["citations"][0]
    assert (best["document"], best["page"]) == (question["document"], question["page"])
    parsed = parse_document(best["document"], (EXAMPLES / "documents" / best["document"]).read_bytes())
    assert parsed.pages[best["page"] - 1].text[best["start"] : best["end"]] == best["quote"]
    assert answer["answer"] == answer[answer["kind"]]


def test_what_the_documents_do_not_say_is_unanswered_with_exit_0(tarsia: Tarsia) -> None:
    ran = tarsia("ask", "Who won the football world cup in 1998?", *example_files(), "--json")
    assert (ran.code, ran.json["answered"], ran.json["citations"]) == (0, False, [])


def test_ingested_documents_stay_and_are_asked_without_naming_them(tarsia: Tarsia, tmp_path: Path) -> None:
    question = ANSWERABLE[-1]
    assert tarsia("ingest", *example_files()).code == 0
    again = tarsia("ingest", *example_files(), "--json").json
    assert sorted(record["name"] for record in again) == sorted(path.name for path in example_files())
    ran = tarsia("ask", question["question"], "--no-generate", "--json")
    assert ran.json["citations"][0]["document"] == question["document"]
    assert (ran.json["kind"], ran.json["generated"]) == ("extractive", None)


def bad_files(folder: Path) -> dict[str, bytes]:
    whole = next(path for path in example_files() if path.suffix == ".pdf").read_bytes()
    writer = pypdf.PdfWriter(clone_from=next(p for p in example_files() if p.suffix == ".pdf"))
    writer.encrypt("secret", algorithm="AES-256")
    writer.write(folder / "locked.pdf")
    blank = pypdf.PdfWriter()
    blank.add_blank_page(200, 200)
    blank.write(folder / "blank.pdf")
    return {
        "encrypted": (folder / "locked.pdf").read_bytes(),
        "without text": (folder / "blank.pdf").read_bytes(),
        "truncated": whole[: len(whole) // 2],
        "0-byte": b"",
        "no document": bytes(range(256)) * 8,
    }


@pytest.mark.parametrize("kind", ["encrypted", "without text", "truncated", "0-byte", "no document"])
def test_a_bad_file_is_one_clear_line_and_exit_1(tarsia: Tarsia, tmp_path: Path, kind: str) -> None:
    (tmp_path / "bad.pdf").write_bytes(bad_files(tmp_path)[kind])
    ran = tarsia("ask", "What is this?", "bad.pdf", "--json", "--no-generate")
    [line] = ran.err.splitlines()
    assert (ran.code, ran.out) == (1, "")
    assert line.startswith("tarsia: bad.pdf: ")


def test_a_running_server_answers_for_the_data_folder_it_holds(tarsia: Tarsia, tmp_path: Path) -> None:
    data = tmp_path / "data"
    server = subprocess.Popen(
        [Path(sys.executable).with_name("tarsia"), "serve", "--port", "0", "--data-dir", data],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stderr is not None
        url = next(line.split()[3] for line in server.stderr if line.startswith("tarsia: ready on "))
        [record] = tarsia("ingest", example_files()[0], "--json").json
        listed = httpx2.get(f"{url}/v1/documents").json()["data"]
        assert [document["id"] for document in listed] == [record["id"]]
        assert list(tarsia("ask", "What is a tarsia?", "--json", "--no-generate").json) == KEYS
        server.send_signal(signal.SIGINT)
        assert server.wait(timeout=60) == 0
    finally:
        server.kill()
        server.communicate()
    assert not (data / "server.json").exists()
