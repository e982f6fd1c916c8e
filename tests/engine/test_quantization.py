from dataclasses import replace
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from engine.errors import InvalidRequest, UnsupportedInput
from engine.generate.fidelity import Agreement, agreement, decode_logits, exact_logits
from engine.models.decoder_config import DecoderConfig
from engine.quantization import SAMPLE_TEXT, Closeness, quantization_report
from engine.weights import Checkpoint, load_checkpoint
from engine.weights.policy import quantize
from engine.weights.tree import flatten

PARITY = Path(__file__).parents[1] / "fixtures" / "parity"


def test_agreement_is_the_mean_divergence_by_its_definition() -> None:
    rng = np.random.default_rng(0)
    exact, other = rng.standard_normal((2, 5, 11)).astype(np.float32)
    p, q = (
        np.exp(x.astype(np.float64)) / np.exp(x.astype(np.float64)).sum(-1, keepdims=True)
        for x in (exact, other)
    )
    found = agreement(exact, other)
    assert found.tokens == 5
    assert found.kl == pytest.approx((p * np.log(p / q)).sum(-1).mean(), rel=1e-4)
    assert found.top1 == np.mean(p.argmax(-1) == q.argmax(-1))


def test_equal_logits_agree_wholly_and_none_are_refused() -> None:
    logits = np.eye(3, dtype=np.float32)
    assert agreement(logits, logits) == Agreement(3, 0.0, 1.0)
    with pytest.raises(InvalidRequest, match="no text"):
        agreement([], [])


def test_decode_steps_in_float32_are_exact_up_to_rounding_and_ruined_ones_are_not() -> None:
    model = load_checkpoint(PARITY / "llama_gqa_tied")
    assert isinstance(model.config, DecoderConfig)
    tokens = [3, 1, 4, 1, 5, 9, 2, 6]
    exact = list(exact_logits(model.params, model.config, tokens))
    found = agreement(exact, decode_logits(model.params, model.config, tokens))
    assert found.kl < 1e-7 and found.top1 == 1.0
    ruined = {**model.params, "norm": -jnp.asarray(model.params["norm"])}
    found = agreement(exact, decode_logits(ruined, model.config, tokens))
    assert found.kl > 0.01 and found.top1 < 0.5


@pytest.fixture(scope="module")
def exact(smollm2_path: Path) -> Checkpoint:
    return load_checkpoint(smollm2_path, quant="f32")


def test_the_report_tells_the_error_of_each_matrix_and_of_the_output(exact: Checkpoint) -> None:
    overrides = ["layers.*=f32", "layers.29.down.weight=int8", "layers.3.up.weight=int4"]
    small = replace(exact, params=quantize(exact.params, "int8", overrides[::-1]), quant="int8")
    seen: list[tuple[int, int]] = []
    report = quantization_report(
        exact, small, SAMPLE_TEXT, tokens=12, progress=lambda done, total: seen.append((done, total))
    )
    assert {matrix.name: matrix.form for matrix in report.matrices} == {
        "embed": "int8",
        "layers.29.down.weight": "int8",
        "layers.3.up.weight": "int4",
    }
    errors = [matrix.error for matrix in report.matrices]
    assert errors == sorted(errors, reverse=True)
    before, after = (np.asarray(flatten(exact.params)["layers.29.down.weight"]), small.params["layers"][29])
    # A tensor's own arithmetic, not `dequantize`: a step size for each 32 columns.
    leaf = after["down"]["weight"]
    now = np.asarray(leaf.values, np.float32) * np.asarray(leaf.scale)[..., None]
    wanted = np.linalg.norm(now.reshape(before.shape) - before) / np.linalg.norm(before)
    by_name = {matrix.name: matrix.error for matrix in report.matrices}
    assert by_name["layers.29.down.weight"] == pytest.approx(wanted, rel=1e-4)
    assert dict(report.layers)["layers.29"] == pytest.approx(wanted, rel=1e-4)
    assert report.bytes < report.exact_bytes
    assert isinstance(report.outputs, Agreement) and report.outputs.tokens == 12
    assert 0 <= report.outputs.kl < 0.1 and 0.5 < report.outputs.top1 <= 1.0
    assert seen[-1] == (12, 12)


def test_an_embedding_model_is_compared_by_cosines_of_lines(minilm_path: Path) -> None:
    models = [load_checkpoint(minilm_path, quant=quant) for quant in ("f32", "int8")]
    report = quantization_report(*models, "a happy dog\n\na paper about engines\n")
    assert isinstance(report.outputs, Closeness)
    assert report.outputs.texts == 2 and 0.99 < report.outputs.least <= report.outputs.mean <= 1.0001


@pytest.mark.parametrize("text", ["", " \n"])
def test_an_empty_text_is_refused(minilm_path: Path, text: str) -> None:
    model = load_checkpoint(minilm_path)
    with pytest.raises(InvalidRequest, match="no text"):
        quantization_report(model, model, text)


def test_a_model_without_a_tokenizer_is_refused() -> None:
    model = load_checkpoint(PARITY / "llama_gqa_tied")
    with pytest.raises(UnsupportedInput, match="has no tokenizer"):
        quantization_report(model, model, SAMPLE_TEXT)
