"""From images to labels, vectors and maps, by the model that ships and tiny checkpoints of other kinds."""

import io
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from engine import Engine
from engine.errors import (
    DamagedImage,
    FileError,
    InvalidRequest,
    UnsupportedImage,
    UnsupportedInput,
    UnsupportedModel,
)
from engine.models import vit
from engine.vision.io import ImageFile
from engine.vision.pipeline import ViT
from tests.engine.vision.odd_files import encoded, odd_files

FAMILIES = ["dinov2_hf", "siglip_tower", "timm_vit", "timm_map_pooling", "deit_distilled"]
PARITY = Path(__file__).parents[2] / "fixtures" / "parity"


def large(piece: np.ndarray, side: int = 140) -> Image.Image:
    return Image.fromarray(piece).resize((side, side), Image.Resampling.NEAREST)


def test_probabilities_are_sorted_and_sum_to_one(fashion, pieces):
    [found] = fashion.classify(pieces[:1], top_k=99)
    shares = [best.probability for best in found]
    assert len(found) == 10 and shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(1, abs=1e-5)


def test_an_image_has_one_result_in_any_form_and_any_batch(fashion, pieces, tmp_path):
    image = large(pieces[0])
    image.save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    path = tmp_path / "a.png"
    forms = [image, np.asarray(image), data, path, str(path), ImageFile("a", data)]
    alone = fashion.classify([image], top_k=10)[0]
    for found in fashion.classify([*forms, *pieces[:40]], top_k=10)[: len(forms)]:
        assert [best.label for best in found] == [best.label for best in alone]
        np.testing.assert_allclose(
            [best.probability for best in found], [best.probability for best in alone], atol=1e-5
        )


def test_results_come_in_order_with_errors_in_their_places(fashion, pieces):
    good, bad = encoded(large(pieces[0]), "PNG"), [b"text", encoded(large(pieces[1]), "PNG")[:80]]
    found = list(fashion.vision.stream([good, bad[0], good, bad[1], *[good] * 70], top_k=1))
    assert [type(each) for each in found[:4]] == [tuple, UnsupportedImage, tuple, DamagedImage]
    assert len(found) == 74 and {each[0].label for each in found if isinstance(each, tuple)} == {"ankle boot"}


def test_results_come_before_the_last_image_is_asked_for(fashion, pieces):
    asked = []

    def endless():
        while True:
            asked.append(1)
            yield pieces[0]

    stream = fashion.vision.stream(endless(), top_k=1)
    assert next(stream)[0].label == "ankle boot"
    stream.close()
    assert len(asked) <= 64


def test_the_first_image_that_cannot_be_read_is_raised(fashion, pieces):
    with pytest.raises(UnsupportedImage, match=r"^notes\.png: is text"):
        fashion.classify([pieces[0], ImageFile("notes.png", b"hello")])
    with pytest.raises(UnsupportedImage):
        fashion.embed([b"hello"])


def test_progress_counts_images(fashion, pieces):
    told = []
    fashion.classify(pieces[:5], progress=lambda done, total: told.append((done, total)))
    assert told == [(n, 5) for n in range(1, 6)]


def test_no_images_are_no_results(fashion):
    assert fashion.classify([]) == [] and fashion.embed([]).shape == (0, 128)


def test_embeddings_are_unit_vectors_and_likeness_of_them_is_of_kind(fashion, pieces, piece_labels):
    vectors = fashion.embed(pieces)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    likeness = vectors @ vectors.T - 2 * np.eye(len(vectors))
    assert np.mean(piece_labels[likeness.argmax(axis=1)] == piece_labels) > 0.85


def without(fashion, image: np.ndarray, order: np.ndarray, label: str) -> float:
    """The probability of the class, with a fifth of the pixels, the last of `order`, made grey."""
    spoilt = image.copy().reshape(-1)
    spoilt[order[-len(order) // 5 :]] = 72  # the mean of the training set
    found = fashion.classify([spoilt.reshape(image.shape)], top_k=10)[0]
    return next(each.probability for each in found if each.label == label)


@pytest.mark.parametrize("method", ["saliency", "attention_rollout"])
def test_what_a_map_points_at_matters_more_than_what_it_does_not(fashion, pieces, method):
    most, least = [], []
    for piece in pieces[:24]:
        label = fashion.classify([piece], top_k=1)[0][0].label
        found = getattr(fashion.vision, method)(piece)
        assert found.values.shape == piece.shape and found.values.max() == pytest.approx(1, abs=1e-6)
        order = np.argsort(found.values.ravel())
        most.append(without(fashion, piece, order, label))
        least.append(without(fashion, piece, order[::-1], label))
    assert np.mean(most) < np.mean(least) - 0.05


def test_saliency_names_the_class_it_explains_and_is_the_same_each_time(fashion, pieces):
    first, second = (fashion.vision.saliency(large(pieces[2])) for _ in range(2))
    assert first.label == "trouser" and first.image.shape == (140, 140, 3)
    np.testing.assert_array_equal(first.values, second.values)


def test_maps_of_large_images_are_bounded(fashion):
    found = fashion.vision.attention_rollout(np.zeros((1500, 3000, 3), np.uint8))
    assert found.values.shape == (512, 1024) and found.image.shape == (512, 1024, 3)


def test_an_overlay_is_a_png_of_the_image_with_colour_where_the_map_is(fashion, pieces):
    found = fashion.vision.saliency(large(pieces[0]))
    picture = np.asarray(Image.open(io.BytesIO(found.png())))
    assert picture.shape == (140, 140, 3)
    apart = np.abs(picture.astype(int) - picture.mean(axis=2, keepdims=True)).max(axis=2)
    assert (
        apart[(found.values > 0.3) & (found.values < 0.9)].min() > 10
        and apart[found.values == 0].max(initial=0) <= 1
    )


@pytest.mark.parametrize("name", FAMILIES)
def test_checkpoints_of_other_families_embed_and_explain(name, pieces):
    """Their folders have no preprocessing of their own: the family's is taken."""
    model = Engine.load(PARITY / name)
    image = large(pieces[0], 64)
    vector = model.embed([image])
    assert vector.shape == (1, model.config.features)
    pixels = model.checkpoint.preprocessing.prepare(np.asarray(image.convert("RGB")))
    expected = vit.features(model.params, model.config, jnp.asarray(pixels[None]))[0]
    np.testing.assert_allclose(vector[0], expected / np.linalg.norm(expected), atol=1e-5)
    for found in (model.vision.saliency(image), model.vision.attention_rollout(image)):
        assert found.values.shape == (64, 64) and np.isfinite(found.values).all()
    if not model.config.labels:
        with pytest.raises(UnsupportedInput, match="has no classes"):
            model.classify([image])


def test_the_model_is_a_pure_function_of_pixels(fashion):
    pixels = np.zeros((2, 1, 28, 28), np.float32)
    alone = fashion.model(fashion.params, jnp.asarray(pixels))
    assert alone.shape == (2, 10)
    np.testing.assert_array_equal(alone, fashion.model(fashion.params, {"pixel_values": jnp.asarray(pixels)}))


def test_models_of_texts_read_no_images_and_the_other_way_round(fashion, minilm):
    with pytest.raises(UnsupportedInput, match="an embedding model: it reads no images"):
        minilm.classify([b""])
    with pytest.raises(UnsupportedModel, match="reads text"):
        ViT(minilm.checkpoint)
    for refused in (lambda: fashion.generator, lambda: fashion.embedder, lambda: fashion.reranker):
        with pytest.raises(UnsupportedInput, match="is an image model"):
            refused()


def test_top_k_below_one_is_refused(fashion, pieces):
    with pytest.raises(InvalidRequest, match="top_k must be at least 1"):
        fashion.classify(pieces[:1], top_k=0)


def test_every_odd_file_is_a_prediction_or_one_line(fashion):
    files = [ImageFile(name, data) for name, data in odd_files(30, seed=7)]
    for file, found in zip(files, fashion.vision.stream(files, top_k=1), strict=True):
        if isinstance(found, FileError):
            assert str(found).startswith(file.name) and "\n" not in str(found)
        else:
            assert found[0].label in fashion.config.labels
