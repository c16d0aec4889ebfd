"""Compares requests and JSON with Stripe's published OpenAPI description, read from a file."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

Schema = Mapping[str, Any]
FORM = "application/x-www-form-urlencoded"


class Operation(NamedTuple):
    """One request that the API takes."""

    name: str
    params: Schema
    """As an object's schema."""
    answer: Schema


class Description:
    """The API as Stripe describes it."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._document = document
        self.version = str(document["info"]["version"])

    def operation(self, method: str, path: str) -> Operation | None:
        """What `method path` takes and answers; None when there is no such request."""
        paths: Mapping[str, Any] = self._document["paths"]
        fitting = [each for each in paths if re.fullmatch(re.sub(r"\{[^}]+\}", "[^/]+", each), path)]
        for template in sorted(fitting, key=lambda each: each.count("{")):
            found = paths[template].get(method.lower())
            if found is not None:
                answer = found["responses"]["200"]["content"]["application/json"]["schema"]
                return Operation(f"{method} {template}", _params(found), answer)
        return None

    def request_differences(self, method: str, path: str, text: str) -> list[str]:
        """Where a form or query has names, words or types that the API does not take, or lacks what it needs."""
        operation = self.operation(method, path)
        if operation is None:
            return [f"{method} {path} is unknown"]
        return self._of(_tree(text), operation.params, f"{operation.name} <-", is_form=True)

    def answer_differences(self, method: str, path: str, shown: object) -> list[str]:
        """Where an answer is none that the API describes."""
        operation = self.operation(method, path)
        return [] if operation is None else self._of(shown, operation.answer, f"{operation.name} ->")

    def object_differences(self, shown: Mapping[str, Any]) -> list[str]:
        """An object by the name that it gives itself."""
        kind = str(shown["object"])
        return self._of(shown, {"$ref": f"#/components/schemas/{kind}"}, kind)

    def _of(self, value: object, schema: Schema, path: str, *, is_form: bool = False) -> list[str]:
        if "$ref" in schema:
            name = schema["$ref"].rpartition("/")[2]
            return self._of(value, self._document["components"]["schemas"][name], path, is_form=is_form)
        if value is None:
            return [] if schema.get("nullable") else [f"{path} is null"]
        if "anyOf" in schema:
            problems = [self._of(value, one, path, is_form=is_form) for one in schema["anyOf"]]
            return min(problems, key=len)
        if "enum" in schema and value not in schema["enum"]:
            return [f"{path} is {value!r}, which is no word of Stripe's"]
        kind = schema.get("type")
        if kind == "object":
            return self._of_object(value, schema, path, is_form=is_form)
        if kind == "array":
            items = list(value.values()) if is_form and isinstance(value, dict) else value
            if not isinstance(items, list):
                return [f"{path} is no list"]
            return [one for each in items for one in self._of(each, schema["items"], f"{path}[]", is_form=is_form)]
        return [] if _is_scalar(value, kind, is_form=is_form) else [f"{path} is no {kind}"]

    def _of_object(self, value: object, schema: Schema, path: str, *, is_form: bool) -> list[str]:
        if not isinstance(value, dict):
            return [f"{path} is no object"]
        known = schema.get("properties", {})
        found = [f"{path}.{name} is missing" for name in schema.get("required", ()) if name not in value]
        more = schema.get("additionalProperties", True)
        for name, inner in value.items():
            if name in known:
                found += self._of(inner, known[name], f"{path}.{name}", is_form=is_form)
            elif isinstance(more, dict):
                found += self._of(inner, more, f"{path}.{name}", is_form=is_form)
            elif known or not more:
                found.append(f"{path}.{name} is unknown")
        return found


def _params(operation: Mapping[str, Any]) -> Schema:
    """The body's form, or the query as one."""
    query = {one["name"]: one["schema"] for one in operation.get("parameters", ()) if one["in"] == "query"}
    form = operation.get("requestBody", {}).get("content", {}).get(FORM, {}).get("schema", {})
    return {
        "type": "object",
        "properties": {**query, **form.get("properties", {})},
        "required": form.get("required", []),
        "additionalProperties": False,
    }


def _tree(text: str) -> dict[str, Any]:
    root: dict[str, Any] = {}
    for name, value in parse_qsl(text, keep_blank_values=True):
        *outer, last = re.findall(r"[^\[\]]+", name)
        table = root
        for part in outer:
            table = table.setdefault(part, {})
        table[last] = value
    return root


def _is_scalar(value: object, kind: object, *, is_form: bool) -> bool:
    if is_form:
        text = str(value)
        patterns = {"integer": r"-?\d+", "boolean": "true|false", "number": r"-?[\d.]+"}
        return not isinstance(value, dict) and re.fullmatch(patterns.get(str(kind), "(?s).*"), text) is not None
    types: Mapping[object, tuple[type, ...]] = {
        "string": (str,), "integer": (int,), "boolean": (bool,), "number": (int, float),
    }  # fmt: skip
    return type(value) in types.get(kind, (type(value),))
