"""Decisions about mail without any I/O: addresses, languages, values."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from dragonfly.mail.kinds import RULES, Field, MailKind

ADDRESS_LENGTH_MAX = 254
LOCAL_LENGTH_MAX = 64
LINE_LENGTH_MAX = 200
TEXT_LENGTH_MAX = 10_000
LINK_LENGTH_MAX = 2_000
NUMBER_MAX = 10**12
LANGUAGES: Final = ("en", "zh")
ATTEMPTS_MAX = 12
BACKOFF_FIRST_S = 30.0
BACKOFF_MAX_S = 7_200.0
"""Twelve attempts lie within nine hours: less than the 24 that Resend remembers an idempotency key."""
STALE_S = 2 * 86_400
"""A mail that has waited longer, because nothing ran that could send it, is not sent: its links have expired."""

_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_ADDRESS = re.compile(rf"(?P<local>{_ATOM}(?:\.{_ATOM})*)@(?P<domain>(?:{_LABEL}\.)+{_LABEL})", re.ASCII)
_NUMERIC_LABEL = re.compile(r"[0-9]+", re.ASCII)
_LINK = re.compile(r"https?://[!-~]+", re.ASCII)


def is_mail_address(text: str) -> bool:
    """One address that mail can go to: dot-atoms in ASCII and a domain with a dot, as RFC 5321 writes them.

    Names beside the address, comments, quoted parts, address literals, line ends and several addresses are
    refused. The standard library's parser accepts some of them and drops the rest of the text.
    """
    if len(text) > ADDRESS_LENGTH_MAX:
        return False
    found = _ADDRESS.fullmatch(text)
    if found is None or len(found["local"]) > LOCAL_LENGTH_MAX:
        return False
    return _NUMERIC_LABEL.fullmatch(found["domain"].rpartition(".")[2]) is None


def mail_language(text: str | None) -> str:
    """The language of ours that comes nearest: "zh-CN" -> "zh"; anything unknown -> "en"."""
    return "zh" if text is not None and text[:3].lower().rstrip("-_") == "zh" else "en"


def mail_moment(at_ns: int) -> str:
    """A time as mails write it: 2026-11-23 18:40 UTC."""
    return datetime.fromtimestamp(at_ns // 10**9, UTC).strftime("%Y-%m-%d %H:%M UTC")


def are_right(kind: MailKind, values: Mapping[str, str | int]) -> bool:
    """True when `values` are exactly those that the kind takes, each within its bounds."""
    fields = RULES[kind].fields
    return values.keys() == fields.keys() and all(_fits(fields[name], value) for name, value in values.items())


def _fits(field: Field | tuple[str, ...], value: str | int) -> bool:
    if field is Field.NUMBER:
        return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= NUMBER_MAX
    if not isinstance(value, str):
        return False
    if isinstance(field, tuple):
        return value in field
    if field is Field.LINK:
        return len(value) <= LINK_LENGTH_MAX and _LINK.fullmatch(value) is not None
    if field is Field.LINE:
        return 0 < len(value) <= LINE_LENGTH_MAX and value.isprintable()
    return 0 < len(value) <= TEXT_LENGTH_MAX and all(line.isprintable() for line in value.split("\n"))


def backoff_s(attempts: int, jitter: float) -> float:
    """The pause after the `attempts`-th failure: doubles up to a bound. `jitter` from 0 to 1 spreads the upper half,
    so that mails which failed together do not come back together."""
    assert attempts >= 1
    assert 0 <= jitter <= 1
    longest = min(BACKOFF_FIRST_S * 2.0 ** (attempts - 1), BACKOFF_MAX_S)
    return longest * (0.5 + jitter / 2)
