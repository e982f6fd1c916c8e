"""CLIP and SigLIP beside the outputs of transformers on the same tiny checkpoints."""

import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from engine.errors import BadCheckpoint, UnsupportedModel
from engine.models import clip
from engine.models.clip_hf import clip_from_hf
from engine.ops.distance import unit
from engine.weights.checkpoint import checkpoint_kind, load_checkpoint

PARITY = Path(__file__).parents[2] / "fixtures" / "parity"
FAMILIES = ("clip_small", "clip_largest_id", "siglip_both")


@pytest.mark.parametrize("name", FAMILIES)
def test_both_towers_and_their_likeness_are_those_of_transformers(name):
    model, reference = load_checkpoint(PARITY / name), np.load(PARITY / name / "io.npz")
    assert model.kind == checkpoint_kind(PARITY / name) == "vision"
    pixels, ids = jnp.asarray(reference["pixel_values"]), jnp.asarray(reference["input_ids"])
    images = clip.forward(model.params, model.config, pixels, None)
    texts = clip.forward(model.params, model.config, None, ids)
    # The fixture's vectors are those of CLIPModel's output, which are of unit length.
    np.testing.assert_allclose(unit(images), reference["image_embeds"], atol=1e-4)
    np.testing.assert_allclose(unit(texts), reference["text_embeds"], atol=1e-4)
    logits = clip.forward(model.params, model.config, pixels, ids)
    np.testing.assert_allclose(logits, reference["logits_per_image"], atol=1e-4)


def test_what_follows_a_clip_text_does_not_change_it():
    model, reference = load_checkpoint(PARITY / "clip_small"), np.load(PARITY / "clip_small" / "io.npz")
    ids = jnp.asarray(reference["input_ids"])
    longer = jnp.pad(ids, ((0, 0), (0, 4)), constant_values=119)
    np.testing.assert_allclose(
        clip.text_features(model.params, model.config, longer),
        clip.text_features(model.params, model.config, ids),
        atol=1e-5,
    )


def test_int8_weights_stay_near():
    exact, small = (load_checkpoint(PARITY / "clip_small", quant=quant) for quant in ("f32", "int8"))
    ids = jnp.asarray(np.load(PARITY / "clip_small" / "io.npz")["input_ids"])
    found = [unit(clip.text_features(model.params, model.config, ids)) for model in (exact, small)]
    assert small.quant == "int8" and jnp.sum(found[0] * found[1], axis=1).min() > 0.999


def values(name="clip_small", **changes):
    found = json.loads((PARITY / name / "config.json").read_text())
    for key, value in changes.items():
        part, _, inner = key.partition("__")
        if inner:
            found[part] = {**found[part], inner: value}
        else:
            found[part] = value
    return found


@pytest.mark.parametrize(
    ("changed", "error", "words"),
    [
        ({"model_type": "blip"}, UnsupportedModel, "blip"),
        ({"text_config": []}, BadCheckpoint, "text_config must be an object"),
        ({"text_config__num_attention_heads": 5}, BadCheckpoint, "not a multiple of 5 heads"),
        ({"text_config__hidden_act": "swish2"}, UnsupportedModel, "swish2"),
        ({"projection_dim": 0}, BadCheckpoint, "projection_dim"),
        ({"vision_config__patch_size": 64}, BadCheckpoint, "smaller than a patch"),
    ],
)
def test_configurations_that_cannot_be_run_are_refused_by_name(changed, error, words):
    with pytest.raises(error, match=words):
        clip_from_hf(values(**changed))


def test_towers_of_different_spaces_do_not_belong_together():
    with pytest.raises(BadCheckpoint, match="in 24 numbers, texts in 20"):
        clip_from_hf(values("siglip_both", text_config__projection_size=20))
    with pytest.raises(UnsupportedModel, match="without its pooling head"):
        clip_from_hf(values("siglip_both", vision_config__vision_use_head=False))


def test_neither_images_nor_texts_is_an_error():
    model = load_checkpoint(PARITY / "clip_small")
    with pytest.raises(ValueError, match="neither"):
        clip.forward(model.params, model.config, None, None)
