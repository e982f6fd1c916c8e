"""Log lines: access lines in three formats, the server's own as text or JSON; safe against injection.

Only method, path, status, sizes, times and the two harmless headers are logged: never a body, never
a credential; query values whose name sounds like a secret are masked.
"""

import json
import logging
import logging.config
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from serve.http.context import REQUEST_ID

ACCESS_LOGGER = "tarsia.access"

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_SECRET = re.compile(r"(?i)((?:^|[?&])[^=&]*(?:key|token|secret|password|auth|signature)[^=&]*=)[^&]*")
_MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]


@dataclass(frozen=True)
class AccessRecord:
    """One finished request. `seconds` is its duration, `bytes` those of the response body."""

    time: datetime
    client: str
    method: str
    target: str
    http_version: str
    status: int
    bytes: int
    seconds: float
    referer: str
    user_agent: str
    request_id: str


def escape(text: str) -> str:
    """Makes text safe inside a quoted field: no control character can start a new line."""
    quoted = text.replace("\\", "\\\\").replace('"', '\\"')
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", quoted)


def mask_secrets(target: str) -> str:
    """`/x?api_key=abc&page=2` -> `/x?api_key=***&page=2`."""
    path, mark, query = target.partition("?")
    return path + mark + _SECRET.sub(r"\1***", query)


def common(record: AccessRecord) -> str:
    """The Common Log Format of NCSA httpd and Apache."""
    moment = record.time.astimezone(UTC)
    when = f"{moment:%d}/{_MONTHS[moment.month - 1]}/{moment:%Y:%H:%M:%S} +0000"
    line = f"{record.method} {escape(mask_secrets(record.target))} HTTP/{record.http_version}"
    return f'{record.client or "-"} - - [{when}] "{line}" {record.status} {record.bytes or "-"}'


def combined(record: AccessRecord) -> str:
    """Common, then the referring page without its query, and the user agent."""
    referer = escape(record.referer.partition("?")[0]) or "-"
    return f'{common(record)} "{referer}" "{escape(record.user_agent) or "-"}"'


def as_json(record: AccessRecord) -> str:
    """One object per line: the record's fields, `time` in ISO 8601 UTC."""
    fields = asdict(record) | {
        "time": record.time.astimezone(UTC).isoformat(timespec="milliseconds"),
        "target": mask_secrets(record.target),
        "referer": record.referer.partition("?")[0],
        "seconds": round(record.seconds, 6),
    }
    return json.dumps(fields)


ACCESS_FORMATS: Mapping[str, Callable[[AccessRecord], str]] = {
    "common": common,
    "combined": combined,
    "json": as_json,
}


class TextFormatter(logging.Formatter):
    """`LEVEL name [request id] message`, control characters escaped, tracebacks indented below."""

    def format(self, record: logging.LogRecord) -> str:
        request_id = REQUEST_ID.get()
        where = f" [{request_id}]" if request_id else ""
        message = _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", record.getMessage())
        line = f"{record.levelname} {record.name}{where} {message}"
        if record.exc_info:
            line += "\n    " + self.formatException(record.exc_info).replace("\n", "\n    ")
        return line


class JsonFormatter(logging.Formatter):
    """The same as one JSON object per line."""

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if request_id := REQUEST_ID.get():
            fields["request_id"] = request_id
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields)


def configure_logging(access_log: str, *, level: int = logging.INFO) -> None:
    """Sends access lines to stdout and everything else to stderr. Called once, by the server.

    Args:
        access_log: a name of ACCESS_FORMATS or "off"; "json" makes the other lines JSON too.
    """
    access = logging.getLogger(ACCESS_LOGGER)
    access.propagate = False
    access.setLevel(logging.INFO if access_log in ACCESS_FORMATS else logging.CRITICAL)
    access.handlers = [_handler(sys.stdout, logging.Formatter("%(message)s"))]
    root = logging.getLogger()
    root.setLevel(logging.WARNING)
    root.handlers = [_handler(sys.stderr, JsonFormatter() if access_log == "json" else TextFormatter())]
    logging.getLogger("tarsia").setLevel(level)


def _handler(stream: Any, formatter: logging.Formatter) -> logging.Handler:
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    return handler
