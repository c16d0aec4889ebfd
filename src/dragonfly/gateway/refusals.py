"""Errors as the client sees them: OpenAI's shape, one table from code to status, given only here.

A body is `{"error": {"message", "type", "param", "code", "request_id", "metadata"?}}`. `code` is stable; the
message is a fixed sentence plus numbers that says what to do next. Nothing of the request, of an upstream's
answer, of a key or of an address ever stands in it.
"""

from typing import NamedTuple

import msgspec

from dragonfly.admission.errors import InsufficientBalance, RateLimited
from dragonfly.core.errors import DragonflyError
from dragonfly.core.money import usd_text


class Shape(NamedTuple):
    """How a code is answered."""

    status: int
    type: str


SHAPES: dict[str, Shape] = {
    "invalid_request": Shape(400, "invalid_request_error"),
    "invalid_json": Shape(400, "invalid_request_error"),
    "duplicate_field": Shape(400, "invalid_request_error"),
    "invalid_parameter": Shape(400, "invalid_request_error"),
    "context_length_exceeded": Shape(400, "invalid_request_error"),
    "upstream_refused": Shape(400, "invalid_request_error"),
    "content_policy_violation": Shape(400, "invalid_request_error"),
    "invalid_api_key": Shape(401, "authentication_error"),
    "missing_api_key": Shape(401, "authentication_error"),
    "insufficient_balance": Shape(402, "insufficient_quota"),
    "account_unverified": Shape(403, "permission_error"),
    "key_paused": Shape(403, "permission_error"),
    "address_not_allowed": Shape(403, "permission_error"),
    "account_frozen": Shape(403, "permission_error"),
    "model_not_allowed": Shape(403, "permission_error"),
    "privacy_restricted": Shape(403, "permission_error"),
    "model_not_found": Shape(404, "invalid_request_error"),
    "model_unpriced": Shape(404, "invalid_request_error"),
    "not_found": Shape(404, "invalid_request_error"),
    "method_not_allowed": Shape(405, "invalid_request_error"),
    "generation_stopped": Shape(409, "invalid_request_error"),
    "request_timeout": Shape(408, "invalid_request_error"),
    "request_too_large": Shape(413, "invalid_request_error"),
    "unsupported_media_type": Shape(415, "invalid_request_error"),
    "misdirected_host": Shape(421, "invalid_request_error"),
    "rate_limited": Shape(429, "rate_limit_error"),
    "headers_too_large": Shape(431, "invalid_request_error"),
    "internal_error": Shape(500, "server_error"),
    "upstream_error": Shape(502, "upstream_error"),
    "overloaded": Shape(503, "server_error"),
    "shutting_down": Shape(503, "server_error"),
    "store_unavailable": Shape(503, "server_error"),
    "no_healthy_channel": Shape(503, "upstream_error"),
    "no_route": Shape(503, "upstream_error"),
    "upstream_timeout": Shape(504, "upstream_error"),
}

REASONS: dict[int, bytes] = {
    200: b"OK",
    400: b"Bad Request",
    401: b"Unauthorized",
    402: b"Payment Required",
    403: b"Forbidden",
    404: b"Not Found",
    405: b"Method Not Allowed",
    408: b"Request Timeout",
    409: b"Conflict",
    413: b"Content Too Large",
    415: b"Unsupported Media Type",
    421: b"Misdirected Request",
    429: b"Too Many Requests",
    431: b"Request Header Fields Too Large",
    500: b"Internal Server Error",
    502: b"Bad Gateway",
    503: b"Service Unavailable",
    504: b"Gateway Timeout",
}


class Refusal(DragonflyError):
    """A refusal that the data plane itself decides. `param` names a documented field, never input."""

    def __init__(
        self,
        code: str,
        message: str,
        *,
        param: str | None = None,
        retry_after_s: float | None = None,
        allow: bytes | None = None,
    ) -> None:
        assert code in SHAPES, "every code has a documented status"
        super().__init__(message)
        self.code = code
        self.param = param
        self.retry_after_s = retry_after_s
        self.allow = allow
        """The methods that a path answers, for the header of that name."""


def status_of(error: DragonflyError) -> int:
    """The HTTP status of an error; readers may bring codes of their own with an attribute `status`."""
    shape = SHAPES.get(error.code)
    if shape is not None:
        return shape.status
    return int(getattr(error, "status", 500))


def error_body(error: DragonflyError, request_id: str) -> bytes:
    """The JSON body of an error."""
    return msgspec.json.encode({"error": error_object(error, request_id)})


def error_object(error: DragonflyError, request_id: str) -> dict[str, object]:
    """The value of "error", also used inside a running stream."""
    shape = SHAPES.get(error.code)
    answer: dict[str, object] = {
        "message": error.message,
        "type": shape.type if shape is not None else "invalid_request_error",
        "param": getattr(error, "param", None),
        "code": error.code,
        "request_id": request_id,
    }
    if isinstance(error, InsufficientBalance):
        answer["metadata"] = {
            "needed_usd": usd_text(error.needed_nusd),
            "available_usd": usd_text(error.available_nusd),
            "limit": error.limit,
        }
    elif isinstance(error, RateLimited):
        answer["metadata"] = {"limit": error.limit, "what": error.what}
    return answer


def retry_after_s(error: DragonflyError) -> float | None:
    """Seconds for the Retry-After header; None when waiting does not help."""
    value = getattr(error, "retry_after_s", None)
    return float(value) if value is not None else None
