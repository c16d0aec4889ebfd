"""The recurring work of payments: events, refunds and automatic top-ups carried on, repairs, an eye on disputes.

All of it blocks on Stripe or the database, so it runs on threads of its own, a few at a time.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from sqlalchemy import Connection, select, update

from dragonfly.infra.database import write
from dragonfly.payments.applying import EVENTS_AT_ONCE, apply_due_events
from dragonfly.payments.events import count_refusal
from dragonfly.payments.news import DISPUTE_RATE, EVENT_REFUSED
from dragonfly.payments.orders import StripeAway
from dragonfly.payments.queries import dispute_rate
from dragonfly.payments.recharge import IsBraked, recharge_due, resume_recharges
from dragonfly.payments.reconciling import reconcile
from dragonfly.payments.refunding import resume_refunds
from dragonfly.payments.rules import (
    DAY_NS,
    DISPUTE_RATE_ALARM_PER_MILLE,
    DISPUTE_RATE_WARNING_PER_MILLE,
)
from dragonfly.payments.tables import topups
from dragonfly.payments.topups import Cashier

P = ParamSpec("P")
T = TypeVar("T")

EVENTS_EVERY_S = 0.5
RECHARGES_EVERY_S = 15.0
REFUNDS_EVERY_S = 60.0
RECONCILE_EVERY_S = 3_600.0
WATCH_EVERY_S = 3_600.0
THREADS = 4
WAITING_MAX = 64
RATE_OVER_NS = 30 * DAY_NS
ADDRESSES_KEPT_NS = 30 * DAY_NS
FORGOTTEN_AT_ONCE = 1_000


class StripeThreads:
    """Runs what waits for Stripe off the event loop. Each piece of work is bounded by the time-outs of its calls."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(THREADS, thread_name_prefix="stripe")
        self._waiting = 0

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What `work` returns or raises; StripeAway when too much waits already."""
        if self._waiting >= WAITING_MAX:
            raise StripeAway
        self._waiting += 1
        try:
            future = self._executor.submit(work, *args, **kwargs)
        except RuntimeError:
            self._waiting -= 1
            raise StripeAway from None  # closed: the process is stopping
        future.add_done_callback(lambda _: self._ended())
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """Takes no more work; what runs ends by itself."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _ended(self) -> None:
        self._waiting -= 1


class Refusals:
    """Counts requests to the webhook that were not Stripe's, and writes the counts now and then: nobody outside can
    make us write a row for each."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}

    def add(self, reason: str) -> None:
        self._counts[reason] = self._counts.get(reason, 0) + 1

    def flush(self, cashier: Cashier) -> None:
        counts, self._counts = self._counts, {}
        if not counts:
            return
        with write(cashier.engine) as connection:
            for reason, count in counts.items():
                count_refusal(connection, reason, count=count, now_ns=cashier.clock.now_ns())
        cashier.tell([(EVENT_REFUSED, {"reason": reason}) for reason in counts])


def work_on_events(cashier: Cashier, refusals: Refusals) -> None:
    """Applies everything that waits."""
    refusals.flush(cashier)
    while apply_due_events(cashier) == EVENTS_AT_ONCE:
        pass


def work_on_recharges(cashier: Cashier, is_braked: IsBraked) -> None:
    """Automatic top-ups: those of which nothing was heard, then those that are due."""
    resume_recharges(cashier)
    recharge_due(cashier, is_braked)


def work_on_refunds(cashier: Cashier) -> None:
    """Approved refunds that Stripe was perhaps not asked for."""
    _as_far_as_stripe_answers(lambda: resume_refunds(cashier))


def repair(cashier: Cashier) -> None:
    """What webhooks missed."""
    _as_far_as_stripe_answers(lambda: reconcile(cashier))


def watch(cashier: Cashier) -> None:
    """Alarms on the rate of disputes; forgets what has served its time."""
    now_ns = cashier.clock.now_ns()
    with write(cashier.engine) as connection:
        rate = dispute_rate(connection, since_ns=now_ns - RATE_OVER_NS)
        forget_addresses(connection, now_ns=now_ns)
    per_mille = 1_000 * rate.disputes // max(1, rate.payments)
    if rate.disputes and per_mille >= DISPUTE_RATE_WARNING_PER_MILLE:
        fields: dict[str, str | int] = {
            "disputes": rate.disputes,
            "payments": rate.payments,
            "per_mille": per_mille,
            "is_alarm": int(per_mille >= DISPUTE_RATE_ALARM_PER_MILLE),
        }
        cashier.tell([(DISPUTE_RATE, fields)])


def forget_addresses(connection: Connection, *, now_ns: int) -> int:
    """Empties a bounded number of address hashes that are older than 30 days; how many."""
    stale = select(topups.c.id).where(
        topups.c.created_at_ns < now_ns - ADDRESSES_KEPT_NS, topups.c.address_digest.is_not(None)
    )
    emptied = update(topups).where(topups.c.id.in_(stale.limit(FORGOTTEN_AT_ONCE))).values(address_digest=None)
    return connection.execute(emptied).rowcount


def _as_far_as_stripe_answers(work: Callable[[], object]) -> None:
    try:
        work()
    except StripeAway:
        return  # the next turn goes on
