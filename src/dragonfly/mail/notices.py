"""What Resend tells about mail that it took: signed as Svix signs, and only what bounces or complaints need is read.

The signature is HMAC-SHA256 over `id.timestamp.body` (https://docs.svix.com/receiving/verifying-payloads/how-manual,
read in November 2026); the header may hold several, of which one must fit, so that a secret can be changed.
"""

import base64
import binascii
import hmac
from typing import NamedTuple

import msgspec

from dragonfly.core.errors import DragonflyError
from dragonfly.core.secrets import Secret, keyed_digest
from dragonfly.mail.rules import is_mail_address

SECRET_PREFIX = "whsec_"
SECRET_BYTES_MIN = 16
TOLERANCE_S = 300
SIGNATURES_MAX = 10
ID_LENGTH_MAX = 200
ADDRESSES_MAX = 50
PERMANENT = "Permanent"
_KINDS = {"email.bounced": "bounce", "email.complained": "complaint", "email.suppressed": "suppressed"}


class NoticeRefused(DragonflyError):
    """No signature of the provider, an old one, or a body that is no notice."""

    code = "notice_refused"
    status = 400

    def __init__(self) -> None:
        super().__init__("This is no notice that the mail provider signed within the last five minutes.")


class Signed(NamedTuple):
    """The headers of a notice as they came; "" for one that is missing."""

    id: str
    timestamp: str
    signatures: str


class BadNews(NamedTuple):
    """Mail to these addresses does not arrive, or is not wanted."""

    kind: str
    """"bounce", "complaint" or "suppressed"."""
    transport_id: str | None
    addresses: tuple[str, ...]


class _Bounce(msgspec.Struct):
    type: str = PERMANENT


class _Data(msgspec.Struct):
    email_id: str = ""
    to: list[str] = []
    bounce: _Bounce | None = None


class _Notice(msgspec.Struct):
    type: str
    data: _Data


def secret_key(secret: Secret) -> bytes:
    """The key inside `whsec_…`; ValueError when it is none."""
    text = secret.reveal()
    try:
        key = base64.b64decode(text.removeprefix(SECRET_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("a webhook secret is base64 behind whsec_") from None
    if not text.startswith(SECRET_PREFIX) or len(key) < SECRET_BYTES_MIN:
        raise ValueError("a webhook secret is base64 behind whsec_")
    return key


def check_signature(key: bytes, signed: Signed, body: bytes, *, now_ns: int) -> None:
    """Raises NoticeRefused unless `body` was signed with `key` within the last five minutes."""
    is_stamp = signed.timestamp.isascii() and signed.timestamp.isdigit() and len(signed.timestamp) <= 12
    if not (0 < len(signed.id) <= ID_LENGTH_MAX and signed.id.isascii() and signed.id.isprintable() and is_stamp):
        raise NoticeRefused
    if abs(now_ns / 1e9 - int(signed.timestamp)) > TOLERANCE_S:
        raise NoticeRefused
    content = f"{signed.id}.{signed.timestamp}.".encode() + body
    expected = b"v1," + base64.b64encode(keyed_digest(key, content))
    given = signed.signatures.encode(errors="replace").split(b" ")[:SIGNATURES_MAX]
    # All are compared, so that the time does not tell which one fitted.
    if not any([hmac.compare_digest(one, expected) for one in given]):  # noqa: C419
        raise NoticeRefused


def bad_news_in(body: bytes) -> BadNews | None:
    """What the notice says about dead addresses; None when it is about something else. NoticeRefused when it is no
    notice at all. A mailbox that is full for now is not dead."""
    try:
        notice = msgspec.json.decode(body, type=_Notice)
    except msgspec.DecodeError:
        raise NoticeRefused from None
    kind = _KINDS.get(notice.type)
    bounce = notice.data.bounce
    if kind is None or (kind == "bounce" and bounce is not None and bounce.type != PERMANENT):
        return None
    addresses = tuple(address for address in notice.data.to[:ADDRESSES_MAX] if is_mail_address(address))
    return BadNews(kind, notice.data.email_id[:ID_LENGTH_MAX] or None, addresses)
