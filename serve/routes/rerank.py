"""`POST /v1/rerank`: documents by how well they answer a query, in the shape of Jina and Cohere."""

import time
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from engine.errors import InvalidRequest
from serve.http.body import read_body
from serve.http.openapi import takes
from serve.http.services import services_of
from serve.streaming.attend import attend

if TYPE_CHECKING:
    from engine import Engine
    from engine.rerank.ranking import Ranking

__all__ = ["ROUTES"]


class RerankDocument(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")

    text: str


class RerankRequest(BaseModel):
    """`top_n` of the documents come back, all without it; with `return_documents` their texts too."""

    model_config = ConfigDict(strict=True, extra="ignore")

    query: str
    documents: list[str | RerankDocument]
    model: str | None = None
    top_n: int | None = None
    return_documents: bool = False

    def texts(self) -> list[str]:
        """The documents as texts. Raises InvalidRequest if there are none."""
        if not self.documents:
            raise InvalidRequest("documents is empty", param="documents")
        return [item if isinstance(item, str) else item.text for item in self.documents]


@takes(RerankRequest)
async def rerank(request: Request) -> JSONResponse:
    """Documents by how well they answer a query, best first.

    `scoring` says how: cross_encoder is a reranker's reading of each pair, its scores in [0, 1];
    bi_encoder is the likeness of an embedding model's vectors, in [-1, 1].
    """
    services = services_of(request)
    body = await read_body(request, RerankRequest)
    texts = body.texts()
    engine: Engine = services.runtime.rerank_engine(body.model)
    began = time.perf_counter()
    work = services.heavy.run(engine.rerank, body.query, texts, top_n=body.top_n)
    found = await attend(request, services.drain, work)
    services.metrics.stage("rerank", time.perf_counter() - began)
    services.metrics.tokens(found.tokens, 0)
    return JSONResponse(_rendered(found, engine.name, texts if body.return_documents else None))


def _rendered(found: "Ranking", model: str, texts: list[str] | None) -> dict[str, Any]:
    results: list[dict[str, Any]] = [
        {"index": result.index, "relevance_score": result.score} for result in found.results
    ]
    if texts is not None:
        for result in results:
            result["document"] = {"text": texts[result["index"]]}
    usage = {"prompt_tokens": found.tokens, "total_tokens": found.tokens}
    return {"object": "list", "model": model, "scoring": found.scoring, "results": results, "usage": usage}


ROUTES = [Route("/v1/rerank", rerank, methods=["POST"])]
