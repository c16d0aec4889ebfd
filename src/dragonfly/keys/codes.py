"""Codes with which a person lets a third-party app have a key of its own, with a cap and an end (OAuth's PKCE).

The app makes a verifier and sends the person here with its SHA-256, the challenge. The person chooses what the key
may spend and until when, and the app gets a code at its callback. Code and verifier together buy one key, once.
"""

import base64
import hashlib
import hmac
import json
import os
import re
from typing import NamedTuple
from urllib.parse import urlsplit

from sqlalchemy import Connection, delete, func, insert, select

from dragonfly.core.errors import DragonflyError
from dragonfly.core.ids import AccountId
from dragonfly.core.secrets import Secret
from dragonfly.keys.rules import KeyLimits, is_name
from dragonfly.keys.tables import key_codes

CODE_LIFETIME_S = 600
CODES_PER_ACCOUNT_MAX = 20
"""Unused ones at the same time."""
CALLBACK_LENGTH_MAX = 500
KEY_LIFETIME_S_MAX = 366 * 86_400
_NS_PER_S = 1_000_000_000
_CODE = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)
_CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)
_VERIFIER = re.compile(r"[A-Za-z0-9._~-]{43,128}", re.ASCII)
_LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})


class AppInvalid(DragonflyError):
    """What an app asks for is not what it may ask for."""

    code = "app_request_invalid"
    status = 422

    def __init__(self) -> None:
        super().__init__(
            "An app needs a name, a callback of https or of this machine (localhost, 127.0.0.1), a code challenge of"
            " 43 characters (S256), a spending limit and an end within a year."
        )


class CodeInvalid(DragonflyError):
    """Unknown, used, expired, or not with this verifier: one answer for all."""

    code = "code_invalid"
    status = 403

    def __init__(self) -> None:
        super().__init__("This code is not valid or was used. Let the person authorize the app again.")


class TooManyCodes(DragonflyError):
    code = "too_many_codes"
    status = 429

    def __init__(self) -> None:
        super().__init__(f"At most {CODES_PER_ACCOUNT_MAX} codes may be open. Use one, or wait ten minutes.")
        self.retry_after_s = float(CODE_LIFETIME_S)


class AppRequest(NamedTuple):
    """What a person lets an app have."""

    challenge: str
    callback_url: str
    """Empty: the code is shown to the person, who carries it to the app."""
    name: str
    """Of the key."""
    spend_limit_nusd: int
    expires_at_ns: int


class CodeBought(NamedTuple):
    """What a code and its verifier buy: a key of this account."""

    account_id: AccountId
    name: str
    limits: KeyLimits


def is_callback(url: str) -> bool:
    """https with a host, or http on this machine; without user, fragment or control characters."""
    if not url.isascii() or not url.isprintable() or " " in url or len(url) > CALLBACK_LENGTH_MAX or "\\" in url:
        return False
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    if parts.username is not None or "#" in url or not parts.hostname or port == 0:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOCAL_HOSTS)


def is_challenge(text: str) -> bool:
    """SHA-256 as base64url without padding."""
    return _CHALLENGE.fullmatch(text) is not None


def create_code(connection: Connection, account_id: AccountId, wanted: AppRequest, *, now_ns: int) -> Secret:
    """A code that buys one key within ten minutes. AppInvalid, TooManyCodes."""
    is_timely = now_ns < wanted.expires_at_ns <= now_ns + KEY_LIFETIME_S_MAX * _NS_PER_S
    limits = KeyLimits(spend_limit_nusd=wanted.spend_limit_nusd, expires_at_ns=wanted.expires_at_ns)
    is_right = is_challenge(wanted.challenge) and is_name(wanted.name) and is_timely and limits.is_valid()
    if (
        not is_right
        or wanted.spend_limit_nusd < 1
        or not (not wanted.callback_url or is_callback(wanted.callback_url))
    ):
        raise AppInvalid
    mine = key_codes.c.account_id == account_id
    connection.execute(delete(key_codes).where(mine, key_codes.c.expires_at_ns <= now_ns))
    if connection.execute(select(func.count()).where(mine)).scalar_one() >= CODES_PER_ACCOUNT_MAX:
        raise TooManyCodes
    code = base64.urlsafe_b64encode(os.urandom(32)).rstrip(b"=").decode()
    row = {
        "digest": hashlib.sha256(code.encode()).digest(),
        "account_id": account_id,
        "challenge": wanted.challenge,
        "callback_url": wanted.callback_url,
        "name": wanted.name,
        "limits": json.dumps({"spend_limit_nusd": wanted.spend_limit_nusd, "expires_at_ns": wanted.expires_at_ns}),
        "expires_at_ns": now_ns + CODE_LIFETIME_S * _NS_PER_S,
    }
    connection.execute(insert(key_codes).values(row))
    return Secret(code)


def are_well_formed(code: str, verifier: str) -> bool:
    """Whether these can be a code and a verifier; ask before a transaction is opened for them."""
    return _CODE.fullmatch(code) is not None and _VERIFIER.fullmatch(verifier) is not None


def use_code(connection: Connection, code: str, verifier: str, *, now_ns: int) -> CodeBought | None:
    """What the code buys; None when it buys nothing. A code that exists is used up either way, so commit."""
    used = delete(key_codes).where(key_codes.c.digest == hashlib.sha256(code.encode()).digest()).returning(key_codes)
    row = connection.execute(used).one_or_none()
    if row is None or row.expires_at_ns <= now_ns:
        return None
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    if not hmac.compare_digest(challenge, row.challenge):
        return None
    return CodeBought(AccountId(row.account_id), row.name, KeyLimits(**json.loads(row.limits)))
