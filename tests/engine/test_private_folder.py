import logging
from pathlib import Path

import pytest

from engine.private_folder import private_folder


def test_it_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    assert private_folder(folder) == folder
    assert folder.stat().st_mode & 0o777 == 0o700
    assert private_folder(folder) == folder


def test_one_that_others_could_read_is_closed(tmp_path: Path) -> None:
    folder = tmp_path / "b"
    folder.mkdir()
    folder.chmod(0o755)
    assert private_folder(folder) == folder
    assert folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o720, 0o702])
def test_one_that_others_could_write_is_not_trusted(
    tmp_path: Path, mode: int, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "b"
    folder.mkdir()
    folder.chmod(mode)
    with caplog.at_level(logging.WARNING):
        assert private_folder(folder) is None
    assert f"{folder} is not used as a cache: others may have written to it" in caplog.text


def test_links_files_and_folders_of_others_are_not_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, link, file = tmp_path / "real", tmp_path / "link", tmp_path / "file"
    real.mkdir(mode=0o700)
    link.symlink_to(real)
    file.touch()
    assert private_folder(link) is None
    assert private_folder(file) is None
    assert private_folder(file / "below") is None
    monkeypatch.setattr("os.geteuid", lambda: real.stat().st_uid + 1)
    assert private_folder(real) is None
