"""Where a command works on documents: in this process, or in the server that holds the data folder.

The data folder has one owner. When `tarsia serve` is that owner, `ask` and `ingest` go to it over HTTP,
by the address it left in the folder.
"""

import ipaddress
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from engine.errors import TarsiaError
from serve.cli.files import NamedFile
from serve.cli.output import Stage
from serve.config import Settings
from stores.errors import StoreLocked

ADDRESS_FILE = "server.json"
_SERVER_TIMEOUT = 600.0


class Workplace(Protocol):
    def ingest(self, file: NamedFile, stage: Stage) -> dict[str, Any]:
        """The stored document as `/v1/documents` gives it. Raises DocumentError."""

    def ask(self, question: str, *, document_ids: Sequence[str] | None, generate: bool) -> dict[str, Any]:
        """The answer as `/v1/ask` gives it."""


@contextmanager
def open_workplace(settings: Settings, stage: Stage, *, with_chat: bool) -> Iterator[Workplace]:
    """This process on the data folder, or the server that has it open."""
    from serve.runtime import Runtime

    try:
        runtime = Runtime.open(settings, with_chat=with_chat, stage=stage)
    except StoreLocked:
        url = _server_url(settings.data_dir)
        if url is None:
            raise
        yield _RunningServer(url, settings.max_upload_bytes)
        return
    try:
        yield _ThisProcess(runtime)
    finally:
        runtime.close()


@contextmanager
def open_scratch(settings: Settings, stage: Stage, *, with_chat: bool) -> Iterator[Workplace]:
    """This process on an empty folder that is deleted at the end."""
    from serve.runtime import Runtime

    runtime = Runtime.ephemeral(settings, with_chat=with_chat, stage=stage)
    try:
        yield _ThisProcess(runtime)
    finally:
        runtime.close()


class _ThisProcess:
    def __init__(self, runtime: Any) -> None:
        self._runtime = runtime

    def ingest(self, file: NamedFile, stage: Stage) -> dict[str, Any]:
        stage(f"ingest {file.name}", 0, 1)
        record = self._runtime.ingest(
            file.name,
            file.read(self._runtime.settings.max_upload_bytes),
            progress=lambda done, total: stage(f"ingest {file.name}", done, total),
        )
        return asdict(record)

    def ask(self, question: str, *, document_ids: Sequence[str] | None, generate: bool) -> dict[str, Any]:
        answer = self._runtime.ask(question, document_ids=document_ids, generate=generate)
        result: dict[str, Any] = answer.to_dict()
        return result


class _RunningServer:
    def __init__(self, url: str, max_upload_bytes: int) -> None:
        import httpx2

        # Not through a proxy of the environment: the server is on this machine, and so are the documents.
        self._client = httpx2.Client(base_url=url, timeout=_SERVER_TIMEOUT, trust_env=False)
        self._max_upload_bytes = max_upload_bytes

    def ingest(self, file: NamedFile, stage: Stage) -> dict[str, Any]:
        stage(f"send {file.name} to {self._client.base_url}", 0, 1)
        return self._post("/v1/documents", files={"file": (file.name, file.read(self._max_upload_bytes))})

    def ask(self, question: str, *, document_ids: Sequence[str] | None, generate: bool) -> dict[str, Any]:
        body: dict[str, Any] = {"question": question, "generate": generate}
        if document_ids is not None:
            body["document_ids"] = list(document_ids)
        return self._post("/v1/ask", json=body)

    def _post(self, path: str, **content: Any) -> dict[str, Any]:
        import httpx2

        try:
            response = self._client.post(path, **content)
            body = response.json()
        except (httpx2.HTTPError, ValueError) as error:
            raise TarsiaError(
                f"the running server at {self._client.base_url} did not answer: {error}"
            ) from error
        if response.is_error:
            raise TarsiaError(
                body.get("error", {}).get("message", f"the server answered {response.status_code}")
            )
        result: dict[str, Any] = body
        return result


def write_address(data_dir: Path, url: str | None) -> None:
    """Leaves the server's address in its data folder for other commands; None while it starts."""
    (data_dir / ADDRESS_FILE).write_text(json.dumps({"url": url}))


def remove_address(data_dir: Path) -> None:
    (data_dir / ADDRESS_FILE).unlink(missing_ok=True)


def _server_url(data_dir: Path) -> str | None:
    """The address of the server that holds the folder, or None if its owner is no server.

    Raises:
        TarsiaError: the server is still starting.
    """
    try:
        content = json.loads((data_dir / ADDRESS_FILE).read_text())
    except (OSError, ValueError):
        return None
    if not isinstance(content, dict):
        return None
    url = content.get("url")
    if url is None:
        raise TarsiaError(f"the server that has {data_dir} open is still starting; try again in a moment")
    return url if isinstance(url, str) and _is_loopback(url) else None


def _is_loopback(url: str) -> bool:
    parts = urlsplit(url)
    try:
        return parts.scheme == "http" and ipaddress.ip_address(parts.hostname or "").is_loopback
    except ValueError:
        return False
