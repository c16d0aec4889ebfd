"""Everything that money does here, once: cards, wallets, saved cards, refunds, disputes, warnings, repairs."""

import json
from collections.abc import Callable

from dragonfly.core.ids import AccountId
from dragonfly.infra.database import write
from dragonfly.payments.recharge import recharge_due, set_recharge
from dragonfly.payments.reconciling import reconcile
from dragonfly.payments.refunding import approve_refund, request_refund, send_refund
from dragonfly.payments.report import compare
from dragonfly.payments.simulated import CARDS
from dragonfly.payments.simulated.state import Json
from tests.store.till import TillDesk

Alter = Callable[[Json], Json]
"""What becomes of an event before it is delivered."""


def as_it_is(event: Json) -> Json:
    return event


def deliver(desk: TillDesk, alter: Alter) -> bytes:
    """What waits goes to the webhook; what Stripe itself would have sent."""
    said = b""
    for event in desk.waiting():
        said += json.dumps(event).encode()
        desk.deliver([alter(event)])
    return said


def pay_by(desk: TillDesk, account_id: AccountId, kind: str) -> None:
    topup = desk.begin(account_id, "5")
    assert topup.session_id is not None
    desk.fake.pay_by(topup.session_id, kind)


def walk(desk: TillDesk, alter: Alter = as_it_is) -> bytes:
    """What Stripe told meanwhile."""
    said = b""
    for place, card in enumerate(CARDS):
        account_id = desk.account(f"Alice {place}", email=f"alice{place}@example.com")
        with write(desk.engine) as connection:
            set_recharge(
                connection,
                desk.cashier.terms,
                account_id,
                threshold_cents=4_000,
                amount_cents=2_000,
                monthly_cap_cents=9_000,
                now_ns=desk.clock.now_ns(),
            )
        topup = desk.begin(account_id, saves_card=True)
        desk.pay(topup, card.number)
        said += deliver(desk, alter)
        if desk.stored(topup).state == "paid" and not (card.is_disputed or card.has_warning):
            refund(desk, account_id, topup.id)
    bob = desk.account("Bob", email="bob@example.com")
    for kind in ("link", "alipay", "wechat_pay"):
        pay_by(desk, bob, kind)
    said += deliver(desk, alter)
    recharge_due(desk.cashier, lambda *_: False)
    with desk.fake.till() as till:
        for method in till.state.methods:
            if method.customer:
                till.event("payment_method.automatically_updated", till.shapes.method(method))
                till.detach(method)
        for dispute in till.state.disputes:
            till.close_dispute(dispute, is_won=False)
    said += deliver(desk, alter)
    reconcile(desk.cashier)
    now_s = desk.clock.now_ns() // 10**9
    assert not compare(desk.cashier, since_s=now_s - 9_000, until_s=now_s + 9_000).differences
    return said


def refund(desk: TillDesk, account_id: AccountId, topup_id: str) -> None:
    now_ns = desk.clock.now_ns()
    with write(desk.engine) as connection:
        asked = request_refund(
            connection, desk.ids, account_id, topup_id=topup_id, amount="5", reason="other", now_ns=now_ns
        )
        approved = approve_refund(connection, asked.id, amount=None, decided_by=account_id, now_ns=now_ns)
    send_refund(desk.cashier, approved)
