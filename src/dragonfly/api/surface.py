"""The ASGI side of the port: everything that is not the data plane, with one set of headers and one error shape."""

import math
from collections.abc import Callable, Iterable, Sequence

import msgspec
from fastapi import APIRouter
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dragonfly import __version__
from dragonfly.api.description import DescribedApi
from dragonfly.api.guard import API_PREFIX, BODIES_DEFAULT, ApiGuard, BodyRules
from dragonfly.api.health import Readiness, health_routes
from dragonfly.api.principal import Authenticate, refuse_everybody
from dragonfly.api.repeats import UNCERTAIN, Repeats
from dragonfly.core.clock import Clock
from dragonfly.core.errors import DragonflyError
from dragonfly.core.ids import IdSource

HEADERS = [
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
]

MISTAKES: dict[int, tuple[str, str]] = {
    400: ("invalid_json", "The body is not one JSON object in UTF-8. Check it with a JSON parser."),
    404: (
        "not_found",
        "There is no such path. The API itself is under /v1; GET /healthz and /readyz tell how it is.",
    ),
    405: ("method_not_allowed", "This path does not answer that method."),
    413: ("request_too_large", "The body is larger than this path takes. Send less."),
    415: ("unsupported_media_type", "Send the body as application/json, without a content encoding."),
    422: ("invalid_parameter", "A parameter is missing or has the wrong form. GET /openapi.json describes them."),
    500: ("internal_error", "Something went wrong in the gateway. Retry; quote request_id if it stays."),
}

KINDS = {401: "authentication_error", 402: "insufficient_quota", 403: "permission_error", 429: "rate_limit_error"}
STATUS_DEFAULT = 400
"""Of a refusal that names none."""

FailureSink = Callable[[BaseException], None]


def build_surface(
    *,
    readiness: Readiness,
    clock: Clock,
    ids: IdSource,
    failed: FailureSink,
    routers: Sequence[APIRouter] = (),
    authenticate: Authenticate = refuse_everybody,
    bodies: BodyRules = BODIES_DEFAULT,
) -> ASGIApp:
    """The ASGI application. `failed` is told of exceptions that nobody expected; their text goes nowhere.

    `routers` are the features' routes; `authenticate` is what the dependencies of `dragonfly.api.principal` ask.
    """
    api = DescribedApi(
        title="Dragonfly",
        version=__version__,
        description="An OpenAI-compatible gateway to language models. Inference is under /v1.",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    api.state.authenticate = authenticate
    for router in (health_routes(readiness), *routers):
        api.include_router(router)
    api.add_exception_handler(HTTPException, _refuse)
    api.add_exception_handler(RequestValidationError, _refuse)
    api.add_exception_handler(DragonflyError, _refuse_expected)
    api.add_exception_handler(Exception, _refuse)
    routed: ASGIApp = api
    if bodies.repeats is not None:
        routed = Repeats(api, bodies.repeats, authenticate=authenticate, refuse=_refusal_of)
    guarded = ApiGuard(routed, refuse=_refuse_early, rules=bodies)
    return Envelope(guarded, clock=clock, ids=ids, failed=failed)


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
                own = [(b"x-request-id", request_id.encode())]
                message = {**message, "headers": [*_headed(message.get("headers", ()), scope["path"]), *own]}
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
    return _error(status, code, message, request_id)


def refusal_response(error: DragonflyError, request_id: str) -> Response:
    """An expected error with its own status, code and sentence, and Retry-After when it has `retry_after_s`."""
    status = int(getattr(error, "status", STATUS_DEFAULT))
    answer = _error(status, error.code, error.message, request_id, getattr(error, "param", None))
    retry_after_s = getattr(error, "retry_after_s", None)
    if retry_after_s is not None:
        answer.headers["Retry-After"] = str(max(1, math.ceil(retry_after_s)))
    return answer


def _error(status: int, code: str, message: str, request_id: str, param: str | None = None) -> Response:
    kind = KINDS.get(status, "invalid_request_error" if status < 500 else "server_error")
    error = {"message": message, "type": kind, "param": param, "code": code, "request_id": request_id}
    return Response(msgspec.json.encode({"error": error}), status, media_type="application/json")


def _headed(headers: Iterable[tuple[bytes, bytes]], path: str) -> list[tuple[bytes, bytes]]:
    """The answer's headers and the usual ones that it does not set itself; nothing under /api is ever cached."""
    kept = [(name, value) for name, value in headers if name != b"cache-control" or not path.startswith(API_PREFIX)]
    names = {name for name, _ in kept}
    return [*kept, *(header for header in HEADERS if header[0] not in names)]


async def _refuse(request: Request, failure: Exception) -> Response:
    """The framework's own errors quote what they got; ours say one sentence for each status."""
    status = 500
    if isinstance(failure, HTTPException):
        status = failure.status_code
    elif isinstance(failure, RequestValidationError):
        is_json = all(error["type"] != "json_invalid" for error in failure.errors())
        status = 422 if is_json else 400
    answer = error_response(status, request.scope["dragonfly.request_id"])
    if isinstance(failure, HTTPException) and failure.headers and "Allow" in failure.headers:
        answer.headers["Allow"] = failure.headers["Allow"]
    return answer


async def _refuse_expected(request: Request, failure: Exception) -> Response:
    assert isinstance(failure, DragonflyError), "the framework gives each handler what it was added for"
    request.scope[UNCERTAIN] = getattr(failure, "is_uncertain", False)
    return refusal_response(failure, request.scope["dragonfly.request_id"])


def _refusal_of(failure: DragonflyError, scope: Scope) -> Response:
    return refusal_response(failure, scope["dragonfly.request_id"])


async def _refuse_early(status: int, scope: Scope, receive: Receive, send: Send) -> None:
    await error_response(status, scope["dragonfly.request_id"])(scope, receive, send)
