"""`kill -9` at every point between Checkout and credit: each payment is credited once, whatever is told afterwards.

`TEST_EVERY_ORDER=1 python -m pytest tests/store/test_payment_kill.py` dies at every point; without it, at every few.
"""

import multiprocessing
import os
import signal
from collections.abc import Iterator
from typing import NamedTuple

import pytest
from sqlalchemy import Engine, func, select

from dragonfly.admission.verify import verify
from dragonfly.core.clock import Clock
from dragonfly.core.ids import AccountId
from dragonfly.core.secrets import Secret
from dragonfly.infra.database import read
from dragonfly.ledger.queries import lots_of_account, wallet_of
from dragonfly.mail.tables import mail_outbox
from dragonfly.payments.events import HANDLED
from dragonfly.payments.reconciling import reconcile
from dragonfly.payments.simulated import SimulatedStripe
from dragonfly.payments.simulated.state import Json
from dragonfly.payments.stripe_calls import StripeCalls
from dragonfly.payments.tables import topups
from tests.factories import MovableClock
from tests.store.paying_process import main
from tests.store.till import TillDesk, make_terms

EVERY_POINT = bool(os.environ.get("TEST_EVERY_ORDER"))
STRIDE = 1 if EVERY_POINT else 19
POINTS_MAX = 1_000
WAIT_S = 60.0


class Victim(NamedTuple):
    """A customer whose process died."""

    account_id: AccountId
    killed_at: str
    """Empty: it lived."""
    is_paid: bool
    acknowledged: frozenset[str]


@pytest.fixture
def fake() -> Iterator[SimulatedStripe]:
    with SimulatedStripe() as running:
        yield running


def desk_at(engine: Engine, fake: SimulatedStripe, clock: Clock) -> TillDesk:
    desk = TillDesk(engine, fake, clock, make_terms())
    desk.cashier.calls = StripeCalls(Secret(fake.api_key), api_base=fake.url)
    return desk


def one_payment(desk: TillDesk, url: str, name: str, fatal: int) -> Victim:
    """A payment by a process that dies at point `fatal`, if it gets there."""
    account_id = desk.account(name, email=f"{name}@example.com")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([main.__module__])
    told, theirs = context.Pipe(duplex=False)
    process = context.Process(target=main, args=(url, desk.fake.url, account_id, fatal, theirs), daemon=True)
    process.start()
    theirs.close()
    said: list[tuple[str, str]] = []
    try:
        while told.poll(WAIT_S):
            said.append(told.recv())
    except EOFError:
        pass
    process.join(WAIT_S)
    told.close()
    words = dict(said)
    assert process.exitcode == (-signal.SIGKILL if "killed" in words else 0), said
    acknowledged = frozenset(value for word, value in said if word == "acknowledged")
    return Victim(account_id, words.get("killed", ""), "paid" in words, acknowledged)


def untold(fake: SimulatedStripe, victims: list[Victim]) -> list[Json]:
    """What Stripe tells again about these, because nobody acknowledged it."""
    taken = {event_id for victim in victims for event_id in victim.acknowledged}
    accounts = {victim.account_id for victim in victims}
    return [
        event
        for event in fake.undelivered
        if event["type"] in HANDLED and event["id"] not in taken and _account_of(event) in accounts
    ]


def _account_of(event: Json) -> str:
    return str(event["data"]["object"].get("metadata", {}).get("account"))


def test_a_kill_at_every_point_between_checkout_and_credit_loses_no_payment(
    engine: Engine, url: str, fake: SimulatedStripe
) -> None:
    """Every other victim's events come again, as Stripe repeats them; those of the rest are lost for good."""
    clock = MovableClock()
    desk = desk_at(engine, fake, clock)
    victims: list[Victim] = []
    for fatal in range(1, POINTS_MAX, STRIDE):
        victims.append(one_payment(desk, url, f"alice-{fatal}", fatal))
        if not victims[-1].killed_at:
            break
    assert not victims[-1].killed_at, "the last one passed every point"
    clock.move((fake.clock.now_ns() - clock.now_ns()) / 1e9)  # the processes lived by the machine's clock
    repeated = untold(fake, victims[::2])
    for victim in victims:
        if not victim.is_paid:  # the customer clicks once more, with the same key, and pays
            begun = desk.begin(victim.account_id, key="one click")
            if begun.session_id is not None and fake.session(begun.session_id).status == "open":
                desk.pay(begun)
    fake.undelivered = []
    desk.deliver(repeated)
    clock.move(3_600)
    while reconcile(desk.cashier).repaired:
        pass
    with read(engine) as connection:
        for victim in victims:
            wallet = wallet_of(connection, victim.account_id)
            assert wallet is not None, victim
            assert wallet.balance_nusd == 20 * 10**9, victim
            assert len(lots_of_account(connection, victim.account_id)) == 1, victim
        paid = select(func.count()).select_from(topups).where(topups.c.state == "paid")
        assert connection.execute(paid).scalar_one() == len(victims)
        receipts = select(func.count()).select_from(mail_outbox).where(mail_outbox.c.kind == "receipt")
        assert connection.execute(receipts).scalar_one() == len(victims)
        assert verify(connection).findings == ()
    print(f"{len(victims) - 1} kills at {len({one.killed_at for one in victims}) - 1} places")
