"""The commands of the vector database, each as a real process."""

import json
from pathlib import Path

import numpy as np
import pytest

from stores import Database
from tests.serve.cli.conftest import Tarsia


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    vectors = np.eye(4).tolist()
    lines = [
        {"id": f"row {n}", "vector": vectors[n % 4], "metadata": {"n": n}, "text": f"text {n}"}
        for n in range(40)
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


def test_rows_go_in_are_listed_searched_and_come_out(tarsia: Tarsia, rows: Path, tmp_path: Path) -> None:
    report = tarsia("import", "mine", rows, "--metric", "l2", "--json").json
    assert report == {"rows": 40, "dim": 4, "format": "jsonl", "collection": "mine"}
    [facts] = tarsia("collections", "--json").json
    assert (facts["name"], facts["rows"], facts["dim"], facts["metric"]) == ("mine", 40, 4, "l2")
    (tmp_path / "query.json").write_text("[0, 0, 1, 0]")
    query = ("--vector", "query.json", "-k", "3", "--filter", '{"n": {"$gte": 20}}')
    found = tarsia("search", "mine", *query, "--json", "--explain").json
    assert [hit["metadata"]["n"] % 4 for hit in found["hits"]] == [2, 2, 2]
    assert all(hit["metadata"]["n"] >= 20 for hit in found["hits"])
    assert found["explanation"]["allowed"] == 20
    assert tarsia("search", "mine", "7", "--words", "-k", "1").out.split("\t")[1] == "row 7"
    assert tarsia("export", "mine", "out.npz", "--json").json["rows"] == 40
    assert set(np.load(tmp_path / "out.npz")["ids"].tolist()) == {f"row {n}" for n in range(40)}


def test_a_text_is_embedded_by_the_collections_model(tarsia: Tarsia, tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text("# Cats\n\nCats purr.\n\n# Stars\n\nThe sun is a star.\n")
    assert tarsia("ingest", "page.md").code == 0
    found = tarsia("search", "passages", "astronomy", "-k", "1", "--json").json
    assert "star" in found["hits"][0]["text"]


def test_snapshots_are_made_listed_restored_and_deleted(tarsia: Tarsia, rows: Path, tmp_path: Path) -> None:
    tarsia("import", "mine", rows)
    made = Path(tarsia("snapshot", "create", "mine", "before").out.strip())
    assert made.is_dir()
    with Database.open(tmp_path / "data") as database:
        database.collection("mine").delete(filter={"n": {"$lt": 30}})
    [listed] = tarsia("snapshot", "list", "--json").json
    assert (listed["collection"], listed["name"], listed["rows"]) == ("mine", "before", 40)
    refused = tarsia("snapshot", "restore", "mine", "before")
    assert refused.code == 1 and "overwrite" in refused.err
    assert tarsia("snapshot", "restore", "mine", "before", "--overwrite").out == "mine\t40\n"
    assert tarsia("snapshot", "restore", "mine", "before", "--into", "other").out == "other\t40\n"
    assert tarsia("snapshot", "delete", "mine", "before").code == 0
    assert tarsia("snapshot", "list").out == ""


def test_compacting_and_verifying(tarsia: Tarsia, rows: Path, tmp_path: Path) -> None:
    tarsia("import", "mine", rows)
    [done] = tarsia("compact", "--json").json
    assert done["name"] == "mine" and done["disk_bytes"] > 0
    [report] = tarsia("verify", "--json").json
    assert report["rows"] == 40 and report["files"] > 4
    [victim] = (tmp_path / "data").glob("collections/mine/seg/*/vec.f32")
    data = bytearray(victim.read_bytes())
    data[9] ^= 4
    victim.write_bytes(data)
    refused = tarsia("verify")
    assert refused.code == 1 and "vec.f32" in refused.err and len(refused.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("search", "none", "words"), "`tarsia import none FILE` makes one"),
        (("search", "mine"), "search by a text"),
        (("search", "mine", "words"), "give --vector FILE"),
        (("search", "mine", "x", "--words", "--filter", "{"), "--filter is not JSON"),
        (("search", "mine", "x", "--words", "--filter", "[]"), "JSON object"),
        (("search", "mine", "x", "--words", "-k", "0"), "k must be"),
        (("search", "mine", "--vector", "nowhere.json"), "neither a JSON list"),
        (("import", "mine", "nowhere.jsonl"), "no such file"),
        (("import", "mine", "rows.txt"), "There are: jsonl"),
        (("export", "none", "out.jsonl"), "no collection 'none'"),
        (("snapshot", "restore", "mine", "never"), "there are: none"),
        (("compact", "none"), "no collection 'none'"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    tarsia: Tarsia, tmp_path: Path, arguments, message: str
) -> None:
    with Database.open(tmp_path / "data") as database:
        database.collection("mine", dim=2)
    (tmp_path / "rows.txt").write_text("x")
    ran = tarsia(*arguments)
    assert ran.code == 1 and ran.out == ""
    assert message in ran.err and len(ran.err.splitlines()) == 1


def test_a_folder_in_use_says_by_whom(tarsia: Tarsia, tmp_path: Path) -> None:
    with Database.open(tmp_path / "data"):
        ran = tarsia("collections")
    assert ran.code == 1 and "in use by process" in ran.err
