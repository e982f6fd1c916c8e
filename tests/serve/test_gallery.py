"""Images that are found again, by the model that ships and by a tiny CLIP, over a real database."""

import numpy as np
import pytest
from PIL import Image

from engine import Engine
from engine.errors import ImageNotFound, UnsupportedImage, UnsupportedInput
from engine.vision.io import ImageFile
from serve.gallery import Gallery
from stores import Database
from tests.engine.vision.conftest import SAMPLE
from tests.engine.vision.odd_files import encoded
from tests.engine.vision.tiny_clip import clip_folder


@pytest.fixture(scope="module")
def model() -> Engine:
    return Engine.load("vit-fashion")


@pytest.fixture(scope="module")
def files() -> list[ImageFile]:
    sample = np.load(SAMPLE)
    return [ImageFile(f"{n}.png", encoded(Image.fromarray(sample["images"][n]), "PNG")) for n in range(120)]


@pytest.fixture(scope="module")
def labels() -> np.ndarray:
    return np.load(SAMPLE)["labels"]


def test_an_image_finds_itself_first_and_then_its_kind(tmp_path, model, files, labels):
    with Database.open(tmp_path) as database:
        gallery = Gallery(database, model.vision, clock=lambda: 5.0)
        records = gallery.add(files[:100])
        assert [record.name for record in records] == [file.name for file in files[:100]]
        [itself, *_] = gallery.search(files[3], k=4)
        assert itself.image == records[3] and itself.score == pytest.approx(1, abs=1e-5)
        hits = [
            labels[int(found.image.name.removesuffix(".png"))] == labels[n]
            for n in range(100, 120)
            for found in gallery.search(files[n], k=3)
        ]
        assert np.mean(hits) > 0.8


def test_images_last_and_the_same_content_is_stored_once(tmp_path, model, files):
    with Database.open(tmp_path) as database:
        gallery = Gallery(database, model.vision, clock=lambda: 1.0)
        gallery.add([files[0], files[1], files[0]])
        gallery.add([ImageFile("again.png", files[1].data)])
    with Database.open(tmp_path) as database:
        gallery = Gallery(database, model.vision)
        assert [record.name for record in gallery.images()] == ["0.png", "again.png"]
        gallery.delete(gallery.images()[0].id)
        assert [record.name for record in gallery.images()] == ["again.png"]
        with pytest.raises(ImageNotFound):
            gallery.delete("img-0")


def test_nothing_is_stored_when_one_cannot_be_read(tmp_path, model, files):
    with Database.open(tmp_path) as database:
        gallery = Gallery(database, model.vision)
        with pytest.raises(UnsupportedImage, match=r"notes\.png"):
            gallery.add([files[0], ImageFile("notes.png", b"hello")])
        assert gallery.images() == [] and gallery.search(files[0]) == []


def test_words_find_images_where_the_model_reads_them(tmp_path, model, files):
    clip = Engine.load(clip_folder(tmp_path / "tiny-clip"))
    with Database.open(tmp_path / "data") as database:
        gallery = Gallery(database, clip.vision)
        gallery.add(files[:12])
        found = gallery.search("w3 w5", k=12)
        expected = clip.embed([file.data for file in files[:12]]) @ clip.vision.texts.embed(["w3 w5"])[0]
        np.testing.assert_allclose([each.score for each in found], np.sort(expected)[::-1], atol=1e-5)
        assert found[0].image.name == files[int(expected.argmax())].name
        with pytest.raises(UnsupportedInput, match="reads no texts"):
            Gallery(database, model.vision).search("w3")


def test_models_do_not_mix(tmp_path, model, files):
    clip = Engine.load(clip_folder(tmp_path / "tiny-clip"))
    with Database.open(tmp_path / "data") as database:
        Gallery(database, model.vision).add(files[:3])
        assert Gallery(database, clip.vision).images() == []
