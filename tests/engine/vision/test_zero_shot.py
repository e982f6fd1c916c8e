"""Labels of any words: images and texts in one space, by tiny CLIP and SigLIP models."""

import jax.numpy as jnp
import numpy as np
import pytest

from engine import Engine
from engine.errors import BadCheckpoint, InvalidRequest, UnsupportedInput
from tests.engine.vision.tiny_clip import PARITY, clip_folder

LABELS = ["w7", "w3 w9", "w11 w12 w13 w14", "w7 w7"]


@pytest.fixture(scope="module", params=["clip_small", "siglip_both"])
def model(request, tmp_path_factory) -> Engine:
    return Engine.load(clip_folder(tmp_path_factory.mktemp("models") / "tiny", request.param))


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    rng = np.random.default_rng(4)
    return [rng.integers(0, 256, (40, 50, 3), np.uint8) for _ in range(3)]


def expected_logits(model, images, texts):
    """By the pure function, each text alone: SigLIP's filled up to its most positions."""
    pixels = jnp.stack([model.checkpoint.preprocessing.prepare(image) for image in images])
    columns = []
    for text in texts:
        ids = model.tokenizer.encode(text, add_special=True)
        if model.config.sigmoid:
            ids += [model.config.text.pad_id] * (model.config.text.max_positions - len(ids))
        given = {"pixel_values": pixels, "input_ids": jnp.asarray([ids])}
        columns.append(model.model(model.params, given)[:, 0])
    return np.stack(columns, axis=1)


def test_probabilities_are_a_softmax_of_clip_and_a_sigmoid_of_siglip(model, images):
    found = model.vision.zero_shot(images, LABELS, template="w1 {} w2")
    logits = expected_logits(model, images, [f"w1 {label} w2" for label in LABELS])
    if model.config.sigmoid:
        wanted = 1 / (1 + np.exp(-logits))
    else:
        wanted = np.exp(logits - logits.max(axis=1, keepdims=True))
        wanted /= wanted.sum(axis=1, keepdims=True)
    for prediction, row in zip(found, wanted, strict=True):
        shares = [best.probability for best in prediction]
        assert shares == sorted(shares, reverse=True)
        by_label = {best.label: best.probability for best in prediction}
        np.testing.assert_allclose([by_label[label] for label in LABELS], row, atol=1e-4)


def test_classify_with_labels_is_the_best_of_them(model, images):
    best = model.classify(images, 2, labels=LABELS)
    whole = model.vision.zero_shot(images, LABELS)
    assert [len(each) for each in best] == [2, 2, 2]
    assert [[label.label for label in each] for each in best] == [
        [label.label for label in each[:2]] for each in whole
    ]


def test_texts_are_unit_vectors_and_the_same_alone_or_together(model):
    together = model.vision.texts.embed([*LABELS, "w5 " * 100])
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    for text, vector in zip(LABELS, together, strict=False):
        np.testing.assert_allclose(model.vision.texts.embed([text])[0], vector, atol=1e-5)
    assert together.shape[1] == model.vision.dim == model.embed([np.zeros((9, 9, 3), np.uint8)]).shape[1]


def test_a_text_that_is_too_long_is_cut_and_keeps_its_end(model):
    longest = model.config.text.max_positions
    vectors = model.vision.texts.embed(["w5 " * longest, "w5 " * (3 * longest)])
    np.testing.assert_allclose(vectors[0], vectors[1], atol=1e-6)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"labels": []}, "labels must be texts"),
        ({"labels": ["w1", " "]}, "none of them empty"),
        ({"labels": ["w1"], "template": "a photo"}, "must hold {}"),
    ],
)
def test_labels_that_are_none_are_refused(model, images, options, words):
    with pytest.raises(InvalidRequest, match=words):
        model.vision.predict(images, **options)


def test_without_labels_the_error_says_to_give_some(model, images):
    with pytest.raises(UnsupportedInput, match="give labels to choose from"):
        model.classify(images)


def test_a_model_of_images_alone_takes_no_labels(fashion, images):
    with pytest.raises(UnsupportedInput, match="reads no texts"):
        fashion.classify(images, labels=LABELS)


def test_without_a_tokenizer_images_are_embedded_and_texts_refused(images):
    model = Engine.load(PARITY / "clip_small")
    assert model.embed(images).shape == (3, 24)
    with pytest.raises(BadCheckpoint, match=r"no tokenizer\.json"):
        model.classify(images, labels=LABELS)


def test_warming_compiles_both_sides(model):
    told = []
    model.warm(lambda done, total: told.append((done, total)))
    assert told[-1][0] == told[-1][1]
