"""The second factor: time-based codes (RFC 6238: SHA-1, six digits, 30 seconds) and codes for when they are lost.

The secret is derived from a salt and a key outside the database. A code is taken once: the step it belongs to is
written down, and an equal or earlier one is refused.
"""

import base64
import hmac
import os
import struct
from typing import NamedTuple
from urllib.parse import quote

from sqlalchemy import Connection, and_, delete, insert, select, update

from dragonfly.accounts.tables import recovery_codes, second_factors
from dragonfly.core.credentials import Seal
from dragonfly.core.errors import DragonflyError
from dragonfly.core.ids import AccountId
from dragonfly.core.secrets import Secret

NS_PER_S = 1_000_000_000
STEP_S = 30
DIGITS = 6
SECRET_BYTES = 20
STEPS_AROUND = 1
"""Clocks of telephones are a little off."""
RECOVERY_CODES = 10
RECOVERY_CODE_BYTES = 10
ISSUER = "Dragonfly"


class SecondFactorRefused(DragonflyError):
    """A wrong code, one that was used, or no second factor at all."""

    code = "second_factor_refused"
    status = 403

    def __init__(self) -> None:
        super().__init__("That code is not right or was used already. Wait for the next one, or use a recovery code.")


class SecondFactorExists(DragonflyError):
    code = "second_factor_exists"
    status = 409

    def __init__(self) -> None:
        super().__init__("There is a second factor already. Remove it before you set up another one.")


class Enrolment(NamedTuple):
    """What an authenticator application is told."""

    secret: Secret
    """Base32, to type in."""
    uri: Secret
    """The same for a QR code."""


def has_second_factor(connection: Connection, account_id: AccountId) -> bool:
    """True when codes are asked for at sign-in."""
    wanted = select(second_factors.c.confirmed_at_ns).where(second_factors.c.account_id == account_id)
    return connection.execute(wanted).scalar_one_or_none() is not None


def begin_second_factor(connection: Connection, seal: Seal, account_id: AccountId, address: str) -> Enrolment:
    """A secret for an authenticator; nothing is asked for until its first code was right. SecondFactorExists."""
    if has_second_factor(connection, account_id):
        raise SecondFactorExists
    salt = os.urandom(SECRET_BYTES)
    connection.execute(delete(second_factors).where(second_factors.c.account_id == account_id))
    row = {"account_id": account_id, "salt": salt, "seal_version": seal.current, "last_step": 0}
    connection.execute(insert(second_factors).values(row))
    secret = base64.b32encode(_secret(seal, salt, seal.current)).decode()
    label = quote(f"{ISSUER}:{address}", safe=":@")
    return Enrolment(Secret(secret), Secret(f"otpauth://totp/{label}?secret={secret}&issuer={ISSUER}"))


def confirm_second_factor(
    connection: Connection, seal: Seal, account_id: AccountId, code: str, *, now_ns: int
) -> list[Secret]:
    """From now on codes are asked for. Gives the recovery codes, which nobody can read again."""
    if has_second_factor(connection, account_id):
        raise SecondFactorExists
    if not _take_code(connection, seal, account_id, code, now_ns):
        raise SecondFactorRefused
    confirmed = update(second_factors).where(second_factors.c.account_id == account_id)
    connection.execute(confirmed.values(confirmed_at_ns=now_ns))
    connection.execute(delete(recovery_codes).where(recovery_codes.c.account_id == account_id))
    codes = [base64.b32encode(os.urandom(RECOVERY_CODE_BYTES)).decode().lower() for _ in range(RECOVERY_CODES)]
    rows = [{"digest": _recovery_digest(seal, account_id, code), "account_id": account_id} for code in codes]
    connection.execute(insert(recovery_codes), rows)
    return [Secret("-".join(code[start : start + 4] for start in range(0, len(code), 4))) for code in codes]


def show_second_factor(connection: Connection, seal: Seal, account_id: AccountId, code: str, *, now_ns: int) -> bool:
    """Takes a code, or a recovery code, of a confirmed second factor; False when it is not right."""
    if not has_second_factor(connection, account_id):
        return False
    if len(code) == DIGITS and code.isascii() and code.isdigit():
        return _take_code(connection, seal, account_id, code, now_ns)
    plain = code.replace("-", "").strip().lower()
    digests = seal.digests("recovery", f"{account_id} {plain}")
    used = update(recovery_codes).where(
        recovery_codes.c.digest.in_(digests),
        recovery_codes.c.account_id == account_id,
        recovery_codes.c.used_at_ns.is_(None),
    )
    return connection.execute(used.values(used_at_ns=now_ns)).rowcount == 1


def remove_second_factor(connection: Connection, account_id: AccountId) -> None:
    """No codes are asked for any more, and the recovery codes are gone."""
    connection.execute(delete(second_factors).where(second_factors.c.account_id == account_id))
    connection.execute(delete(recovery_codes).where(recovery_codes.c.account_id == account_id))


def code_at(secret: bytes, step: int) -> str:
    """The code of a step, counted in STEP_S from the epoch (RFC 4226, section 5.3)."""
    digest = hmac.digest(secret, struct.pack(">Q", step), "sha1")
    start = digest[-1] & 0x0F
    number = int.from_bytes(digest[start : start + 4], "big") & 0x7FFF_FFFF
    return str(number % 10**DIGITS).zfill(DIGITS)


def _take_code(connection: Connection, seal: Seal, account_id: AccountId, code: str, now_ns: int) -> bool:
    row = connection.execute(select(second_factors).where(second_factors.c.account_id == account_id)).one_or_none()
    if row is None:
        return False
    secret = _secret(seal, row.salt, row.seal_version)
    now = now_ns // NS_PER_S // STEP_S
    for step in range(now - STEPS_AROUND, now + STEPS_AROUND + 1):
        if hmac.compare_digest(code_at(secret, step).encode(), code.encode()):
            mine = and_(second_factors.c.account_id == account_id, second_factors.c.last_step < step)
            return connection.execute(update(second_factors).where(mine).values(last_step=step)).rowcount == 1
    return False


def _secret(seal: Seal, salt: bytes, version: int) -> bytes:
    return seal.derive("second factor", salt, version)[:SECRET_BYTES]


def _recovery_digest(seal: Seal, account_id: AccountId, code: str) -> bytes:
    return seal.digest("recovery", f"{account_id} {code}")
