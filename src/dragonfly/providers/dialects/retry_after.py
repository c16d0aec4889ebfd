"""How long a provider asks to wait, in every form in which it says so. Always bounded, never negative."""

import math
import re
from collections.abc import Mapping
from datetime import datetime
from email.utils import parsedate_to_datetime

RETRY_AFTER_S_MAX = 86_400.0

_AGAIN_IN = re.compile(
    r"(?:try|retry|wait|again|reset)[a-z ,]{0,32}?(?=\d)"
    r"(?:(?P<hours>\d{1,3})h)?(?:(?P<minutes>\d{1,4})m(?!s))?(?P<number>\d{1,6}(?:\.\d{1,9})?)? ?"
    r"(?P<unit>ms|milliseconds?|seconds?|secs?|s|minutes?|mins?|hours?)?\b",
    re.IGNORECASE,
)
_DURATION = re.compile(r"(\d{1,6}(?:\.\d{1,9})?)s")
_UNIT_S = {"ms": 0.001, "mi": 60.0, "h": 3_600.0, "s": 1.0}


def header_s(headers: Mapping[bytes, bytes]) -> float | None:
    """`retry-after-ms`, or `retry-after` as seconds or as a date, which is taken against the answer's own `date`.

    Header names are lower case.
    """
    milliseconds = _number(headers.get(b"retry-after-ms"))
    if milliseconds is not None:
        return _bounded(milliseconds / 1_000)
    value = headers.get(b"retry-after")
    if value is None:
        return None
    seconds = _number(value)
    if seconds is not None:
        return _bounded(seconds)
    until, now = _date(value), _date(headers.get(b"date"))
    if until is None or now is None:
        return None
    return _bounded((until - now).total_seconds())


def seconds_in_message(message: str) -> float | None:
    """ "please try again after 1 seconds", "Please try again in 6m0.5s", "retry in 20ms"; None without a number."""
    for match in _AGAIN_IN.finditer(message):
        hours, minutes, number, unit = match["hours"], match["minutes"], match["number"], match["unit"]
        if number is not None and unit is None:
            number = None
        if hours is None and minutes is None and number is None:
            continue
        seconds = 3_600.0 * int(hours or 0) + 60.0 * int(minutes or 0)
        if number is not None:
            seconds += float(number) * _unit_s(unit)
        return _bounded(seconds)
    return None


def retry_info_s(error: Mapping[str, object]) -> float | None:
    """Gemini: `{"@type": "…RetryInfo", "retryDelay": "37s"}` among the details."""
    details = error.get("details")
    for detail in details if isinstance(details, list) else []:
        delay = detail.get("retryDelay") if isinstance(detail, dict) else None
        match = _DURATION.fullmatch(delay) if isinstance(delay, str) else None
        if match:
            return _bounded(float(match[1]))
    return None


def _unit_s(unit: str) -> float:
    word = unit.lower()
    if word.startswith(("ms", "milli")):
        return _UNIT_S["ms"]
    return _UNIT_S["mi"] if word.startswith("mi") else _UNIT_S[word[0]]


def _number(value: bytes | None) -> float | None:
    try:
        number = float(value) if value is not None else math.nan
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _date(value: bytes | None) -> datetime | None:
    if value is None or len(value) > 64:
        return None
    try:
        date = parsedate_to_datetime(value.decode("ascii"))
    except (ValueError, UnicodeDecodeError):
        return None
    return date if date.tzinfo is not None else None


def _bounded(seconds: float) -> float:
    return min(max(seconds, 0.0), RETRY_AFTER_S_MAX)
