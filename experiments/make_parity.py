"""Makes a parity fixture: a tiny random checkpoint of one family with transformers' own outputs.

Needs the bench extra. Run: `python -m experiments.make_parity mistral_window tests/fixtures/parity`;
`all` makes every family whose folder is not there yet.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

VOCABULARY = 160
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
}
GROUPED = {**SIZES, "num_key_value_heads": 2}
GEMMA = {**GROUPED, "head_dim": 16, "sliding_window": 8, "query_pre_attn_scalar": 24}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "rope_theta": 1e4}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
    "rope_theta": 1e4,
}
LONGROPE = {
    "rope_type": "longrope",
    "short_factor": [1.0, 1.1, 1.2],
    "long_factor": [1.5, 3.0, 7.0],
    "rope_theta": 1e4,
    "partial_rotary_factor": 0.75,
}


@dataclass(frozen=True)
class Family:
    """A configuration, and what is recorded of the model."""

    record: Callable[[Any], dict[str, torch.Tensor]]
    model: Any
    config: Callable[[], transformers.PretrainedConfig]


def decoded(model: Any) -> dict[str, torch.Tensor]:
    """Logits of two sequences, of their beginnings alone, and a greedy continuation."""
    ids = torch.randint(3, VOCABULARY, (2, 33), generator=torch.Generator().manual_seed(1))
    prompt = ids[:1, :20]
    greedy = model.generate(prompt, max_new_tokens=24, do_sample=False, eos_token_id=None, pad_token_id=0)
    return {
        "input_ids": ids,
        "logits": model(ids).logits,
        "short_logits": model(ids[:, :12]).logits,
        "greedy_prompt": prompt,
        "greedy": greedy,
    }


def stretched(model: Any) -> dict[str, torch.Tensor]:
    """Without the continuation: transformers leaves cached keys as they were when theta changes."""
    ids = torch.randint(3, VOCABULARY, (2, 33), generator=torch.Generator().manual_seed(1))
    return {"input_ids": ids, "logits": model(ids).logits, "short_logits": model(ids[:, :12]).logits}


def encoded(model: Any) -> dict[str, torch.Tensor]:
    """Hidden states of two texts, the second shorter, with padding after it."""
    ids, mask = padded(150, 97)
    return {
        "input_ids": ids,
        "attention_mask": mask,
        "last_hidden_state": model(input_ids=ids, attention_mask=mask).last_hidden_state,
    }


def classified(model: Any) -> dict[str, torch.Tensor]:
    """Logits of two pairs of texts, the second shorter, with token types where the model has them."""
    ids, mask = padded(60, 37)
    types = (torch.arange(ids.shape[1]) > 20).long().expand_as(ids) * mask
    types = types if getattr(model.config, "type_vocab_size", 0) > 1 else torch.zeros_like(ids)
    extra = {"token_type_ids": types} if types.any() else {}
    logits = model(input_ids=ids, attention_mask=mask, **extra).logits
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": types, "logits": logits}


class HF_ColBERT(transformers.BertPreTrainedModel):
    """Stanford's checkpoint layout: a BERT and a bias-free linear layer."""

    def __init__(self, config: transformers.BertConfig) -> None:
        super().__init__(config)
        self.bert = transformers.BertModel(config)
        self.linear = torch.nn.Linear(config.hidden_size, 16, bias=False)
        self.post_init()

    @classmethod
    def from_config(cls, config: transformers.BertConfig, **options: Any) -> "HF_ColBERT":
        return cls._from_config(config, **options)


def interacted(model: Any) -> dict[str, torch.Tensor]:
    """Sums of maxima, as Khattab and Zaharia (2020) define them, of a query and two documents."""

    def vectors(ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        states = model.bert(input_ids=ids, attention_mask=mask).last_hidden_state
        return torch.nn.functional.normalize(model.linear(states), dim=-1)

    ids, mask = padded(30, 19)
    query = ids[:1, 5:13]
    likeness = torch.einsum("qd,ntd->nqt", vectors(query, torch.ones_like(query))[0], vectors(ids, mask))
    likeness = likeness.masked_fill(mask[:, None] == 0, -9999)
    sums = likeness.max(-1).values.sum(-1)
    return {"query_ids": query, "document_ids": ids, "document_mask": mask, "max_sim": sums}


def padded(longest: int, shorter: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and mask (2, longest); 1 is the padding of every encoder here."""
    ids = torch.randint(3, VOCABULARY, (2, longest), generator=torch.Generator().manual_seed(2))
    mask = torch.ones_like(ids)
    ids[1, shorter:], mask[1, shorter:] = 1, 0
    return ids, mask


DECODERS = {
    "mistral_window": (decoded, lambda: transformers.MistralConfig(**GROUPED, head_dim=16, sliding_window=8)),
    "gemma_mqa": (
        decoded,
        lambda: transformers.GemmaConfig(**SIZES, num_key_value_heads=1, head_dim=16),
    ),
    "gemma2_softcap": (
        decoded,
        lambda: transformers.Gemma2Config(**GEMMA, attn_logit_softcapping=2.0, final_logit_softcapping=3.0),
    ),
    "phi3_longrope": (
        decoded,
        lambda: transformers.Phi3Config(
            **GROUPED, original_max_position_embeddings=16, rope_parameters=LONGROPE, pad_token_id=0
        ),
    ),
    "qwen2_yarn_window": (
        decoded,
        lambda: transformers.Qwen2Config(
            **GROUPED, rope_parameters=YARN, use_sliding_window=True, sliding_window=8, max_window_layers=1
        ),
    ),
    "llama3_mqa_bias": (
        decoded,
        lambda: transformers.LlamaConfig(
            **SIZES, num_key_value_heads=1, rope_parameters=LLAMA3, attention_bias=True, mlp_bias=True
        ),
    ),
    "llama_dynamic": (
        stretched,
        lambda: transformers.LlamaConfig(
            **{**GROUPED, "max_position_embeddings": 16},
            rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4},
        ),
    ),
}
ENCODER = {**SIZES, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
ROBERTA = {**ENCODER, "max_position_embeddings": 162, "type_vocab_size": 1}
MODERN = {**ENCODER, "cls_token_id": 0, "sep_token_id": 2, "local_attention": 10, "num_hidden_layers": 4}
ENCODERS = {
    "roberta": lambda: transformers.RobertaConfig(**ROBERTA),
    "mpnet_relative": lambda: transformers.MPNetConfig(**{**ROBERTA, "max_position_embeddings": 155}),
    "modernbert_local": lambda: transformers.ModernBertConfig(**{**MODERN, "max_position_embeddings": 160}),
}
RERANKERS = {
    "bert_reranker": lambda: transformers.BertConfig(**ENCODER, num_labels=1),
    "xlm_roberta_reranker": lambda: transformers.XLMRobertaConfig(**ROBERTA, num_labels=1),
    "modernbert_reranker": lambda: transformers.ModernBertConfig(
        **MODERN, num_labels=1, classifier_pooling="mean"
    ),
}
FAMILIES = (
    {name: Family(how, transformers.AutoModelForCausalLM, config) for name, (how, config) in DECODERS.items()}
    | {name: Family(encoded, transformers.AutoModel, config) for name, config in ENCODERS.items()}
    | {
        name: Family(classified, transformers.AutoModelForSequenceClassification, config)
        for name, config in RERANKERS.items()
    }
    | {"colbert": Family(interacted, HF_ColBERT, lambda: transformers.BertConfig(**ENCODER))}
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("family", choices=[*sorted(FAMILIES), "all"])
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    for name in FAMILIES if options.family == "all" else [options.family]:
        if options.family != "all" or not (options.folder / name).exists():
            make(FAMILIES[name], options.folder / name)


@torch.no_grad()
def make(family: Family, target: Path) -> None:
    torch.manual_seed(0)
    # Eager attention alone applies Gemma 2's cap on scores.
    model = family.model.from_config(family.config(), attn_implementation="eager").eval().float()
    for parameter in model.parameters():
        parameter.add_(torch.randn_like(parameter) * (0.2 if parameter.ndim == 1 else 0.08))
    model.save_pretrained(target)
    (target / "generation_config.json").unlink(missing_ok=True)
    recorded = family.record(model)
    np.savez_compressed(target / "io.npz", **{name: _array(tensor) for name, tensor in recorded.items()})


def _array(tensor: torch.Tensor) -> np.ndarray:
    array = tensor.numpy()
    return array.astype(np.int32 if array.dtype == np.int64 else np.float32)


if __name__ == "__main__":
    main()
