import pytest

from engine.errors import BadCheckpoint, UnsupportedModel
from engine.models.encoder_config import EncoderConfig

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
    assert EncoderConfig.from_hf(BERT).max_seq_length == 64
    assert EncoderConfig.from_hf(BERT, max_seq_length=32).max_seq_length == 32
    assert EncoderConfig.from_hf(BERT, max_seq_length=512).max_seq_length == 64


@pytest.mark.parametrize(
    ("changes", "error", "named"),
    [
        ({"model_type": "roberta"}, UnsupportedModel, "roberta"),
        ({"position_embedding_type": "relative_key"}, UnsupportedModel, "relative_key"),
        ({"hidden_act": "swiglu"}, UnsupportedModel, "swiglu"),
        ({"is_decoder": True}, UnsupportedModel, "decoder"),
        ({"hidden_size": 50}, BadCheckpoint, "not a multiple of 4 heads"),
        ({"layer_norm_eps": 0}, BadCheckpoint, "layer_norm_eps"),
    ],
)
def test_what_cannot_run_is_refused_by_name(changes, error, named):
    with pytest.raises(error, match=named):
        EncoderConfig.from_hf({**BERT, **changes})
