"""Entries are whole or absent, bounded in size, and only trusted in a folder of one's own."""

import os

import pytest

from dsl.runtime.cache import Cache, key_of

FILES = {"code": b"1234567890", "log": b""}


def test_an_entry_comes_back_as_it_was_stored(tmp_path):
    cache = Cache(tmp_path / "new")
    key = key_of("a", "b")
    assert cache.load(key) is None
    assert (cache.store(key, FILES) / "code").read_bytes() == b"1234567890"
    assert (Cache(tmp_path / "new").load(key) / "code").read_bytes() == b"1234567890"
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("name", ["code", "digests.json"])
@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_a_damaged_entry_is_removed(tmp_path, name, damage):
    cache = Cache(tmp_path)
    entry = cache.store("k", FILES)
    if damage == "gone":
        (entry / name).unlink()
    else:
        (entry / name).write_bytes(b"123")
    assert cache.load("k") is None
    assert not entry.exists()
    cache.store("k", FILES)
    assert cache.load("k") == entry


def test_the_first_of_two_writers_wins(tmp_path):
    first, second = Cache(tmp_path), Cache(tmp_path)
    first.store("k", {"code": b"first"})
    assert (second.store("k", {"code": b"second"}) / "code").read_bytes() == b"first"
    assert [path.name for path in tmp_path.iterdir()] == ["k"]


def test_entries_used_longest_ago_go_first(tmp_path):
    cache = Cache(tmp_path, limit=2500)
    for age, key in ((300, "old"), (200, "used"), (100, "young")):
        entry = cache.store(key, {"code": bytes(700)})
        os.utime(entry, (entry.stat().st_mtime - age,) * 2)
    cache.load("used")
    cache.store("last", {"code": bytes(700)})
    assert {path.name for path in tmp_path.iterdir()} == {"used", "young", "last"}


def test_a_folder_that_others_may_write_to_is_refused(tmp_path):
    tmp_path.chmod(0o777)
    with pytest.raises(PermissionError, match="chmod 700"):
        Cache(tmp_path)


def test_keys_tell_parts_apart():
    assert key_of("ab", "c") != key_of("a", "bc")
