"""Draws money out of lots of credit and gives it back. The caller has locked the wallet, so nobody else does.

A lot's `remaining_nusd` is what nobody has drawn; `draws` remembers who drew how much of which lot. Money that is
given back goes to the lots that would be spent last, because those that are spent first were spent.
"""

import enum
from collections.abc import Sequence

from sqlalchemy import ColumnElement, Connection, bindparam, delete, func, select, update
from sqlalchemy.dialects import postgresql, sqlite

from dragonfly.core.ids import AccountId
from dragonfly.ledger.rules import Lot, Part, Source, spending_order, split
from dragonfly.ledger.tables import draws, lots

LOTS_PAGE_MAX = 100
_COLUMNS = [lots.c[name] for name in Lot._fields]
_SPENDING = (
    lots.c.source.desc(),
    lots.c.expires_at_ns.asc().nulls_last(),
    lots.c.created_at_ns.asc(),
    lots.c.id.asc(),
)
"""As rules.spending_order."""
_TAKING_BACK = (
    lots.c.source.asc(),
    lots.c.created_at_ns.desc(),
    lots.c.id.desc(),
)


class Drawing(enum.Enum):
    """Which lots are drawn, and in which order."""

    SPEND = enum.auto()
    """All: promotional before paid, what expires soonest first, then the oldest."""
    REFUND = enum.auto()
    """Paid ones: that of the reference, or the newest first when there is no reference."""
    DISPUTE = enum.auto()
    """All: the paid one of the reference, then paid ones from the newest, then promotional ones from the newest."""


def draw(
    connection: Connection,
    account_id: AccountId,
    holder_id: str,
    amount_nusd: int,
    drawing: Drawing = Drawing.SPEND,
    reference: str = "",
) -> list[Part]:
    """Takes the amount out of the account's lots for `holder_id`. There must be so much in them."""
    parts: list[Part] = []
    missing = amount_nusd
    while missing:
        page = _page(connection, account_id, drawing, reference)
        taken = split(page, missing)
        assert taken, "the lots hold what the wallet has available"
        _take(connection, taken)
        parts += taken
        missing -= sum(part.amount_nusd for part in taken)
    _remember(connection, holder_id, parts)
    return parts


def give_back(connection: Connection, holder_id: str, amount_nusd: int) -> list[Part]:
    """Puts what is left of a holder's draws back into their lots, and forgets the draws."""
    parts, _ = _put_back(connection, holder_id, amount_nusd)
    connection.execute(delete(draws).where(draws.c.holder_id == holder_id))
    return parts


def give_back_part(connection: Connection, holder_id: str, amount_nusd: int) -> list[Part]:
    """Puts some of a holder's draws back into their lots; what is spent later comes from the rest."""
    parts, drawn = _put_back(connection, holder_id, amount_nusd)
    for part in parts:
        of_part = draws.c.holder_id == holder_id, draws.c.lot_id == part.lot_id
        if part.amount_nusd == drawn[part.lot_id]:
            connection.execute(delete(draws).where(*of_part))
        else:
            left = draws.c.amount_nusd - part.amount_nusd
            connection.execute(update(draws).where(*of_part).values(amount_nusd=left))
    return parts


def _put_back(connection: Connection, holder_id: str, amount_nusd: int) -> tuple[list[Part], dict[str, int]]:
    """What went back into which lots, and what had been drawn from each lot."""
    held = select(draws.c.lot_id, draws.c.amount_nusd.label("drawn_nusd")).where(draws.c.holder_id == holder_id)
    inner = held.subquery()
    joined = lots.join(inner, inner.c.lot_id == lots.c.id)
    rows = connection.execute(select(*_COLUMNS, inner.c.drawn_nusd).select_from(joined)).all()
    drawn = [Lot(*row[:-1])._replace(remaining_nusd=row.drawn_nusd) for row in rows]
    drawn.sort(key=spending_order, reverse=True)
    parts = split(drawn, amount_nusd)
    assert sum(part.amount_nusd for part in parts) == amount_nusd, "nobody gives back more than was drawn"
    if parts:
        returned = update(lots).where(lots.c.id == bindparam("lot"))
        returned = returned.values(remaining_nusd=lots.c.remaining_nusd + bindparam("part"))
        connection.execute(returned, [{"lot": part.lot_id, "part": part.amount_nusd} for part in parts])
    return parts, {lot.id: lot.remaining_nusd for lot in drawn}


def refundable_nusd(connection: Connection, account_id: AccountId, reference: str = "") -> int:
    """Paid credit that nobody has used or drawn; of one payment, when a reference is given."""
    wanted = select(func.coalesce(func.sum(lots.c.remaining_nusd), 0))
    return int(connection.execute(wanted.where(*_of(account_id, Drawing.REFUND, reference))).scalar_one())


def _of(account_id: AccountId, drawing: Drawing, reference: str) -> list[ColumnElement[bool]]:
    conditions = [lots.c.account_id == account_id, lots.c.remaining_nusd > 0]
    if drawing is Drawing.REFUND:
        conditions.append(lots.c.source == Source.PAID.value)
        if reference:
            conditions.append(lots.c.reference == reference)
    return conditions


def _page(connection: Connection, account_id: AccountId, drawing: Drawing, reference: str) -> list[Lot]:
    wanted = select(*_COLUMNS).where(*_of(account_id, drawing, reference))
    if drawing is Drawing.SPEND:
        wanted = wanted.order_by(*_SPENDING)
    else:
        is_another = (lots.c.source != Source.PAID.value) | (lots.c.reference != reference)
        wanted = wanted.order_by(is_another, *_TAKING_BACK)
    return [Lot(*row) for row in connection.execute(wanted.limit(LOTS_PAGE_MAX))]


def _take(connection: Connection, parts: Sequence[Part]) -> None:
    taken = update(lots).where(lots.c.id == bindparam("lot"), lots.c.remaining_nusd >= bindparam("part"))
    taken = taken.values(remaining_nusd=lots.c.remaining_nusd - bindparam("part"))
    for part in parts:
        changed = connection.execute(taken, {"lot": part.lot_id, "part": part.amount_nusd}).rowcount
        assert changed == 1, "the wallet is locked, so its lots have what they had"


def _remember(connection: Connection, holder_id: str, parts: Sequence[Part]) -> None:
    dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
    inserted = dialect.insert(draws)
    remembered = inserted.on_conflict_do_update(
        index_elements=[draws.c.holder_id, draws.c.lot_id],
        set_={"amount_nusd": draws.c.amount_nusd + inserted.excluded.amount_nusd},
    )
    rows = [{"holder_id": holder_id, "lot_id": part.lot_id, "amount_nusd": part.amount_nusd} for part in parts]
    connection.execute(remembered, rows)
