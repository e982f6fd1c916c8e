"""What code below the middleware may know of the request it works for, without being handed it."""

from contextvars import ContextVar

REQUEST_ID: ContextVar[str | None] = ContextVar("request_id", default=None)
"""Set by the request-id middleware; log lines carry it."""
