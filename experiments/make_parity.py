"""Makes a parity fixture: a tiny random checkpoint of one family with transformers' own outputs.

Needs the bench extra. Run: `python -m experiments.make_parity mistral_window tests/fixtures/parity`.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import transformers

VOCABULARY = 320
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}
FAMILIES: dict[str, Callable[[], transformers.PretrainedConfig]] = {
    "mistral_window": lambda: transformers.MistralConfig(**SIZES, head_dim=16, sliding_window=8),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("family", choices=sorted(FAMILIES))
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(FAMILIES[options.family]()).eval().float()
    target = options.folder / options.family
    model.save_pretrained(target)
    (target / "generation_config.json").unlink(missing_ok=True)
    ids = torch.randint(3, VOCABULARY, (2, 23), generator=torch.Generator().manual_seed(1))
    prompt = ids[:1, :7]
    with torch.no_grad():
        logits = model(ids).logits
        greedy = model.generate(prompt, max_new_tokens=24, do_sample=False, eos_token_id=None, pad_token_id=0)
    arrays = {"input_ids": ids, "logits": logits, "greedy_prompt": prompt, "greedy": greedy}
    np.savez(target / "io.npz", **{name: _array(tensor) for name, tensor in arrays.items()})


def _array(tensor: torch.Tensor) -> np.ndarray:
    array = tensor.numpy()
    return array.astype(np.int32 if array.dtype == np.int64 else np.float32)


if __name__ == "__main__":
    main()
