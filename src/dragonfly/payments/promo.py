"""Codes for promotional credit: made in bulk by operators, shown once, used by customers within bounds."""

import hashlib
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import Connection, func, insert, select, update

from dragonfly.core.errors import DragonflyError
from dragonfly.core.ids import AccountId, IdSource
from dragonfly.infra.database import insert_missing
from dragonfly.ledger.actions import grant_credit
from dragonfly.payments.rules import DAY_NS
from dragonfly.payments.tables import promo_codes, promo_redemptions

CODES_AT_ONCE_MAX = 1_000
LETTERS = "23456789ABCDEFGHJKMNPQRSTUVWXYZ"
"""Without those that look alike."""
CODE_LENGTH = 16
"""79 bits: nobody guesses one."""
PREFIX = "DF"
NOTE_LENGTH_MAX = 200
PAGE_MAX = 200


class PromoCodeInvalid(DragonflyError):
    """A code that cannot be used: unknown, expired, withdrawn, used up, or used by this account already. One answer
    for all, so that nothing can be probed."""

    code = "promo_code_invalid"
    status = 404

    def __init__(self) -> None:
        super().__init__("This code cannot be used: it is unknown, expired, used up, or you have used it already.")


class PromoBatchInvalid(DragonflyError):
    """Numbers out of bounds."""

    code = "promo_batch_invalid"
    status = 400

    def __init__(self) -> None:
        super().__init__(
            f"A batch has 1 to {CODES_AT_ONCE_MAX} codes of more than 0 and at most 1,000 USD, and a note of at most"
            f" {NOTE_LENGTH_MAX} characters."
        )


@dataclass(frozen=True, slots=True)
class PromoWish:
    """A batch of codes."""

    count: int
    amount_nusd: int
    uses_max: int = 1
    """Of each code, over all accounts."""
    per_account_max: int = 1
    """Codes of the batch that one account may use."""
    expires_at_ns: int | None = None
    credit_days: int | None = None
    """How long the credit stays after a code was used."""
    note: str = ""


class PromoCode(NamedTuple):
    """A code as stored; the code itself is known to nobody but those who have it."""

    id: str
    batch_id: str
    hint: str
    amount_nusd: int
    uses_max: int
    uses: int
    per_account_max: int
    expires_at_ns: int | None
    credit_days: int | None
    note: str
    revoked_at_ns: int | None
    created_at_ns: int


def make_codes(
    connection: Connection,
    ids: IdSource,
    wish: PromoWish,
    *,
    random: bytes,
    created_by: AccountId | None,
    now_ns: int,
) -> list[str]:
    """The codes, to be shown this once. `random` has 16 bytes for each; nobody made them: the command line.

    PromoBatchInvalid.
    """
    is_fine = (
        1 <= wish.count <= CODES_AT_ONCE_MAX
        and 0 < wish.amount_nusd <= 1_000 * 10**9
        and 1 <= wish.uses_max <= 1_000_000
        and 1 <= wish.per_account_max <= 1_000
        and len(wish.note) <= NOTE_LENGTH_MAX
        and (wish.credit_days is None or 1 <= wish.credit_days <= 3_650)
    )
    if not is_fine:
        raise PromoBatchInvalid
    batch_id = ids.new("promo-", now_ns)
    codes = [_code(random[place * CODE_LENGTH : (place + 1) * CODE_LENGTH]) for place in range(wish.count)]
    rows = [
        {
            "id": ids.new("code-", now_ns),
            "batch_id": batch_id,
            "digest": _digest(code),
            "hint": f"…{code[-4:]}",
            "amount_nusd": wish.amount_nusd,
            "uses_max": wish.uses_max,
            "uses": 0,
            "per_account_max": wish.per_account_max,
            "expires_at_ns": wish.expires_at_ns,
            "credit_days": wish.credit_days,
            "note": wish.note,
            "created_by": created_by,
            "created_at_ns": now_ns,
        }
        for code in codes
    ]
    connection.execute(insert(promo_codes), rows)
    return codes


def redeem(connection: Connection, account_id: AccountId, text: str, *, now_ns: int) -> PromoCode:
    """Gives the account the code's credit, once. PromoCodeInvalid."""
    code = _find(connection, text)
    is_usable = (
        code is not None
        and code.revoked_at_ns is None
        and (code.expires_at_ns is None or code.expires_at_ns > now_ns)
    )
    if code is None or not is_usable:
        raise PromoCodeInvalid
    used = select(func.count()).where(
        promo_redemptions.c.batch_id == code.batch_id, promo_redemptions.c.account_id == account_id
    )
    number = int(connection.execute(used).scalar_one()) + 1
    row = {
        "code_id": code.id,
        "account_id": account_id,
        "batch_id": code.batch_id,
        "number": number,
        "created_at_ns": now_ns,
    }
    if number > code.per_account_max or not insert_missing(connection, promo_redemptions, row):
        raise PromoCodeInvalid
    counted = update(promo_codes).where(promo_codes.c.id == code.id, promo_codes.c.uses < promo_codes.c.uses_max)
    if not connection.execute(counted.values(uses=promo_codes.c.uses + 1)).rowcount:
        raise PromoCodeInvalid
    expires_at_ns = None if code.credit_days is None else now_ns + code.credit_days * DAY_NS
    grant_credit(
        connection,
        account_id,
        amount_nusd=code.amount_nusd,
        idempotency_key=f"promo/{code.id}",
        expires_at_ns=expires_at_ns,
        reason=f"code {code.hint}",
        now_ns=now_ns,
    )
    return code


def revoke_batch(connection: Connection, batch_id: str, *, now_ns: int) -> int:
    """Withdraws the codes of a batch that are left; how many. What was given stays."""
    left = update(promo_codes).where(promo_codes.c.batch_id == batch_id, promo_codes.c.revoked_at_ns.is_(None))
    return connection.execute(left.values(revoked_at_ns=now_ns)).rowcount


def codes_page(connection: Connection, *, batch_id: str = "", after: str = "", limit: int = 50) -> list[PromoCode]:
    """For operators: in the order of their making."""
    wanted = select(*(promo_codes.c[name] for name in PromoCode._fields)).where(promo_codes.c.id > after)
    if batch_id:
        wanted = wanted.where(promo_codes.c.batch_id == batch_id)
    rows = connection.execute(wanted.order_by(promo_codes.c.id).limit(min(limit, PAGE_MAX)))
    return [PromoCode._make(row) for row in rows]


def _find(connection: Connection, text: str) -> PromoCode | None:
    wanted = select(*(promo_codes.c[name] for name in PromoCode._fields))
    row = connection.execute(wanted.where(promo_codes.c.digest == _digest(text))).one_or_none()
    return None if row is None else PromoCode._make(row)


def _code(random: bytes) -> str:
    number = int.from_bytes(random, "big")
    letters = []
    for _ in range(CODE_LENGTH):
        number, digit = divmod(number, len(LETTERS))
        letters.append(LETTERS[digit])
    text = "".join(letters)
    return "-".join((PREFIX, *(text[start : start + 4] for start in range(0, CODE_LENGTH, 4))))


def _digest(text: str) -> str:
    """People type blanks and small letters."""
    plain = "".join(letter for letter in text.upper() if letter.isalnum())
    return hashlib.sha256(plain.encode()).hexdigest()
