"""A running gate with a small catalogue, and short ways to ask and settle."""

import asyncio
import io
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from fractions import Fraction

from sqlalchemy import Engine

from dragonfly.admission.gate import Gate
from dragonfly.admission.grants import Ask, Grant, KeyPolicy, Settlement
from dragonfly.admission.verify import Report, verify
from dragonfly.catalog.catalog import Catalog, Model, Provider, Supply
from dragonfly.catalog.prices import PriceVersion, Rates
from dragonfly.catalog.schedule import FOREVER_NS, DatedPrice, PriceSheet
from dragonfly.core.clock import Clock, SystemClock
from dragonfly.core.ids import IdSource
from dragonfly.core.outcomes import Outcome
from dragonfly.core.secrets import Secret
from dragonfly.core.tokens import NO_TOKENS, TokenUsage
from dragonfly.infra.database import read
from dragonfly.infra.logging import EventLog
from dragonfly.ledger.queries import Wallet, wallet_of
from dragonfly.providers.channel import Channel, Origin
from dragonfly.settings import AdmissionSettings
from tests.factories import Customer, make_peppers

MODEL = "acme/plain"
OTHER_MODEL = "acme/other"
FREE_MODEL = "acme/free"
UNPRICED_MODEL = "acme/unpriced"
GROWING_MODEL = "acme/growing"
"""Shows all the output that it bills, so that holds of its streams grow."""
PROMPT_NUSD, COMPLETION_NUSD = 1_000, 2_000
"""Per token, for the customer. The provider bills half of it."""
CONTEXT_TOKENS, OUTPUT_TOKENS = 100_000, 8_000
WAIT_S = 60.0


def make_catalog() -> Catalog:
    """Two models at one price each, one for nothing, one without a price."""
    rates = Rates(*(rate * 500_000 for rate in (1, 2, 1, 1, 1, 2)))
    rates = rates._replace(prompt=PROMPT_NUSD * 500_000, completion=COMPLETION_NUSD * 500_000)
    rates = rates._replace(cache_read=rates.prompt, cache_write=rates.prompt, cache_write_1h=rates.prompt)
    paid = PriceVersion("acme-1", rates._replace(reasoning=rates.completion), markup=Fraction(2))
    free = PriceVersion("acme-0", Rates(0, 0, 0, 0, 0, 0), is_free=True)
    prices = {MODEL: paid, OTHER_MODEL: paid, FREE_MODEL: free, UNPRICED_MODEL: None}
    models = {name: _model(name, price) for name, price in prices.items()}
    return Catalog({**models, GROWING_MODEL: _model(GROWING_MODEL, paid, dialect="deepseek")})


def _model(name: str, price: PriceVersion | None, *, dialect: str = "openai") -> Model:
    channel = Channel(
        id=f"{name}@acme",
        provider="acme",
        upstream_model=name.partition("/")[2],
        origin=Origin("127.0.0.1", 1, tls=False),
        path="/v1/chat/completions",
        credential=Secret(""),
        dialect=dialect,
    )
    sheet = PriceSheet(() if price is None else (DatedPrice(0, FOREVER_NS, price),))
    supply = Supply(channel, Provider("acme", "Acme"), sheet, CONTEXT_TOKENS, OUTPUT_TOKENS)
    return Model(name, name, (supply,))


class Desk:
    """A gate and what one needs to use it like the data plane does."""

    def __init__(self, gate: Gate, engine: Engine, clock: Clock) -> None:
        self.gate = gate
        self.engine = engine
        self.clock = clock
        self.ids = IdSource()

    async def ask(
        self,
        customer: Customer | KeyPolicy,
        *,
        model: str = MODEL,
        body_bytes: int = 0,
        output_tokens: int | None = 100,
        choices: int = 1,
    ) -> Ask:
        """An ask by `customer` (or by a policy that is at hand)."""
        now_ns = self.clock.now_ns()
        policy = customer if isinstance(customer, KeyPolicy) else await self.gate.key(customer.secret)
        return Ask(
            key=policy,
            request_id=self.ids.request(now_ns),
            offers=(self.gate.offer(model),),
            body_bytes=body_bytes,
            output_tokens=output_tokens,
            choices=choices,
            streamed=True,
            started_ns=now_ns,
        )

    async def admit(self, ask: Ask) -> Grant:
        """As the data plane: from memory, else from the database."""
        return self.gate.admit(ask) or await self.gate.admit_waiting(ask)

    def settle(
        self,
        grant: Grant,
        usage: TokenUsage = NO_TOKENS,
        outcome: Outcome = Outcome.COMPLETE,
        on_durable: Callable[[], None] | None = None,
    ) -> Settlement:
        """Settles by the gate's own charge."""
        offer = grant.ask.offers[0]
        candidate = offer.candidates[0]
        settlement = Settlement(
            outcome=outcome,
            candidate=candidate,
            usage=usage,
            charge=self.gate.charge(grant, candidate, usage, outcome),
            answered_model=offer.model,
            finish_reason="stop",
            upstream_status=200,
            attempts=1,
            ttft_us=1_000,
            duration_us=2_000,
        )
        self.gate.settle(grant, settlement, on_durable)
        return settlement

    async def settle_durably(
        self, grant: Grant, usage: TokenUsage = NO_TOKENS, outcome: Outcome = Outcome.COMPLETE
    ) -> Settlement:
        """Settles and waits until the charge is committed."""
        durable = asyncio.Event()
        settlement = self.settle(grant, usage, outcome, durable.set)
        async with asyncio.timeout(WAIT_S):
            await durable.wait()
        return settlement

    def wallet(self, customer: Customer) -> Wallet:
        with read(self.engine) as connection:
            wallet = wallet_of(connection, customer.account_id)
        assert wallet is not None
        return wallet

    def verify(self) -> Report:
        with read(self.engine) as connection:
            return verify(connection)


def make_log() -> EventLog:
    """A strict log that nobody reads."""
    return EventLog(io.BytesIO(), SystemClock(), strict=True)


def make_settings() -> AdmissionSettings:
    """For tests of real processes: the jobs run often, leases are small."""
    return AdmissionSettings(
        lease_nusd=5_000_000, heartbeat_s=0.05, refresh_s=0.05, requests_per_minute=0, concurrency_max=0
    )


def make_gate(engine: Engine, clock: Clock, settings: AdmissionSettings | None = None) -> Gate:
    """A gate that is not started."""
    return Gate(
        settings or AdmissionSettings(),
        engine,
        catalog=make_catalog(),
        peppers=make_peppers(),
        clock=clock,
        ids=IdSource(),
        log=make_log(),
    )


@asynccontextmanager
async def running_desk(
    engine: Engine, clock: Clock, settings: AdmissionSettings | None = None
) -> AsyncIterator[Desk]:
    """A started gate; stopped at the end."""
    gate = make_gate(engine, clock, settings)
    await gate.start()
    try:
        yield Desk(gate, engine, clock)
    finally:
        await gate.stop()


async def until(is_so: Callable[[], bool], step: Callable[[], Awaitable[object]]) -> None:
    """Repeats `step` until `is_so`; fails after a bound of time."""
    async with asyncio.timeout(WAIT_S):
        while not is_so():
            await step()
