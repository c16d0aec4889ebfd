"""Reads of payments. Amounts in cents, or nano-USD where the name says so."""

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import ColumnElement, Connection, Select, func, or_, select

from dragonfly.accounts.tables import accounts
from dragonfly.core.ids import AccountId
from dragonfly.payments.rules import DAY_NS, HOUR_NS, NUSD_PER_CENT, Standing
from dragonfly.payments.tables import (
    billing_details,
    external_events,
    fraud_warnings,
    payment_customers,
    payment_disputes,
    payment_freezes,
    payment_refunds,
    payment_refusals,
    topups,
)

PAGE_MAX = 200
COUNTED_MAX = 1_000
"""Counting for limits stops here."""
SEARCH_LENGTH_MAX = 200


class Topup(NamedTuple):
    """A top-up as stored."""

    id: str
    account_id: AccountId
    kind: str
    state: str
    amount_cents: int
    tax_cents: int
    total_cents: int | None
    credit_nusd: int | None
    language: str
    session_id: str | None
    session_url: str | None
    intent_id: str | None
    charge_id: str | None
    receipt_url: str | None
    method: str | None
    country: str | None
    failure: str | None
    created_at_ns: int
    expires_at_ns: int | None
    paid_at_ns: int | None
    checked_at_ns: int


class Refund(NamedTuple):
    """A refund as stored."""

    id: str
    topup_id: str
    account_id: AccountId
    source: str
    state: str
    amount_cents: int
    credit_nusd: int
    reason: str
    stripe_refund_id: str | None
    failure: str | None
    created_at_ns: int
    decided_at_ns: int | None
    ended_at_ns: int | None


class Dispute(NamedTuple):
    """A dispute as stored."""

    id: str
    topup_id: str
    account_id: AccountId
    state: str
    amount_cents: int
    credit_nusd: int
    reason: str
    evidence: str
    due_at_ns: int | None
    opened_at_ns: int
    closed_at_ns: int | None


class FraudWarning(NamedTuple):
    """An early fraud warning as stored."""

    id: str
    topup_id: str
    account_id: AccountId
    kind: str
    response: str
    created_at_ns: int


class StoredEvent(NamedTuple):
    """What Stripe told, as stored."""

    event_id: str
    type: str
    object_id: str
    details: str
    state: str
    reason: str | None
    account_id: AccountId | None
    tries: int
    happened_at_ns: int
    received_at_ns: int
    handled_at_ns: int | None


class Billing(NamedTuple):
    """What stands on receipts."""

    name: str = ""
    company: str = ""
    address: str = ""
    country: str = ""
    tax_id: str = ""


class Rate(NamedTuple):
    """Disputes among payments by card."""

    disputes: int
    payments: int


NO_BILLING = Billing()


def topup_by_id(connection: Connection, topup_id: str) -> Topup | None:
    return _topup(connection, topups.c.id == topup_id)


def topup_of_account(connection: Connection, account_id: AccountId, topup_id: str) -> Topup | None:
    """The account's own top-up; None for somebody else's."""
    return _topup(connection, (topups.c.id == topup_id) & (topups.c.account_id == account_id))


def topup_of_key(connection: Connection, account_id: AccountId, client_key: str) -> Topup | None:
    """What an idempotency key of the account made."""
    return _topup(connection, (topups.c.client_key == client_key) & (topups.c.account_id == account_id))


def topup_of_session(connection: Connection, session_id: str) -> Topup | None:
    return _topup(connection, topups.c.session_id == session_id)


def topup_of_intent(connection: Connection, intent_id: str) -> Topup | None:
    return _topup(connection, topups.c.intent_id == intent_id)


def topups_of_account(
    connection: Connection, account_id: AccountId, *, before: tuple[int, str] | None = None, limit: int = 50
) -> list[Topup]:
    """The newest first; `before` is (created_at_ns, id) of the last seen."""
    wanted = _topups().where(topups.c.account_id == account_id)
    return _topup_page(connection, wanted, before, limit)


def search_topups(
    connection: Connection, text: str, *, before: tuple[int, str] | None = None, limit: int = 50
) -> list[Topup]:
    """For operators: by any id of ours or Stripe's, or an account's id; the newest of all for an empty text."""
    wanted = _topups()
    if text:
        word = text[:SEARCH_LENGTH_MAX]
        of_refund = select(payment_refunds.c.topup_id).where(
            or_(payment_refunds.c.id == word, payment_refunds.c.stripe_refund_id == word)
        )
        of_dispute = select(payment_disputes.c.topup_id).where(payment_disputes.c.id == word)
        of_customer = select(payment_customers.c.account_id).where(payment_customers.c.stripe_customer_id == word)
        wanted = wanted.where(
            or_(
                *(topups.c[name] == word for name in ("id", "account_id", "session_id", "intent_id", "charge_id")),
                topups.c.id.in_(of_refund),
                topups.c.id.in_(of_dispute),
                topups.c.account_id.in_(of_customer),
            )
        )
    return _topup_page(connection, wanted, before, limit)


def unsettled_topups(connection: Connection, *, checked_before_ns: int, limit: int = 100) -> list[Topup]:
    """Those that may still be paid and were not asked about for a while, the longest first."""
    wanted = _topups().where(
        topups.c.state.in_(("created", "open", "processing")), topups.c.checked_at_ns <= checked_before_ns
    )
    page = wanted.order_by(topups.c.checked_at_ns, topups.c.id).limit(min(limit, PAGE_MAX))
    return [_as_topup(row) for row in connection.execute(page)]


def standing_of(
    connection: Connection, account_id: AccountId, *, address_digest: str | None, now_ns: int
) -> Standing:
    """What limits need to know."""
    mine = topups.c.account_id == account_id
    paid = select(func.coalesce(func.sum(topups.c.credit_nusd), 0), func.min(topups.c.paid_at_ns))
    settled_nusd, first_paid_at_ns = connection.execute(paid.where(mine, topups.c.state == "paid")).one()
    back = select(func.coalesce(func.sum(payment_refunds.c.credit_nusd), 0)).where(
        payment_refunds.c.account_id == account_id, payment_refunds.c.state.in_(("pending", "succeeded"))
    )
    disputed = select(func.coalesce(func.sum(payment_disputes.c.credit_nusd), 0)).where(
        payment_disputes.c.account_id == account_id, payment_disputes.c.state.in_(("open", "lost"))
    )
    gone_nusd = int(connection.execute(back).scalar_one()) + int(connection.execute(disputed).scalar_one())
    hour = (topups.c.kind == "checkout") & (topups.c.created_at_ns > now_ns - HOUR_NS)
    of_address = 0
    if address_digest is not None:
        of_address = _count(connection, hour & (topups.c.address_digest == address_digest))
    return Standing(
        settled_cents=max(0, int(settled_nusd) - gone_nusd) // NUSD_PER_CENT,
        first_paid_at_ns=first_paid_at_ns,
        checkouts_hour=_count(connection, hour & mine),
        address_checkouts_hour=of_address,
        declines_day=declines_since(connection, account_id, since_ns=now_ns - DAY_NS),
        is_frozen=is_frozen(connection, account_id),
    )


def declines_since(connection: Connection, account_id: AccountId, *, since_ns: int) -> int:
    """How often a card was declined."""
    inner = select(external_events.c.event_id).where(
        external_events.c.account_id == account_id,
        external_events.c.type == "payment_intent.payment_failed",
        external_events.c.received_at_ns > since_ns,
    )
    return int(connection.execute(select(func.count()).select_from(inner.limit(COUNTED_MAX).subquery())).scalar_one())


def is_frozen(connection: Connection, account_id: AccountId) -> bool:
    """Whether the account was stopped: by an operator, or because of a dispute or a warning."""
    stopped = select(accounts.c.frozen_at_ns).where(accounts.c.id == account_id)
    if connection.execute(stopped).scalar_one_or_none() is not None:
        return True
    caused = select(payment_freezes.c.cause).where(payment_freezes.c.account_id == account_id).limit(1)
    return connection.execute(caused).scalar_one_or_none() is not None


def customer_of(connection: Connection, account_id: AccountId) -> str | None:
    """Stripe's id of the account."""
    wanted = select(payment_customers.c.stripe_customer_id).where(payment_customers.c.account_id == account_id)
    return connection.execute(wanted).scalar_one_or_none()


def refund_by_id(connection: Connection, refund_id: str) -> Refund | None:
    found = connection.execute(_refunds().where(payment_refunds.c.id == refund_id)).one_or_none()
    return None if found is None else _as_refund(found)


def refunds_of_topup(connection: Connection, topup_id: str) -> list[Refund]:
    wanted = _refunds().where(payment_refunds.c.topup_id == topup_id)
    page = wanted.order_by(payment_refunds.c.created_at_ns, payment_refunds.c.id).limit(PAGE_MAX)
    return [_as_refund(row) for row in connection.execute(page)]


def refunds_in(connection: Connection, state: str, *, after: str = "", limit: int = 50) -> list[Refund]:
    """For operators and jobs: refunds of a state in the order of their ids."""
    wanted = _refunds().where(payment_refunds.c.state == state, payment_refunds.c.id > after)
    page = wanted.order_by(payment_refunds.c.id).limit(min(limit, PAGE_MAX))
    return [_as_refund(row) for row in connection.execute(page)]


def refunds_of_account(connection: Connection, account_id: AccountId, *, limit: int = 50) -> list[Refund]:
    wanted = _refunds().where(payment_refunds.c.account_id == account_id)
    page = wanted.order_by(payment_refunds.c.id.desc()).limit(min(limit, PAGE_MAX))
    return [_as_refund(row) for row in connection.execute(page)]


def dispute_by_id(connection: Connection, dispute_id: str) -> Dispute | None:
    row = connection.execute(_disputes().where(payment_disputes.c.id == dispute_id)).one_or_none()
    return None if row is None else _as_dispute(row)


def disputes_of_topup(connection: Connection, topup_id: str) -> list[Dispute]:
    wanted = _disputes().where(payment_disputes.c.topup_id == topup_id).order_by(payment_disputes.c.id)
    return [_as_dispute(row) for row in connection.execute(wanted.limit(PAGE_MAX))]


def disputes_page(connection: Connection, *, before: tuple[int, str] | None = None, limit: int = 50) -> list[Dispute]:
    """For operators: the newest first."""
    at, key = payment_disputes.c.opened_at_ns, payment_disputes.c.id
    wanted = _disputes().order_by(at.desc(), key.desc())
    if before is not None:
        wanted = wanted.where((at < before[0]) | ((at == before[0]) & (key < before[1])))
    return [_as_dispute(row) for row in connection.execute(wanted.limit(min(limit, PAGE_MAX)))]


def warnings_page(connection: Connection, *, limit: int = 50) -> list[FraudWarning]:
    """For operators: early fraud warnings, the newest first."""
    columns = [fraud_warnings.c[name] for name in FraudWarning._fields]
    wanted = select(*columns).order_by(fraud_warnings.c.created_at_ns.desc(), fraud_warnings.c.id.desc())
    return [FraudWarning._make(row) for row in connection.execute(wanted.limit(min(limit, PAGE_MAX)))]


def dispute_rate(connection: Connection, *, since_ns: int) -> Rate:
    """Disputes opened, and payments by card settled, since then."""
    opened = select(func.count()).select_from(payment_disputes).where(payment_disputes.c.opened_at_ns >= since_ns)
    settled = (
        select(func.count())
        .select_from(topups)
        .where(topups.c.state == "paid", topups.c.method.in_(("card", "link")), topups.c.paid_at_ns >= since_ns)
    )
    return Rate(int(connection.execute(opened).scalar_one()), int(connection.execute(settled).scalar_one()))


def events_due(connection: Connection, *, now_ns: int, limit: int = 50) -> list[StoredEvent]:
    """What is to be applied now, in the order of arrival."""
    wanted = _events().where(external_events.c.state == "new", external_events.c.due_at_ns <= now_ns)
    page = wanted.order_by(external_events.c.due_at_ns, external_events.c.event_id).limit(min(limit, PAGE_MAX))
    return [StoredEvent._make(row) for row in connection.execute(page)]


def events_in(connection: Connection, state: str, *, limit: int = 50) -> list[StoredEvent]:
    """For operators: events of a state, the newest first."""
    at = external_events.c.received_at_ns
    wanted = _events().where(external_events.c.state == state).order_by(at.desc(), external_events.c.event_id)
    return [StoredEvent._make(row) for row in connection.execute(wanted.limit(min(limit, PAGE_MAX)))]


def refusals_since(connection: Connection, *, first_day: int) -> dict[str, int]:
    """Webhooks that were refused before anything could be stored, by reason."""
    total = func.sum(payment_refusals.c.count)
    wanted = select(payment_refusals.c.reason, total).where(payment_refusals.c.day >= first_day)
    rows = connection.execute(wanted.group_by(payment_refusals.c.reason).limit(PAGE_MAX))
    return {str(reason): int(count) for reason, count in rows}


def billing_of(connection: Connection, account_id: AccountId) -> Billing:
    """What the customer wants on receipts; empty until they say so."""
    wanted = select(*(billing_details.c[name] for name in Billing._fields))
    row = connection.execute(wanted.where(billing_details.c.account_id == account_id)).one_or_none()
    return NO_BILLING if row is None else Billing(*row)


def _topups() -> Select[tuple[object, ...]]:
    return select(*(topups.c[name] for name in Topup._fields))


def _as_topup(row: Sequence[object]) -> Topup:
    return Topup._make(row)


def _topup(connection: Connection, condition: ColumnElement[bool]) -> Topup | None:
    row = connection.execute(_topups().where(condition)).one_or_none()
    return None if row is None else _as_topup(row)


def _topup_page(
    connection: Connection, wanted: Select[tuple[object, ...]], before: tuple[int, str] | None, limit: int
) -> list[Topup]:
    at, key = topups.c.created_at_ns, topups.c.id
    if before is not None:
        wanted = wanted.where((at < before[0]) | ((at == before[0]) & (key < before[1])))
    page = wanted.order_by(at.desc(), key.desc()).limit(min(limit, PAGE_MAX))
    return [_as_topup(row) for row in connection.execute(page)]


def _count(connection: Connection, condition: ColumnElement[bool]) -> int:
    inner = select(topups.c.id).where(condition).limit(COUNTED_MAX).subquery()
    return int(connection.execute(select(func.count()).select_from(inner)).scalar_one())


def _refunds() -> Select[tuple[object, ...]]:
    return select(*(payment_refunds.c[name] for name in Refund._fields))


def _as_refund(row: Sequence[object]) -> Refund:
    return Refund._make(row)


def _disputes() -> Select[tuple[object, ...]]:
    return select(*(payment_disputes.c[name] for name in Dispute._fields))


def _as_dispute(row: Sequence[object]) -> Dispute:
    return Dispute._make(row)


def _events() -> Select[tuple[object, ...]]:
    return select(*(external_events.c[name] for name in StoredEvent._fields))
