import numpy as np
import pytest

from engine import Engine
from engine.errors import InvalidRequest


@pytest.fixture(scope="module")
def minilm(minilm_path) -> Engine:
    return Engine.load("all-minilm-l6-v2")


def test_an_embedding_model_ranks_by_cosine_and_says_so(minilm):
    texts = ["Today is a sunny day", "That is a very happy person", "That is a happy dog"]
    found = minilm.rerank("That is a happy person", texts)
    assert found.scoring == "bi_encoder"
    assert [result.index for result in found.results] == [1, 2, 0]
    np.testing.assert_allclose(
        [result.score for result in found.results], [0.9429, 0.6946, 0.2569], atol=1e-3
    )
    with pytest.raises(InvalidRequest, match="query is empty"):
        minilm.rerank("", texts)
