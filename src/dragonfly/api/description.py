"""The OpenAPI description of /v1, which the framework does not see because the data plane answers it.

It names what is ours and leaves the rest open: requests and answers carry whatever OpenAI's API and the provider
know besides.
"""

import re
from typing import Any

from fastapi import FastAPI

Described = dict[str, object]


def _fields(*required: str, **properties: Described) -> Described:
    described: Described = {"type": "object", "properties": properties, "additionalProperties": True}
    return {**described, "required": list(required)} if required else described


def _text(description: str) -> Described:
    return {"type": "string", "description": description}


def _whole(description: str, minimum: int = 0) -> Described:
    return {"type": "integer", "minimum": minimum, "description": description}


def _list(items: Described, description: str) -> Described:
    return {"type": "array", "items": items, "description": description}


def _flag(description: str) -> Described:
    return {"type": "boolean", "description": description}


def _reference(name: str) -> Described:
    return {"$ref": f"#/components/schemas/{name}"}


_NAMES = _list({"type": "string"}, "Provider names or channel ids.")

SCHEMAS: dict[str, Described] = {
    "Error": _fields(
        "error",
        error=_fields(
            "message",
            "code",
            "request_id",
            message=_text("What to do next."),
            type=_text("The class of the error, as OpenAI names it."),
            code=_text("Stable; see the table of errors."),
            param={"type": ["string", "null"], "description": "The field that is wrong."},
            request_id=_text("Also the header x-request-id."),
            metadata=_fields(),
        ),
    ),
    "Usage": _fields(
        "prompt_tokens",
        "completion_tokens",
        "total_tokens",
        "cost",
        "cost_usd",
        prompt_tokens=_whole("Cached ones included."),
        completion_tokens=_whole("Reasoning included."),
        total_tokens=_whole("Both together."),
        prompt_tokens_details=_fields(cached_tokens=_whole("Read from the provider's cache.")),
        completion_tokens_details=_fields(reasoning_tokens=_whole("Spent on reasoning.")),
        cost=_text("What the request cost in USD, exact decimal text."),
        cost_usd={"type": "number", "description": "The same amount as a number."},
    ),
    "Routing": _fields(
        order=_NAMES,
        only=_NAMES,
        ignore=_NAMES,
        allow_fallbacks=_flag("False: the first channel only."),
        sort={"type": "string", "enum": ["price", "latency", "throughput"]},
        max_price=_fields(prompt={"type": "number", "minimum": 0}, completion={"type": "number", "minimum": 0}),
    ),
    "ChatRequest": _fields(
        "messages",
        model=_text("Public model id; needed unless `models` is given."),
        models=_list({"type": "string"}, "Fallbacks, tried in this order."),
        messages=_list(_fields("role"), "OpenAI's messages, at least one."),
        stream=_flag("Answer with server-sent events."),
        stream_options=_fields(include_usage=_flag("Send usage and cost with the last chunk.")),
        max_completion_tokens=_whole("Output limit.", 1),
        max_tokens=_whole("The older name of the output limit.", 1),
        n=_whole("Number of choices.", 1),
        provider=_reference("Routing"),
        usage=_fields(include=_flag("The same as stream_options.include_usage.")),
    ),
    "ChatAnswer": _fields(
        "id",
        "choices",
        "model",
        "provider",
        "usage",
        id=_text("The request's id, gen-…"),
        model=_text("The public id of the model that answered."),
        provider=_text("The provider that answered."),
        choices=_list(_fields(), "OpenAI's choices."),
        usage=_reference("Usage"),
    ),
    "Data": _fields("data", data={}),
}


def _json(schema: Described) -> Described:
    return {"application/json": {"schema": schema}}


_REFUSED: Described = {
    "description": "Refused or failed; see the table of errors.",
    "content": _json(_reference("Error")),
}


def _get(operation: str, summary: str, *parameters: Described) -> Described:
    answer: Described = {"description": "What was asked for.", "content": _json(_reference("Data"))}
    return {
        "get": {
            "tags": ["v1"],
            "operationId": operation,
            "summary": summary,
            "security": [{"key": []}],
            "parameters": list(parameters),
            "responses": {"200": answer, "default": _REFUSED},
        }
    }


def _parameter(name: str, place: str) -> Described:
    return {"name": name, "in": place, "required": True, "schema": {"type": "string"}}


_MODEL = (_parameter("author", "path"), _parameter("slug", "path"))

PATHS: dict[str, Described] = {
    "/v1/chat/completions": {
        "post": {
            "tags": ["v1"],
            "operationId": "chat_completions",
            "summary": "Answer a conversation, streamed or not.",
            "security": [{"key": []}],
            "requestBody": {"required": True, "content": _json(_reference("ChatRequest"))},
            "responses": {
                "200": {
                    "description": "The answer; with `stream`, events whose last chunk carries usage when asked for.",
                    "content": {
                        **_json(_reference("ChatAnswer")),
                        "text/event-stream": {"schema": {"type": "string"}},
                    },
                },
                "default": _REFUSED,
            },
        }
    },
    "/v1/models": _get("models", "What this key may call, at which price."),
    "/v1/models/{author}/{slug}": _get("model", "One model.", *_MODEL),
    "/v1/models/{author}/{slug}/endpoints": _get("model_endpoints", "Who serves a model, at which price.", *_MODEL),
    "/v1/generation": _get("generation", "What one request was and cost.", _parameter("id", "query")),
    "/v1/key": _get("key", "What the calling key may do and has spent."),
    "/v1/credits": _get("credits", "What the account was credited with and has used."),
}

SECURITY: Described = {"key": {"type": "http", "scheme": "bearer", "description": "An API key, sk-df-…"}}


REPEAT_HEADER = "Idempotency-Key"
_REPEAT: Described = {
    "name": REPEAT_HEADER,
    "in": "header",
    "required": False,
    "description": "1 to 255 visible characters, such as a UUID. The same request with the same key is done once.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
}
_FRAMEWORKS_OWN = ("HTTPValidationError", "ValidationError")
"""Schemas of errors that are never sent: ours have one shape."""


class DescribedApi(FastAPI):
    """An application whose description holds /v1 besides its own routes, and the errors as they really are."""

    def openapi(self) -> dict[str, object]:
        if self.openapi_schema is None:
            described = super().openapi()
            for path, operations in described["paths"].items():
                for method, operation in operations.items():
                    _complete(operation, may_repeat=method == "post" and path.startswith("/api/"))
            described["paths"] = {**PATHS, **described["paths"]}
            components = described.setdefault("components", {})
            components["schemas"] = {**SCHEMAS, **components.get("schemas", {})}
            for name in _FRAMEWORKS_OWN:
                components["schemas"].pop(name, None)
            components["securitySchemes"] = {**SECURITY, **components.get("securitySchemes", {})}
        assert self.openapi_schema is not None, "the framework keeps what it made"
        return self.openapi_schema


def _complete(operation: dict[str, Any], *, may_repeat: bool) -> None:
    """Says of one operation what the framework cannot know: its errors, that it may be repeated, what it is for."""
    responses = operation["responses"]
    if "HTTPValidationError" in str(responses.get("422")):
        del responses["422"]
    responses["default"] = _REFUSED
    if may_repeat:
        parameters = operation.setdefault("parameters", [])
        parameters[:] = [one for one in parameters if one["name"].lower() != REPEAT_HEADER.lower()]
        parameters.append(_REPEAT)
    summary, description = operation.get("summary", ""), operation.get("description", "")
    if summary == summary.title() and description:  # the framework made it of the function's name
        operation["summary"] = re.split(r"[.;:](?:\s|$)", description, maxsplit=1)[0]
