"""Cells that a spreadsheet shows and does not run."""

import csv
import io
from collections.abc import Iterable

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "|", "%")
"""A spreadsheet takes text that begins so for a formula, and runs it."""


def harmless(text: str) -> str:
    """The text with an apostrophe before what begins a formula, also behind blanks."""
    return f"'{text}" if text.startswith(FORMULA_STARTS) or text.lstrip().startswith(FORMULA_STARTS) else text


def csv_text(rows: Iterable[Iterable[str | int]]) -> str:
    """The rows as RFC 4180 wants them. Text is taken as it is: what others wrote goes through `harmless` first."""
    written = io.StringIO()
    csv.writer(written, lineterminator="\r\n").writerows(rows)
    return written.getvalue()
