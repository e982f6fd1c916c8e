"""Ranking by an embedding model: one vector of the query, one of each document."""

from collections.abc import Sequence

from engine.embeddings.embedder import TextEmbedder
from engine.rerank.ranking import Ranking, check_request, ranking


def rank_by_vectors(
    embedder: TextEmbedder, query: str, documents: Sequence[str], *, top_n: int | None = None
) -> Ranking:
    """Scores are cosines in [-1, 1]. Raises InvalidRequest; see `check_request`."""
    check_request(query, documents, top_n)
    asked, read = (
        embedder.embed_counted([query], role="query"),
        embedder.embed_counted(documents, role="document"),
    )
    tokens = sum(asked.token_counts) + sum(read.token_counts)
    return ranking(read.vectors @ asked.vectors[0], "bi_encoder", tokens, top_n)
