"""Refunds that support decides, automatic top-ups and their guards, fraud warnings, codes, operators' reports."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Engine, delete, insert, select, update

from dragonfly.accounts.tables import accounts, consents
from dragonfly.admission.verify import verify
from dragonfly.app.payments import is_braked
from dragonfly.core.ids import AccountId, IdSource
from dragonfly.infra.database import read, write
from dragonfly.keys.tables import keys
from dragonfly.ledger.queries import lots_of_account, wallet_of
from dragonfly.mail.tables import mail_outbox
from dragonfly.payments.clawbacks import unfreeze_for
from dragonfly.payments.orders import StripeAway
from dragonfly.payments.promo import PromoCodeInvalid, PromoWish, make_codes, redeem, revoke_batch
from dragonfly.payments.queries import (
    Topup,
    disputes_page,
    is_frozen,
    refund_by_id,
    refunds_of_topup,
    topups_of_account,
    warnings_page,
)
from dragonfly.payments.recharge import (
    RechargeInvalid,
    RechargeTaxed,
    recharge_due,
    recharge_of,
    resume_recharges,
    set_recharge,
    stop_recharge,
)
from dragonfly.payments.reconciling import reconcile
from dragonfly.payments.refunding import (
    RefundNotFound,
    RefundNotPossible,
    approve_refund,
    decline_refund,
    request_refund,
    resume_refunds,
    send_refund,
)
from dragonfly.payments.report import compare, margins
from dragonfly.payments.simulated.cards import Card
from dragonfly.payments.simulated.faults import Outage
from dragonfly.payments.tables import topups
from dragonfly.usage.tables import usage_days
from tests.factories import MovableClock, make_key
from tests.store.till import TillDesk, make_terms, till_desk

ASKS_LATER = "4000002760003184"
DECLINED_LATER = "4000000000000341"


@pytest.fixture
def desk(engine: Engine, clock: MovableClock) -> Iterator[TillDesk]:
    with till_desk(engine, clock) as made:
        yield made
    with read(engine) as connection:
        assert verify(connection).findings == ()


def balance_usd(desk: TillDesk, account_id: AccountId) -> float:
    with read(desk.engine) as connection:
        wallet = wallet_of(connection, account_id)
    return 0 if wallet is None else wallet.balance_nusd / 1e9


def requested(desk: TillDesk, topup: Topup, amount: str | None = None) -> str:
    with write(desk.engine) as connection:
        return request_refund(
            connection,
            desk.ids,
            topup.account_id,
            topup_id=topup.id,
            amount=amount,
            reason="mistake",
            now_ns=desk.clock.now_ns(),
        ).id


def approve(desk: TillDesk, refund_id: str, operator: AccountId, amount: str | None = None) -> None:
    with write(desk.engine) as connection:
        refund = approve_refund(connection, refund_id, amount=amount, decided_by=operator, now_ns=desk.clock.now_ns())
    send_refund(desk.cashier, refund)


def refund_state(desk: TillDesk, refund_id: str) -> str:
    with read(desk.engine) as connection:
        found = refund_by_id(connection, refund_id)
    assert found is not None
    return found.state


def test_an_approved_part_of_a_request_goes_back_once(desk: TillDesk) -> None:
    topup, charlie = desk.paid(desk.account()), desk.account("Charlie")
    refund_id = requested(desk, topup)
    with pytest.raises(RefundNotPossible):
        requested(desk, topup)
    approve(desk, refund_id, charlie, "7.50")
    assert refund_state(desk, refund_id) == "succeeded"
    assert balance_usd(desk, topup.account_id) == 12.5
    desk.deliver()
    assert balance_usd(desk, topup.account_id) == 12.5
    with pytest.raises(RefundNotFound):
        approve(desk, refund_id, charlie)
    assert [one.amount_cents for one in desk.fake.state.refunds] == [750]


def test_a_declined_request_changes_nothing(desk: TillDesk) -> None:
    topup, charlie = desk.paid(desk.account()), desk.account("Charlie")
    refund_id = requested(desk, topup, "5")
    with write(desk.engine) as connection:
        decline_refund(connection, refund_id, decided_by=charlie, now_ns=desk.clock.now_ns())
    assert refund_state(desk, refund_id) == "declined"
    assert balance_usd(desk, topup.account_id) == 20
    assert not list(desk.fake.state.refunds)


def test_promotional_credit_and_other_peoples_payments_are_never_refunded(desk: TillDesk) -> None:
    topup = desk.paid(desk.account())
    for amount in ("20.01", "0", "many"):
        with pytest.raises(RefundNotPossible):
            requested(desk, topup, amount)


@pytest.mark.parametrize("outage", [Outage.LOST, Outage.CUT])
def test_a_refund_that_stripe_did_not_answer_is_sent_again_as_the_same(
    desk: TillDesk, clock: MovableClock, outage: Outage
) -> None:
    topup, charlie = desk.paid(desk.account()), desk.account("Charlie")
    refund_id = requested(desk, topup)
    for _ in range(3):
        desk.fake.plan("POST", "/v1/refunds", outage)
    with pytest.raises(StripeAway):
        approve(desk, refund_id, charlie)
    assert balance_usd(desk, topup.account_id) == 0, "nobody spends it meanwhile"
    assert resume_refunds(desk.cashier) == 0
    clock.move(61)
    assert resume_refunds(desk.cashier) == 1
    assert refund_state(desk, refund_id) == "succeeded"
    assert len(list(desk.fake.state.refunds)) == 1


def test_a_refund_that_stripe_refuses_gives_the_credit_back(desk: TillDesk) -> None:
    topup, charlie = desk.paid(desk.account()), desk.account("Charlie")
    refund_id = requested(desk, topup)
    assert topup.session_id is not None
    desk.fake.charge_of(topup.session_id).is_disputed = True
    approve(desk, refund_id, charlie)
    assert refund_state(desk, refund_id) == "refused"
    assert balance_usd(desk, topup.account_id) == 20


def agreed(desk: TillDesk, account_id: AccountId, *, cap_cents: int = 10_000) -> None:
    with write(desk.engine) as connection:
        set_recharge(
            connection,
            desk.cashier.terms,
            account_id,
            threshold_cents=3_000,
            amount_cents=2_000,
            monthly_cap_cents=cap_cents,
            now_ns=desk.clock.now_ns(),
        )


def recharging(desk: TillDesk, number: str = "4242424242424242", *, cap_cents: int = 10_000) -> AccountId:
    """Somebody below their threshold, with a saved card."""
    alice = desk.account()
    agreed(desk, alice, cap_cents=cap_cents)
    topup = desk.begin(alice, "20", saves_card=True)
    assert desk.pay(topup, number) == "paid"
    desk.deliver()
    return alice


def state_of(desk: TillDesk, account_id: AccountId) -> tuple[str, str | None]:
    with read(desk.engine) as connection:
        found = recharge_of(connection, account_id)
    assert found is not None
    return found.state, found.pause_reason


def never(*_: object) -> bool:
    return False


def test_an_automatic_top_up_needs_a_card_and_then_closes_the_gap_once(desk: TillDesk, clock: MovableClock) -> None:
    alice = desk.account()
    agreed(desk, alice)
    assert state_of(desk, alice) == ("paused", "card_needed")
    assert recharge_due(desk.cashier, never) == 0
    desk.paid(alice, "20", saves_card=True)
    assert state_of(desk, alice) == ("on", None)
    with read(desk.engine) as connection:
        found = recharge_of(connection, alice)
    assert found is not None
    assert found.card_label == "visa 4242"
    assert recharge_due(desk.cashier, never) == 1
    assert balance_usd(desk, alice) == 40
    assert recharge_due(desk.cashier, never) == 0, "the gap is closed"
    desk.deliver()
    assert balance_usd(desk, alice) == 40


def test_one_attempt_an_hour_within_the_months_cap_and_not_while_spending_is_stopped(
    desk: TillDesk, clock: MovableClock, engine: Engine
) -> None:
    alice = recharging(desk, cap_cents=4_000)
    with write(engine) as connection:
        connection.execute(update(accounts).values(frozen_at_ns=1))
    assert recharge_due(desk.cashier, never) == 0, "frozen"
    with write(engine) as connection:
        connection.execute(update(accounts).values(frozen_at_ns=None))
    assert recharge_due(desk.cashier, lambda *_: True) == 0, "the breaker is active"
    assert recharge_due(desk.cashier, never) == 1
    with write(engine) as connection:
        set_recharge(
            connection,
            desk.cashier.terms,
            alice,
            threshold_cents=50_000,
            amount_cents=2_000,
            monthly_cap_cents=4_000,
            now_ns=clock.now_ns(),
        )
    assert recharge_due(desk.cashier, never) == 0, "within the hour"
    clock.move(3_601)
    assert recharge_due(desk.cashier, never) == 1
    clock.move(3_601)
    assert recharge_due(desk.cashier, never) == 0, "the cap of the month"
    clock.move(32 * 86_400)
    assert recharge_due(desk.cashier, never) == 1


def test_a_bank_that_wants_a_confirmation_pauses_and_sends_a_link(desk: TillDesk) -> None:
    alice = recharging(desk, ASKS_LATER)
    assert recharge_due(desk.cashier, never) == 1
    assert state_of(desk, alice) == ("paused", "authentication_required")
    with read(desk.engine) as connection:
        wanted = select(mail_outbox.c.details).where(mail_outbox.c.kind == "recharge_confirm")
        values = json.loads(connection.execute(wanted).scalar_one())
        (page,) = [one for one in topups_of_account(connection, alice) if one.state == "open"]
    assert values["link"] == page.session_url
    assert desk.pay(page, ASKS_LATER) == "paid"
    desk.deliver()
    assert balance_usd(desk, alice) == 40
    assert state_of(desk, alice) == ("on", None)


def test_soft_declines_pause_at_the_second_and_keep_the_hour(desk: TillDesk, clock: MovableClock) -> None:
    alice = recharging(desk, DECLINED_LATER)
    assert recharge_due(desk.cashier, never) == 1
    assert state_of(desk, alice)[0] == "on"
    assert recharge_due(desk.cashier, never) == 0, "the claim is kept after a failure"
    clock.move(3_601)
    assert recharge_due(desk.cashier, never) == 1
    assert state_of(desk, alice) == ("paused", "declined")
    with read(desk.engine) as connection:
        kinds = connection.execute(select(mail_outbox.c.kind)).scalars().all()
    assert list(kinds).count("recharge_failed") == 1
    assert balance_usd(desk, alice) == 20


@pytest.mark.parametrize("outage", [Outage.LOST, Outage.CUT])
def test_an_attempt_that_stripe_did_not_answer_is_made_once(
    desk: TillDesk, clock: MovableClock, outage: Outage
) -> None:
    alice = recharging(desk)
    for _ in range(3):
        desk.fake.plan("POST", "/v1/payment_intents", outage)
    assert recharge_due(desk.cashier, never) == 1
    assert balance_usd(desk, alice) == 20
    clock.move(61)
    assert resume_recharges(desk.cashier) == 1
    assert balance_usd(desk, alice) == 40
    desk.deliver()
    reconcile(desk.cashier)
    assert balance_usd(desk, alice) == 40


def test_a_card_that_is_detached_pauses_and_ending_forgets_it(desk: TillDesk) -> None:
    alice = recharging(desk)
    with desk.fake.till() as till:
        for method in till.state.methods:
            till.detach(method)
    desk.deliver()
    assert state_of(desk, alice) == ("paused", "card_removed")
    with write(desk.engine) as connection:
        stop_recharge(connection, alice, now_ns=desk.clock.now_ns())
    assert state_of(desk, alice)[0] == "off"


def test_agreements_that_contradict_themselves_are_refused(desk: TillDesk) -> None:
    alice = desk.account()
    with pytest.raises(RechargeInvalid):
        agreed(desk, alice, cap_cents=1_999)


@pytest.mark.parametrize("tax", ["exclusive", "inclusive"])
def test_where_tax_is_charged_nobody_agrees_and_earlier_agreements_pause_without_a_charge(
    desk: TillDesk, tax: str
) -> None:
    bob = recharging(desk)
    desk.cashier.terms = make_terms(tax=tax)
    with pytest.raises(RechargeTaxed, match="Top up by hand"):
        agreed(desk, desk.account("Alice", email=None))
    assert recharge_due(desk.cashier, never) == 0
    assert state_of(desk, bob) == ("paused", "tax_added")
    assert balance_usd(desk, bob) == 20
    assert len(list(desk.fake.state.intents)) == 1


def test_a_hard_decline_pauses_at_once_and_tells_the_customer(desk: TillDesk, clock: MovableClock) -> None:
    alice = recharging(desk)
    for method in desk.fake.state.methods:
        method.card = Card("4000000000009979", "visa", "was stolen", "stolen_card")
    assert recharge_due(desk.cashier, never) == 1
    assert state_of(desk, alice) == ("paused", "declined")
    with read(desk.engine) as connection:
        kinds = connection.execute(select(mail_outbox.c.kind)).scalars().all()
    assert list(kinds).count("recharge_failed") == 1
    clock.move(86_400)
    assert recharge_due(desk.cashier, never) == 0


@pytest.mark.parametrize("state", ["created", "processing"])
def test_a_top_up_that_is_on_its_way_closes_the_gap_so_no_other_is_made(desk: TillDesk, state: str) -> None:
    alice = recharging(desk)
    waiting = desk.begin(alice)
    with write(desk.engine) as connection:
        mine = update(topups).where(topups.c.id == waiting.id)
        connection.execute(mine.values(state=state, kind="recharge" if state == "created" else "checkout"))
    assert recharge_due(desk.cashier, never) == 0
    with write(desk.engine) as connection:
        connection.execute(mine.values(state="expired"))
    assert recharge_due(desk.cashier, never) == 1


def test_processes_that_look_at_the_same_moment_charge_once(desk: TillDesk) -> None:
    alice = recharging(desk)
    with ThreadPoolExecutor(4) as threads:
        attempts = [threads.submit(recharge_due, desk.cashier, never) for _ in range(4)]
    assert sum(attempt.result() for attempt in attempts) == 1
    assert balance_usd(desk, alice) == 40


def test_a_key_that_the_breaker_paused_keeps_its_account_from_being_charged(desk: TillDesk) -> None:
    alice, bob = desk.account(), desk.account("Bob", email=None)
    make_key(desk.engine, alice)
    with write(desk.engine) as connection:
        assert not is_braked(connection, alice)
        connection.execute(update(keys).where(keys.c.account_id == alice).values(paused_at_ns=1))
        assert is_braked(connection, alice)
        assert not is_braked(connection, bob)


def test_the_confirmation_link_is_good_for_about_a_day(desk: TillDesk) -> None:
    alice = recharging(desk, ASKS_LATER)
    assert recharge_due(desk.cashier, never) == 1
    with read(desk.engine) as connection:
        (page,) = [one for one in topups_of_account(connection, alice) if one.state == "open"]
    assert page.expires_at_ns is not None
    assert 22 * 3_600 < (page.expires_at_ns - page.created_at_ns) / 1e9 <= 24 * 3_600


def test_a_warning_about_an_unused_payment_refunds_it_and_stops_the_account(desk: TillDesk) -> None:
    alice = desk.account()
    topup = desk.begin(alice)
    assert desk.pay(topup, "4000000000005423") == "paid"
    desk.deliver()
    desk.deliver()
    with read(desk.engine) as connection:
        (warning,) = warnings_page(connection)
        assert is_frozen(connection, alice)
        (refund,) = refunds_of_topup(connection, topup.id)
    assert (warning.response, refund.state, refund.source) == ("refund", "succeeded", "warning")
    assert balance_usd(desk, alice) == 0
    assert reconcile(desk.cashier).repaired == 0


def test_a_dispute_keeps_evidence_stops_the_account_and_winning_lets_it_go_on(desk: TillDesk) -> None:
    alice = desk.account()
    topup = desk.begin(alice)
    assert desk.pay(topup, "4000000000000259") == "paid"
    desk.deliver()
    with read(desk.engine) as connection:
        (dispute,) = disputes_page(connection)
        assert is_frozen(connection, alice)
    pack = json.loads(dispute.evidence)
    assert (pack["topup"], pack["amount_usd"], pack["requests"]) == (topup.id, "20.00", 0)
    assert "alice@example.com" not in dispute.evidence
    with desk.fake.till() as till:
        (opened,) = till.state.disputes
        till.close_dispute(opened, is_won=True)
    desk.deliver()
    with read(desk.engine) as connection:
        assert not is_frozen(connection, alice)
    assert balance_usd(desk, alice) == 20


def test_the_evidence_says_what_was_accepted_and_how_the_credit_was_used(desk: TillDesk, clock: MovableClock) -> None:
    alice = desk.account()
    topup = desk.paid(alice)
    today = clock.now_ns() // (86_400 * 10**9)
    tokens = {"prompt_tokens": 100, "completion_tokens": 40, "cached_tokens": 0, "reasoning_tokens": 0}
    row = {"key_id": "key-1", "provider": "one", "account_id": alice, "requests": 3, "cost_nusd": 1, **tokens}
    accepted = {"terms_version": "2026-03-08", "policy_version": "2026-03-08", "is_adult": 1}
    with write(desk.engine) as connection:
        connection.execute(insert(consents).values(account_id=alice, accepted_at_ns=clock.now_ns(), **accepted))
        connection.execute(insert(usage_days).values(day=today, model="deepseek/deepseek-chat", **row))
        connection.execute(insert(usage_days).values(day=today - 1, model="before the payment", **row))
    assert topup.session_id is not None
    with desk.fake.till() as till:
        till.open_dispute(desk.fake.charge_of(topup.session_id), reason="fraudulent")
    desk.deliver()
    with write(desk.engine) as connection:
        (dispute,) = disputes_page(connection)
        connection.execute(delete(usage_days))  # no request stands behind them, which the proof at the end would say
    pack = json.loads(dispute.evidence)
    assert pack["accepted"][0]["terms"] == "2026-03-08"
    assert (pack["requests"], list(pack["days"].values())) == (3, [3])
    assert pack["models"] == {
        "deepseek/deepseek-chat": {"requests": 3, "prompt_tokens": 100, "completion_tokens": 40}
    }
    assert pack["address_proven"]


def test_an_operator_lifts_what_a_lost_dispute_stopped(desk: TillDesk) -> None:
    alice = desk.account()
    topup = desk.begin(alice)
    assert desk.pay(topup, "4000000000000259") == "paid"
    with desk.fake.till() as till:
        (opened,) = till.state.disputes
        till.close_dispute(opened, is_won=False)
    desk.deliver()
    with write(desk.engine) as connection:
        assert is_frozen(connection, alice)
        unfreeze_for(connection, alice, opened.id, now_ns=desk.clock.now_ns())
        assert not is_frozen(connection, alice)


def test_codes_give_credit_within_their_bounds(desk: TillDesk, clock: MovableClock) -> None:
    charlie, alice, bob = desk.account("Charlie"), desk.account("Alice"), desk.account("Bob")
    wish = PromoWish(
        count=2, amount_nusd=5 * 10**9, uses_max=2, credit_days=30, expires_at_ns=clock.now_ns() + 10**18
    )
    random = bytes(range(32))
    with write(desk.engine) as connection:
        first, second = make_codes(
            connection, IdSource(), wish, random=random, created_by=charlie, now_ns=clock.now_ns()
        )
    with write(desk.engine) as connection:
        code = redeem(connection, alice, first.lower().replace("-", " "), now_ns=clock.now_ns())
        redeem(connection, bob, first, now_ns=clock.now_ns())
        (lot,) = lots_of_account(connection, alice)
    assert (lot.source, lot.expires_at_ns) == ("promo", clock.now_ns() + 30 * 86_400 * 10**9)
    for account_id, text in ((alice, first), (alice, second), (charlie, first), (charlie, "DF-NONE")):
        with pytest.raises(PromoCodeInvalid), write(desk.engine) as connection:
            redeem(connection, account_id, text, now_ns=clock.now_ns())
    with write(desk.engine) as connection:
        assert revoke_batch(connection, code.batch_id, now_ns=clock.now_ns()) == 2
    with pytest.raises(PromoCodeInvalid), write(desk.engine) as connection:
        redeem(connection, charlie, second, now_ns=clock.now_ns())
    assert (balance_usd(desk, alice), balance_usd(desk, bob)) == (5, 5)


def test_stripe_and_the_books_agree_and_a_payment_that_is_missing_shows(desk: TillDesk, clock: MovableClock) -> None:
    topup = desk.paid(desk.account())
    refund_id = requested(desk, topup, "5")
    approve(desk, refund_id, desk.account("Charlie"))
    missing = desk.begin(desk.account("Bob"))
    desk.pay(missing)
    now_s = clock.now_ns() // 10**9
    report = compare(desk.cashier, since_s=now_s - 60, until_s=now_s + 60)
    by_kind = {line.kind: line.difference_nusd for line in report.lines}
    assert by_kind["charge"] == 20 * 10**9
    assert [one.topup_id for one in report.differences] == [missing.id]
    desk.deliver()
    report = compare(desk.cashier, since_s=now_s - 60, until_s=now_s + 60)
    assert not report.differences
    assert {line.kind: line.difference_nusd for line in report.lines if line.difference_nusd} == {}
    with read(desk.engine) as connection:
        assert margins(connection, since_ns=0, until_ns=2**62) == []
