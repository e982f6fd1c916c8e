"""`tarsia classify`, as a process of its own."""

import numpy as np
import pytest
from PIL import Image

from tests.engine.vision.conftest import SAMPLE
from tests.engine.vision.tiny_clip import clip_folder


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "wardrobe" / "more").mkdir(parents=True)
    sample = np.load(SAMPLE)
    for number, place in enumerate(("boot.png", "more/pullover.jpg", "trouser.webp")):
        Image.fromarray(sample["images"][number]).resize((84, 84)).save(tmp_path / "wardrobe" / place)
    (tmp_path / "wardrobe" / "notes.txt").write_text("not looked at")
    return tmp_path / "wardrobe"


def test_each_image_of_a_folder_is_a_line_and_json_says_the_same(tarsia, folder):
    ran, as_json = tarsia("classify", folder), tarsia("classify", folder, "--json", "--top-k", 1)
    assert ran.code == as_json.code == 0, ran.err
    lines = [line.split("\t") for line in ran.out.splitlines()]
    assert [line[:2] for line in lines] == [
        ["boot.png", "ankle boot"],
        ["pullover.jpg", "pullover"],
        ["trouser.webp", "trouser"],
    ]
    assert all(len(line) == 7 and line[2].endswith("%") for line in lines)
    told = as_json.json
    assert told["model"] == "vit-fashion"
    assert [(each["file"], each["labels"][0]["label"]) for each in told["images"]] == [
        (line[0], line[1]) for line in lines
    ]


def test_images_that_cannot_be_read_are_a_line_each_and_the_others_are_named(tarsia, folder):
    (folder / "a.png").write_bytes(b"this is text")
    (folder / "b.png").write_bytes((folder / "boot.png").read_bytes()[:60])
    ran = tarsia("classify", folder)
    assert ran.code == 1 and len(ran.out.splitlines()) == 3
    first, second, last = ran.err.splitlines()
    assert first.startswith("tarsia: a.png: is text") and second.startswith("tarsia: b.png: is ")
    assert last == "tarsia: 2 of 5 images could not be read"
    told = tarsia("classify", folder, "--json").json["images"]
    assert [each["file"] for each in told if "error" in each] == ["a.png", "b.png"]


def test_an_overlay_is_written_for_one_image(tarsia, folder, tmp_path):
    ran = tarsia("classify", folder / "boot.png", "--overlay", tmp_path / "why.png")
    assert ran.code == 0 and "why.png" in ran.err
    assert Image.open(tmp_path / "why.png").size == (84, 84)
    refused = tarsia("classify", folder, "--overlay", tmp_path / "why.png")
    assert (refused.code, refused.err) == (1, "tarsia: --overlay explains one image, not 3\n")


def test_a_clip_model_chooses_among_labels(tarsia, folder, tmp_path):
    model = clip_folder(tmp_path / "tiny-clip")
    ran = tarsia("classify", folder / "boot.png", "--model", model, "--labels", "w3, w4 w5", "--json")
    assert ran.code == 0, ran.err
    assert {each["label"] for each in ran.json["images"][0]["labels"]} == {"w3", "w4 w5"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["gone.png"], "gone.png: no such file"),
        (["wardrobe/more/..", "--model", "all-minilm-l6-v2"], "reads no images"),
        (["wardrobe", "--model", "resnet"], "no model or folder called 'resnet'"),
        (["wardrobe", "--top-k", "0"], "top_k must be at least 1"),
    ],
)
def test_mistakes_are_one_line(tarsia, folder, arguments, words):
    ran = tarsia("classify", *arguments)
    assert ran.code == 1 and ran.out == "" and words in ran.err and len(ran.err.splitlines()) == 1
