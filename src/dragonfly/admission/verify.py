"""The proof of the books: what must hold between ledger, wallets, leases and usage, checked in one snapshot.

`dragonfly ledger verify` prints the report.
"""

from typing import NamedTuple

from sqlalchemy import ColumnElement, Connection, Select, Subquery, Table, case, func, literal, or_, select

from dragonfly.admission.tables import leases
from dragonfly.core.outcomes import CHARGING, Charging
from dragonfly.infra.database import allow_long_statements
from dragonfly.keys.tables import key_spend
from dragonfly.ledger.rules import BookKind
from dragonfly.ledger.tables import books, entries, entry_groups, wallets
from dragonfly.usage.tables import usage, usage_days

FINDINGS_MAX = 100
"""Per check; a broken installation does not need every row told."""

Check = Select[str, int, int]
"""Rows of (subject, expected, found) that do not hold."""


class Finding(NamedTuple):
    """One thing that does not hold. `subject` is the id of a group, account, key or request."""

    check: str
    subject: str
    expected_nusd: int
    found_nusd: int


class Report(NamedTuple):
    """What was looked at, and what was wrong."""

    checks: tuple[str, ...]
    groups: int
    entries: int
    wallets: int
    leases: int
    usage_rows: int
    balances_nusd: int
    """What customers have in all."""
    findings: tuple[Finding, ...]

    @property
    def is_clean(self) -> bool:
        return not self.findings


def verify(connection: Connection, *, usage_since_ns: int = 0) -> Report:
    """Checks everything, in a snapshot that the caller opened (`database.read`); reads whole tables.

    Groups older than `usage_since_ns` are not compared with usage rows, which retention has deleted by then;
    everything else holds for ever.
    """
    allow_long_statements(connection)
    checks = {
        "groups_sum_to_zero": _groups_sum_to_zero(),
        "groups_have_entries": _groups_have_entries(),
        "wallets_equal_ledger": _wallets_equal_ledger(),
        "customers_have_wallets": _customers_have_wallets(),
        "charges_equal_ledger": _charges_equal_ledger(),
        "leases_equal_wallets": _leases_equal_wallets(),
        "leases_equal_keys": _leases_equal_keys(),
        "leases_within_balances": _leases_within_balances(),
        "usage_cost_equals_groups": _usage_equals_groups(BookKind.CUSTOMER, -1, usage_since_ns),
        "usage_upstream_equals_groups": _usage_equals_groups(BookKind.UPSTREAM_PAYABLE, 1, usage_since_ns),
        "usage_absorbed_equals_groups": _usage_equals_groups(BookKind.ABSORBED_COST, -1, usage_since_ns),
        "usage_is_booked": _usage_is_booked(),
        "free_outcomes_cost_nothing": _free_outcomes_cost_nothing(),
        "key_totals_equal_days": _key_totals_equal_days(),
    }
    findings = [
        Finding(name, str(subject), int(expected), int(found))
        for name, check in checks.items()
        for subject, expected, found in connection.execute(check.limit(FINDINGS_MAX))
    ]
    balances = connection.execute(select(func.coalesce(func.sum(wallets.c.balance_nusd), 0))).scalar_one()
    return Report(
        checks=tuple(checks),
        groups=_count(connection, entry_groups),
        entries=_count(connection, entries),
        wallets=_count(connection, wallets),
        leases=_count(connection, leases),
        usage_rows=_count(connection, usage),
        balances_nusd=int(balances),
        findings=tuple(findings),
    )


def _count(connection: Connection, table: Table) -> int:
    return connection.execute(select(func.count()).select_from(table)).scalar_one()


def _groups_sum_to_zero() -> Check:
    total = func.sum(entries.c.amount_nusd)
    return select(entries.c.group_id, literal(0), total).group_by(entries.c.group_id).having(total != 0)


def _groups_have_entries() -> Check:
    joined = entry_groups.outerjoin(entries, entries.c.group_id == entry_groups.c.id)
    return select(entry_groups.c.id, literal(1), literal(0)).select_from(joined).where(entries.c.group_id.is_(None))


def _sum_by_account(*, settled_only: bool) -> Subquery:
    """What the entries put into each customer's book."""
    joined = entries.join(books, books.c.id == entries.c.book_id)
    joined = joined.join(entry_groups, entry_groups.c.id == entries.c.group_id)
    wanted = select(books.c.account_id, func.sum(entries.c.amount_nusd).label("total")).select_from(joined)
    wanted = wanted.where(books.c.kind == BookKind.CUSTOMER.value)
    if settled_only:
        wanted = wanted.where(entry_groups.c.kind == "settle")
    return wanted.group_by(books.c.account_id).subquery()


def _wallets_equal_ledger() -> Check:
    sums = _sum_by_account(settled_only=False)
    total = func.coalesce(sums.c.total, 0)
    joined = wallets.outerjoin(sums, sums.c.account_id == wallets.c.account_id)
    wanted = select(wallets.c.account_id, total, wallets.c.balance_nusd).select_from(joined)
    return wanted.where(total != wallets.c.balance_nusd)


def _customers_have_wallets() -> Check:
    sums = _sum_by_account(settled_only=False)
    joined = sums.outerjoin(wallets, sums.c.account_id == wallets.c.account_id)
    wanted = select(sums.c.account_id, sums.c.total, literal(0)).select_from(joined)
    return wanted.where(wallets.c.account_id.is_(None))


def _charges_equal_ledger() -> Check:
    sums = _sum_by_account(settled_only=True)
    total = -func.coalesce(sums.c.total, 0)
    joined = wallets.outerjoin(sums, sums.c.account_id == wallets.c.account_id)
    wanted = select(wallets.c.account_id, total, wallets.c.charged_nusd).select_from(joined)
    return wanted.where(total != wallets.c.charged_nusd)


def _leases_equal_wallets() -> Check:
    sums = select(leases.c.account_id, func.sum(leases.c.amount_nusd).label("total"))
    given = sums.group_by(leases.c.account_id).subquery()
    total = func.coalesce(given.c.total, 0)
    joined = wallets.outerjoin(given, given.c.account_id == wallets.c.account_id)
    wanted = select(wallets.c.account_id, total, wallets.c.leased_nusd).select_from(joined)
    return wanted.where(total != wallets.c.leased_nusd)


def _leases_equal_keys() -> Check:
    sums = select(leases.c.key_id, func.sum(leases.c.amount_nusd).label("total"))
    given = sums.where(leases.c.key_id.is_not(None)).group_by(leases.c.key_id).subquery()
    total = func.coalesce(given.c.total, 0)
    joined = key_spend.outerjoin(given, given.c.key_id == key_spend.c.key_id)
    wanted = select(key_spend.c.key_id, total, key_spend.c.leased_nusd).select_from(joined)
    return wanted.where(total != key_spend.c.leased_nusd)


def _leases_within_balances() -> Check:
    leased, balance = wallets.c.leased_nusd, wallets.c.balance_nusd
    return select(wallets.c.account_id, balance, leased).where(or_(leased < 0, leased > balance))


def _usage_equals_groups(kind: BookKind, sign: int, since_ns: int) -> Check:
    """Each settled group's entries in books of `kind`, times `sign`, against the rows that it charged."""
    totals = select(usage.c.group_id, func.sum(_column_of(kind)).label("total"))
    used = totals.where(usage.c.group_id.is_not(None)).group_by(usage.c.group_id).subquery()
    joined = entries.join(books, books.c.id == entries.c.book_id)
    sums = select(entries.c.group_id, func.sum(entries.c.amount_nusd).label("total")).select_from(joined)
    booked = sums.where(books.c.kind == kind.value).group_by(entries.c.group_id).subquery()
    expected, found = func.coalesce(used.c.total, 0), sign * func.coalesce(booked.c.total, 0)
    groups = entry_groups.outerjoin(used, used.c.group_id == entry_groups.c.id)
    groups = groups.outerjoin(booked, booked.c.group_id == entry_groups.c.id)
    wanted = select(entry_groups.c.id, expected, found).select_from(groups)
    return wanted.where(entry_groups.c.kind == "settle", entry_groups.c.created_at_ns >= since_ns, expected != found)


def _column_of(kind: BookKind) -> ColumnElement[int]:
    if kind is BookKind.CUSTOMER:
        return usage.c.cost_nusd
    if kind is BookKind.UPSTREAM_PAYABLE:
        return usage.c.upstream_nusd
    assert kind is BookKind.ABSORBED_COST
    # As ledger.rules.absorbed_upstream_nusd.
    upstream, absorbed = usage.c.upstream_nusd, usage.c.absorbed_nusd
    return case((upstream < absorbed, upstream), else_=absorbed)


def _usage_is_booked() -> Check:
    """Rows with money whose group is missing."""
    joined = usage.outerjoin(entry_groups, entry_groups.c.id == usage.c.group_id)
    has_money = or_(usage.c.cost_nusd != 0, usage.c.upstream_nusd != 0)
    wanted = select(usage.c.request_id, usage.c.cost_nusd, literal(0)).select_from(joined)
    return wanted.where(has_money, entry_groups.c.id.is_(None))


def _free_outcomes_cost_nothing() -> Check:
    free = [outcome.value for outcome, charging in CHARGING.items() if charging is Charging.NOTHING]
    wanted = select(usage.c.request_id, literal(0), usage.c.cost_nusd)
    return wanted.where(usage.c.cost_nusd != 0, usage.c.outcome.in_(free))


def _key_totals_equal_days() -> Check:
    sums = select(usage_days.c.key_id, func.sum(usage_days.c.cost_nusd).label("total"))
    used = sums.group_by(usage_days.c.key_id).subquery()
    total = func.coalesce(used.c.total, 0)
    joined = key_spend.outerjoin(used, used.c.key_id == key_spend.c.key_id)
    wanted = select(key_spend.c.key_id, total, key_spend.c.spent_nusd).select_from(joined)
    return wanted.where(total != key_spend.c.spent_nusd)
