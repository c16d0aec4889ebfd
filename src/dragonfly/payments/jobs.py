"""The recurring work of payments: events, refunds and automatic top-ups carried on, repairs, an eye on disputes.

All of it blocks on Stripe or the database, so it runs on threads of its own, a few at a time.
"""

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from sqlalchemy import Connection, select, update

from dragonfly.core.errors import DragonflyError
from dragonfly.infra.database import DatabaseAway, write
from dragonfly.payments.alerts import Alert, alert_operator
from dragonfly.payments.applying import EVENTS_AT_ONCE, apply_due_events
from dragonfly.payments.events import count_refusal
from dragonfly.payments.news import DISPUTE_RATE, EVENT_REFUSED
from dragonfly.payments.orders import StripeAway
from dragonfly.payments.queries import dispute_rate
from dragonfly.payments.recharge import IsBraked, recharge_due, resume_recharges
from dragonfly.payments.reconciling import PAYMENTS_BACK_S, reconcile
from dragonfly.payments.refunding import resume_refunds
from dragonfly.payments.report import compare
from dragonfly.payments.rules import (
    DAY_NS,
    DISPUTE_RATE_ALARM_PER_MILLE,
    DISPUTE_RATE_WARNING_PER_MILLE,
    HOUR_NS,
    month_of,
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
REFUSALS_ALARM = 10
"""So many refused requests to the webhook in a day, for one reason, are told to the operator."""
REPAIR_FAILURES_ALARM = 2
DIFFERENCE_AGE_S = 3_600
"""A payment that is younger is perhaps on its way."""


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
                _count(connection, cashier, reason, count)
        cashier.tell([(EVENT_REFUSED, {"reason": reason}) for reason in counts])


def _count(connection: Connection, cashier: Cashier, reason: str, count: int) -> None:
    """An operator is told once a day and reason, when there are many: a few are strangers who try."""
    now_ns = cashier.clock.now_ns()
    today = count_refusal(connection, reason, count=count, now_ns=now_ns)
    if today >= REFUSALS_ALARM:
        values: dict[str, str | int] = {"count": today, "reason": reason}
        key = f"{reason}/{now_ns // DAY_NS}"
        alert_operator(
            connection, cashier.ids, cashier.terms, Alert.WEBHOOKS_REFUSED, key=key, values=values, now_ns=now_ns
        )


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


class Repairs:
    """What webhooks missed, now and then. One failure is an outage that passes; several in a row are told."""

    def __init__(self) -> None:
        self._failures = 0
        self._failing_since_ns = 0

    def run(self, cashier: Cashier) -> None:
        try:
            reconcile(cashier)
            alert_differences(cashier)
        except DatabaseAway:
            raise
        except DragonflyError as failure:
            self._fail(cashier, failure.code)
            if not isinstance(failure, StripeAway):
                raise
        else:
            self._failures = 0

    def _fail(self, cashier: Cashier, reason: str) -> None:
        now_ns = cashier.clock.now_ns()
        self._failing_since_ns = self._failing_since_ns if self._failures else now_ns
        self._failures += 1
        if self._failures != REPAIR_FAILURES_ALARM:
            return
        values: dict[str, str | int] = {"times": self._failures, "reason": reason}
        key = str(self._failing_since_ns // HOUR_NS)
        with write(cashier.engine) as connection:
            alert_operator(
                connection,
                cashier.ids,
                cashier.terms,
                Alert.RECONCILIATION_FAILED,
                key=key,
                values=values,
                now_ns=now_ns,
            )


def alert_differences(cashier: Cashier) -> int:
    """Tells the operator of payments that Stripe has and the books have not, or with another amount, although
    everything was repaired that could be; how many there are."""
    now_ns = cashier.clock.now_ns()
    now_s = now_ns // 10**9
    report = compare(cashier, since_s=now_s - PAYMENTS_BACK_S, until_s=now_s - DIFFERENCE_AGE_S)
    with write(cashier.engine) as connection:
        for one in report.differences:
            values = {"topup": one.topup_id, "reason": one.intent_id}
            alert_operator(
                connection,
                cashier.ids,
                cashier.terms,
                Alert.PAYMENT_DIFFERS,
                key=one.topup_id,
                values=values,
                now_ns=now_ns,
            )
    return len(report.differences)


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
        _alert_rate(cashier, fields, now_ns)


def _alert_rate(cashier: Cashier, fields: Mapping[str, str | int], now_ns: int) -> None:
    """Once a month for each of the two thresholds: the rate is one over 30 days."""
    is_alarm = bool(fields["is_alarm"])
    threshold = DISPUTE_RATE_ALARM_PER_MILLE if is_alarm else DISPUTE_RATE_WARNING_PER_MILLE
    key = f"{threshold}/{month_of(now_ns)[0] // DAY_NS}"
    values = {**fields, "threshold": threshold}
    with write(cashier.engine) as connection:
        alert_operator(
            connection, cashier.ids, cashier.terms, Alert.DISPUTE_RATE, key=key, values=values, now_ns=now_ns
        )


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
