"""What an operator is told of by mail: once for each dispute, warning, difference and kind of trouble."""

import json
from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, select, update

from dragonfly.core.secrets import Secret
from dragonfly.infra.database import read, write
from dragonfly.mail.tables import mail_outbox
from dragonfly.payments.applying import apply_due_events
from dragonfly.payments.jobs import REFUSALS_ALARM, Refusals, Repairs, watch, work_on_events
from dragonfly.payments.orders import StripeRefused
from dragonfly.payments.queries import events_in
from dragonfly.payments.rules import EVENT_TRIES_MAX
from dragonfly.payments.simulated.faults import Outage
from dragonfly.payments.stripe_calls import StripeCalls
from dragonfly.payments.tables import external_events
from tests.factories import MovableClock
from tests.store.till import TillDesk, make_terms, till_desk

DISPUTED, SUSPECTED = "4000000000000259", "4000000000005423"


@pytest.fixture
def desk(engine: Engine, clock: MovableClock) -> Iterator[TillDesk]:
    with till_desk(engine, clock, terms=make_terms(operator_address="ops@example.com")) as made:
        yield made


def alerts(desk: TillDesk) -> list[tuple[str, str]]:
    """What each mail to the operator is about, and what it says."""
    wanted = select(mail_outbox.c.details).where(mail_outbox.c.address == "ops@example.com")
    with read(desk.engine) as connection:
        found = [json.loads(details) for details in connection.execute(wanted.order_by(mail_outbox.c.id)).scalars()]
    return [(values["event"], values["detail"]) for values in found]


def test_a_dispute_is_told_once_with_the_day_until_which_evidence_is_taken(desk: TillDesk) -> None:
    topup = desk.begin(desk.account())
    assert desk.pay(topup, DISPUTED) == "paid"
    events = desk.waiting()
    desk.deliver([*events, *events])
    ((event, detail),) = alerts(desk)
    due_s = next(iter(desk.fake.state.disputes)).due_s
    assert event == "dispute_opened"
    assert topup.id in detail
    assert "20.00 USD" in detail
    assert due_s > desk.clock.now_ns() // 10**9
    assert "2026-" in detail


def test_a_fraud_warning_is_told_once_with_what_was_done(desk: TillDesk) -> None:
    assert desk.pay(desk.begin(desk.account()), SUSPECTED) == "paid"
    events = desk.waiting()
    desk.deliver([*events, *events])
    Repairs().run(desk.cashier)
    ((event, detail),) = alerts(desk)
    assert event == "fraud_warning"
    assert "unauthorized_use_of_card" in detail
    assert "What was done: refund" in detail


def test_a_dispute_rate_above_a_threshold_is_told_once_a_month(desk: TillDesk, clock: MovableClock) -> None:
    alice = desk.account()
    desk.paid(alice)
    watch(desk.cashier)
    assert alerts(desk) == []
    assert desk.pay(desk.begin(alice), DISPUTED) == "paid"
    desk.deliver()
    for _ in range(2):
        watch(desk.cashier)
        clock.move(3_600)
    rates = [detail for event, detail in alerts(desk) if event == "dispute_rate"]
    assert len(rates) == 1
    assert "1 disputes in 2 payments" in rates[0]
    assert "500 in a thousand, above the threshold of 5" in rates[0]


def test_a_reconciliation_that_fails_twice_in_a_row_is_told_once(desk: TillDesk, clock: MovableClock) -> None:
    repairs = Repairs()
    for hours, failing in enumerate((True, False, True, True, True)):
        for _ in range(3 if failing else 0):
            desk.fake.plan("GET", "/v1/payment_intents", Outage.REFUSED)
        repairs.run(desk.cashier)
        assert len(alerts(desk)) == (hours >= 3)
        clock.move(3_600)
    assert alerts(desk)[0][0] == "reconciliation_failed"


def test_a_key_that_stripe_refuses_is_told_and_stays_an_error(desk: TillDesk) -> None:
    repairs = Repairs()
    desk.fake.start()
    desk.cashier.calls = StripeCalls(Secret("sk_test_another"), api_base=desk.fake.url)
    for _ in range(2):
        with pytest.raises(StripeRefused):
            repairs.run(desk.cashier)
    assert [event for event, _ in alerts(desk)] == ["reconciliation_failed"]


def test_a_payment_that_does_not_fit_is_told_once_also_when_only_the_reconciler_sees_it(
    desk: TillDesk, clock: MovableClock
) -> None:
    topup = desk.begin(desk.account())
    assert topup.session_id is not None
    desk.fake.session(topup.session_id).metadata["account"] = "acc-of-somebody-else"
    assert desk.pay(topup) == "paid"
    desk.deliver()
    clock.move(7_200)
    for _ in range(2):
        Repairs().run(desk.cashier)
    ((event, detail),) = alerts(desk)
    assert event == "payment_differs"
    assert "wrong_account" in detail


def test_refused_webhooks_are_told_when_they_are_many_once_a_day(desk: TillDesk, clock: MovableClock) -> None:
    refusals = Refusals()
    for count in (REFUSALS_ALARM - 1, 1, 5):
        for _ in range(count):
            refusals.add("forged")
        work_on_events(desk.cashier, refusals)
        assert len(alerts(desk)) == (count != REFUSALS_ALARM - 1)
    clock.move(86_400)
    for _ in range(REFUSALS_ALARM):
        refusals.add("forged")
    work_on_events(desk.cashier, refusals)
    assert [event for event, _ in alerts(desk)] == ["webhooks_refused", "webhooks_refused"]


def test_an_event_that_is_given_up_is_told(desk: TillDesk) -> None:
    assert desk.pay(desk.begin(desk.account())) == "paid"
    (event, *_) = [one for one in desk.waiting() if one["type"] == "checkout.session.completed"]
    desk.receive(event)
    with write(desk.engine) as connection:
        connection.execute(update(external_events).values(tries=EVENT_TRIES_MAX - 1))
    for _ in range(3):
        desk.fake.plan("GET", "/v1/", Outage.REFUSED)
    apply_due_events(desk.cashier)
    apply_due_events(desk.cashier)
    with read(desk.engine) as connection:
        assert [one.event_id for one in events_in(connection, "dead")] == [event["id"]]
    ((told, detail),) = alerts(desk)
    assert told == "event_given_up"
    assert f"{EVENT_TRIES_MAX} times" in detail


@pytest.mark.parametrize(("language", "word"), [("en", "is disputed"), ("zh", "被提出争议")])
def test_alerts_speak_the_operators_language_and_can_be_read(desk: TillDesk, language: str, word: str) -> None:
    desk.cashier.terms = make_terms(operator_address="ops@example.com", operator_language=language)
    assert desk.pay(desk.begin(desk.account()), DISPUTED) == "paid"
    desk.deliver()
    ((_, detail),) = alerts(desk)
    assert word in detail


def test_where_no_operator_is_named_nobody_is_told(desk: TillDesk) -> None:
    desk.cashier.terms = make_terms()
    assert desk.pay(desk.begin(desk.account()), DISPUTED) == "paid"
    desk.deliver()
    assert alerts(desk) == []
