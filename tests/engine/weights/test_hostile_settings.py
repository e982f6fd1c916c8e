"""Any JSON in place of any setting: the model loads, or one error of ours says why not."""

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import BadCheckpoint, TarsiaError
from engine.weights import load_checkpoint

PARITY = Path(__file__).parents[2] / "fixtures" / "parity"

SETTINGS = {
    "config.json": None,
    "generation_config.json": {"eos_token_id": 2},
    "tokenizer_config.json": {"chat_template": [{"name": "default", "template": ""}]},
    "sentence_bert_config.json": {"max_seq_length": 32},
    "modules.json": [{"type": "models.Transformer", "path": ""}, {"type": "models.Pooling", "path": "pool"}],
    "pool/config.json": {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False},
}
EXTRA_KEYS = ("rope_scaling", "rope_parameters", "layer_types", "sliding_window", "quantization_config")
NESTED_KEYS = ("type", "rope_type", "factor", "name", "path", "x")

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats()
    | st.sampled_from(["llama", "bert", "mistral", "llama3", "linear", "default", "\n", "🙂"])
)
anything = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NESTED_KEYS), inner, max_size=3)
    ),
    max_leaves=6,
)


@pytest.fixture(scope="module", params=["llama_gqa_tied", "bert_minilm"])
def folder(request, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("hostile") / request.param
    shutil.copytree(PARITY / request.param, folder)
    (folder / "pool").mkdir()
    for name, content in SETTINGS.items():
        if content is not None:
            (folder / name).write_text(json.dumps(content))
    return folder


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_json_in_any_setting_loads_or_is_one_clear_error(folder, data):
    path = folder / data.draw(st.sampled_from(sorted(SETTINGS)))
    good = path.read_text()
    content = json.loads(good)
    keys = [*(content if isinstance(content, dict) else range(len(content))), None]
    if path.name == "config.json" and path.parent == folder:
        keys += EXTRA_KEYS
    key = data.draw(st.sampled_from(keys))
    if key is None:
        content = data.draw(anything)
    else:
        content[key] = data.draw(anything)
    path.write_text(json.dumps(content))
    try:
        load_checkpoint(folder)
    except TarsiaError as error:
        assert "\n" not in str(error)
    finally:
        path.write_text(good)


def test_a_tokenizer_larger_than_the_vocabulary_is_refused(tmp_path, minilm_path):
    folder = Path(shutil.copytree(PARITY / "bert_minilm", tmp_path / "bert"))
    shutil.copy(minilm_path / "tokenizer.json", folder)
    with pytest.raises(BadCheckpoint, match="30522 tokens, the model 320"):
        load_checkpoint(folder)
