import errno
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stores.errors import CorruptStore, LogFailed, StoreClosed, StoreFull
from stores.log.disk import Disk
from stores.log.records import HEADER_SIZE, Record, decode, find_after, head
from stores.log.wal import FILE_HEADER_SIZE, Log, log_files
from tests.stores.faults import FaultyDisk


def open_log(folder: Path, *, after: int = 0, disk: Disk | None = None, rotate_bytes: int = 1 << 20):
    if not folder.exists():
        Log.create(folder, FaultyDisk())
    log = Log(folder, disk or FaultyDisk(), rotate_bytes=rotate_bytes)
    return log, list(log.replay(after))


def write_log(folder: Path, payloads: list[bytes], *, rotate_bytes: int = 1 << 20) -> None:
    log, _ = open_log(folder, rotate_bytes=rotate_bytes)
    for payload in payloads:
        log.append([(1, [payload])])
    log.close()


def payloads(records: list[Record]) -> list[bytes]:
    return [record.payload for record in records]


@given(st.lists(st.lists(st.tuples(st.integers(1, 255), st.binary(max_size=200)), min_size=1), max_size=8))
@settings(max_examples=30, deadline=None)
def test_what_was_appended_is_replayed_in_order(tmp_path_factory, groups) -> None:
    folder = tmp_path_factory.mktemp("log") / "wal"
    log, _ = open_log(folder, rotate_bytes=300)
    for group in groups:
        log.append([(kind, [payload]) for kind, payload in group], term=7)
    log.close()
    _, records = open_log(folder)
    entries = [entry for group in groups for entry in group]
    assert [(record.type, record.payload) for record in records] == entries
    assert [record.index for record in records] == list(range(1, len(entries) + 1))
    assert {record.term for record in records} <= {7}


def test_replay_starts_after_the_floor_and_appending_goes_on(tmp_path: Path) -> None:
    write_log(tmp_path / "wal", [b"a", b"b", b"c"])
    log, records = open_log(tmp_path / "wal", after=2)
    assert payloads(records) == [b"c"]
    assert log.append([(1, [b"d"])])[0].index == 4


@pytest.mark.parametrize("end", ["cut", "zeros", "noise"])
def test_a_last_record_torn_at_any_byte_is_cut_and_the_log_goes_on(tmp_path: Path, end: str) -> None:
    write_log(tmp_path / "wal", [b"first", b"second"])
    (path,) = log_files(tmp_path / "wal")
    whole = path.read_bytes()
    last = HEADER_SIZE + len(b"second")
    for kept in range(last):
        rest = {"cut": b"", "zeros": bytes(last - kept), "noise": b"\xa5" * (last - kept)}[end]
        path.write_bytes(whole[: len(whole) - last + kept] + rest)
        log, records = open_log(tmp_path / "wal")
        assert payloads(records) == [b"first"]
        assert log.cut_bytes == kept + len(rest)
        log.append([(1, [b"third"])])
        log.close()
        assert payloads(open_log(tmp_path / "wal")[1]) == [b"first", b"third"]


def test_a_bit_flip_before_the_last_record_is_refused_and_named(tmp_path: Path) -> None:
    write_log(tmp_path / "wal", [b"first", b"second", b"third"])
    (path,) = log_files(tmp_path / "wal")
    whole = path.read_bytes()
    last = HEADER_SIZE + len(b"third")
    for position in range(len(whole) - last):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << position % 8
        path.write_bytes(damaged)
        with pytest.raises(CorruptStore, match=path.name) as caught:
            open_log(tmp_path / "wal")
        assert caught.value.offset is not None and caught.value.offset <= position
        assert path.read_bytes() == damaged


def test_a_bit_flip_in_an_older_file_is_refused_even_in_its_last_record(tmp_path: Path) -> None:
    write_log(tmp_path / "wal", [b"x" * 50] * 4, rotate_bytes=100)
    older = log_files(tmp_path / "wal")[1]
    data = bytearray(older.read_bytes())
    data[-1] ^= 1
    older.write_bytes(data)
    with pytest.raises(CorruptStore, match=older.name):
        open_log(tmp_path / "wal")


@pytest.mark.parametrize("missing", [0, 1])
def test_a_missing_file_is_refused(tmp_path: Path, missing: int) -> None:
    write_log(tmp_path / "wal", [b"x" * 50] * 4, rotate_bytes=100)
    log_files(tmp_path / "wal")[missing].unlink()
    with pytest.raises(CorruptStore):
        open_log(tmp_path / "wal")


def test_a_cut_older_end_than_the_manifest_knows_is_refused(tmp_path: Path) -> None:
    write_log(tmp_path / "wal", [b"a", b"b"])
    with pytest.raises(CorruptStore, match="records 3 to 5 are missing"):
        open_log(tmp_path / "wal", after=5)


def test_records_of_one_unsynced_group_may_arrive_in_any_order(tmp_path: Path) -> None:
    """A power cut can keep the second page of a group and lose the first: nobody was told it was written."""
    log, _ = open_log(tmp_path / "wal")
    log.append([(1, [b"kept"])])
    log.append([(1, [b"one"]), (1, [b"two"])])
    log.close()
    (path,) = log_files(tmp_path / "wal")
    data = bytearray(path.read_bytes())
    data[FILE_HEADER_SIZE + HEADER_SIZE + len(b"kept") + HEADER_SIZE] ^= 1
    path.write_bytes(data)
    _, records = open_log(tmp_path / "wal")
    assert payloads(records) == [b"kept"]


def test_a_record_of_a_newer_format_is_refused_not_cut(tmp_path: Path) -> None:
    write_log(tmp_path / "wal", [b"a"])
    (path,) = log_files(tmp_path / "wal")
    from stores.log import records as module

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "FORMAT_VERSION", 2)
        record = Record(1, [b"b"], 2)
        newer = head(record) + record.payload
    path.write_bytes(path.read_bytes() + newer)
    with pytest.raises(CorruptStore, match="newer"):
        open_log(tmp_path / "wal")


def test_a_crash_while_a_file_is_begun_leaves_a_log_that_opens(tmp_path: Path) -> None:
    write_log(tmp_path / "wal", [b"a", b"b"])
    for size in range(FILE_HEADER_SIZE):
        (tmp_path / "wal" / "0000000003.log").write_bytes(b"TARSIALG"[:size] + bytes(max(0, size - 8)))
        log, records = open_log(tmp_path / "wal")
        assert payloads(records) == [b"a", b"b"]
        log.close()


def test_a_full_disk_refuses_the_write_and_later_ones_succeed(tmp_path: Path) -> None:
    disk = FaultyDisk(only="write", fault=errno.ENOSPC)
    log, _ = open_log(tmp_path / "wal", disk=disk)
    log.append([(1, [b"before"])])
    disk.fail_at = disk.steps + 1
    with pytest.raises(StoreFull, match="free some"):
        log.append([(1, [b"refused" * 100])])
    log.append([(1, [b"after"])])
    log.close()
    assert payloads(open_log(tmp_path / "wal")[1]) == [b"before", b"after"]


@pytest.mark.parametrize("only", ["sync", "write"])
def test_an_io_error_poisons_the_log_and_nothing_unacknowledged_is_replayed(
    tmp_path: Path, only: str
) -> None:
    disk = FaultyDisk(only=only, fault=errno.EIO)
    log, _ = open_log(tmp_path / "wal", disk=disk)
    log.append([(1, [b"before"])])
    disk.fail_at = disk.steps + 1
    for _ in range(2):
        with pytest.raises(LogFailed, match="check the disk"):
            log.append([(1, [b"lost"])])
    log.close()
    assert payloads(open_log(tmp_path / "wal")[1]) == [b"before"]


def test_files_rotate_by_size_and_are_dropped_below_the_floor_but_for_the_last(tmp_path: Path) -> None:
    write_log(tmp_path / "wal", [b"x" * 50] * 6, rotate_bytes=100)
    log, _ = open_log(tmp_path / "wal")
    before = len(log_files(tmp_path / "wal"))
    assert before == 6
    log.drop_until(3)
    assert [int(path.stem) for path in log_files(tmp_path / "wal")] == [4, 5, 6]
    log.drop_until(6)
    assert [int(path.stem) for path in log_files(tmp_path / "wal")] == [6]


def test_a_closed_log_refuses(tmp_path: Path) -> None:
    log, _ = open_log(tmp_path / "wal")
    log.close()
    with pytest.raises(StoreClosed):
        log.append([(1, [b""])])


def test_files_are_private(tmp_path: Path) -> None:
    write_log(tmp_path / "wal", [b"a"])
    (path,) = log_files(tmp_path / "wal")
    assert path.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "wal").stat().st_mode & 0o777 == 0o700


@given(st.binary(max_size=60), st.binary(max_size=60), st.integers(1, 2**40))
@settings(max_examples=60, deadline=None)
def test_a_whole_record_is_found_behind_any_noise(noise: bytes, payload: bytes, index: int) -> None:
    record = Record(1, [payload], index, 3, index - 1)
    data = b"\0" + noise + head(record) + record.payload + noise
    assert find_after(memoryview(data), 0, index - 1) == record
    assert decode(memoryview(data), 1 + len(noise)) is not None
