"""What must hold within the ledger: groups, books, wallets, lots, refunds and disputes prove each other.

Each check is a statement whose rows are what does not hold. `dragonfly.admission.verify` runs them, with those that
need leases and usage.
"""

from collections.abc import Iterable, Mapping

from sqlalchemy import ColumnElement, Select, Subquery, Table, case, func, literal, or_, select

from dragonfly.ledger.rules import REVENUE_BOOK, WALLET_KINDS, BookKind, Source
from dragonfly.ledger.tables import books, disputes, draws, entries, entry_groups, lots, refunds, wallets

Check = Select[str, int, int]
"""Rows of (subject, expected, found) that do not hold."""


def ledger_checks() -> Mapping[str, Check]:
    """Every check by its name."""
    shortfall = disputes.c.amount_nusd - disputes.c.taken_nusd
    lost = case((disputes.c.state == "open", shortfall), else_=0)
    pending = case((refunds.c.state == "pending", refunds.c.amount_nusd), else_=0)
    contested = case((disputes.c.state == "open", disputes.c.amount_nusd), else_=0)
    is_paid = lots.c.source == Source.PAID.value
    available = wallets.c.balance_nusd - wallets.c.leased_nusd
    return {
        "groups_sum_to_zero": _groups_sum_to_zero(),
        "groups_have_entries": _groups_have_entries(),
        "wallets_equal_ledger": _books_equal(WALLET_KINDS, wallets, wallets.c.balance_nusd),
        "charges_equal_ledger": _charges_equal_ledger(),
        "revenue_equals_charges": _revenue_equals_charges(),
        "customers_have_wallets": _customers_have_wallets(),
        "lots_equal_wallets": _lots_equal_wallets(available),
        "lots_equal_groups": _lots_equal_groups(),
        "lots_hold_their_draws": _lots_hold_their_draws(),
        "paid_books_equal_lots": _books_equal((BookKind.PAID,), lots, _only(is_paid)),
        "promo_books_equal_lots": _books_equal((BookKind.PROMO,), lots, _only(~is_paid)),
        "leased_books_equal_wallets": _books_equal((BookKind.LEASED,), wallets, wallets.c.leased_nusd),
        "old_books_are_carried_over": _books_equal((BookKind.CUSTOMER,), wallets, literal(0)),
        "refund_books_equal_refunds": _books_equal((BookKind.REFUND_PENDING,), refunds, pending),
        "dispute_books_equal_disputes": _books_equal((BookKind.DISPUTE,), disputes, contested),
        "receivables_equal_disputes": _books_equal((BookKind.RECEIVABLE,), disputes, -lost),
        "refunds_equal_draws": _claims_equal_draws(refunds, refunds.c.amount_nusd, "refund/", "cancelled"),
        "disputes_equal_draws": _claims_equal_draws(disputes, disputes.c.taken_nusd, "dispute/", "won"),
    }


def _only(condition: ColumnElement[bool]) -> ColumnElement[int]:
    return case((condition, lots.c.remaining_nusd), else_=0)


def _groups_sum_to_zero() -> Check:
    total = func.sum(entries.c.amount_nusd)
    return select(entries.c.group_id, literal(0), total).group_by(entries.c.group_id).having(total != 0)


def _groups_have_entries() -> Check:
    joined = entry_groups.outerjoin(entries, entries.c.group_id == entry_groups.c.id)
    return select(entry_groups.c.id, literal(1), literal(0)).select_from(joined).where(entries.c.group_id.is_(None))


def _book_sums(kinds: Iterable[BookKind], group_kind: str | None = None) -> Subquery:
    """What the entries put into each account's books of these kinds."""
    joined = entries.join(books, books.c.id == entries.c.book_id)
    if group_kind is not None:
        joined = joined.join(entry_groups, entry_groups.c.id == entries.c.group_id)
    wanted = select(books.c.account_id, func.sum(entries.c.amount_nusd).label("total")).select_from(joined)
    wanted = wanted.where(books.c.kind.in_([kind.value for kind in kinds]))
    if group_kind is not None:
        wanted = wanted.where(entry_groups.c.kind == group_kind)
    return wanted.group_by(books.c.account_id).subquery()


def _books_equal(kinds: Iterable[BookKind], table: Table, amount: ColumnElement[int]) -> Check:
    """For each wallet: what its books of these kinds hold, against the sum of `amount` over its rows of `table`."""
    booked = _book_sums(kinds)
    sums = select(table.c.account_id, func.sum(amount).label("total")).group_by(table.c.account_id).subquery()
    expected, found = func.coalesce(booked.c.total, 0), func.coalesce(sums.c.total, 0)
    joined = wallets.outerjoin(booked, booked.c.account_id == wallets.c.account_id)
    joined = joined.outerjoin(sums, sums.c.account_id == wallets.c.account_id)
    return select(wallets.c.account_id, expected, found).select_from(joined).where(expected != found)


def _charges_equal_ledger() -> Check:
    sums = _book_sums(WALLET_KINDS, "settle")
    total = -func.coalesce(sums.c.total, 0)
    joined = wallets.outerjoin(sums, sums.c.account_id == wallets.c.account_id)
    wanted = select(wallets.c.account_id, total, wallets.c.charged_nusd).select_from(joined)
    return wanted.where(total != wallets.c.charged_nusd)


def _revenue_equals_charges() -> Check:
    charged = select(func.coalesce(func.sum(wallets.c.charged_nusd), 0)).scalar_subquery()
    revenue = select(func.coalesce(func.sum(entries.c.amount_nusd), 0)).where(entries.c.book_id == REVENUE_BOOK)
    booked = revenue.scalar_subquery()
    return select(literal(REVENUE_BOOK), booked, charged).where(booked != charged)


def _customers_have_wallets() -> Check:
    sums = _book_sums(WALLET_KINDS)
    joined = sums.outerjoin(wallets, sums.c.account_id == wallets.c.account_id)
    wanted = select(sums.c.account_id, sums.c.total, literal(0)).select_from(joined)
    return wanted.where(wallets.c.account_id.is_(None))


def _lots_equal_wallets(available: ColumnElement[int]) -> Check:
    remaining = func.sum(lots.c.remaining_nusd).label("total")
    sums = select(lots.c.account_id, remaining).group_by(lots.c.account_id).subquery()
    total = func.coalesce(sums.c.total, 0)
    joined = wallets.outerjoin(sums, sums.c.account_id == wallets.c.account_id)
    return select(wallets.c.account_id, total, available).select_from(joined).where(total != available)


def _lots_equal_groups() -> Check:
    """A lot is as large as what its group put into the book of its source, or carried over from the old book."""
    source_book = lots.c.source + "/" + lots.c.account_id
    old_book = BookKind.CUSTOMER.value + "/" + lots.c.account_id
    put = case(
        (entries.c.book_id == old_book, -entries.c.amount_nusd),
        (entry_groups.c.kind == "carry", 0),
        (entries.c.book_id == source_book, entries.c.amount_nusd),
        else_=0,
    )
    joined = lots.join(entry_groups, entry_groups.c.id == lots.c.id).join(entries, entries.c.group_id == lots.c.id)
    total = func.sum(put)
    wanted = select(lots.c.id, total, lots.c.amount_nusd).select_from(joined)
    return wanted.group_by(lots.c.id, lots.c.amount_nusd).having(total != lots.c.amount_nusd)


def _lots_hold_their_draws() -> Check:
    """What is left of a lot and what is drawn from it are at most what it was; and no draw lacks a lot."""
    sums = select(draws.c.lot_id, func.sum(draws.c.amount_nusd).label("total")).group_by(draws.c.lot_id).subquery()
    found = lots.c.remaining_nusd + func.coalesce(sums.c.total, 0)
    joined = lots.outerjoin(sums, sums.c.lot_id == lots.c.id)
    wanted = select(lots.c.id, lots.c.amount_nusd, found).select_from(joined)
    return wanted.where(or_(found > lots.c.amount_nusd, lots.c.remaining_nusd < 0))


def _claims_equal_draws(table: Table, amount: ColumnElement[int], prefix: str, given_back: str) -> Check:
    """A refund or dispute holds what it took, unless it has `given_back` everything."""
    sums = select(draws.c.holder_id, func.sum(draws.c.amount_nusd).label("total")).group_by(draws.c.holder_id)
    drawn = sums.subquery()
    expected = case((table.c.state == given_back, 0), else_=amount)
    found = func.coalesce(drawn.c.total, 0)
    joined = table.outerjoin(drawn, drawn.c.holder_id == prefix + table.c.id)
    return select(table.c.id, expected, found).select_from(joined).where(expected != found)
