"""`POST /v1/ask`: a question over the documents, answered with page citations or not at all."""

import time
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from serve.http.body import read_body
from serve.http.openapi import takes
from serve.http.services import services_of
from serve.streaming.attend import attend

__all__ = ["ROUTES"]

MAX_QUESTION_LENGTH = 8192


class AskRequest(BaseModel):
    """`document_ids` narrows the search; None asks all documents."""

    model_config = ConfigDict(strict=True, extra="ignore")

    question: Annotated[str, Field(min_length=1, max_length=MAX_QUESTION_LENGTH)]
    document_ids: Annotated[list[str], Field(max_length=1000)] | None = None
    generate: bool = True


@takes(AskRequest)
async def ask(request: Request) -> JSONResponse:
    """An answer from the documents with its citations, best first, or `answered: false`."""
    services = services_of(request)
    body = await read_body(request, AskRequest)
    began = time.perf_counter()
    work = services.heavy.run(
        services.runtime.ask, body.question, document_ids=body.document_ids, generate=body.generate
    )
    answer = await attend(request, services.drain, work)
    services.metrics.stage("answer", time.perf_counter() - began)
    return JSONResponse(answer.to_dict())


ROUTES = [Route("/v1/ask", ask, methods=["POST"])]
