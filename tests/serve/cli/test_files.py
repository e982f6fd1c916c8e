import os
from pathlib import Path

import pytest

from engine.errors import DocumentError, DocumentTooLarge
from serve.cli.files import named_files


def test_a_file_is_cited_by_its_own_name(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "guide.pdf"
    path.parent.mkdir()
    path.touch()
    assert [file.name for file in named_files([path])] == ["guide.pdf"]


def test_two_files_of_one_name_are_cited_by_their_paths(tmp_path: Path) -> None:
    paths = [tmp_path / folder / "index.html" for folder in ("a", "b")]
    for path in paths:
        path.parent.mkdir()
        path.touch()
    assert [file.name for file in named_files(paths)] == [str(path) for path in paths]


def test_a_folder_stands_for_the_documents_in_it_and_below(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    for name in ("b.PDF", "a.md", "picture.png", "below/c.html"):
        (tmp_path / name).touch()
    assert sorted(file.name for file in named_files([tmp_path])) == ["a.md", "b.PDF", "c.html"]


def test_a_file_named_twice_is_read_once(tmp_path: Path) -> None:
    (tmp_path / "a.md").touch()
    assert len(named_files([tmp_path / "a.md", tmp_path / "a.md", tmp_path])) == 1


def test_what_is_not_there_and_what_is_empty_are_named(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match=r"gone\.pdf: no such file"):
        named_files([tmp_path / "gone.pdf"])
    with pytest.raises(DocumentError, match="no PDF, HTML"):
        named_files([tmp_path])


def test_an_unreadable_file_is_a_document_error(tmp_path: Path) -> None:
    path = tmp_path / "a.pdf"
    path.touch()
    [file] = named_files([path])
    path.unlink()
    with pytest.raises(DocumentError, match=r"a\.pdf: cannot be read: No such file"):
        file.read(100)


def test_a_pipe_or_device_is_refused_and_never_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.txt")
    for path in (tmp_path / "pipe.txt", Path("/dev/zero")):
        with pytest.raises(DocumentError, match="neither a file nor a folder"):
            named_files([path])


def test_a_file_over_the_limit_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with (tmp_path / "huge.txt").open("wb") as sparse:
        sparse.truncate(1 << 40)
    [file] = named_files([tmp_path / "huge.txt"])
    with pytest.raises(DocumentTooLarge, match=r"huge\.txt: larger than 64 MB"):
        file.read(64 << 20)
