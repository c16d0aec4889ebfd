"""Certificates made on the spot, for tests of TLS: an authority, and servers that it vouches for.

ECDSA over P-256 and just enough DER, so that tests need no library for it. Never for anything but tests: the
arithmetic takes different time for different keys.
"""

import base64
import hashlib
import ipaddress
import secrets
import ssl
from dataclasses import dataclass
from pathlib import Path

# The curve P-256 (SEC 2): prime, order, and generator.
P = 2**256 - 2**224 + 2**192 + 2**96 - 1
N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
G = (
    0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
    0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5,
)
Point = tuple[int, int] | None

ECDSA_SHA256 = bytes.fromhex("300a06082a8648ce3d040302")
EC_PUBLIC_KEY_P256 = bytes.fromhex("301306072a8648ce3d020106082a8648ce3d030107")
P256_NAME = bytes.fromhex("06082a8648ce3d030107")
COMMON_NAME = bytes.fromhex("0603550403")
BASIC_CONSTRAINTS = bytes.fromhex("0603551d13")
ALTERNATIVE_NAMES = bytes.fromhex("0603551d11")


def _add(one: Point, other: Point) -> Point:
    if one is None or other is None:
        return one or other
    (x1, y1), (x2, y2) = one, other
    if x1 == x2:
        if (y1 + y2) % P == 0:
            return None
        slope = (3 * x1 * x1 - 3) * pow(2 * y1, -1, P)
    else:
        slope = (y2 - y1) * pow(x2 - x1, -1, P)
    x = (slope * slope - x1 - x2) % P
    return x, (slope * (x1 - x) - y1) % P


def _times(factor: int, point: Point) -> tuple[int, int]:
    total: Point = None
    while factor:
        if factor & 1:
            total = _add(total, point)
        point = _add(point, point)
        factor >>= 1
    assert total is not None
    return total


def _der(tag: int, *contents: bytes) -> bytes:
    content = b"".join(contents)
    length = len(content)
    if length < 128:
        return bytes((tag, length)) + content
    size = length.to_bytes(2, "big") if length > 255 else bytes((length,))
    return bytes((tag, 0x80 | len(size))) + size + content


def _integer(number: int) -> bytes:
    return _der(0x02, number.to_bytes(number.bit_length() // 8 + 1, "big"))


def _sequence(*contents: bytes) -> bytes:
    return _der(0x30, *contents)


def _name(text: str) -> bytes:
    return _sequence(_der(0x31, _sequence(COMMON_NAME, _der(0x0C, text.encode()))))


def _bits(data: bytes) -> bytes:
    return _der(0x03, b"\0", data)


def _pem(label: str, der: bytes) -> str:
    return f"-----BEGIN {label}-----\n{base64.encodebytes(der).decode()}-----END {label}-----\n"


@dataclass(frozen=True)
class Identity:
    """A key with its certificate, as PEM."""

    name: str
    secret: int
    certificate: str

    @property
    def key(self) -> str:
        public = b"\x04" + b"".join(part.to_bytes(32, "big") for part in _times(self.secret, G))
        private = _der(0x04, self.secret.to_bytes(32, "big"))
        return _pem(
            "EC PRIVATE KEY", _sequence(_integer(1), private, _der(0xA0, P256_NAME), _der(0xA1, _bits(public)))
        )

    def server_context(self, folder: Path) -> ssl.SSLContext:
        """A context that presents this identity; the PEM is written into the folder for `load_cert_chain`."""
        chain = folder / f"{self.name}.pem"
        chain.write_text(self.key + self.certificate)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(chain)
        context.set_alpn_protocols(["http/1.1"])
        return context


def _sign(secret: int, data: bytes) -> bytes:
    digest = int.from_bytes(hashlib.sha256(data).digest(), "big")
    while True:
        nonce = 1 + secrets.randbelow(N - 1)
        r = _times(nonce, G)[0] % N
        s = pow(nonce, -1, N) * (digest + r * secret) % N
        if r and s:
            return _sequence(_integer(r), _integer(s))


def _issue(name: str, secret: int, issuer: str, issuer_secret: int, extension: bytes) -> Identity:
    public = b"\x04" + b"".join(part.to_bytes(32, "big") for part in _times(secret, G))
    body = _sequence(
        _der(0xA0, _integer(2)),
        _integer(secrets.randbits(63) | 1 << 63),
        ECDSA_SHA256,
        _name(issuer),
        _sequence(_der(0x17, b"200101000000Z"), _der(0x17, b"491231235959Z")),
        _name(name),
        _sequence(EC_PUBLIC_KEY_P256, _bits(public)),
        _der(0xA3, _sequence(extension)),
    )
    certificate = _sequence(body, ECDSA_SHA256, _bits(_sign(issuer_secret, body)))
    return Identity(name, secret, _pem("CERTIFICATE", certificate))


def new_authority(name: str = "test authority") -> Identity:
    """A certificate authority that nobody trusts yet."""
    secret = 1 + secrets.randbelow(N - 1)
    constraints = _sequence(BASIC_CONSTRAINTS, _der(0x01, b"\xff"), _der(0x04, _sequence(_der(0x01, b"\xff"))))
    return _issue(name, secret, name, secret, constraints)


def new_server(authority: Identity, host: str) -> Identity:
    """A server certificate for one host name or IP address."""
    try:
        alternative = _der(0x87, ipaddress.ip_address(host).packed)
    except ValueError:
        alternative = _der(0x82, host.encode())
    names = _sequence(ALTERNATIVE_NAMES, _der(0x04, _sequence(alternative)))
    return _issue(host, 1 + secrets.randbelow(N - 1), authority.name, authority.secret, names)
