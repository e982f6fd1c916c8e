import pytest

from engine.errors import BadCheckpoint, UnsupportedModel
from engine.models.encoder_hf import encoder_from_hf

BERT = {
    "model_type": "bert",
    "vocab_size": 100,
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}


def test_the_longest_text_never_exceeds_the_position_table():
    assert encoder_from_hf(BERT).max_seq_length == 64
    assert encoder_from_hf(BERT, max_seq_length=32).max_seq_length == 32
    assert encoder_from_hf(BERT, max_seq_length=512).max_seq_length == 64


def test_positions_of_roberta_and_mpnet_begin_after_their_padding():
    bert, roberta, mpnet = (
        encoder_from_hf({**BERT, "model_type": kind, "pad_token_id": 3})
        for kind in ("bert", "roberta", "mpnet")
    )
    assert (bert.position_offset, bert.max_positions) == (0, 64)
    assert (roberta.position_offset, roberta.max_positions) == (4, 60)
    assert (mpnet.position_offset, mpnet.max_positions, mpnet.type_vocab_size) == (2, 62, 0)


MODERN = {key: value for key, value in BERT.items() if key != "model_type"} | {"model_type": "modernbert"}


def test_modernbert_is_read_in_the_spelling_of_transformers_4_and_5():
    shared = {**MODERN, "num_hidden_layers": 4, "local_attention": 16}
    old = encoder_from_hf({**shared, "global_attn_every_n_layers": 2, "global_rope_theta": 5e4})
    ropes = {"full_attention": {"rope_theta": 5e4}, "sliding_attention": {"rope_theta": 1e4}}
    new = encoder_from_hf(
        {**shared, "rope_parameters": ropes, "layer_types": ["full_attention", "sliding_attention"] * 2}
    )
    assert old == new
    assert (new.windows, new.rope.theta, new.local_rope.theta) == ((None, 8, None, 8), 5e4, 1e4)


@pytest.mark.parametrize(
    ("changes", "error", "named"),
    [
        ({"model_type": "electra"}, UnsupportedModel, "electra.*bert, camembert, modernbert, mpnet, roberta"),
        ({"architectures": ["BertForTokenClassification"]}, UnsupportedModel, "ForTokenClassification"),
        ({"architectures": ["BertForSequenceClassification"]}, UnsupportedModel, "classifier of 2 labels"),
        ({"model_type": "roberta", "max_position_embeddings": 2}, BadCheckpoint, "max_position_embeddings"),
        ({**MODERN, "layer_types": ["local"] * 2}, BadCheckpoint, "layer_types"),
        (
            {
                **MODERN,
                "classifier_pooling": 3,
                "architectures": ["XForSequenceClassification"],
                "num_labels": 1,
            },
            BadCheckpoint,
            "classifier_pooling",
        ),
        ({"position_embedding_type": "relative_key"}, UnsupportedModel, "relative_key"),
        ({"hidden_act": "swiglu"}, UnsupportedModel, "swiglu"),
        ({"is_decoder": True}, UnsupportedModel, "decoder"),
        ({"hidden_size": 50}, BadCheckpoint, "not a multiple of 4 heads"),
        ({"layer_norm_eps": 0}, BadCheckpoint, "layer_norm_eps"),
    ],
)
def test_what_cannot_run_is_refused_by_name(changes, error, named):
    with pytest.raises(error, match=named):
        encoder_from_hf({**BERT, **changes})
