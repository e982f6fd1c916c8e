"""Random members of the supported families beside transformers: configurations nobody chose.

`make` (needs the bench extra) draws configurations by seed, writes each as a checkpoint, in one file or
several, in the spelling of transformers 4 or 5 and with or without what is default anyway, and records logits
and greedy tokens. `check` loads them with the engine and prints a row for each; exit status 1 if any differs.
Run: `python -m experiments.held_out make FOLDER --seeds 10`, then
`python -m experiments.held_out check FOLDER`.
"""

import argparse
import json
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np

from experiments.held_out_configs import DECODERS, FAMILIES

TOLERANCE = 2e-4
PROMPT, LENGTH = 29, 61
"""Tokens of the prompt that is gone on from, and of that with its continuation."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=["make", "check"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=10, help="checkpoints of each family")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    options = parser.parse_args()
    if options.action == "check":
        return check_all(options.folder)
    for family in FAMILIES:
        for seed in range(options.first, options.first + options.seeds):
            make(family, seed, options.folder / f"{family}-{seed:03d}")
    return 0


def make(family: str, seed: int, target: Path) -> None:
    import torch
    import transformers

    draw = random.Random(f"{family} {seed}")
    name, options = FAMILIES[family](draw)
    decodes = list(FAMILIES).index(family) < DECODERS
    heads = ["AutoModelForCausalLM"] if decodes else ["AutoModel", "AutoModelForSequenceClassification"]
    heads += [] if decodes else ["AutoModelForMaskedLM"]
    head = draw.choice(heads)
    if head == "AutoModelForSequenceClassification":
        options["num_labels"] = 1
    config = getattr(transformers, name)(**options)
    torch.manual_seed(seed)
    with torch.no_grad():
        model = getattr(transformers, head).from_config(config, attn_implementation="eager").eval().float()
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * (0.2 if parameter.ndim == 1 else 0.08))
        _save(model, draw.choice([torch.float32, torch.float32, torch.bfloat16, torch.float16]), draw, target)
        recorded = _decoded(model, seed) if decodes else _encoded(model, head, seed)
    np.savez_compressed(target / "io.npz", **{key: value.numpy() for key, value in recorded.items()})
    _respell(target / "config.json", type(config)().to_dict(), draw)


def _save(model: Any, dtype: Any, draw: random.Random, target: Path) -> None:
    """Writes the parameters in `dtype`, and rounds the model's own to it: not its buffers, as `to` would."""
    for parameter in model.parameters():
        parameter.copy_(parameter.to(dtype))
    narrow = {name: tensor.to(dtype) for name, tensor in model.state_dict().items()}
    model.save_pretrained(target, state_dict=narrow, max_shard_size=draw.choice(["5GB", "20KB"]))
    (target / "generation_config.json").unlink(missing_ok=True)


def _decoded(model: Any, seed: int) -> dict[str, Any]:
    """Logits of two whole sequences, and a greedy continuation with how sure each of its tokens was."""
    import torch

    ids = torch.randint(
        3, model.config.vocab_size, (2, LENGTH), generator=torch.Generator().manual_seed(seed)
    )
    going = {"do_sample": False, "eos_token_id": None, "output_scores": True, "return_dict_in_generate": True}
    reply = model.generate(ids[:1, :PROMPT], max_new_tokens=LENGTH - PROMPT, **going)
    best = torch.stack(reply.scores)[:, 0].topk(2).values
    return {
        "input_ids": ids,
        "logits": model(ids).logits,
        "greedy": reply.sequences[0, PROMPT:],
        "margins": best[:, 0] - best[:, 1],
    }


def _encoded(model: Any, head: str, seed: int) -> dict[str, Any]:
    """What the model gives for two texts, the second shorter, and of what kind that is."""
    import torch

    ids = torch.randint(3, model.config.vocab_size, (2, 50), generator=torch.Generator().manual_seed(seed))
    mask = torch.ones_like(ids)
    ids[1, 31:], mask[1, 31:] = model.config.pad_token_id, 0
    types = torch.zeros_like(ids)
    if getattr(model.config, "type_vocab_size", 0) > 1:
        types[:, 20:] = 1
    given = {"input_ids": ids, "attention_mask": mask}
    extra = {"token_type_ids": types} if types.any() else {}
    ranks = head == "AutoModelForSequenceClassification"
    inner = model if ranks else getattr(model, model.base_model_prefix, model)
    found = inner(**given, **extra)
    return {**given, "token_types": types, "found": found.logits if ranks else found.last_hidden_state}


def _respell(path: Path, defaults: dict[str, Any], draw: random.Random) -> None:
    """Perhaps as transformers 4 wrote it, perhaps without what is default."""
    config = json.loads(path.read_text())
    if draw.random() < 0.5:
        _as_version_4(config)
    if draw.random() < 0.5:
        kept = ("model_type", "architectures")
        config = {k: v for k, v in config.items() if k in kept or k not in defaults or v != defaults[k]}
    path.write_text(json.dumps(config))


def _as_version_4(config: dict[str, Any]) -> None:
    config["torch_dtype"] = config.pop("dtype", None)
    rope = config.pop("rope_parameters", None)
    if rope is None:
        return
    if "full_attention" in rope:
        everywhere, local = rope["full_attention"], rope["sliding_attention"]
        keys = ("global_rope_theta", "local_rope_theta")
        if config["model_type"] == "gemma3_text":
            keys = ("rope_theta", "rope_local_base_freq")
        config |= {keys[0]: everywhere.pop("rope_theta"), keys[1]: local.pop("rope_theta")}
        rope = everywhere
    else:
        config["rope_theta"] = rope.pop("rope_theta")
    if "partial_rotary_factor" in rope:
        config["partial_rotary_factor"] = rope.pop("partial_rotary_factor")
    config["rope_scaling"] = None if rope["rope_type"] == "default" else rope


def check_all(folder: Path) -> int:
    failed = 0
    for path in sorted(folder.iterdir()):
        worst, greedy, why = _checked(path)
        good = worst < TOLERANCE and why == "" and greedy in ("same", "-")
        failed += not good
        print(
            f"  {'ok' if good else 'DIFFERS':8s} {path.name:18s} {worst:9.1e}  {greedy:8s} {why}", flush=True
        )
    print(f"  {failed} of {len(list(folder.iterdir()))} differ")
    return int(failed > 0)


def _checked(folder: Path) -> tuple[float, str, str]:
    """Largest difference, what became of the greedy tokens, and the error there was."""
    from engine.errors import TarsiaError
    from engine.models import decoder, encoder
    from engine.ops.jit import compile
    from engine.weights import load_checkpoint

    io = np.load(folder / "io.npz")
    try:
        model = load_checkpoint(folder)
    except TarsiaError as error:
        return 0.0, "-", str(error)
    if model.kind == "decoder":
        logits = compile(decoder.forward, static_argnums=1)(model.params, model.config, io["input_ids"])
        worst = float(np.abs(np.asarray(logits) - io["logits"]).max())
        return worst, _greedy(model, io), ""
    ids, mask, types = (io[key] for key in ("input_ids", "attention_mask", "token_types"))
    run = encoder.scores if model.kind == "reranker" else encoder.hidden_states
    found = np.asarray(compile(run, static_argnums=1)(model.params, model.config, ids, mask, types))
    apart = np.abs(found - io["found"])
    return float(apart.max() if model.kind == "reranker" else apart[mask.astype(bool)].max()), "-", ""


def _greedy(model: Any, io: Any) -> str:
    """The continuation through the scheduler and its pool of blocks."""
    from engine.generate.loop import Generator
    from engine.generate.request import GenerationRequest, SamplingParams

    rope = model.config.rope
    if rope.kind in ("dynamic", "factors") and rope.original_context >= PROMPT - 1:
        # transformers leaves cached keys as they were where frequencies change on the way.
        return "-"
    if rope.kind == "dynamic":
        return "-"
    sampling = SamplingParams(temperature=0, max_tokens=LENGTH - PROMPT, ignore_eos=True)
    prompt = tuple(map(int, io["input_ids"][0, :PROMPT]))
    with Generator.for_checkpoint(model, max_context=LENGTH) as generator:
        found = generator.generate(GenerationRequest(prompt, sampling)).token_ids
    for ours, theirs, margin in zip(found, io["greedy"], io["margins"], strict=True):
        if ours != theirs:
            return "same" if margin < 2 * TOLERANCE else "differ"
    return "same"


if __name__ == "__main__":
    sys.exit(main())
