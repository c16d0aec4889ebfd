"""Applies stored events: each asks Stripe about one payment and ends in the transaction that changed the books."""

from sqlalchemy import Connection

from dragonfly.core.errors import DragonflyError
from dragonfly.core.ids import AccountId
from dragonfly.infra.database import DatabaseAway, read, write
from dragonfly.payments.alerts import Alert, alert_operator
from dragonfly.payments.events import Details, end_event, misfit, postpone_event, read_details
from dragonfly.payments.news import EVENT_GIVEN_UP, EVENT_REFUSED
from dragonfly.payments.orders import ObjectMissing
from dragonfly.payments.queries import (
    StoredEvent,
    Topup,
    events_due,
    topup_by_id,
    topup_of_intent,
    topup_of_session,
)
from dragonfly.payments.recharge import forget_card, relabel_card
from dragonfly.payments.rules import EVENT_TRIES_MAX, retry_after_s
from dragonfly.payments.topups import Cashier
from dragonfly.payments.warnings import answer_warning

EVENTS_AT_ONCE = 50


def apply_due_events(cashier: Cashier) -> int:
    """Applies a page of what waits; how many were looked at. DatabaseAway goes to the caller."""
    with read(cashier.engine) as connection:
        due = events_due(connection, now_ns=cashier.clock.now_ns(), limit=EVENTS_AT_ONCE)
    for event in due:
        apply_event(cashier, event)
    return len(due)


def apply_event(cashier: Cashier, event: StoredEvent) -> None:
    """Applies one event, or postpones it when Stripe does not answer."""
    try:
        _apply(cashier, event)
    except DatabaseAway:
        raise
    except ObjectMissing:
        _end(cashier, event, "refused", "unknown_object")
    except DragonflyError:
        _postpone(cashier, event)


def _apply(cashier: Cashier, event: StoredEvent) -> None:
    details = read_details(event.details)
    if event.type.startswith("payment_method."):
        _apply_method(cashier, event, details)
        return
    topup = find_topup(cashier, details)
    if topup is None:
        _end(cashier, event, "done", "not_ours")
        return
    problem = misfit(details, topup)
    if problem:
        _end(cashier, event, "refused", problem, topup.account_id)
        return
    if details.object == "radar.early_fraud_warning":
        answer_warning(cashier, topup, cashier.calls.warning(details.id))

    def end(connection: Connection) -> None:
        current = topup_by_id(connection, topup.id)
        is_misfit = current is not None and current.state == "mismatch"
        end_event(
            connection,
            event.event_id,
            "refused" if is_misfit else "done",
            reason=current.failure if is_misfit and current is not None else None,
            account_id=topup.account_id,
            now_ns=cashier.clock.now_ns(),
        )

    cashier.settle(topup, session_id=details.session, intent_id=details.intent, also=end)


def find_topup(cashier: Cashier, details: Details) -> Topup | None:
    """The top-up that an event is about; Stripe is asked when our row does not know the payment yet."""
    with read(cashier.engine) as connection:
        topup = topup_of_session(connection, details.session) if details.session else None
        if topup is None and details.intent:
            topup = topup_of_intent(connection, details.intent)
        if topup is None and details.topup:
            topup = topup_by_id(connection, details.topup)
    if topup is not None or not details.intent or details.topup:
        return topup
    named = cashier.calls.intent(details.intent).topup_id
    with read(cashier.engine) as connection:
        return topup_by_id(connection, named) if named else None


def _apply_method(cashier: Cashier, event: StoredEvent, details: Details) -> None:
    now_ns = cashier.clock.now_ns()
    with write(cashier.engine) as connection:
        if event.type == "payment_method.detached":
            told = forget_card(connection, details.id, now_ns=now_ns)
        else:
            told = relabel_card(connection, details.id, details.card, now_ns=now_ns)
        end_event(connection, event.event_id, "done", now_ns=now_ns)
    cashier.tell(told)


def _end(cashier: Cashier, event: StoredEvent, state: str, reason: str, account_id: AccountId | None = None) -> None:
    with write(cashier.engine) as connection:
        ended = end_event(
            connection, event.event_id, state, reason=reason, account_id=account_id, now_ns=cashier.clock.now_ns()
        )
    if ended and state == "refused":
        cashier.tell([(EVENT_REFUSED, {"reason": reason})])


def _postpone(cashier: Cashier, event: StoredEvent) -> None:
    tries = event.tries + 1
    now_ns = cashier.clock.now_ns()
    with write(cashier.engine) as connection:
        if tries >= EVENT_TRIES_MAX:
            end_event(connection, event.event_id, "dead", reason="tries", now_ns=now_ns)
            values: dict[str, str | int] = {"event": event.event_id, "type": event.type, "tries": tries}
            alert_operator(
                connection,
                cashier.ids,
                cashier.terms,
                Alert.EVENT_GIVEN_UP,
                key=event.event_id,
                values=values,
                now_ns=now_ns,
            )
        else:
            due_at_ns = now_ns + retry_after_s(tries - 1) * 10**9
            postpone_event(connection, event.event_id, tries=tries, due_at_ns=due_at_ns)
    if tries >= EVENT_TRIES_MAX:
        cashier.tell([(EVENT_GIVEN_UP, {"type": event.type, "tries": tries})])
