"""The proof of the books: what must hold between ledger, wallets, leases and usage, checked in one snapshot.

`dragonfly ledger verify` prints the report.
"""

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import ColumnElement, Connection, Table, Text, case, cast, func, literal, or_, select

from dragonfly.admission.tables import leases
from dragonfly.core.outcomes import CHARGING, Charging
from dragonfly.infra.database import allow_long_statements
from dragonfly.keys.tables import key_spend
from dragonfly.ledger.proof import Check, ledger_checks
from dragonfly.ledger.rules import WALLET_KINDS, BookKind
from dragonfly.ledger.tables import books, draws, entries, entry_groups, wallets
from dragonfly.usage.actions import CLOSED_DAY
from dragonfly.usage.queries import NS_PER_DAY
from dragonfly.usage.tables import usage, usage_days, usage_months

FINDINGS_MAX = 100
"""Per check; a broken installation does not need every row told."""


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

    @property
    def broken(self) -> tuple[str, ...]:
        """The checks that found something."""
        return tuple(dict.fromkeys(finding.check for finding in self.findings))


def verify(connection: Connection, *, usage_since_ns: int = 0) -> Report:
    """Checks everything, in a snapshot that the caller opened (`database.read`); reads whole tables.

    Groups older than `usage_since_ns` are not compared with usage rows, which retention has deleted by then;
    everything else holds for ever.
    """
    allow_long_statements(connection)
    checks = {
        **ledger_checks(),
        "leases_equal_wallets": _leases_equal_wallets(),
        "leases_hold_their_draws": _leases_hold_their_draws(),
        "draws_have_leases": _draws_have_leases(),
        "leases_equal_keys": _leases_equal_keys(),
        "leases_within_balances": _leases_within_balances(),
        "usage_cost_equals_groups": _usage_equals_groups(WALLET_KINDS, -1, usage_since_ns),
        "usage_upstream_equals_groups": _usage_equals_groups((BookKind.UPSTREAM_PAYABLE,), 1, usage_since_ns),
        "usage_absorbed_equals_groups": _usage_equals_groups((BookKind.ABSORBED_COST,), -1, usage_since_ns),
        "usage_is_booked": _usage_is_booked(),
        "free_outcomes_cost_nothing": _free_outcomes_cost_nothing(),
        "key_totals_equal_days": _key_totals_equal_days(),
        "account_totals_equal_days": _account_totals_equal_days(),
        "closed_months_equal_days": _closed_months_equal_days(),
        "days_equal_usage": _days_equal_usage(usage_since_ns),
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


def _leases_equal_wallets() -> Check:
    sums = select(leases.c.account_id, func.sum(leases.c.amount_nusd).label("total"))
    given = sums.group_by(leases.c.account_id).subquery()
    total = func.coalesce(given.c.total, 0)
    joined = wallets.outerjoin(given, given.c.account_id == wallets.c.account_id)
    wanted = select(wallets.c.account_id, total, wallets.c.leased_nusd).select_from(joined)
    return wanted.where(total != wallets.c.leased_nusd)


def _leases_hold_their_draws() -> Check:
    """A lease has drawn at least what is left of it."""
    sums = select(draws.c.holder_id, func.sum(draws.c.amount_nusd).label("total")).group_by(draws.c.holder_id)
    drawn = sums.subquery()
    total = func.coalesce(drawn.c.total, 0)
    joined = leases.outerjoin(drawn, drawn.c.holder_id == leases.c.id)
    wanted = select(leases.c.id, total, leases.c.amount_nusd).select_from(joined)
    return wanted.where(total < leases.c.amount_nusd)


def _draws_have_leases() -> Check:
    """What leases drew is forgotten with them."""
    joined = draws.outerjoin(leases, leases.c.id == draws.c.holder_id)
    wanted = select(draws.c.holder_id, literal(0), draws.c.amount_nusd).select_from(joined)
    return wanted.where(~draws.c.holder_id.contains("/"), leases.c.id.is_(None))


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


def _usage_equals_groups(kinds: Sequence[BookKind], sign: int, since_ns: int) -> Check:
    """Each settled group's entries in books of `kinds`, times `sign`, against the rows that it charged."""
    totals = select(usage.c.group_id, func.sum(_column_of(kinds[0])).label("total"))
    used = totals.where(usage.c.group_id.is_not(None)).group_by(usage.c.group_id).subquery()
    joined = entries.join(books, books.c.id == entries.c.book_id)
    sums = select(entries.c.group_id, func.sum(entries.c.amount_nusd).label("total")).select_from(joined)
    booked = sums.where(books.c.kind.in_([kind.value for kind in kinds])).group_by(entries.c.group_id).subquery()
    expected, found = func.coalesce(used.c.total, 0), sign * func.coalesce(booked.c.total, 0)
    groups = entry_groups.outerjoin(used, used.c.group_id == entry_groups.c.id)
    groups = groups.outerjoin(booked, booked.c.group_id == entry_groups.c.id)
    wanted = select(entry_groups.c.id, expected, found).select_from(groups)
    return wanted.where(entry_groups.c.kind == "settle", entry_groups.c.created_at_ns >= since_ns, expected != found)


def _column_of(kind: BookKind) -> ColumnElement[int]:
    if kind in WALLET_KINDS:
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


def _account_totals_equal_days() -> Check:
    """The totals per day stay when the rows are gone, so this proves every charge that was ever made."""
    sums = select(usage_days.c.account_id, func.sum(usage_days.c.cost_nusd).label("total"))
    used = sums.group_by(usage_days.c.account_id).subquery()
    total = func.coalesce(used.c.total, 0)
    joined = wallets.outerjoin(used, used.c.account_id == wallets.c.account_id)
    wanted = select(wallets.c.account_id, total, wallets.c.charged_nusd).select_from(joined)
    return wanted.where(total != wallets.c.charged_nusd)


def _closed_months_equal_days() -> Check:
    """Days that retention closed stand in the totals of their months."""
    sums = select(usage_days.c.account_id, func.sum(usage_days.c.cost_nusd).label("total"))
    closed = sums.where(usage_days.c.day == CLOSED_DAY).group_by(usage_days.c.account_id).subquery()
    added = select(usage_months.c.account_id, func.sum(usage_months.c.cost_nusd).label("total"))
    months = added.group_by(usage_months.c.account_id).subquery()
    expected, found = func.coalesce(closed.c.total, 0), func.coalesce(months.c.total, 0)
    joined = wallets.outerjoin(closed, closed.c.account_id == wallets.c.account_id)
    joined = joined.outerjoin(months, months.c.account_id == wallets.c.account_id)
    return select(wallets.c.account_id, expected, found).select_from(joined).where(expected != found)


def _days_equal_usage(since_ns: int) -> Check:
    """Each request stands once in the totals of its day. Counts requests: the subject is a key and a day."""
    first_day = max(CLOSED_DAY + 1, -(-since_ns // NS_PER_DAY))
    counted = select(usage.c.key_id, usage.c.day, func.count().label("total")).where(usage.c.day >= first_day)
    rows = counted.group_by(usage.c.key_id, usage.c.day).subquery()
    summed = select(usage_days.c.key_id, usage_days.c.day, func.sum(usage_days.c.requests).label("total"))
    days = summed.where(usage_days.c.day >= first_day).group_by(usage_days.c.key_id, usage_days.c.day).subquery()
    expected, found = func.coalesce(rows.c.total, 0), func.coalesce(days.c.total, 0)
    same = (rows.c.key_id == days.c.key_id) & (rows.c.day == days.c.day)
    joined = days.outerjoin(rows, same)
    subject = days.c.key_id + "/" + cast(days.c.day, Text)
    return select(subject, expected, found).select_from(joined).where(expected != found)
