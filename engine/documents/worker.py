"""The reading process: limits itself, reads one file from stdin, writes JSON to stdout, ends.

Started by `engine.documents.parse`; imports only the parser that the file needs, and never JAX.
stdin is one line of JSON (name, password, limits) and then the file's bytes.
stdout is {"media_type", "pages", "warnings"} or {"error", "reason"}.
"""

import json
import sys
from typing import Any

from engine.documents import sniff
from engine.documents.failure import Unreadable, too_large
from engine.documents.limits import MEGABYTE, ParseLimits
from engine.process_limits import limit_memory, limit_processor_time


def main() -> None:
    header = json.loads(sys.stdin.buffer.readline())
    limits = ParseLimits(**header["limits"])
    limit_memory(limits.max_memory)
    limit_processor_time(limits.max_seconds + 1)
    try:
        result = read(header["name"], sys.stdin.buffer.read(), limits, header["password"])
    except Unreadable as refused:
        result = refusal(refused)
    except MemoryError:
        most = limits.max_memory // MEGABYTE
        result = refusal(too_large(f"needs more than {most:,} MB of memory to read"))
    json.dump(result, sys.stdout, ensure_ascii=True)


def refusal(refused: Unreadable) -> dict[str, Any]:
    return {"error": refused.kind, "reason": refused.reason}


def read(name: str, data: bytes, limits: ParseLimits, password: str | None) -> dict[str, Any]:
    """The pages of one file. Raises `Unreadable`."""
    kind = sniff.media_type(name, data)
    warnings: list[str] = []
    if kind == sniff.PDF:
        from engine.documents.pdf import pdf_pages

        pages, warnings = pdf_pages(data, limits, password)
    elif len(data) > limits.max_html_bytes:
        raise too_large(f"is {len(data):,} bytes of text; the limit is {limits.max_html_bytes:,}")
    elif kind == sniff.HTML:
        from engine.documents.html import html_text

        pages = [html_text(data, limits)]
    else:
        from engine.documents.plain import plain_text

        pages = [plain_text(data)]
    if sum(map(len, pages)) > limits.max_characters:
        raise too_large(f"holds more than {limits.max_characters:,} characters")
    return {"media_type": kind, "pages": pages, "warnings": warnings}
