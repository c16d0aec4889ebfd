"""Credentials of people: tokens that we sign, and secrets that we can make again instead of storing them.

A token is its kind's prefix + a handle of lower-case hexadecimal digits (only some kinds have one) + 43 base62
characters of secret (256 bits) + 22 of signature (128 bits). The signature refuses everything that was not issued
here before any database call. What is stored is a keyed digest; the keys live outside the database, so that a copy
of the database holds nothing that anybody could use.
"""

import enum
import hmac
import os
import re
from collections.abc import Mapping
from typing import NamedTuple

from dragonfly.core.secrets import KEY_SECRET_LENGTH, Secret, base62

SIGNATURE_BITS = 128
SIGNATURE_LENGTH = 22
SEAL_BYTES_MIN = 32
_ALPHABET = "[0-9A-Za-z]"


class TokenKind(enum.Enum):
    """What a token is for; the value is its prefix. One kind is never taken for another."""

    ACCESS = "df-at-"
    REFRESH = "df-rt-"
    VERIFY = "df-ve-"
    """Proves that a mailbox is reached by who registered with it."""
    RESET = "df-pr-"
    EMAIL = "df-em-"
    """Confirms a new address."""
    SETUP = "df-su-"
    """Sets up an operator's account."""
    STATE = "df-st-"
    """Goes through another identity provider and comes back."""
    TICKET = "df-tk-"
    """The first factor was right; the second is awaited."""
    EXPORT = "df-ex-"
    """Fetches a copy of one's data once."""
    KEEP = "df-ka-"
    """Keeps an account that was to be deleted."""


HANDLE_LENGTH = {kind: 32 if kind is TokenKind.REFRESH else 0 for kind in TokenKind}
_SHAPES = {
    kind: re.compile(
        rf"{kind.value}(?P<handle>[0-9a-f]{{{HANDLE_LENGTH[kind]}}})"
        rf"{_ALPHABET}{{{KEY_SECRET_LENGTH}}}(?P<signature>{_ALPHABET}{{{SIGNATURE_LENGTH}}})",
        re.ASCII,
    )
    for kind in TokenKind
}
_UNFINISHED = re.compile(
    rf"(?P<body>df-[a-z]{{2}}-{_ALPHABET}{{{KEY_SECRET_LENGTH},100}})\.(?P<version>[0-9]{{1,4}})\Z", re.ASCII
)


class Token(NamedTuple):
    """A token that was issued here, as far as its signature can tell."""

    handle: str
    version: int
    """Of the key that signed it."""
    digest: bytes
    """What the database knows it by."""


class Seal:
    """Signs, digests and derives under keys by version; the highest is used for what is new."""

    __slots__ = ("_keys", "current")

    def __init__(self, keys: Mapping[int, bytes]) -> None:
        if not keys or any(len(key) < SEAL_BYTES_MIN for key in keys.values()):
            raise ValueError(f"a key of a seal has at least {SEAL_BYTES_MIN} bytes")
        self._keys = dict(keys)
        self.current = max(keys)

    def new_token(self, kind: TokenKind, handle: str = "") -> Secret:
        """A fresh token. `handle` has as many hexadecimal digits as the kind wants."""
        return self._token(kind, handle, os.urandom(32), self.current)

    def derived_token(self, kind: TokenKind, parent: str, version: int, handle: str = "") -> Secret:
        """A token that follows from another one, so that the same question gets the same answer."""
        return self._token(kind, handle, self.derive(kind.value, parent.encode(), version), version)

    def read(self, kind: TokenKind, candidate: str) -> Token | None:
        """The token when it has this kind's form and our signature; nothing is looked up, nothing trimmed."""
        found = _SHAPES[kind].fullmatch(candidate)
        if found is None:
            return None
        body = candidate[: found.start("signature")]
        for version in self._keys:
            if hmac.compare_digest(self._signature(body, version), found["signature"]):
                return Token(found["handle"], version, self.digest("token", candidate, version))
        return None

    def unfinished(self, token: Secret) -> str:
        """A new token without its signature, as it may wait in a row until it is sent: `finished` makes it whole, and
        only we can."""
        return f"{token.reveal()[:-SIGNATURE_LENGTH]}.{self.current}"

    def finished(self, text: str) -> str:
        """`text` with the signature of the unfinished token at its end; as it is when there is none."""
        found = _UNFINISHED.search(text)
        if found is None or int(found["version"]) not in self._keys:
            return text
        return text[: found.start("version") - 1] + self._signature(found["body"], int(found["version"]))

    def digest(self, purpose: str, text: str, version: int | None = None) -> bytes:
        """A keyed digest of something that is compared and never read back."""
        return self.derive(f"digest {purpose}", text.encode(), version)

    def digests(self, purpose: str, text: str) -> list[bytes]:
        """The digest under every key that is still known, for what must be found however old it is."""
        return [self.digest(purpose, text, version) for version in self._keys]

    def derive(self, purpose: str, data: bytes, version: int | None = None) -> bytes:
        """32 bytes that only we can make from `data`; KeyError when the version's key is gone."""
        key = self._keys[self.current if version is None else version]
        return hmac.digest(hmac.digest(key, f"dragonfly {purpose}".encode(), "sha256"), data, "sha256")

    def _token(self, kind: TokenKind, handle: str, secret: bytes, version: int) -> Secret:
        assert len(handle) == HANDLE_LENGTH[kind], "the kind says how long its handle is"
        body = kind.value + handle + base62(int.from_bytes(secret, "big"), KEY_SECRET_LENGTH)
        return Secret(body + self._signature(body, version))

    def _signature(self, body: str, version: int) -> str:
        bits = self.derive("signature", body.encode(), version)[: SIGNATURE_BITS // 8]
        return base62(int.from_bytes(bits, "big"), SIGNATURE_LENGTH)

    def __repr__(self) -> str:
        return f"Seal(current={self.current})"
