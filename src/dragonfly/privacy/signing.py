"""Signatures of this installation, which anybody can check who knows its public key (Ed25519, RFC 8032)."""

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from dragonfly.core.lazily import Lazily
from dragonfly.keys.rules import Peppers

if TYPE_CHECKING:
    from cryptography import exceptions
    from cryptography.hazmat.primitives.asymmetric import ed25519
else:
    ed25519 = Lazily("cryptography.hazmat.primitives.asymmetric.ed25519")
    exceptions = Lazily("cryptography.exceptions")

_PURPOSE = b"dragonfly audit report"


def signing_key(peppers: Peppers) -> bytes:
    """The installation's secret for signatures, which says nothing about the pepper that it comes from."""
    key = peppers.digest(peppers.current, _PURPOSE)
    assert key is not None, "the current version is there"
    return key


def public_key_of(key: bytes) -> str:
    """What others check signatures under `key` with: 64 hexadecimal digits."""
    return _private(key).public_key().public_bytes_raw().hex()


def sign(fields: Mapping[str, object], key: bytes) -> str:
    """The signature over the canonical form of `fields`, in hexadecimal digits."""
    return _private(key).sign(_canonical(fields)).hex()


def is_signed(fields: Mapping[str, object], signature: str, public_key: str) -> bool:
    """Whether the owner of `public_key` signed exactly these fields; False for what is no key or signature."""
    try:
        owner = ed25519.Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_key))
        owner.verify(bytes.fromhex(signature), _canonical(fields))
    except (ValueError, exceptions.InvalidSignature):
        return False
    return True


def _private(key: bytes) -> "ed25519.Ed25519PrivateKey":
    return ed25519.Ed25519PrivateKey.from_private_bytes(hashlib.sha256(key).digest())


def _canonical(fields: Mapping[str, object]) -> bytes:
    """JSON (RFC 8259) with sorted names and without spaces."""
    return json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()
