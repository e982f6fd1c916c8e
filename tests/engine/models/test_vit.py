"""Vision transformers beside the outputs of transformers and timm on the same tiny checkpoints."""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from engine.errors import BadCheckpoint, UnsupportedModel
from engine.models import vit
from engine.models.vit_hf import vit_from_hf
from engine.models.vit_timm import vit_from_timm
from engine.weights.build import build_params
from engine.weights.policy import Policy
from engine.weights.safetensors import SafetensorsSource
from engine.weights.vision import IGNORED, plain, vit_source

PARITY = Path(__file__).parents[2] / "fixtures" / "parity"


def load(name):
    folder = PARITY / name
    values, tensors = json.loads((folder / "config.json").read_text()), plain(SafetensorsSource(folder))
    config = vit_from_timm(values, tensors) if "architecture" in values else vit_from_hf(values)
    source, rename = vit_source(config, tensors)
    params = build_params(source, vit.parameter_shapes(config), rename, Policy(), IGNORED)
    return config, params, np.load(folder / "io.npz")


def test_a_classifier_gives_the_logits_of_transformers():
    config, params, reference = load("vit_hf_classifier")
    found = vit.logits(params, config, jnp.asarray(reference["pixel_values"]))
    np.testing.assert_allclose(found, reference["logits"], atol=1e-4)


def test_dinov2_gives_the_states_of_transformers():
    config, params, reference = load("dinov2_hf")
    pixels = jnp.asarray(reference["pixel_values"])
    np.testing.assert_allclose(
        vit.hidden_states(params, config, pixels), reference["last_hidden_state"], atol=1e-4
    )
    np.testing.assert_allclose(vit.features(params, config, pixels), reference["pooler_output"], atol=1e-4)


@pytest.mark.parametrize(
    ("name", "run", "output"),
    [
        ("deit_distilled", vit.logits, "logits"),
        ("dinov2_registers_gated", vit.logits, "logits"),
        ("siglip_tower", vit.features, "features"),
        ("clip_tower", vit.features, "features"),
        ("timm_registers", vit.logits, "logits"),
        ("timm_map_pooling", vit.features, "features"),
        ("timm_gated", vit.features, "features"),
        ("timm_distilled", vit.logits, "logits"),
        ("timm_mean_qk_norm", vit.logits, "logits"),
    ],
)
@pytest.mark.parametrize("size", ["", "large_"])
def test_each_family_gives_the_reference_at_its_own_size_and_at_another(name, run, output, size):
    config, params, reference = load(name)
    found = run(params, config, jnp.asarray(reference[f"{size}pixel_values"]))
    np.testing.assert_allclose(found, reference[size + output], atol=1e-4)


def test_a_timm_checkpoint_gives_the_logits_and_features_of_timm():
    config, params, reference = load("timm_vit")
    pixels = jnp.asarray(reference["pixel_values"])
    np.testing.assert_allclose(vit.logits(params, config, pixels), reference["logits"], atol=1e-4)
    np.testing.assert_allclose(vit.hidden_states(params, config, pixels), reference["features"], atol=1e-4)


@pytest.mark.parametrize("name", ["resnet50", "vit_base_patch16_rpn_224"])
def test_timm_models_of_other_kinds_are_refused_by_name(name):
    with pytest.raises(UnsupportedModel, match=name):
        vit_from_timm({"architecture": name}, plain(SafetensorsSource(PARITY / "timm_vit")))


def test_attention_maps_are_distributions_over_tokens():
    config, params, reference = load("vit_hf_classifier")
    maps = vit.attention_maps(params, config, jnp.asarray(reference["pixel_values"]))
    assert maps.shape == (3, 2, 4, 17, 17)
    np.testing.assert_allclose(maps.sum(-1), 1, atol=1e-5)


def test_an_image_of_another_size_goes_through_with_an_interpolated_table():
    config, params, _ = load("dinov2_hf")
    states = vit.hidden_states(params, config, jnp.ones((1, 3, 84, 42)))
    assert states.shape == (1, 1 + 6 * 3, 48)
    assert bool(jnp.isfinite(states).all())


def test_pixels_that_fill_no_patch_are_left_out_as_a_convolution_leaves_them():
    config, params, _ = load("dinov2_hf")
    pixels = jnp.arange(3 * 57 * 60.0).reshape(1, 3, 57, 60) / 9999
    np.testing.assert_array_equal(
        vit.hidden_states(params, config, pixels), vit.hidden_states(params, config, pixels[:, :, :56, :56])
    )
    with pytest.raises(ValueError, match="smaller than a patch of 14x14"):
        vit.hidden_states(params, config, jnp.ones((1, 3, 13, 56)))


def test_a_model_without_a_classifier_has_no_logits():
    config, params, _ = load("dinov2_hf")
    with pytest.raises(ValueError, match="no classifier"):
        vit.logits(params, config, jnp.ones((1, 3, 56, 56)))


def test_gradients_reach_the_pixels():
    config, params, reference = load("vit_hf_classifier")
    pixels = jnp.asarray(reference["pixel_values"])
    slope = jax.grad(lambda x: vit.logits(params, config, x)[:, 0].sum())(pixels)
    assert slope.shape == pixels.shape
    assert float(jnp.abs(slope).max()) > 0


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"model_type": "swin"}, UnsupportedModel, "swin"),
        ({"hidden_act": "mish"}, UnsupportedModel, "mish"),
        ({"id2label": {"0": "a", "2": "b"}}, BadCheckpoint, "without gaps"),
        ({"num_attention_heads": 5}, BadCheckpoint, "multiple of 5 heads"),
        ({"image_size": [32]}, BadCheckpoint, "one or two numbers"),
        ({"patch_size": 64}, BadCheckpoint, "smaller than a patch"),
        ({"architectures": ["ViTForDepth"]}, UnsupportedModel, "ViTForDepth"),
    ],
)
def test_a_configuration_that_cannot_run_is_refused_by_name(change, error, says):
    values = json.loads((PARITY / "vit_hf_classifier" / "config.json").read_text()) | change
    with pytest.raises(error, match=says):
        vit_from_hf(values)


def test_the_configuration_lists_labels_in_the_order_of_their_numbers():
    values = {"model_type": "vit", "architectures": ["ViTForImageClassification"]}
    config = vit_from_hf(values | {"id2label": {"1": "dog", "0": "cat"}})
    assert config.labels == ("cat", "dog")
    assert dataclasses.replace(config, labels=()).features == 768
