"""`/v1/documents`: upload, list, look at, read a page of, delete."""

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from engine.errors import InvalidRequest
from serve.http.openapi import UPLOAD, takes
from serve.http.services import services_of
from serve.streaming.attend import attend, shutting_down

if TYPE_CHECKING:
    from serve.library import DocumentRecord

__all__ = ["ROUTES"]

MAX_NAME_LENGTH = 255


@takes(UPLOAD)
async def upload(request: Request) -> JSONResponse:
    """Multipart with one part `file`; answers when the document can be asked about.

    A client that leaves while it is being read changes nothing: the document is stored all the same.
    """
    services = services_of(request)
    name, data = await _uploaded(request)
    began = time.perf_counter()

    def stop_when_out_of_time(done: int, total: int) -> None:
        if services.drain.expired:
            raise shutting_down()

    work = services.heavy.run(services.runtime.ingest, name, data, progress=stop_when_out_of_time)
    record = await attend(request, services.drain, work)
    services.metrics.stage("ingest", time.perf_counter() - began)
    return JSONResponse(_summary(record))


async def list_documents(request: Request) -> JSONResponse:
    """All documents, oldest first."""
    services = services_of(request)
    records = await services.light.run(services.runtime.documents)
    return JSONResponse({"object": "list", "data": [_summary(record) for record in records]})


async def get_document(request: Request) -> JSONResponse:
    """One document."""
    services = services_of(request)
    record = await services.light.run(services.runtime.document, request.path_params["id"])
    return JSONResponse(_summary(record))


async def get_page(request: Request) -> JSONResponse:
    """The text of one page, which the offsets of citations count in."""
    services = services_of(request)
    document_id, page = request.path_params["id"], request.path_params["page"]
    text = await services.light.run(services.runtime.page_text, document_id, page)
    return JSONResponse({"id": document_id, "page": page, "text": text})


async def delete_document(request: Request) -> JSONResponse:
    """Forgets a document and its passages."""
    services = services_of(request)
    document_id = request.path_params["id"]
    await services.light.run(services.runtime.delete_document, document_id)
    return JSONResponse({"id": document_id, "deleted": True})


async def _uploaded(request: Request) -> tuple[str, bytes]:
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise InvalidRequest("send the document as multipart/form-data with a part named file", param="file")
    async with request.form(max_files=1, max_fields=16) as form:
        file = form.get("file")
        if not isinstance(file, UploadFile):
            raise InvalidRequest("the form has no file part named file", param="file")
        return _clean_name(file.filename or ""), await file.read()


def _clean_name(given: str) -> str:
    """The last part of whatever path the client sent, printable characters only."""
    last = given.replace("\\", "/").rpartition("/")[2]
    name = "".join(character for character in last if character.isprintable()).strip()
    if not name:
        raise InvalidRequest("the file needs a name", param="file")
    if len(name) > MAX_NAME_LENGTH:
        raise InvalidRequest(f"the file's name is longer than {MAX_NAME_LENGTH} characters", param="file")
    return name


def _summary(record: "DocumentRecord") -> dict[str, Any]:
    return {"object": "document", **asdict(record)}


ROUTES = [
    Route("/v1/documents", upload, methods=["POST"]),
    Route("/v1/documents", list_documents),
    Route("/v1/documents/{id}", get_document),
    Route("/v1/documents/{id}", delete_document, methods=["DELETE"]),
    Route("/v1/documents/{id}/pages/{page:int}", get_page),
]
