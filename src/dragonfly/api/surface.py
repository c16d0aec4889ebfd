"""The ASGI side of the port: everything that is not the data plane, with one set of headers and one error shape."""

from collections.abc import Callable

import msgspec
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dragonfly import __version__
from dragonfly.api.description import DescribedApi
from dragonfly.api.health import Readiness, health_routes
from dragonfly.core.clock import Clock
from dragonfly.core.ids import IdSource

HEADERS = [
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
]

MISTAKES: dict[int, tuple[str, str]] = {
    404: (
        "not_found",
        "There is no such path. The API itself is under /v1; GET /healthz and /readyz tell how it is.",
    ),
    405: ("method_not_allowed", "This path does not answer that method."),
    422: ("invalid_parameter", "A parameter is missing or has the wrong form. GET /openapi.json describes them."),
    500: ("internal_error", "Something went wrong in the gateway. Retry; quote request_id if it stays."),
}

FailureSink = Callable[[BaseException], None]


def build_surface(*, readiness: Readiness, clock: Clock, ids: IdSource, failed: FailureSink) -> ASGIApp:
    """The ASGI application. `failed` is told of exceptions that nobody expected; their text goes nowhere."""
    api = DescribedApi(
        title="Dragonfly",
        version=__version__,
        description="An OpenAI-compatible gateway to language models. Inference is under /v1.",
        docs_url=None,
        redoc_url=None,
    )
    api.include_router(health_routes(readiness))
    api.add_exception_handler(HTTPException, _refuse)
    api.add_exception_handler(RequestValidationError, _refuse)
    api.add_exception_handler(Exception, _refuse)
    return Envelope(api, clock=clock, ids=ids, failed=failed)


class Envelope:
    """Outermost wrapper: request id and headers on every answer; a bug becomes a plain 500."""

    def __init__(self, inner: ASGIApp, *, clock: Clock, ids: IdSource, failed: FailureSink) -> None:
        self._inner = inner
        self._clock = clock
        self._ids = ids
        self._failed = failed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        request_id = self._ids.new("req-", self._clock.now_ns())
        scope["dragonfly.request_id"] = request_id
        started = False

        async def send_wrapped(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                own = [*HEADERS, (b"x-request-id", request_id.encode())]
                message = {**message, "headers": [*message.get("headers", ()), *own]}
            await send(message)

        try:
            await self._inner(scope, receive, send_wrapped)
        except Exception as failure:
            self._failed(failure)
            if not started:
                await error_response(500, request_id)(scope, receive, send_wrapped)


def error_response(status: int, request_id: str) -> Response:
    """An error in the shape that the data plane uses too."""
    code, message = MISTAKES.get(status, MISTAKES[404 if status < 500 else 500])
    kind = "invalid_request_error" if status < 500 else "server_error"
    error = {"message": message, "type": kind, "param": None, "code": code, "request_id": request_id}
    return Response(msgspec.json.encode({"error": error}), status, media_type="application/json")


async def _refuse(request: Request, failure: Exception) -> Response:
    """The framework's own errors quote what they got; ours say one sentence for each status."""
    status = 500
    if isinstance(failure, HTTPException):
        status = failure.status_code
    elif isinstance(failure, RequestValidationError):
        status = 422
    answer = error_response(status, request.scope["dragonfly.request_id"])
    if isinstance(failure, HTTPException) and failure.headers and "Allow" in failure.headers:
        answer.headers["Allow"] = failure.headers["Allow"]
    return answer
