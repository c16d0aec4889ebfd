"""Values that conform to simple JSON schemas: for simulated tool calls and structured answers.

Understood: type, enum, const, default-free objects and arrays, bounds of numbers, strings and arrays, common
formats, anyOf, oneOf, allOf, `$ref` inside the schema. Anything else is ignored, so a value may then not conform.
"""

from collections.abc import Mapping

DEPTH_MAX = 12
"""Below it only what is required is filled in, which ends schemas that refer to themselves."""
DEPTH_LIMIT = 40
ITEMS_MAX = 16
STRING_LENGTH_MAX = 1_000

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]

_FORMATS = {
    "date": "2026-01-31",
    "date-time": "2026-01-31T12:00:00Z",
    "time": "12:00:00Z",
    "email": "someone@example.com",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
    "ipv4": "192.0.2.1",
    "hostname": "example.com",
}


def example(schema: object, root: object = None, depth: int = 0) -> Json:
    """A value for the schema; None when there is nothing to go by."""
    whole = schema if root is None else root
    if not isinstance(schema, Mapping) or depth > DEPTH_LIMIT:
        return None
    resolved = _resolved(schema, whole)
    if "const" in resolved:
        return _json(resolved["const"])
    choices = resolved.get("enum")
    if isinstance(choices, list) and choices:
        return _json(choices[0])
    for name in ("anyOf", "oneOf"):
        options = resolved.get(name)
        if isinstance(options, list) and options:
            return example(_simplest(options) if depth > DEPTH_MAX else options[0], whole, depth + 1)
    return _typed(resolved, whole, depth)


def _typed(schema: Mapping[str, object], root: object, depth: int) -> Json:
    match _type_of(schema):
        case "object":
            return _object(schema, root, depth)
        case "array":
            return _array(schema, root, depth)
        case "string":
            return _string(schema)
        case "integer":
            return int(_number(schema, 1))
        case "number":
            return _number(schema, 0.5)
        case "boolean":
            return True
        case _:
            return None


def _type_of(schema: Mapping[str, object]) -> str:
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = next((one for one in kind if one != "null"), "null")
    if isinstance(kind, str):
        return kind
    return "object" if "properties" in schema else "array" if "items" in schema else "string"


def _object(schema: Mapping[str, object], root: object, depth: int) -> Json:
    properties = schema.get("properties")
    required = schema.get("required")
    if not isinstance(properties, Mapping):
        return {}
    names = set(required) if isinstance(required, list) else set()
    return {
        str(name): example(inner, root, depth + 1)
        for name, inner in properties.items()
        if name in names or depth <= DEPTH_MAX
    }


def _array(schema: Mapping[str, object], root: object, depth: int) -> Json:
    least = _bound(schema, "minItems", 0)
    most = _bound(schema, "maxItems", ITEMS_MAX)
    count = min(max(int(least), 0 if depth > DEPTH_MAX else 1), int(most), ITEMS_MAX)
    return [example(schema.get("items", {}), root, depth + 1) for _ in range(count)]


def _string(schema: Mapping[str, object]) -> str:
    text = _FORMATS.get(str(schema.get("format")), "simulated")
    least = min(int(_bound(schema, "minLength", 0)), STRING_LENGTH_MAX)
    most = int(_bound(schema, "maxLength", STRING_LENGTH_MAX))
    return text.ljust(least, ".")[:most]


def _number(schema: Mapping[str, object], wish: float) -> float:
    """The wish, moved into the bounds, and on to the next multiple."""
    step = _bound(schema, "multipleOf", 0)
    apart = step or 1
    least = max(_bound(schema, "minimum", wish), _bound(schema, "exclusiveMinimum", wish - apart) + apart)
    most = min(_bound(schema, "maximum", least), _bound(schema, "exclusiveMaximum", least + apart) - apart)
    value = min(max(wish, least), most)
    return -(-value // step) * step if step > 0 else value


def _bound(schema: Mapping[str, object], name: str, default: float) -> float:
    value = schema.get(name)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else default


def _resolved(schema: Mapping[str, object], root: object) -> Mapping[str, object]:
    """The schema with its reference and its allOf put in."""
    merged: dict[str, object] = dict(schema)
    reference = merged.pop("$ref", None)
    if isinstance(reference, str) and reference.startswith("#"):
        target = _at(root, reference)
        merged = {**target, **merged} if isinstance(target, Mapping) else merged
    parts = merged.pop("allOf", None)
    for part in parts if isinstance(parts, list) else []:
        if isinstance(part, Mapping):
            merged = _merged(merged, _resolved(part, root) if "$ref" in part else part)
    return merged


def _merged(first: Mapping[str, object], second: Mapping[str, object]) -> dict[str, object]:
    both = {**first, **second}
    for name in ("properties", "required"):
        one, other = first.get(name), second.get(name)
        if isinstance(one, dict) and isinstance(other, dict):
            both[name] = {**one, **other}
        elif isinstance(one, list) and isinstance(other, list):
            both[name] = [*one, *other]
    return both


def _at(root: object, reference: str) -> object:
    """A JSON pointer into the schema, `#/$defs/Name`."""
    place = root
    for part in reference.removeprefix("#").split("/")[1:]:
        if not isinstance(place, Mapping):
            return None
        place = place.get(part.replace("~1", "/").replace("~0", "~"))
    return place


def _simplest(options: list[object]) -> object:
    """Deep down, the option that ends soonest."""
    plain = [one for one in options if isinstance(one, Mapping) and one.get("type") in ("null", "string", "boolean")]
    return plain[0] if plain else options[0]


def _json(value: object) -> Json:
    assert value is None or isinstance(value, bool | int | float | str | list | dict)
    return value
