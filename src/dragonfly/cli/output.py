"""What commands print: tables for people, JSON for programs; nothing else goes to standard output."""

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Annotated

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]

JsonValue = str | int | float | bool | None | Sequence["JsonValue"] | Mapping[str, "JsonValue"]


def show_json(value: JsonValue) -> None:
    """One JSON document, indented, in UTF-8."""
    json.dump(value, sys.stdout, indent=2, ensure_ascii=False, allow_nan=False)
    sys.stdout.write("\n")


def show_line(text: str) -> None:
    """A sentence, a value or a page; seen at once, also by a reader at the other end of a pipe."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def show_table(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Columns as wide as they must be; numbers to the right. An empty table prints its headings."""
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(headings, *cells, strict=True)]
    numeric = [all(isinstance(row[index], int | float) for row in rows) for index in range(len(headings))]
    for line in [list(headings), *cells]:
        padded = [
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(line, widths, numeric, strict=True)
        ]
        sys.stdout.write("  ".join(padded).rstrip() + "\n")


def show_fields(fields: Mapping[str, object]) -> None:
    """One thing with its properties, one a line."""
    width = max(map(len, fields))
    for name, value in fields.items():
        sys.stdout.write(f"{name.ljust(width)}  {_cell(value)}\n")


def warn(sentence: str) -> None:
    """Something that a person should know, on standard error."""
    sys.stderr.write(sentence + "\n")


def _cell(value: object) -> str:
    """Control characters would let a stored name rewrite the terminal."""
    text = "" if value is None else str(value)
    return "".join(letter if letter.isprintable() else "?" for letter in text)
