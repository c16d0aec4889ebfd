"""What is wrong with a catalogue, all at once, in sentences that say what to write instead."""

import difflib
from collections.abc import Iterable, Mapping

from pydantic import ValidationError

from dragonfly.core.errors import DragonflyError

NAME_CHARACTERS_MAX = 80


class CatalogInvalid(DragonflyError):
    """Everything that is wrong with the [providers.*] and [[models]] tables; no sentence holds a value."""

    code = "catalog_invalid"

    def __init__(self, problems: tuple[str, ...]) -> None:
        assert problems, "an error about the catalogue names at least one problem"
        super().__init__("\n".join(problems))
        self.problems = problems


_NEEDS = {
    "missing": "is missing.",
    "string_type": "needs text in quotes.",
    "string_too_short": "needs some text.",
    "string_too_long": "is too long.",
    "int_type": "needs a whole number.",
    "float_type": "needs a number.",
    "bool_type": "needs true or false.",
    "date_type": "needs a date such as 2026-11-23, without quotes.",
    "tuple_type": "needs a list in square brackets.",
    "frozen_set_type": "needs a list in square brackets.",
    "list_type": "needs a list in square brackets.",
    "dict_type": "needs a table.",
    "model_type": "needs a table.",
    "literal_error": "needs {expected}.",
    "greater_than": "needs more than {gt}.",
    "greater_than_equal": "needs {ge} or more.",
    "less_than": "needs less than {lt}.",
    "less_than_equal": "needs {le} or less.",
    "finite_number": "needs a finite number.",
    "too_long": "has too many entries (at most {max_length}).",
    "too_short": "needs at least {min_length} entries.",
}


def sentences(invalid: ValidationError, path: str, names: Iterable[str] = ()) -> list[str]:
    """One sentence per problem: the path of the wrong value and what to write there; never the value itself.

    `names` are those that exist, for guessing what an unknown one was meant to be.
    """
    known = list(names)
    return [_sentence(error, path, known) for error in invalid.errors(include_url=False, include_input=False)]


def shown(name: object) -> str:
    """A name that somebody typed, bounded and without control characters."""
    return "".join(letter if letter.isprintable() else "?" for letter in str(name)[:NAME_CHARACTERS_MAX])


def _sentence(error: Mapping[str, object], path: str, known: list[str]) -> str:
    location, kind = error["loc"], str(error["type"])
    assert isinstance(location, tuple)
    for part in location:
        path += f"[{part + 1}]" if isinstance(part, int) else f".{shown(part)}"
    if kind.startswith("catalog"):
        return f"{path}: {error['msg']}"
    if kind == "extra_forbidden":
        close = difflib.get_close_matches(str(location[-1])[:NAME_CHARACTERS_MAX], known, n=1)
        return f"{path}: there is no such name; " + (f"did you mean {close[0]}?" if close else "remove the line.")
    context = error.get("ctx") or {}
    assert isinstance(context, dict)
    context = {name: f"{bound:g}" if isinstance(bound, float) else bound for name, bound in context.items()}
    return f"{path}: {_NEEDS.get(kind, 'needs another value.').format_map(context)}"
