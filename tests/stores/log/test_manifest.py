from pathlib import Path

import pytest

from stores.errors import CorruptStore
from stores.log import manifest as manifests
from stores.log.disk import Disk
from stores.log.manifest import Manifest, SegmentEntry
from stores.schema import Schema

MANIFEST = Manifest(Schema(3, "dot", "m"), 12, (SegmentEntry("s1", 5, 99, 2), SegmentEntry("s2", 1, 7)), 4)


def test_what_was_written_is_read_and_older_ones_can_go(tmp_path: Path) -> None:
    manifests.write(tmp_path, Manifest(Schema(3, "dot")), Disk())
    manifests.write(tmp_path, MANIFEST, Disk())
    assert manifests.highest_number(tmp_path) == 4
    manifests.remove_old(tmp_path, 4, Disk())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["CURRENT", "MANIFEST-000004"]
    assert manifests.read(tmp_path) == MANIFEST


@pytest.mark.parametrize("name", ["CURRENT", "MANIFEST-000004"])
def test_any_flipped_or_missing_byte_is_refused_and_named(tmp_path: Path, name: str) -> None:
    manifests.write(tmp_path, MANIFEST, Disk())
    path = tmp_path / name
    whole = path.read_bytes()
    for position in range(len(whole)):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 4]) + whole[position + 1 :])
        with pytest.raises(CorruptStore, match=name):
            manifests.read(tmp_path)
        path.write_bytes(whole[:position])
        with pytest.raises(CorruptStore, match=name):
            manifests.read(tmp_path)
    path.unlink()
    with pytest.raises(CorruptStore, match="missing"):
        manifests.read(tmp_path)
