import json
from pathlib import Path

import pytest

from engine.errors import BadCheckpoint, UnsupportedModel
from engine.weights.pooling import SentenceSettings, sentence_prompts, sentence_settings


def write(folder: Path, modules: object = None, pooling: object = None, sentence: object = None) -> Path:
    (folder / "1_Pooling").mkdir()
    contents = {
        "modules.json": modules,
        "1_Pooling/config.json": pooling,
        "sentence_bert_config.json": sentence,
    }
    for name, content in contents.items():
        if content is not None:
            (folder / name).write_text(json.dumps(content))
    return folder


def modules(*kinds: str, path: str = "1_Pooling") -> list[dict[str, str]]:
    return [{"type": f"sentence_transformers.models.{kind}", "path": path} for kind in kinds]


def test_minilm_means_over_256_tokens(minilm_path):
    assert sentence_settings(minilm_path) == SentenceSettings("mean", 256)


def test_a_plain_bert_folder_is_mean_pooled_over_all_its_positions(tmp_path):
    assert sentence_settings(tmp_path) == SentenceSettings("mean", None)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}, "mean"),
        ({"pooling_mode": "cls", "include_prompt": True}, "cls"),
        ({"pooling_mode_lasttoken": True}, "last"),
    ],
)
def test_pooling_is_read_in_both_spellings(tmp_path, config, expected):
    write(tmp_path, modules("Transformer", "Pooling", "Normalize"), config)
    assert sentence_settings(tmp_path).pooling == expected


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"pooling_mode_max_tokens": True}, "max_tokens"),
        ({"pooling_mode_max_tokens": True, "pooling_mode_mean_tokens": True}, r"max_tokens\+mean_tokens"),
        ({"pooling_mode": "weightedmean"}, "weightedmean"),
    ],
)
def test_other_poolings_are_refused_by_name(tmp_path, config, named):
    write(tmp_path, modules("Transformer", "Pooling"), config)
    with pytest.raises(UnsupportedModel, match=named):
        sentence_settings(tmp_path)


def test_a_dense_layer_after_the_pooling_is_refused_by_name(tmp_path):
    write(tmp_path, modules("Transformer", "Dense"))
    with pytest.raises(UnsupportedModel, match="'Dense' module"):
        sentence_settings(tmp_path)


@pytest.mark.parametrize("listed", [{"a": 1}, ["Pooling"], modules("Pooling", path="../..")])
def test_damaged_modules_are_refused(tmp_path, listed):
    write(tmp_path, listed)
    with pytest.raises(BadCheckpoint):
        sentence_settings(tmp_path)


def test_a_length_of_nonsense_is_refused(tmp_path):
    write(tmp_path, sentence={"max_seq_length": -1})
    with pytest.raises(BadCheckpoint, match="max_seq_length"):
        sentence_settings(tmp_path)


def test_a_default_prompt_stands_in_for_roles_without_one(tmp_path):
    settings = {"prompts": {"query": "q: ", "all": "text: "}, "default_prompt_name": "all"}
    (tmp_path / "config_sentence_transformers.json").write_text(json.dumps(settings))
    prompts = sentence_prompts(tmp_path)
    assert [prompts.of(role) for role in ("query", "document", None)] == ["q: ", "text: ", "text: "]


@pytest.mark.parametrize(
    "settings", [{"prompts": {"query": 3}}, {"default_prompt_name": "query"}, {"prompts": []}]
)
def test_damaged_prompts_are_refused(tmp_path, settings):
    (tmp_path / "config_sentence_transformers.json").write_text(json.dumps(settings))
    with pytest.raises(BadCheckpoint, match="prompt"):
        sentence_prompts(tmp_path)


def test_the_tokenizers_own_limit_holds_where_no_other_is_given(tmp_path):
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 300}))
    assert sentence_settings(tmp_path).max_seq_length == 300
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 10**30}))
    assert sentence_settings(tmp_path).max_seq_length is None
    (tmp_path / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 200}))
    assert sentence_settings(tmp_path).max_seq_length == 200


def test_pooling_without_the_prompt_is_refused(tmp_path):
    write(tmp_path, modules("Transformer", "Pooling"), {"pooling_mode": "mean", "include_prompt": False})
    with pytest.raises(UnsupportedModel, match="include_prompt"):
        sentence_settings(tmp_path)
