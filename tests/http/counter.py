"""The wallet's routes and the webhook in an office, with a Stripe that only pretends."""

import hashlib
import io

from sqlalchemy import Engine

from dragonfly.api.desk import Desk
from dragonfly.api.payment_admin import payment_admin_routes
from dragonfly.api.payment_webhook import payment_webhook_routes
from dragonfly.api.receipt_page import ReceiptLinks
from dragonfly.api.topup_page import topup_page_routes
from dragonfly.api.wallet import PaymentDesk, wallet_routes
from dragonfly.core.ids import IdSource
from dragonfly.core.secrets import Secret
from dragonfly.infra.database import DatabaseThreads
from dragonfly.infra.logging import EventLog
from dragonfly.payments.jobs import Refusals, StripeThreads, work_on_events
from dragonfly.payments.simulated import SimulatedStripe
from dragonfly.payments.stripe_calls import StripeCalls
from dragonfly.payments.topups import Cashier
from tests.factories import MovableClock
from tests.fakes.stripe_line import StripeLine
from tests.http.account import Office
from tests.store.till import make_terms

TOPUPS = "/api/wallet/topups"
ADMIN = "/api/admin/payments"


class Counter:
    """The office, with a cashier or without."""

    def __init__(self, engine: Engine, clock: MovableClock, fake: SimulatedStripe | None) -> None:
        self.fake = fake
        self.log = io.BytesIO()
        self.refusals = Refusals()
        self.threads = StripeThreads()
        self.clock = clock
        desk = Desk(engine, DatabaseThreads(), self.clock, IdSource())
        self.cashier: Cashier | None = None
        if fake is not None:
            calls = StripeCalls(Secret(fake.api_key), http=StripeLine(fake))
            log = EventLog(self.log, self.clock, strict=True)
            self.cashier = Cashier(engine, calls, make_terms(), self.clock, desk.ids, log)
        payments = PaymentDesk(
            desk,
            self.threads,
            self.cashier,
            lambda _: "digest",
            ReceiptLinks(lambda words: hashlib.sha256(words).digest()),
            seller_url="https://gateway.example",
        )
        routes = [wallet_routes(payments), payment_admin_routes(payments), topup_page_routes(payments)]
        if self.cashier is not None and fake is not None:
            secret = Secret(fake.webhook_secret)
            routes.append(payment_webhook_routes(self.cashier, self.threads, self.refusals, secret))
        self.office = Office(engine, more=tuple(routes))
        self.ask = self.office.ask

    async def post(self, body: bytes, signature: str) -> int:
        async with self.office.client(**{"stripe-signature": signature}) as client:
            got = await client.post("/webhooks/stripe", content=body)
        return got.status_code

    def work(self) -> None:
        assert self.cashier is not None
        work_on_events(self.cashier, self.refusals)


async def paid(counter: Counter, amount: str = "20") -> str:
    """The id of a payment of Alice's that is credited."""
    assert counter.fake is not None
    begun = await counter.ask("alice", "POST", TOPUPS, {"amount": amount})
    assert begun.status_code == 201, begun.text
    assert begun.json()["state"] == "open"
    assert begun.json()["url"].startswith(counter.fake.url)
    assert counter.fake.pay(begun.json()["url"].rpartition("/")[2]) == "paid"
    waiting, counter.fake.undelivered = counter.fake.undelivered, []
    for event in waiting:
        signed = counter.fake.sign(event)
        assert await counter.post(signed.body, signed.signature) == 200
    counter.work()
    return str(begun.json()["id"])
