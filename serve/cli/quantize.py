"""`tarsia models quantize`: what quantised weights cost, and a folder that holds them."""

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from engine.errors import InvalidRequest
from engine.generate.fidelity import Agreement
from engine.quantization import SAMPLE_TEXT, QuantReport, quantization_report
from engine.registry import resolve
from engine.weights.checkpoint import load_checkpoint
from engine.weights.packed_folder import check_free, save_packed
from engine.weights.policy import Quant
from serve.cli.output import print_json, print_table, stages

WORST = 8
"""Matrices and layers that a report for people names."""


def run(
    model: str,
    quant: Quant,
    overrides: Sequence[str],
    *,
    report: bool,
    text: Path | None,
    tokens: int,
    out: Path | None,
    as_json: bool,
) -> None:
    if not report and out is None:
        raise InvalidRequest("say what to make of it: --report, --out DIR, or both")
    if tokens < 1:
        raise InvalidRequest(f"--tokens must be at least 1, not {tokens}")
    if out is not None:
        check_free(out.expanduser())
    words = SAMPLE_TEXT if text is None else _read(text)
    with stages() as stage:
        found = resolve(model)
        stage(f"quantise {found.name} to {quant}", 0, 1)
        small = load_checkpoint(found.path, quant=quant, overrides=overrides)
        stage(f"quantise {found.name} to {quant}", 1, 1)
        made = None
        if out is not None:
            stage(f"write {out}", 0, 1)
            made = save_packed(small, out)
        measured = None
        if report:
            stage(f"load {found.name} in float32", 0, 1)
            exact = load_checkpoint(found.path, quant="f32")
            progress = partial(stage, "compare with float32")
            measured = quantization_report(exact, small, words, tokens=tokens, progress=progress)
    if as_json:
        print_json(_plain(found.name, quant, measured, made))
        return
    if measured is not None:
        _show(found.name, quant, measured)
    if made is not None:
        print(f"{made}: use it as a model's name, or give it one by `tarsia models add NAME {made}`")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"{path} cannot be read as UTF-8 text: {error}", param="text") from error


def _plain(name: str, quant: Quant, report: QuantReport | None, made: Path | None) -> dict[str, Any]:
    return {
        "model": name,
        "quant": quant,
        "report": None if report is None else asdict(report),
        "out": None if made is None else str(made),
    }


def _show(name: str, quant: Quant, report: QuantReport) -> None:
    share = report.bytes / report.exact_bytes
    rows = [
        ("model", f"{name} in {quant}"),
        ("bytes", f"{report.bytes / 1e6:.1f} MB, {share:.0%} of float32's {report.exact_bytes / 1e6:.1f} MB"),
        *_outputs(report),
        *((f"layer {layer}", f"error {error:.2%}") for layer, error in report.layers[:WORST]),
        *(
            (f"matrix {worst.name}", f"error {worst.error:.2%}, {worst.form}")
            for worst in report.matrices[:WORST]
        ),
    ]
    print_table(("what", "found"), rows)


def _outputs(report: QuantReport) -> list[tuple[str, str]]:
    found = report.outputs
    if found is None:
        return [("output", "not compared: scores of rerankers have no scale of their own")]
    if isinstance(found, Agreement):
        return [
            ("KL divergence", f"{found.kl:.5f} nats a token, over {found.tokens} tokens"),
            ("top-1 agreement", f"{found.top1:.1%}"),
        ]
    return [("cosine", f"{found.mean:.5f} on average, {found.least:.5f} at least, over {found.texts} texts")]
