"""What the simulated Stripe remembers: plain records, one table for each kind, in the order of their making."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from dragonfly.payments.simulated.cards import Card

Json = dict[str, object]


class Kept(Protocol):
    """Any record."""

    id: str
    created_s: int


R = TypeVar("R", bound=Kept)


class Records(Generic[R]):
    """One kind of record by id."""

    def __init__(self) -> None:
        self._by_id: dict[str, R] = {}

    def put(self, record: R) -> R:
        self._by_id[record.id] = record
        return record

    def get(self, record_id: str) -> R | None:
        return self._by_id.get(record_id)

    def __iter__(self) -> Iterator[R]:
        return iter(tuple(self._by_id.values()))

    def newest_first(self) -> Iterable[R]:
        return reversed(tuple(self._by_id.values()))


@dataclass(slots=True)
class Customer:
    """cus_…"""

    id: str
    created_s: int
    email: str | None
    name: str | None
    metadata: dict[str, str]


@dataclass(slots=True)
class PaymentMethod:
    """pm_…; `card` is None for the wallets."""

    id: str
    created_s: int
    kind: str
    card: Card | None
    customer: str | None = None


@dataclass(slots=True)
class Line:
    """A line of a Checkout Session, in cents."""

    name: str
    unit_cents: int
    quantity: int
    tax_behavior: str


@dataclass(slots=True)
class Session:
    """cs_…, in cents."""

    id: str
    created_s: int
    expires_s: int
    customer: str | None
    lines: tuple[Line, ...]
    currency: str
    methods: tuple[str, ...]
    tax_cents: int
    total_cents: int
    is_taxed: bool
    success_url: str
    cancel_url: str | None
    reference: str | None
    metadata: dict[str, str]
    intent_metadata: dict[str, str]
    setup_future_usage: str | None
    card_setup: str | None
    locale: str | None
    url: str
    status: str = "open"
    payment_status: str = "unpaid"
    intent: str | None = None
    country: str = "DE"

    @property
    def subtotal_cents(self) -> int:
        return sum(line.unit_cents * line.quantity for line in self.lines)


@dataclass(slots=True)
class Intent:
    """pi_…, in cents."""

    id: str
    created_s: int
    amount_cents: int
    currency: str
    customer: str | None
    metadata: dict[str, str]
    methods: tuple[str, ...]
    status: str = "requires_payment_method"
    method: str | None = None
    charge: str | None = None
    setup_future_usage: str | None = None
    error: Json | None = None
    description: str | None = None
    received_cents: int = 0


@dataclass(slots=True)
class Charge:
    """ch_…, in cents."""

    id: str
    created_s: int
    intent: str
    amount_cents: int
    currency: str
    customer: str | None
    method: str
    metadata: dict[str, str]
    status: str
    country: str = "DE"
    failure_code: str | None = None
    decline_code: str | None = None
    refunded_cents: int = 0
    is_disputed: bool = False
    balance: str | None = None
    receipt_url: str = ""


@dataclass(slots=True)
class Refund:
    """re_…, in cents."""

    id: str
    created_s: int
    charge: str
    intent: str
    amount_cents: int
    currency: str
    status: str
    reason: str | None
    metadata: dict[str, str]
    balance: str | None = None
    failure_balance: str | None = None
    failure_reason: str | None = None


@dataclass(slots=True)
class Dispute:
    """du_…, in cents."""

    id: str
    created_s: int
    charge: str
    intent: str
    amount_cents: int
    currency: str
    reason: str
    status: str
    due_s: int
    evidence: dict[str, str] = field(default_factory=dict)
    is_submitted: bool = False
    balances: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Warned:
    """issfr_…: an early fraud warning."""

    id: str
    created_s: int
    charge: str
    intent: str
    fraud_type: str
    is_actionable: bool = True


@dataclass(slots=True)
class Movement:
    """txn_…: a balance transaction, in cents."""

    id: str
    created_s: int
    amount_cents: int
    fee_cents: int
    currency: str
    kind: str
    category: str
    source: str


@dataclass(slots=True)
class Told:
    """evt_…: an event with the object as it was then."""

    id: str
    created_s: int
    kind: str
    object: Json
    previous: Json | None = None


class State:
    """Everything, and the numbers from which ids are made."""

    def __init__(self) -> None:
        self.customers: Records[Customer] = Records()
        self.methods: Records[PaymentMethod] = Records()
        self.sessions: Records[Session] = Records()
        self.intents: Records[Intent] = Records()
        self.charges: Records[Charge] = Records()
        self.refunds: Records[Refund] = Records()
        self.disputes: Records[Dispute] = Records()
        self.warnings: Records[Warned] = Records()
        self.movements: Records[Movement] = Records()
        self.events: Records[Told] = Records()
        self._count = 0

    def new_id(self, prefix: str, seed: str) -> str:
        """The next id; `seed` keeps two servers apart."""
        self._count += 1
        return f"{prefix}_{seed}{self._count:08d}"
