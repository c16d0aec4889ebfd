"""Top-ups: what is asked of Stripe, what is refused, what is credited, and what never comes near us."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest
from sqlalchemy import Engine, select, text, update

from dragonfly.accounts.actions import freeze_account
from dragonfly.admission.verify import verify
from dragonfly.core.ids import AccountId
from dragonfly.core.secrets import Secret
from dragonfly.infra.database import read, write
from dragonfly.ledger.queries import wallet_of
from dragonfly.payments.applying import apply_due_events
from dragonfly.payments.events import EventRefused, verify_event
from dragonfly.payments.orders import StripeAway
from dragonfly.payments.queries import events_in, search_topups, topup_by_id
from dragonfly.payments.reconciling import reconcile
from dragonfly.payments.rules import AmountInvalid
from dragonfly.payments.simulated.delivery import sign
from dragonfly.payments.simulated.faults import Outage
from dragonfly.payments.simulated.shapes import Shapes
from dragonfly.payments.tables import topups
from dragonfly.payments.topups import PaymentsPaused, TooManyCheckouts, TopupConflict
from dragonfly.privacy.inventory import all_tables
from tests.factories import MovableClock, make_account
from tests.store.till import PAID, TillDesk, make_terms, till_desk

DECLINED = "4000000000000002"


def balance_usd(engine: Engine, account_id: AccountId) -> float:
    with read(engine) as connection:
        wallet = wallet_of(connection, account_id)
    return 0 if wallet is None else wallet.balance_nusd / 1e9


def assert_clean(engine: Engine) -> None:
    with read(engine) as connection:
        assert verify(connection).findings == ()


def test_a_payment_is_credited_and_what_stripe_was_asked_is_ours(engine: Engine, clock: MovableClock) -> None:
    with till_desk(engine, clock) as desk:
        alice = desk.account()
        topup = desk.begin(alice, "12.50", key="order-1")
        (made,) = [call for call in desk.fake.calls if call.path == "/v1/checkout/sessions"]
        assert made.idempotency_key == f"checkout/{topup.id}"
        asked = dict(parse_qsl(made.text))
        assert asked["line_items[0][price_data][unit_amount]"] == "1250"
        assert asked["line_items[0][quantity]"] == "1"
        assert asked["metadata[topup]"] == asked["payment_intent_data[metadata][topup]"] == topup.id
        assert topup.state == "open"
        assert desk.begin(alice, "12.50", key="order-1") == topup, "the same key is the same top-up"
        with pytest.raises(TopupConflict):
            desk.begin(alice, "13", key="order-1")
        assert desk.pay(topup) == "paid"
        desk.deliver()
        stored = desk.stored(topup)
        assert (stored.state, stored.credit_nusd, stored.method) == ("paid", 12_500_000_000, "card")
        assert balance_usd(engine, alice) == 12.5
    assert_clean(engine)


@pytest.mark.parametrize(
    ("tax", "credit_nusd", "tax_cents", "total_cents"),
    [
        ("off", 10_000_000_000, 0, 1_000),
        ("exclusive", 10_000_000_000, 190, 1_190),
        ("inclusive", 8_400_000_000, 160, 1_000),
    ],
)
def test_the_credit_is_the_amount_before_tax(
    engine: Engine, clock: MovableClock, tax: str, credit_nusd: int, tax_cents: int, total_cents: int
) -> None:
    with till_desk(engine, clock, terms=make_terms(tax=tax)) as desk:
        topup = desk.paid(desk.account(), "10")
        assert (topup.credit_nusd, topup.tax_cents, topup.total_cents) == (credit_nusd, tax_cents, total_cents)
        assert topup.session_id is not None
        with desk.fake.till() as till:
            till.refund(desk.fake.charge_of(topup.session_id), None, None, {})
        desk.deliver()
        assert balance_usd(engine, topup.account_id) == 0
        with read(engine) as connection:
            tax_book = connection.execute(
                text("SELECT COALESCE(SUM(amount_nusd), 0) FROM entries WHERE book_id = 'tax'")
            ).scalar_one()
        assert tax_book == 0, "the tax went back with the refund"
    assert_clean(engine)


@pytest.mark.parametrize("amount", ["0.99", "50.01", "0", "-5", "5.001", "1e2", "five", "", "1,000"])
def test_amounts_out_of_bounds_are_refused(engine: Engine, clock: MovableClock, amount: str) -> None:
    with till_desk(engine, clock) as desk:
        with pytest.raises(AmountInvalid):
            desk.begin(desk.account(), amount)
        assert not desk.fake.calls, "Stripe was not asked"


def test_the_limit_grows_with_settled_money_and_time(engine: Engine, clock: MovableClock) -> None:
    with till_desk(engine, clock) as desk:
        alice = desk.account()
        desk.paid(alice, "50")
        with pytest.raises(AmountInvalid):
            desk.begin(alice, "151")
        desk.paid(alice, "150")
        clock.move(31 * 86_400)
        desk.begin(alice, "500")
        with pytest.raises(AmountInvalid):
            desk.begin(alice, "500.01")


def test_unverified_and_frozen_accounts_cannot_pay(engine: Engine, clock: MovableClock) -> None:
    with till_desk(engine, clock) as desk:
        with pytest.raises(PaymentsPaused):
            desk.begin(make_account(engine, name="Bob", is_verified=False))
        alice = desk.account()
        with write(engine) as connection:
            freeze_account(connection, alice, is_frozen=True, now_ns=clock.now_ns())
        with pytest.raises(PaymentsPaused):
            desk.begin(alice)


def test_card_testing_meets_a_wall_per_account_per_address_and_after_declines(
    engine: Engine, clock: MovableClock
) -> None:
    with till_desk(engine, clock) as desk:
        alice = desk.account()
        pages = [desk.begin(alice) for _ in range(5)]
        with pytest.raises(TooManyCheckouts):
            desk.begin(alice)
        with write(engine) as connection:
            connection.execute(update(topups).values(address_digest="one address"))
        clock.move(3_601)
        for page in pages:
            assert desk.pay(page, DECLINED) == "declined"
        desk.deliver()
        with pytest.raises(TooManyCheckouts):
            desk.begin(alice)
        clock.move(86_401)
        desk.begin(alice)
        for _ in range(3):
            bob = desk.account("Bob")
            for _ in range(5):
                desk.begin(bob)
        with write(engine) as connection:
            connection.execute(update(topups).values(address_digest=f"address of {bob}x"))
        charlie = desk.account("Charlie")
        with write(engine) as connection:
            connection.execute(update(topups).values(address_digest=f"address of {charlie}"))
        with pytest.raises(TooManyCheckouts):
            desk.begin(charlie)


@pytest.mark.parametrize("outage", [Outage.LOST, Outage.CUT, Outage.REFUSED])
def test_a_page_whose_making_was_not_answered_is_made_once(
    engine: Engine, clock: MovableClock, outage: Outage
) -> None:
    with till_desk(engine, clock) as desk:
        alice = desk.account()
        desk.cashier.customer(alice)
        for _ in range(3):  # the SDK tries twice more by itself
            desk.fake.plan("POST", "/v1/checkout/sessions", outage)
        with pytest.raises(StripeAway):
            desk.begin(alice, key="one")
        topup = desk.begin(alice, key="one")
        assert len(list(desk.fake.state.sessions)) == 1
        assert topup.state == "open"


def test_a_page_that_was_paid_but_never_noted_is_found(engine: Engine, clock: MovableClock) -> None:
    """The process died after Stripe made the page and before we wrote its id."""
    with till_desk(engine, clock) as desk:
        topup = desk.begin(desk.account())
        assert desk.pay(topup) == "paid"
        with write(engine) as connection:
            unknown = {"state": "created", "session_id": None, "session_url": None}
            connection.execute(update(topups).values(unknown))
        desk.deliver()
        assert desk.stored(topup).state == "paid"


def changed(event: dict[str, Any], **changes: object) -> dict[str, Any]:
    """An event with another object; names with two underscores go down a level."""
    copy: dict[str, Any] = json.loads(json.dumps(event))
    for path, value in changes.items():
        table = copy if path in copy else copy["data"]["object"]
        *parents, name = path.split("__")
        for parent in parents:
            table = table[parent]
        table[name] = value
    return copy


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"amount_subtotal": 999_999}, "wrong_amount"),
        ({"currency": "eur"}, "wrong_currency"),
        ({"metadata__account": "acc-somebody-else"}, "wrong_account"),
        ({"livemode": True}, "wrong_mode"),
        ({"account": "acct_other"}, "wrong_account"),
    ],
)
def test_a_signed_event_that_does_not_fit_is_refused_and_recorded(
    engine: Engine, clock: MovableClock, changes: dict[str, object], reason: str
) -> None:
    with till_desk(engine, clock) as desk:
        topup = desk.begin(desk.account())
        desk.pay(topup)
        (completed,) = [event for event in desk.waiting() if event["type"] == "checkout.session.completed"]
        if "account" in changes:
            completed = {**completed, "account": "acct_main"}
        desk.receive(changed(completed, **changes))
        apply_due_events(desk.cashier)
        with read(engine) as connection:
            (refused,) = events_in(connection, "refused")
            stored = topup_by_id(connection, topup.id)
        assert refused.reason == reason
        assert stored is not None
        assert stored.state == "open"
        assert balance_usd(engine, topup.account_id) == 0
        log = desk.log.getvalue().decode()
        assert "cs_test" not in log
        assert "acc-somebody" not in log


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("currency", "eur", "wrong_currency"),
        ("total_cents", 1, "wrong_amount"),
        ("customer", "cus_other", "wrong_customer"),
        ("metadata", {"topup": "top-other", "account": "acc-other"}, "wrong_account"),
    ],
)
def test_a_payment_that_stripe_itself_shows_otherwise_is_not_credited(
    engine: Engine, clock: MovableClock, field: str, value: object, reason: str
) -> None:
    with till_desk(engine, clock) as desk:
        topup = desk.begin(desk.account())
        assert topup.session_id is not None
        desk.pay(topup)
        setattr(desk.fake.session(topup.session_id), field, value)
        if field == "total_cents":
            desk.fake.session(topup.session_id).lines = (replace_line(desk, topup.session_id, 1),)
        checked = desk.stored(topup)
        assert (checked.state, checked.failure) == ("mismatch", reason)
        assert balance_usd(engine, topup.account_id) == 0
        assert b"topup_mismatch" in desk.log.getvalue()


def replace_line(desk: TillDesk, session_id: str, cents: int) -> Any:
    line = desk.fake.session(session_id).lines[0]
    return type(line)(line.name, cents, line.quantity, line.tax_behavior)


def test_a_test_payment_never_counts_where_money_is_real(engine: Engine, clock: MovableClock) -> None:
    with till_desk(engine, clock) as desk:
        topup = desk.begin(desk.account())
        desk.pay(topup)
        desk.cashier.terms = replace(desk.cashier.terms, livemode=True)
        assert desk.stored(topup).failure == "wrong_mode"
        assert balance_usd(engine, topup.account_id) == 0
        desk.fake.shapes = Shapes(desk.fake.state, livemode=True)


SECRET = Secret("whsec_test")
BODY = b'{"id": "evt_1", "object": "event", "type": "x", "livemode": false, "created": 1, "data": {"object": {}}}'


@pytest.mark.parametrize(
    ("body", "header", "reason"),
    [
        (BODY, "", "forged"),
        (BODY, "t=1,v1=00", "forged"),
        (BODY, "nonsense", "forged"),
        (BODY, sign(BODY, "whsec_other", 1_000).signature, "forged"),
        (BODY + b" ", sign(BODY, "whsec_test", 1_000).signature, "forged"),
        (BODY, sign(BODY, "whsec_test", 1_000).signature.replace("t=1000", "t=1300"), "forged"),
        (BODY, sign(BODY, "whsec_test", 699).signature, "stale"),
        (BODY, sign(BODY, "whsec_test", 1_301).signature, "stale"),
        (b"{}", sign(b"{}", "whsec_test", 1_000).signature, "malformed"),
        (b"\xff", sign(b"\xff", "whsec_test", 1_000).signature, "forged"),
        (b"[" * 300_000, sign(b"", "whsec_test", 1_000).signature, "too_large"),
    ],
)
def test_requests_that_are_not_stripes_are_refused(body: bytes, header: str, reason: str) -> None:
    with pytest.raises(EventRefused) as refused:
        verify_event(body, header, SECRET, now_ns=1_000 * 10**9)
    assert refused.value.reason == reason


def test_an_empty_secret_verifies_nothing() -> None:
    signed = sign(BODY, "", 1_000)
    with pytest.raises(EventRefused):
        verify_event(signed.body, signed.signature, Secret(""), now_ns=1_000 * 10**9)


def test_an_outage_of_stripe_postpones_and_never_loses(engine: Engine, clock: MovableClock) -> None:
    with till_desk(engine, clock) as desk:
        topup = desk.begin(desk.account())
        desk.pay(topup)
        (event,) = [event for event in desk.waiting() if event["type"] == "checkout.session.completed"]
        for _ in range(3):
            desk.fake.plan("GET", "/v1/checkout/sessions", Outage.CUT)
        desk.receive(event)
        apply_due_events(desk.cashier)
        assert balance_usd(engine, topup.account_id) == 0
        assert apply_due_events(desk.cashier) == 0, "it waits for its time"
        clock.move(6)
        assert apply_due_events(desk.cashier) == 1
        assert balance_usd(engine, topup.account_id) == 20


def test_no_card_number_is_in_the_database_the_log_or_an_answer(engine: Engine, clock: MovableClock) -> None:
    with till_desk(engine, clock) as desk:
        alice = desk.account()
        desk.paid(alice, "20", saves_card=True)
        reconcile(desk.cashier)
        rows = []
        with read(engine) as connection:
            for table in all_tables():
                rows += [repr(tuple(row)) for row in connection.execute(select(table)).all()]
            found = search_topups(connection, "")
        for seen in (*rows, repr(found), desk.log.getvalue().decode()):
            assert PAID not in seen
            assert PAID[:12] not in seen
        assert all(PAID not in call.text for call in desk.fake.calls)
    if engine.dialect.name == "sqlite":
        database = Path(str(engine.url.database))
        for file in database.parent.glob(f"{database.name}*"):
            assert PAID.encode() not in file.read_bytes()
