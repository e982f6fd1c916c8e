"""An encoder's configuration from a Hugging Face config.json."""

from collections.abc import Mapping
from typing import Any

from engine.errors import UnsupportedModel
from engine.models.decoder_config import unsupported
from engine.models.encoder_config import BertConfig, EncoderConfig, HeadConfig, ModernBertConfig, Pooling
from engine.models.fields import Fields, activation
from engine.models.rope_config import GLOBAL, LOCAL, ropes_by_layer_type

BERT_LIKE = ("bert", "camembert", "mpnet", "roberta", "xlm-roberta")
HF_ARCHITECTURES = (*BERT_LIKE, "modernbert")

_RELATIVE_BUCKETS = 32
_THETAS = {GLOBAL: ("global_rope_theta", 160000.0), LOCAL: ("local_rope_theta", 10000.0)}


def encoder_from_hf(
    values: Mapping[str, Any],
    source: str = "config.json",
    *,
    pooling: Pooling = "mean",
    max_seq_length: int | None = None,
) -> EncoderConfig:
    """`pooling` and `max_seq_length` are not in this file: see `weights.pooling`.

    Raises UnsupportedModel or BadCheckpoint.
    """
    fields = Fields(values, source)
    architecture = fields.text("model_type")
    if architecture not in HF_ARCHITECTURES:
        raise unsupported(architecture, HF_ARCHITECTURES)
    labels = _labels(fields)
    read = _modernbert if architecture == "modernbert" else _bert
    return read(fields, architecture, labels, pooling, max_seq_length)


def _labels(fields: Fields) -> int:
    """How many labels the model classifies into: 0 for an embedding model, 1 for a reranker."""
    names = fields.values.get("architectures")
    name = str(names[0]) if isinstance(names, list) and names else ""
    if name.endswith(("ForTokenClassification", "ForQuestionAnswering", "ForMultipleChoice", "LMHeadModel")):
        raise UnsupportedModel(
            f"{fields.source}: {name[:60]} is not supported; embedding models and rerankers are"
        )
    if not name.endswith("ForSequenceClassification"):
        return 0
    listed = fields.values.get("id2label")
    labels = len(listed) if isinstance(listed, Mapping) else fields.integer("num_labels", 2, low=1)
    if labels != 1:
        raise UnsupportedModel(
            f"{fields.source}: a classifier of {labels} labels is not supported; rerankers have one"
        )
    return labels


def _bert(
    fields: Fields, architecture: str, labels: int, pooling: Pooling, max_seq_length: int | None
) -> BertConfig:
    kind = fields.text("position_embedding_type", "absolute")
    if kind != "absolute":
        raise UnsupportedModel(f"{fields.source}: positions of type {kind!r} are not supported; absolute are")
    if fields.flag("is_decoder", False):
        raise UnsupportedModel(f"{fields.source}: a BERT decoder is not supported; only encoders are")
    # MPNet's code counts from row 2 whatever its padding token is.
    padding = 1 if architecture == "mpnet" else fields.integer("pad_token_id", 1)
    offset = 0 if architecture == "bert" else padding + 1
    positions = fields.integer("max_position_embeddings", 512, low=offset + 1) - offset
    types = 0 if architecture == "mpnet" else fields.integer("type_vocab_size", 2, low=1)
    return BertConfig(
        architecture=architecture,
        vocab_size=fields.integer("vocab_size", low=1),
        hidden_size=fields.integer("hidden_size", low=1),
        intermediate_size=fields.integer("intermediate_size", low=1),
        num_layers=fields.integer("num_hidden_layers", low=1, high=4096),
        num_heads=fields.integer("num_attention_heads", low=1),
        max_positions=positions,
        norm_eps=fields.number("layer_norm_eps", 1e-12),
        activation=activation(fields, "hidden_act", "gelu"),
        pooling=pooling,
        max_seq_length=min(max_seq_length or positions, positions),
        head=HeadConfig(labels) if labels else None,
        position_offset=offset,
        type_vocab_size=types,
        relative_buckets=_RELATIVE_BUCKETS if architecture == "mpnet" else 0,
    )


def _modernbert(
    fields: Fields, architecture: str, labels: int, pooling: Pooling, max_seq_length: int | None
) -> ModernBertConfig:
    hidden, heads = fields.integer("hidden_size", low=1), fields.integer("num_attention_heads", low=1)
    layers = fields.integer("num_hidden_layers", low=1, high=4096)
    ropes = ropes_by_layer_type(fields, max(hidden // heads, 2), _THETAS)
    positions = fields.integer("max_position_embeddings", 8192, low=1)
    return ModernBertConfig(
        architecture=architecture,
        vocab_size=fields.integer("vocab_size", low=1),
        hidden_size=hidden,
        intermediate_size=fields.integer("intermediate_size", low=1),
        num_layers=layers,
        num_heads=heads,
        max_positions=positions,
        norm_eps=fields.number("norm_eps", 1e-5),
        activation=activation(fields, "hidden_activation", "gelu"),
        pooling=pooling,
        max_seq_length=min(max_seq_length or positions, positions),
        head=_modernbert_head(fields, labels) if labels else None,
        windows=_modernbert_windows(fields, layers),
        rope=ropes[GLOBAL],
        local_rope=ropes[LOCAL],
        attention_bias=fields.flag("attention_bias", False),
        mlp_bias=fields.flag("mlp_bias", False),
        norm_bias=fields.flag("norm_bias", False),
    )


def _modernbert_head(fields: Fields, labels: int) -> HeadConfig:
    pooling = fields.text("classifier_pooling", "cls")
    if pooling not in ("cls", "mean"):
        raise fields.bad("classifier_pooling", "must be cls or mean")
    return HeadConfig(
        labels,
        pooling="mean" if pooling == "mean" else "cls",
        activation=activation(fields, "classifier_activation", "gelu"),
        dense_bias=fields.flag("classifier_bias", False),
        norm=True,
    )


def _modernbert_windows(fields: Fields, layers: int) -> tuple[int | None, ...]:
    """`local_attention` counts both sides."""
    side = fields.integer("local_attention", 128) // 2
    types = fields.values.get("layer_types")
    if types is None:
        every = fields.integer("global_attn_every_n_layers", 3, low=1)
        types = [LOCAL if index % every else GLOBAL for index in range(layers)]
    if not isinstance(types, list) or len(types) != layers or any(t not in (GLOBAL, LOCAL) for t in types):
        raise fields.bad("layer_types", f"must list {GLOBAL} or {LOCAL} for each of {layers} layers")
    return tuple(side if kind == LOCAL else None for kind in types)
