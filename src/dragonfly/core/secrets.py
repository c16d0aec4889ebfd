"""Secrets: the key format, keyed hashing, and a wrapper that cannot be printed.

An API key is `sk-df-` + 10 characters of key id + 43 characters of secret (256 bits) + 6 characters of
CRC-32, base62, 65 characters in all. The checksum is no security: it refuses typing errors before any
database call and lets scanners recognise real keys. Management keys begin with `mk-df-` and are otherwise alike.
"""

import binascii
import hmac
import os
from typing import NoReturn

BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
KEY_PREFIX = "sk-df-"
MANAGEMENT_PREFIX = "mk-df-"
"""As long as KEY_PREFIX, so that both kinds have one length."""
KEY_ID_LENGTH = 10
KEY_SECRET_LENGTH = 43
KEY_CHECKSUM_LENGTH = 6
KEY_LENGTH = len(KEY_PREFIX) + KEY_ID_LENGTH + KEY_SECRET_LENGTH + KEY_CHECKSUM_LENGTH
_BASE62_BYTES = frozenset(BASE62.encode())


class Secret:
    """A secret text that does not show itself in logs, errors or pickles; `reveal()` where it is used."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        return self._value

    def __repr__(self) -> str:
        return "Secret(…)"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return "Secret(…)"

    def __bool__(self) -> bool:
        return bool(self._value)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret cannot be pickled")


def base62(number: int, length: int) -> str:
    """`number` in base 62, left-padded to `length`; OverflowError when it does not fit."""
    digits = []
    for _ in range(length):
        number, digit = divmod(number, 62)
        digits.append(BASE62[digit])
    if number:
        raise OverflowError("the number needs more base62 characters")
    return "".join(reversed(digits))


def key_checksum(body: bytes) -> str:
    """Six base62 characters of the CRC-32 of everything before them."""
    return base62(binascii.crc32(body), KEY_CHECKSUM_LENGTH)


def new_key(random: bytes | None = None, *, prefix: str = KEY_PREFIX, key_id: str = "") -> Secret:
    """A fresh key, with `key_id` when a key that exists gets another secret; 64 bytes of `random` make it
    repeatable in tests."""
    entropy = os.urandom(64) if random is None else random
    key_id = key_id or base62(int.from_bytes(entropy[:32], "big") % 62**KEY_ID_LENGTH, KEY_ID_LENGTH)
    assert len(prefix) == len(KEY_PREFIX)
    assert len(key_id) == KEY_ID_LENGTH
    secret = base62(int.from_bytes(entropy[32:], "big"), KEY_SECRET_LENGTH)
    body = prefix + key_id + secret
    return Secret(body + key_checksum(body.encode()))


def is_well_formed_key(candidate: bytes, prefix: str = KEY_PREFIX) -> bool:
    """Prefix, length, alphabet and checksum are right; nothing is looked up and nothing is trimmed."""
    if len(candidate) != KEY_LENGTH or not candidate.startswith(prefix.encode()):
        return False
    body, checksum = candidate[:-KEY_CHECKSUM_LENGTH], candidate[-KEY_CHECKSUM_LENGTH:]
    if not _BASE62_BYTES.issuperset(candidate[len(prefix) :]):
        return False
    return key_checksum(body).encode() == checksum


def key_id_of(key: str) -> str:
    """The public id inside a well-formed key of either kind."""
    return key[len(KEY_PREFIX) : len(KEY_PREFIX) + KEY_ID_LENGTH]


def key_hint(key: str) -> str:
    """What may be shown after creation: id and checksum characters only, nothing of the secret."""
    return f"{key[: len(KEY_PREFIX) + 4]}...{key[-4:]}"


def keyed_digest(pepper: bytes, secret: bytes) -> bytes:
    """HMAC-SHA256: without the pepper, a copy of the database confirms no guess and accepts no planted row."""
    return hmac.digest(pepper, secret, "sha256")
