"""The model that ships: it loads by its name alone, and knows clothes it has not learned from."""

import numpy as np

from engine.registry import BUNDLED, resolve


def test_it_names_nine_of_ten_pieces_of_the_test_set(fashion, pieces, piece_labels):
    assert fashion.config.labels[:3] == ("t-shirt", "trouser", "pullover")
    found = [fashion.config.labels.index(best[0].label) for best in fashion.classify(pieces, top_k=1)]
    assert np.mean(np.array(found) == piece_labels) >= 0.9


def test_it_is_small_enough_to_ship():
    assert sum(file.stat().st_size for file in BUNDLED["vit-fashion"].iterdir()) < 8 << 20


def test_it_is_installed_wherever_models_live(tmp_path, monkeypatch):
    monkeypatch.setenv("TARSIA_MODELS_DIR", str(tmp_path / "empty"))
    assert resolve("vit-fashion").path == BUNDLED["vit-fashion"]


def test_a_model_of_yours_by_that_name_comes_first(tmp_path, monkeypatch):
    monkeypatch.setenv("TARSIA_MODELS_DIR", str(tmp_path))
    (tmp_path / "vit-fashion").mkdir()
    assert resolve("vit-fashion").path == tmp_path / "vit-fashion"
