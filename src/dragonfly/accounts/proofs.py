"""Proofs of possession (DPoP, RFC 9449): a key that never leaves the browser signs each request.

A token that was read out of localStorage, a log or a backup is worth nothing without that key. A proof is bound to
method, address and token, is good for a minute, and once: a process recognises those that it has seen without asking,
and the database (`watch`) those that another one has.
"""

import base64
import binascii
import hashlib
from collections import OrderedDict
from typing import TYPE_CHECKING, NamedTuple, TypeVar
from urllib.parse import urlsplit

import msgspec

from dragonfly.core.clock import Clock
from dragonfly.core.errors import DragonflyError
from dragonfly.core.lazily import Lazily

if TYPE_CHECKING:
    from dragonfly.accounts import signatures
else:
    signatures = Lazily("dragonfly.accounts.signatures")

TYPE = "dpop+jwt"
PROOF_LENGTH_MAX = 2_000
PROOF_AGE_S_MAX = 60
ID_LENGTH_MIN, ID_LENGTH_MAX = 16, 128
SEEN_MAX = 200_000
"""Proofs remembered in a process; beyond that a fresh proof is refused rather than an old one forgotten."""
_COORDINATE_LENGTH = 43


class ProofInvalid(DragonflyError):
    """No proof, a wrong one, or one that was used before."""

    code = "proof_invalid"
    status = 401

    def __init__(self) -> None:
        super().__init__(
            "The header DPoP needs a fresh proof for exactly this request. Check the clock of this device and retry."
        )


class Asked(NamedTuple):
    """The request that a proof is for."""

    method: str
    path: str
    """Without the query."""
    host: str
    """As the request names it."""


class Proven(NamedTuple):
    """A proof that is right, and new to this process."""

    browser_key: str
    """The fingerprint (RFC 7638) of the key that signed."""
    digest: bytes
    """What the proof is remembered by."""


class _Key(msgspec.Struct, frozen=True, forbid_unknown_fields=False):
    kty: str
    crv: str
    x: str
    y: str
    d: object = None


class _Head(msgspec.Struct, frozen=True):
    typ: str
    alg: str
    jwk: _Key


class _Claims(msgspec.Struct, frozen=True):
    jti: str
    htm: str
    htu: str
    iat: int
    ath: str | None = None


Part = TypeVar("Part", _Head, _Claims)


class ProofReader:
    """Checks proofs. `public_url` is where customers reach this installation; "" takes the host that they name."""

    def __init__(self, clock: Clock, *, public_url: str = "", seen_max: int = SEEN_MAX) -> None:
        self._clock = clock
        self._origin = _origin(public_url) if public_url else None
        self._seen: OrderedDict[bytes, float] = OrderedDict()
        self._seen_max = seen_max

    def read(self, proof: str, asked: Asked, *, access_token: str | None = None) -> Proven:
        """Who signed; ProofInvalid. Whoever acts on it notes the digest where other processes see it."""
        if len(proof) > PROOF_LENGTH_MAX or proof.count(".") != 2:
            raise ProofInvalid
        head = _decode(proof.partition(".")[0], _Head)
        claims = _decode(proof.split(".")[1], _Claims)
        self._check_claims(claims, asked, access_token)
        fingerprint = _verify(proof, head)
        return Proven(fingerprint, self._remember(fingerprint, claims.jti))

    def _check_claims(self, claims: _Claims, asked: Asked, access_token: str | None) -> None:
        age_s = self._clock.now_ns() // 1_000_000_000 - claims.iat
        expected = None if access_token is None else _encode(hashlib.sha256(access_token.encode()).digest())
        is_right = (
            abs(age_s) <= PROOF_AGE_S_MAX
            and claims.htm == asked.method
            and ID_LENGTH_MIN <= len(claims.jti) <= ID_LENGTH_MAX
            and claims.ath == expected
            and self._is_address(claims.htu, asked)
        )
        if not is_right:
            raise ProofInvalid

    def _is_address(self, htu: str, asked: Asked) -> bool:
        try:
            parts = urlsplit(htu)
        except ValueError:
            return False
        if parts.query or parts.fragment or parts.path != asked.path:
            return False
        if self._origin is not None:
            return (parts.scheme, parts.netloc.lower()) == self._origin
        return parts.scheme in ("http", "https") and parts.netloc.lower() == asked.host.lower()

    def _remember(self, fingerprint: str, jti: str) -> bytes:
        now_s = self._clock.monotonic_s()
        while self._seen and next(iter(self._seen.values())) <= now_s:
            self._seen.popitem(last=False)
        digest = hashlib.sha256(f"{fingerprint} {jti}".encode()).digest()
        if digest in self._seen or len(self._seen) >= self._seen_max:
            raise ProofInvalid
        # A proof may be dated a minute ahead and is then good for a minute more.
        self._seen[digest] = now_s + 2 * PROOF_AGE_S_MAX + 1
        return digest


def _verify(proof: str, head: _Head) -> str:
    key = head.jwk
    is_right = (head.typ, head.alg, key.kty, key.crv, key.d) == (TYPE, "ES256", "EC", "P-256", None)
    if not is_right or {len(key.x), len(key.y)} != {_COORDINATE_LENGTH}:
        raise ProofInvalid
    fingerprint = signatures.fingerprint_of_signer(proof, key.x, key.y)
    if fingerprint is None:
        raise ProofInvalid
    return fingerprint


def _decode(part: str, kind: type[Part]) -> Part:
    try:
        return msgspec.json.decode(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)), type=kind)
    except (msgspec.MsgspecError, binascii.Error, ValueError):
        raise ProofInvalid from None


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc.lower()
