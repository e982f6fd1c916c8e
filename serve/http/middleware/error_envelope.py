"""Turns what a route raises into OpenAI's error envelope, 500s included, with the request's id."""

import logging

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from engine.errors import Cancelled
from serve.errors import error_response, status_and_type

logger = logging.getLogger("tarsia.http")


class ErrorEnvelope:
    """The last catch: nothing below it reaches uvicorn as an exception before a response started.

    A client that left gets nothing and costs no traceback: the access log shows 499. An exception
    after the first byte is logged and raised again, so that uvicorn breaks the connection off and
    the client cannot take half an answer for a whole one.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = False

        async def watch_start(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self.app(scope, receive, watch_start)
        except (ClientDisconnect, Cancelled):
            return
        except Exception as error:
            if status_and_type(error)[0] == 500 or started:
                logger.exception("%s %s failed", scope["method"], scope["path"])
            if started:
                raise
            request_id = scope.get("state", {}).get("request_id")
            await error_response(error, request_id=request_id)(scope, receive, send)
