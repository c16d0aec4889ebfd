"""Why a provider refused, over every provider's own words, and what never leaves the classification."""

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragonfly.providers.dialects import DIALECTS, FailureKind, dialect
from dragonfly.providers.dialects.retry_after import RETRY_AFTER_S_MAX, header_s, seconds_in_message

K = FailureKind
JSON = b"application/json"
HTML = b"<!doctype html><html><head><title>504 Gateway Time-out</title></head></html>"


def openai_error(message: str, kind: str | None, code: object = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def error(**fields: object) -> dict[str, Any]:
    return {"error": fields}


NO_BALANCE: list[tuple[str, int, object]] = [
    ("deepseek", 402, openai_error("Insufficient Balance", "unknown_error", "invalid_request_error")),
    ("moonshot", 429, error(message="Your account is suspended", type="exceeded_current_quota_error")),
    ("moonshot", 403, error(message="Your account own<own> is suspended due to insufficient balance", type="x")),
    ("glm", 429, error(code="1113", message="Insufficient balance or no resource package.")),
    ("glm", 429, {"code": 1113, "message": "您的账户已欠费，请充值后重试"}),
    ("qwen", 400, {"error": {"message": "Access denied.", "type": "Arrearage", "code": "Arrearage"}}),
    ("minimax", 200, {"base_resp": {"status_code": 1008, "status_msg": "insufficient balance"}}),
    (
        "minimax",
        429,
        error(http_code="429", message="insufficient balance (1008)", type="insufficient_balance_error"),
    ),
    ("minimax", 500, error(http_code="500", message="insufficient balance (1008)", type="server_error")),
    ("minimax", 402, error(http_code="402", message="insufficient balance (1008)", type="x")),
    ("ark", 403, error(code="AccountOverdueError", message="The request failed: overdue.", type="Forbidden")),
    ("stepfun", 402, error(message="out of money", type="x")),
    ("openai", 429, openai_error("You exceeded your current quota", "insufficient_quota", "insufficient_quota")),
    ("anthropic", 402, {"type": "error", "error": {"type": "billing_error", "message": "x"}}),
    (
        "anthropic",
        400,
        {
            "type": "error",
            "error": {
                "type": "invalid_request_error",
                "message": "Your credit balance is too low to access the Anthropic API.",
            },
        },
    ),
    (
        "anthropic",
        429,
        {
            "type": "error",
            "error": {
                "type": "rate_limit_error",
                "message": "x",
                "details": {"error_code": "enforced_spend_limit_reached"},
            },
        },
    ),
    ("together", 402, error(message="credit limit", type="x")),
    ("xai", 403, {"code": "permission-denied", "error": "Your team doesn't have any credits yet."}),
    ("openrouter", 402, error(code=402, message="Insufficient credits")),
]

BAD_KEY: list[tuple[str, int, object]] = [
    ("deepseek", 401, openai_error("Authentication Fails", "authentication_error", "invalid_request_error")),
    ("moonshot", 401, error(message="Invalid Authentication", type="invalid_authentication_error")),
    ("glm", 401, error(code="1002", message="x")),
    ("minimax", 200, {"base_resp": {"status_code": 1004, "status_msg": "login fail"}}),
    ("ark", 401, error(code="AuthenticationError", message="x", type="Unauthorized")),
    ("siliconflow", 401, {"code": 30014, "message": "Token is invalid.", "data": None}),
    ("xai", 400, {"code": "invalid-argument", "error": "Incorrect API key provided: own. You can obtain one."}),
    (
        "gemini",
        400,
        [
            {
                "error": {
                    "code": 400,
                    "message": "API key not valid. Please pass a valid API key.",
                    "status": "INVALID_ARGUMENT",
                    "details": [{"@type": "x/ErrorInfo", "reason": "API_KEY_INVALID"}],
                }
            }
        ],
    ),
    ("mistral", 401, {"detail": "Unauthorized"}),
    ("anthropic", 403, {"type": "error", "error": {"type": "permission_error", "message": "x"}}),
]

RATE: list[tuple[str, int, object]] = [
    ("deepseek", 429, openai_error("Rate limit reached", "rate_limit_error")),
    (
        "moonshot",
        429,
        error(message="request reached max organization concurrency: 1", type="rate_limit_reached_error"),
    ),
    ("glm", 429, error(code="1302", message="Rate limit reached for requests")),
    (
        "qwen",
        429,
        error(message="You exceeded your current quota", type="insufficient_quota", code="insufficient_quota"),
    ),
    ("qwen", 429, error(message="x", type="Throttling.RateQuota", code="Throttling.RateQuota")),
    ("minimax", 200, {"base_resp": {"status_code": 1002, "status_msg": "rate limit"}}),
    ("openai", 429, openai_error("Rate limit reached for gpt", "requests", "rate_limit_exceeded")),
    (
        "gemini",
        429,
        [
            {
                "error": {
                    "code": 429,
                    "message": "You exceeded your current quota, please check your plan",
                    "status": "RESOURCE_EXHAUSTED",
                    "details": [{"violations": [{"quotaId": "RequestsPerMinutePerProject"}]}],
                }
            }
        ],
    ),
    ("openrouter", 429, error(code=429, message="Provider returned error", metadata={"raw": "x is rate-limited"})),
    ("anthropic", 429, {"type": "error", "error": {"type": "rate_limit_error", "message": "x"}}),
]

QUOTA: list[tuple[str, int, object]] = [
    (
        "moonshot",
        429,
        error(message="request reached organization max TPD: 1500000", type="rate_limit_reached_error"),
    ),
    ("glm", 429, error(code="1308", message="Usage limit reached for 5 hour.")),
    ("glm", 429, error(code="1304", message="x")),
    (
        "groq",
        429,
        openai_error("Rate limit reached ... on tokens per day (TPD): Limit 100000", "tokens", "rate_limit_exceeded"),
    ),
    (
        "gemini",
        429,
        [
            {
                "error": {
                    "code": 429,
                    "message": "You exceeded your current quota",
                    "status": "RESOURCE_EXHAUSTED",
                    "details": [{"violations": [{"quotaId": "GenerateRequestsPerDayPerProjectPerModel-FreeTier"}]}],
                }
            }
        ],
    ),
]

OVERLOADED: list[tuple[str, int, object]] = [
    ("deepseek", 503, openai_error("Service is too busy", "service_unavailable_error")),
    ("moonshot", 429, error(message="The engine is currently overloaded", type="engine_overloaded_error")),
    ("moonshot", 500, error(message="x", type="unexpected_output")),
    ("glm", 429, error(code="1305", message="x")),
    ("minimax", 200, {"base_resp": {"status_code": 1001, "status_msg": "timeout"}}),
    ("groq", 498, error(message="x")),
    ("groq", 424, error(message="x")),
    ("anthropic", 529, {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}),
    ("gemini", 503, [{"error": {"code": 503, "message": "x", "status": "UNAVAILABLE"}}]),
    ("llama-cpp", 503, error(code=503, message="Loading model", type="unavailable_error")),
    ("openai", 500, {}),
]

TOO_LONG: list[tuple[str, int, object]] = [
    (
        "deepseek",
        400,
        openai_error(
            "This model's maximum context length is 1048565 tokens.", "invalid_request_error", "invalid_request_error"
        ),
    ),
    (
        "moonshot",
        400,
        error(
            message="Invalid request: Your request exceeded model token limit: 262144", type="invalid_request_error"
        ),
    ),
    ("glm", 400, error(code="1261", message="Prompt 超长")),
    ("qwen", 400, error(message="Range of input length should be [1, 98304]", code="InvalidParameter", type="x")),
    ("openai", 400, openai_error("x", "invalid_request_error", "context_length_exceeded")),
    (
        "anthropic",
        400,
        {"type": "error", "error": {"type": "invalid_request_error", "message": "prompt is too long"}},
    ),
    ("groq", 413, openai_error("Request too large", "tokens", "rate_limit_exceeded")),
    ("together", 403, error(message="x")),
    ("ollama", 400, {"error": "prompt too long; exceeded max context length by 4 tokens"}),
    (
        "llama-cpp",
        400,
        error(code=400, message="the request exceeds the available context size", type="exceed_context_size_error"),
    ),
    (
        "gemini",
        400,
        [
            {
                "error": {
                    "code": 400,
                    "message": "The input token count (5) exceeds the maximum number of tokens allowed (1).",
                    "status": "INVALID_ARGUMENT",
                }
            }
        ],
    ),
]

REFUSED: list[tuple[str, int, object]] = [
    (
        "moonshot",
        400,
        error(message="The request was rejected because it was considered high risk", type="content_filter"),
    ),
    ("deepseek", 400, openai_error("Content Exists Risk", "invalid_request_error", "invalid_request_error")),
    ("glm", 400, {"error": {"code": "1301", "message": "x"}, "contentFilter": [{"level": 1, "role": "user"}]}),
    ("qwen", 400, error(message="x", type="data_inspection_failed", code="data_inspection_failed")),
    ("ark", 400, error(code="InputTextRiskDetection", message="x", type="BadRequest")),
    ("stepfun", 451, error(message="x", type="x")),
    ("openrouter", 403, error(code=403, message="Input flagged", metadata={"reasons": ["x"]})),
    ("openai", 400, openai_error("x", "image_generation_user_error", "content_policy_violation")),
]

UNKNOWN_MODEL: list[tuple[str, int, object]] = [
    ("deepseek", 400, openai_error("Model Not Exist", "invalid_request_error", "invalid_request_error")),
    ("moonshot", 404, error(message="Not found the model", type="resource_not_found_error")),
    ("glm", 400, error(code="1211", message="x")),
    ("qwen", 404, error(message="x", code="ModelNotFound", type="x")),
    ("ark", 404, error(code="InvalidEndpointOrModel.NotFound", message="x")),
    ("ark", 404, error(code="ModelNotOpen", message="x")),
    ("openai", 404, openai_error("x", "invalid_request_error", "model_not_found")),
    ("groq", 404, openai_error("x", "invalid_request_error", "model_not_found")),
]

BAD_REQUEST: list[tuple[str, int, object]] = [
    ("deepseek", 422, openai_error("x", "invalid_request_error", "invalid_request_error")),
    ("glm", 400, error(code="1214", message="x")),
    ("minimax", 200, {"base_resp": {"status_code": 2013, "status_msg": "invalid params"}}),
    (
        "mistral",
        422,
        {
            "object": "error",
            "message": {
                "detail": [
                    {"type": "extra_forbidden", "loc": ["body", "x"], "msg": "Extra", "input": "insufficient balance"}
                ]
            },
            "type": "invalid_request_error",
            "code": None,
        },
    ),
    ("groq", 400, openai_error("x", "invalid_request_error", "tool_use_failed")),
    ("xai", 400, {"code": "invalid-argument", "error": "temperature is out of range"}),
    (
        "moonshot",
        400,
        error(message="invalid temperature: only 1 is allowed for this model", type="invalid_request_error"),
    ),
]

TABLE = [
    *((K.NO_BALANCE, *row) for row in NO_BALANCE),
    *((K.BAD_KEY, *row) for row in BAD_KEY),
    *((K.RATE_LIMITED, *row) for row in RATE),
    *((K.QUOTA_USED_UP, *row) for row in QUOTA),
    *((K.OVERLOADED, *row) for row in OVERLOADED),
    *((K.CONTEXT_TOO_LONG, *row) for row in TOO_LONG),
    *((K.CONTENT_REFUSED, *row) for row in REFUSED),
    *((K.MODEL_UNKNOWN, *row) for row in UNKNOWN_MODEL),
    *((K.BAD_REQUEST, *row) for row in BAD_REQUEST),
]


@pytest.mark.parametrize(("kind", "name", "status", "body"), TABLE)
def test_a_refusal_is_what_its_provider_means_by_it(kind: K, name: str, status: int, body: object) -> None:
    for content_type in (JSON, b"application/octet-stream", b""):
        failure = dialect(name).classify(status, content_type, b"\n\n" + json.dumps(body).encode())
        assert (failure.kind, failure.status) == (kind, status)


@pytest.mark.parametrize(
    ("status", "content_type", "body", "kind"),
    [
        (504, b"text/html", HTML, K.OVERLOADED),
        (502, b"", HTML, K.OVERLOADED),
        (429, b"text/html; charset=utf-8", b"<html>insufficient balance</html>", K.RATE_LIMITED),
        (404, b"text/plain", b"404 page not found", K.MODEL_UNKNOWN),
        (413, b"text/html", HTML, K.TOO_LARGE),
        (400, JSON, b"", K.BAD_REQUEST),
        (500, JSON, b"{not json", K.OVERLOADED),
        (503, JSON, b"[]", K.OVERLOADED),
        (403, JSON, b"null", K.BAD_KEY),
        (408, b"", b"", K.OVERLOADED),
        (499, b"", b"", K.OTHER),
        (302, b"text/html", HTML, K.OTHER),
        (200, JSON, b"{}", K.OTHER),
        (200, b"text/html", HTML, K.OTHER),
        (500, JSON, b'{"error":"' + b"x" * 300_000 + b'"}', K.OVERLOADED),
    ],
)
def test_pages_empty_bodies_and_nonsense_are_judged_by_their_status(
    status: int, content_type: bytes, body: bytes, kind: K
) -> None:
    for one in ("deepseek", "openai", "moonshot"):
        assert dialect(one).classify(status, content_type, body).kind is kind


@pytest.mark.parametrize("name", sorted(DIALECTS))
@pytest.mark.parametrize("status", [400, 422])
@pytest.mark.parametrize(
    "echoed", ["insufficient balance", "Incorrect API key provided", "model not exist", "per day"]
)
def test_what_a_customer_wrote_cannot_take_a_channel_out_of_service(name: str, status: int, echoed: str) -> None:
    body = openai_error(f"Invalid value for 'user': '{echoed}'.", "invalid_request_error", "invalid_request_error")
    failure = dialect(name).classify(status, JSON, json.dumps(body).encode())
    assert failure.kind is K.BAD_REQUEST


def test_a_failure_holds_nothing_but_its_kind_a_number_of_seconds_and_a_status() -> None:
    body = json.dumps(openai_error("secret sk-own try again in 3s", "rate_limit_error")).encode()
    failure = dialect("openai").classify(429, JSON, body)
    assert failure == (K.RATE_LIMITED, 3.0, 429)
    assert "secret" not in repr(failure)


def test_a_status_named_inside_a_mid_stream_error_is_used() -> None:
    facts = dialect("openrouter").inspect_event(b'data: {"error":{"code":429,"message":"x"},"choices":[]}\n\n')
    assert facts.error is not None
    assert (facts.error.kind, facts.error.status) == (K.RATE_LIMITED, 429)


@pytest.mark.parametrize(
    "event",
    [
        b'event: error\ndata: {"error":{"message":"x","status_code":503}}\n\n',
        b'event: error\ndata: {"message":"Overloaded"}\n\n',
        b"event: error\ndata: overloaded\n\n",
        b"event: error\ndata:\n\n",
        b'data: {"error":"text"}\n\n',
        b'data: {"error":{"message":"x"},"choices":[{"delta":{"content":"y"},"finish_reason":"stop"}]}\n\n',
        b'data: {"choices":[{"delta":{},"finish_reason":null,"error":{"code":502}}]}\n\n',
        b'data: {"x_groq":{"error":"over_capacity"},"choices":[]}\n\n',
        b'data: {"object":"error","message":"x","code":400}\n\n',
        b'data: {"code":"1302","message":"x"}\n\n',
        b'error: {"code":500,"message":"x"}\n\n',
        b"error: out of memory\n\n",
        b'{"error":{"code":500}}\n\n',
        b'[{"error":{"code":500}}]\n\n',
        b'data: {"base_resp":{"status_code":1002}}\n\n',
    ],
)
def test_every_shape_of_a_mid_stream_error_is_seen(event: bytes) -> None:
    for name in DIALECTS:
        assert dialect(name).inspect_event(event).error is not None


@pytest.mark.parametrize(
    "event",
    [
        b'data: {"error":null,"choices":[]}\n\n',
        b'data: {"error":{},"choices":[]}\n\n',
        b'data: {"base_resp":{"status_code":0,"status_msg":""},"choices":[]}\n\n',
        b'data: {"choices":[{"delta":{"content":"error"},"finish_reason":null,"error":null}]}\n\n',
        b'data: {"type":"message_start","message":{"usage":{"input_tokens":1}}}\n\n',
        b'data: {"message":{"content":"x"},"done":false}\n\n',
        b'data: {"code":"print(1)","choices":[]}\n\n',
        b": error\n\n",
        b"data: [DONE]\n\n",
        b"data: not json\n\n",
    ],
)
def test_what_only_looks_like_an_error_is_none(event: bytes) -> None:
    for name in DIALECTS:
        assert dialect(name).inspect_event(event).error is None


def test_the_failure_inside_a_whole_answer_is_seen() -> None:
    facts = dialect("minimax").inspect_answer(b'{"choices":null,"base_resp":{"status_code":1008,"status_msg":"x"}}')
    assert facts.error is not None
    assert facts.obj is not None
    assert facts.error.kind is K.NO_BALANCE
    assert dialect("minimax").failure_in(facts.obj) == facts.error
    good = dialect("minimax").inspect_answer(b'{"choices":[],"base_resp":{"status_code":0}}')
    assert good.error is None


@pytest.mark.parametrize(
    ("message", "seconds"),
    [
        ("please try again after 1 seconds", 1.0),
        ("Please try again in 7.66s. Visit", 7.66),
        ("Please try again in 6m0.5s.", 360.5),
        ("try again in 1h2m3s", 3723.0),
        ("Please retry in 20ms", 0.02),
        ("Retry after 2 minutes", 120.0),
        ("wait 3 hours", 10_800.0),
        ("will reset in 400 hours", RETRY_AFTER_S_MAX),
        ("try again later", None),
        ("retry 3 messages", None),
        ("limit 100000, used 99999", None),
        ("", None),
    ],
)
def test_seconds_are_found_in_messages(message: str, seconds: float | None) -> None:
    assert seconds_in_message(message) == seconds


def test_retry_info_of_gemini_is_found() -> None:
    details = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "37s"}]
    body = json.dumps([{"error": {"code": 429, "message": "Quota exceeded", "details": details}}]).encode()
    assert dialect("gemini").classify(429, JSON, body) == (K.RATE_LIMITED, 37.0, 429)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({b"retry-after": b"12"}, 12.0),
        ({b"retry-after": b"0.5"}, 0.5),
        ({b"retry-after-ms": b"250", b"retry-after": b"9"}, 0.25),
        ({b"retry-after": b"Mon, 23 Nov 2026 12:00:30 GMT", b"date": b"Mon, 23 Nov 2026 12:00:00 GMT"}, 30.0),
        ({b"retry-after": b"Mon, 23 Nov 2026 11:59:00 GMT", b"date": b"Mon, 23 Nov 2026 12:00:00 GMT"}, 0.0),
        ({b"retry-after": b"Mon, 23 Nov 2026 12:00:30 GMT"}, None),
        ({b"retry-after": b"-4"}, 0.0),
        ({b"retry-after": b"1e99"}, RETRY_AFTER_S_MAX),
        ({b"retry-after": b"nan"}, None),
        ({b"retry-after": b"soon"}, None),
        ({}, None),
    ],
)
def test_retry_after_headers_are_read_and_bounded(headers: Mapping[bytes, bytes], seconds: float | None) -> None:
    assert header_s(headers) == seconds


_JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["error", "detail", "details", "code", "type", "message", "status", "base_resp", "violations"]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=20,
)


@given(st.sampled_from(sorted(DIALECTS)), st.sampled_from([200, 400, 401, 403, 404, 429, 500, 503]), _JSON_VALUES)
def test_any_body_is_classified_without_an_error(name: str, status: int, body: object) -> None:
    failure = dialect(name).classify(status, JSON, json.dumps(body).encode())
    assert isinstance(failure.kind, K)
    assert failure.retry_after_s is None or 0 <= failure.retry_after_s <= RETRY_AFTER_S_MAX
    assert failure.status == status or 400 <= failure.status <= 599


@given(st.text(max_size=60))
def test_any_message_is_searched_for_seconds_without_an_error(message: str) -> None:
    seconds = seconds_in_message(f"try again in {message}")
    assert seconds is None or 0 <= seconds <= RETRY_AFTER_S_MAX
