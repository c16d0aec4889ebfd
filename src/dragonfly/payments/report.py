"""What operators look at: Stripe against the books, and what each model earns. Amounts in nano-USD."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from sqlalchemy import Connection, func, select

from dragonfly.infra.database import read
from dragonfly.ledger.tables import entries, entry_groups
from dragonfly.payments.queries import topup_of_intent
from dragonfly.payments.rules import NUSD_PER_CENT
from dragonfly.payments.seen import IntentSeen, MovementSeen
from dragonfly.payments.tables import topups
from dragonfly.payments.topups import Cashier
from dragonfly.usage.tables import usage

MODELS_MAX = 1_000
DIFFERENCES_MAX = 200
CLEARING_BOOK = "stripe_clearing"
_KINDS = {
    "charge": ("top_up",),
    "refund": ("refund_complete", "tax_return"),
    "dispute": ("dispute_lost",),
    "payout": ("payout",),
    "fee": ("fee",),
}


class Line(NamedTuple):
    """One kind of movement, as Stripe's balance and as our books have it."""

    kind: str
    stripe_nusd: int
    books_nusd: int

    @property
    def difference_nusd(self) -> int:
        return self.stripe_nusd - self.books_nusd


class Difference(NamedTuple):
    """A payment that one side has and the other does not."""

    intent_id: str
    topup_id: str
    stripe_nusd: int
    books_nusd: int


class Report(NamedTuple):
    """Stripe against the books, between two moments."""

    lines: tuple[Line, ...]
    differences: tuple[Difference, ...]


class Margin(NamedTuple):
    """What a model earned and cost."""

    model: str
    requests: int
    revenue_nusd: int
    upstream_nusd: int
    absorbed_nusd: int

    @property
    def margin_nusd(self) -> int:
        return self.revenue_nusd - self.upstream_nusd


def compare(cashier: Cashier, *, since_s: int, until_s: int) -> Report:
    """Asks Stripe for its balance transactions and payments, and the ledger for the same. StripeAway."""
    moved = [one for one in cashier.calls.movements_since(since_s) if one.created_s < until_s]
    paid = [
        one
        for one in cashier.calls.intents_since(since_s)
        if one.created_s < until_s and one.status == "succeeded" and one.topup_id
    ]
    with read(cashier.engine) as connection:
        booked = _booked(connection, since_s * 10**9, until_s * 10**9)
        differences = tuple(_differences(connection, paid))
    return Report(tuple(_lines(_by_kind(moved), booked)), differences[:DIFFERENCES_MAX])


def margins(connection: Connection, *, since_ns: int, until_ns: int) -> list[Margin]:
    """Revenue and upstream cost per model, the dearest first. Usage rows live for 90 days."""
    cost, upstream, absorbed = (
        func.coalesce(func.sum(usage.c[name]), 0) for name in ("cost_nusd", "upstream_nusd", "absorbed_nusd")
    )
    wanted = (
        select(usage.c.model, func.count(), cost, upstream, absorbed)
        .where(usage.c.created_at_ns >= since_ns, usage.c.created_at_ns < until_ns)
        .group_by(usage.c.model)
        .order_by(cost.desc(), usage.c.model)
        .limit(MODELS_MAX)
    )
    return [Margin(row[0], *(int(value) for value in row[1:])) for row in connection.execute(wanted)]


def _by_kind(moved: Iterable[MovementSeen]) -> dict[str, int]:
    """Stripe's balance by kind, fees apart. The reversal of a dispute undoes it."""
    totals = dict.fromkeys(_KINDS, 0)
    for one in moved:
        kind = "dispute" if one.category.startswith("dispute") else one.category
        if one.kind in ("refund", "refund_failure"):
            kind = "refund"
        totals[kind] = totals.get(kind, 0) + one.amount_cents * NUSD_PER_CENT
        totals["fee"] -= one.fee_cents * NUSD_PER_CENT
    return totals


def _booked(connection: Connection, since_ns: int, until_ns: int) -> dict[str, int]:
    """The clearing account by kind of posting. It is negative for what Stripe holds for us, so the sign turns."""
    wanted = (
        select(entry_groups.c.kind, func.sum(entries.c.amount_nusd))
        .select_from(entry_groups.join(entries, entries.c.group_id == entry_groups.c.id))
        .where(
            entries.c.book_id == CLEARING_BOOK,
            entry_groups.c.created_at_ns >= since_ns,
            entry_groups.c.created_at_ns < until_ns,
        )
        .group_by(entry_groups.c.kind)
        .limit(MODELS_MAX)
    )
    return {str(kind): -int(amount) for kind, amount in connection.execute(wanted)}


def _lines(at_stripe: Mapping[str, int], booked: Mapping[str, int]) -> Iterable[Line]:
    known = {posting for postings in _KINDS.values() for posting in postings}
    for kind, amount in at_stripe.items():
        yield Line(kind, amount, sum(booked.get(posting, 0) for posting in _KINDS.get(kind, ())))
    for kind in sorted(set(booked) - known):
        yield Line(kind, 0, booked[kind])


def _differences(connection: Connection, paid: Iterable[IntentSeen]) -> Iterable[Difference]:
    for intent in paid:
        topup = topup_of_intent(connection, intent.id)
        ours_cents = topup.total_cents or 0 if topup is not None and topup.state == "paid" else 0
        if ours_cents != intent.received_cents:
            yield Difference(
                intent.id, intent.topup_id, intent.received_cents * NUSD_PER_CENT, ours_cents * NUSD_PER_CENT
            )


def topup_totals(connection: Connection, *, since_ns: int) -> dict[str, int]:
    """How many top-ups are in which state."""
    wanted = select(topups.c.state, func.count()).where(topups.c.created_at_ns >= since_ns).group_by(topups.c.state)
    return {str(state): int(count) for state, count in connection.execute(wanted.limit(MODELS_MAX))}
