"""A cashier at the simulated Stripe, and short ways to pay, deliver and look at the books."""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from sqlalchemy import Engine, select

from dragonfly.accounts.actions import create_account
from dragonfly.core.clock import Clock
from dragonfly.core.ids import AccountId, IdSource
from dragonfly.core.secrets import Secret
from dragonfly.infra.database import read, write
from dragonfly.infra.logging import EventLog
from dragonfly.ledger.tables import entries, entry_groups
from dragonfly.payments.applying import apply_due_events
from dragonfly.payments.events import HANDLED, store_event, verify_event
from dragonfly.payments.queries import Topup
from dragonfly.payments.rules import TopupLimits
from dragonfly.payments.simulated import CARDS, SimulatedStripe
from dragonfly.payments.simulated.state import Json
from dragonfly.payments.stripe_calls import StripeCalls
from dragonfly.payments.terms import PaymentTerms
from dragonfly.payments.topups import Cashier, TopupWish
from tests.factories import START_NS
from tests.fakes.stripe_line import StripeLine

LIMITS = TopupLimits(cents_min=100, first_cents_max=5_000, cents_max=50_000, checkouts_per_hour=5, declines_per_day=5)
PAID = CARDS[0].number


def make_terms(**changes: object) -> PaymentTerms:
    """Cards in US dollars, no tax, Stripe's test mode."""
    values: dict[str, object] = {
        "limits": LIMITS,
        "methods": ("card",),
        "tax": "off",
        "livemode": False,
        "public_url": "https://gateway.example",
    }
    return PaymentTerms(**{**values, **changes})  # type: ignore[arg-type]


class TillDesk:
    """One Stripe account and one installation."""

    def __init__(self, engine: Engine, fake: SimulatedStripe, clock: Clock, terms: PaymentTerms) -> None:
        self.engine = engine
        self.fake = fake
        self.clock = clock
        self.log = io.BytesIO()
        self.ids = IdSource()
        calls = StripeCalls(Secret(fake.api_key), http=StripeLine(fake))
        log = EventLog(self.log, clock, strict=True)
        self.cashier = Cashier(engine, calls, terms, clock, self.ids, log)

    def account(self, name: str = "Alice", email: str | None = "alice@example.com") -> AccountId:
        with write(self.engine) as connection:
            return create_account(
                connection, self.ids, name=name, email=email, verified_at_ns=START_NS, now_ns=START_NS
            )

    def begin(
        self, account_id: AccountId, usd: str = "20", *, saves_card: bool = False, key: str | None = None
    ) -> Topup:
        wish = TopupWish(account_id, usd, key, "en", saves_card, f"address of {account_id}")
        return self.cashier.begin(wish)

    def pay(self, topup: Topup, number: str = PAID) -> str:
        assert topup.session_id is not None
        return self.fake.pay(topup.session_id, number)

    def paid(self, account_id: AccountId, usd: str = "20", *, saves_card: bool = False) -> Topup:
        """A top-up that is paid and credited."""
        topup = self.begin(account_id, usd, saves_card=saves_card)
        assert self.pay(topup) == "paid"
        self.deliver()
        return self.stored(topup)

    def stored(self, topup: Topup) -> Topup:
        return self.cashier.check(topup.account_id, topup.id)

    def waiting(self) -> list[Json]:
        """The events that Stripe has to tell and that we want to hear."""
        waiting, self.fake.undelivered = self.fake.undelivered, []
        return [event for event in waiting if event["type"] in HANDLED]

    def receive(self, event: Json) -> str:
        """As the webhook does: verified, stored."""
        signed = self.fake.sign(event)
        now_ns = self.clock.now_ns()
        incoming = verify_event(signed.body, signed.signature, Secret(self.fake.webhook_secret), now_ns=now_ns)
        with write(self.engine) as connection:
            return store_event(connection, self.cashier.terms, incoming, now_ns=now_ns)

    def deliver(self, events: Sequence[Json] | None = None) -> None:
        """Each event arrives and is applied, in this order."""
        for event in self.waiting() if events is None else events:
            self.receive(event)
            apply_due_events(self.cashier)


@contextmanager
def till_desk(
    engine: Engine, clock: Clock, *, seed: str = "", terms: PaymentTerms | None = None
) -> Iterator[TillDesk]:
    """A desk at a Stripe of its own."""
    fake = SimulatedStripe(clock=clock, seed=seed)
    try:
        yield TillDesk(engine, fake, clock, terms or make_terms())
    finally:
        fake.stop()


class Group(NamedTuple):
    """One booking, without times."""

    id: str
    kind: str
    amounts: tuple[tuple[str, int], ...]


def books_of(engine: Engine, desk: TillDesk, topup: Topup) -> list[Group]:
    """Every booking that a payment caused, with names instead of ids, in one order."""
    names = {topup.id: "TOPUP", topup.account_id: "ACCOUNT"}
    for kind in ("refunds", "disputes", "movements", "charges"):
        for number, record in enumerate(getattr(desk.fake.state, kind)):
            names[record.id] = f"{kind.upper()}-{number}"
    with read(engine) as connection:
        rows = connection.execute(
            select(entry_groups.c.id, entry_groups.c.kind, entries.c.book_id, entries.c.amount_nusd)
            .select_from(entry_groups.join(entries, entries.c.group_id == entry_groups.c.id))
            .where(
                (entry_groups.c.account_id == topup.account_id)
                | entry_groups.c.id.in_([f"fee/{one.id}" for one in desk.fake.state.movements])
                | entry_groups.c.id.like("tax_return/%")
            )
        ).all()
    groups: dict[tuple[str, str], list[tuple[str, int]]] = {}
    for row in rows:
        key = (_renamed(row.id, names), row.kind)
        groups.setdefault(key, []).append((_renamed(row.book_id, names), row.amount_nusd))
    return sorted(Group(*key, tuple(sorted(amounts))) for key, amounts in groups.items())


def _renamed(text: str, names: dict[str, str]) -> str:
    for name, shown in names.items():
        text = text.replace(name, shown)
    return text
