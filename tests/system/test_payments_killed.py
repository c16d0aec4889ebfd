"""A serving process is killed between a payment and its credit, again and again: no payment is lost, none counts
twice, and no card number is in anything that it wrote."""

import asyncio
import io
import json
import random
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from dragonfly.accounts.actions import create_account
from dragonfly.admission.verify import verify
from dragonfly.core.clock import SystemClock
from dragonfly.core.ids import AccountId, IdSource
from dragonfly.core.secrets import Secret
from dragonfly.infra.database import open_engine, read, write
from dragonfly.infra.logging import EventLog
from dragonfly.ledger.queries import wallet_of
from dragonfly.payments.events import HANDLED
from dragonfly.payments.simulated import CARDS, SimulatedStripe
from dragonfly.payments.simulated.delivery import post
from dragonfly.payments.simulated.state import Json
from dragonfly.payments.stripe_calls import StripeCalls
from dragonfly.payments.topups import Cashier, TopupWish
from tests.store.till import make_terms
from tests.system.program import Program, Running

KILLS = 4
PAYMENTS = 5
WAIT_S = 60.0
SETTINGS = """\
key_pepper = "a pepper for tests, thirty-two bytes or more"
[server]
port = 0
public_url = "http://127.0.0.1:1"
[payments]
stripe_secret_key = "{fake.api_key}"
stripe_webhook_secret = "{fake.webhook_secret}"
stripe_url = "{fake.url}"
"""


@pytest.fixture
def fake() -> Iterator[SimulatedStripe]:
    with SimulatedStripe() as running:
        yield running


async def webhook_of(running: Running) -> str:
    """Where the process that just started takes events."""
    line = json.loads(await running.until('"started"', errors=True))
    return f"http://127.0.0.1:{line['port']}/webhooks/stripe"


def delivered(url: str, event: Json, fake: SimulatedStripe) -> bool:
    """One try of Stripe's; False when nobody took it, so that it comes again."""
    try:
        return post(url, fake.sign(event)) == 200
    except OSError:
        return False


class Payer:
    """Alice pays, in this process and in the same database."""

    def __init__(self, program: Program, fake: SimulatedStripe) -> None:
        self.fake = fake
        self.engine = open_engine(f"sqlite:///{program.folder}/data/dragonfly.db")
        clock, ids = SystemClock(), IdSource()
        log = EventLog(io.BytesIO(), clock, strict=True)
        calls = StripeCalls(Secret(fake.api_key), api_base=fake.url)
        self.cashier = Cashier(self.engine, calls, make_terms(), clock, ids, log)
        now_ns = clock.now_ns()
        with write(self.engine) as connection:
            self.alice: AccountId = create_account(
                connection, ids, name="Alice", verified_at_ns=now_ns, now_ns=now_ns
            )

    def pay(self) -> list[Json]:
        """One payment of 4 USD; the events that Stripe has to tell."""
        topup = self.cashier.begin(TopupWish(self.alice, "4", None, "en", saves_card=False, address_digest=None))
        assert topup.session_id is not None
        assert self.fake.pay(topup.session_id) == "paid"
        waiting, self.fake.undelivered = self.fake.undelivered, []
        return [event for event in waiting if event["type"] in HANDLED]

    def balance_usd(self) -> float:
        with read(self.engine) as connection:
            wallet = wallet_of(connection, self.alice)
        return 0 if wallet is None else wallet.balance_nusd / 1e9


def holders_of(number: str, folder: Path) -> list[str]:
    """Files that a card number stands in."""
    return [file.name for file in folder.rglob("*") if file.is_file() and number.encode() in file.read_bytes()]


async def test_kills_between_payment_and_credit_lose_nothing_and_credit_once(
    program: Program, fake: SimulatedStripe
) -> None:
    (program.folder / "dragonfly.toml").write_text(SETTINGS.format(fake=fake))
    assert program.run("migrate").code == 0
    payer = Payer(program, fake)
    source = random.Random(7)
    waiting: list[Json] = []
    said = ""
    for paid in range(1, PAYMENTS + 1):
        waiting += payer.pay()
        source.shuffle(waiting)
        async with program.running("serve") as running:
            url = await webhook_of(running)
            dies_after = source.randrange(len(waiting) + 1) if paid <= KILLS else None
            for number, event in enumerate(tuple(waiting)):
                if number == dies_after:
                    break
                if await asyncio.to_thread(delivered, url, event, fake):
                    waiting.remove(event)
            if dies_after is not None:
                running.process.send_signal(signal.SIGKILL)
                await running.process.wait()
            else:
                async with asyncio.timeout(WAIT_S):
                    while payer.balance_usd() < 4 * PAYMENTS:
                        await asyncio.sleep(0.02)
                await running.stop()
            said += running.errors
    assert not waiting
    assert payer.balance_usd() == 4 * PAYMENTS
    with read(payer.engine) as connection:
        assert verify(connection).findings == ()
    payer.engine.dispose()
    assert CARDS[0].number not in said
    assert holders_of(CARDS[0].number, program.folder) == []
