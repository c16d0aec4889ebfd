"""Top-ups at Stripe's payment page: our row first, then the page, then the credit when it is paid."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import Connection, Engine, insert, update
from sqlalchemy.exc import IntegrityError

from dragonfly.accounts.queries import Account, account_by_id
from dragonfly.core.clock import Clock
from dragonfly.core.errors import DragonflyError
from dragonfly.core.ids import AccountId, IdSource
from dragonfly.infra.database import insert_missing, read, write
from dragonfly.infra.logging import EventLog
from dragonfly.payments.news import Telling
from dragonfly.payments.orders import CheckoutOrder
from dragonfly.payments.queries import (
    Topup,
    customer_of,
    standing_of,
    topup_by_id,
    topup_of_account,
    topup_of_key,
)
from dragonfly.payments.rules import (
    AmountInvalid,
    Standing,
    parse_cents,
    topup_cents_max,
)
from dragonfly.payments.settling import apply_seen, look_up
from dragonfly.payments.tables import payment_customers, topups
from dragonfly.payments.terms import PaymentTerms

if TYPE_CHECKING:
    from dragonfly.payments.stripe_calls import StripeCalls

PAGE_OPEN_S = 45 * 60
"""How long a payment page stays open."""
CLIENT_KEY_LENGTH_MAX = 200
ADDRESS_FACTOR = 3
"""A network address may be shared, so it may do more than one account."""


class TopupNotFound(DragonflyError):
    """There is no such top-up, or it is somebody else's."""

    code = "topup_not_found"
    status = 404

    def __init__(self) -> None:
        super().__init__("There is no such top-up. List them with GET /api/wallet/topups.")


class PaymentsPaused(DragonflyError):
    """The account may not pay in at the moment."""

    code = "payments_paused"
    status = 403

    def __init__(self) -> None:
        super().__init__(
            "Payments of this account are paused: verify the email address, or ask support about an open dispute."
        )


class TooManyCheckouts(DragonflyError):
    """More payment pages or declined cards than people need: it looks like card testing."""

    code = "too_many_payments"
    status = 429

    def __init__(self) -> None:
        super().__init__("Too many payment attempts. Wait an hour, or a day after several declined cards.")
        self.retry_after_s = 3_600.0


class TopupConflict(DragonflyError):
    """The idempotency key was used for another amount."""

    code = "idempotency_conflict"
    status = 409

    def __init__(self) -> None:
        super().__init__("This idempotency key was used for another top-up. Choose a new key.")


@dataclass(frozen=True, slots=True)
class TopupWish:
    """What a customer wants."""

    account_id: AccountId
    amount: str
    """Decimal dollars."""
    client_key: str | None
    language: str
    saves_card: bool
    """Only when they agreed to automatic top-ups."""
    address_digest: str | None
    """A keyed hash of where they come from."""


def _nothing(_connection: Connection) -> None:
    """Does nothing besides."""


class Cashier:
    """Everything that takes money, with the parts that it needs. Its methods block: they wait for Stripe."""

    def __init__(
        self, engine: Engine, calls: "StripeCalls", terms: PaymentTerms, clock: Clock, ids: IdSource, log: EventLog
    ) -> None:
        self.engine = engine
        self.calls = calls
        self.terms = terms
        self.clock = clock
        self.ids = ids
        self._log = log

    def tell(self, told: list[Telling]) -> None:
        """Writes what a committed transaction caused."""
        for event, fields in told:
            self._log.write(event, **fields)

    def begin(self, wish: TopupWish) -> Topup:
        """A top-up with an open payment page; the same one for the same idempotency key.

        AmountInvalid, PaymentsPaused, TooManyCheckouts, TopupConflict, StripeAway, StripeRefused.
        """
        now_ns = self.clock.now_ns()
        with write(self.engine) as connection:
            topup = begin_topup(connection, self.ids, self.terms, wish, now_ns=now_ns)
            account = account_by_id(connection, wish.account_id)
            customer_id = customer_of(connection, wish.account_id)
        assert account is not None, "a top-up has an account"
        if topup.session_id is not None or topup.state != "created":
            return topup
        self.open_page(topup, self._customer(account, customer_id), saves_card=wish.saves_card)
        return self._stored(topup.id)

    def open_page(self, topup: Topup, customer_id: str, *, saves_card: bool, open_s: int = PAGE_OPEN_S) -> None:
        """Makes the payment page of a row; the same one when it is tried again."""
        order = CheckoutOrder(
            topup_id=topup.id,
            account_id=topup.account_id,
            customer_id=customer_id,
            cents=topup.amount_cents,
            tax=self.terms.tax,
            methods=self.terms.methods,
            saves_card=saves_card,
            language=topup.language,
            success_url=self.terms.return_url(topup.id),
            cancel_url=self.terms.return_url(topup.id),
            # From the row's time, so that a retry sends the same parameters.
            expires_s=topup.created_at_ns // 10**9 + open_s,
        )
        session = self.calls.create_checkout(order)
        opened = {
            "session_id": session.id,
            "session_url": session.url,
            "expires_at_ns": session.expires_s * 10**9,
        }
        with write(self.engine) as connection:
            connection.execute(update(topups).where(topups.c.id == topup.id).values(opened))
            created = update(topups).where(topups.c.id == topup.id, topups.c.state == "created")
            connection.execute(created.values(state="open"))

    def customer(self, account_id: AccountId) -> str:
        """Stripe's id of an account, made when it is not there yet."""
        with read(self.engine) as connection:
            account = account_by_id(connection, account_id)
            customer_id = customer_of(connection, account_id)
        assert account is not None, "somebody who pays has an account"
        return self._customer(account, customer_id)

    def check(self, account_id: AccountId, topup_id: str) -> Topup:
        """ "Check my payment": asks Stripe now and credits what was paid. TopupNotFound, StripeAway."""
        with read(self.engine) as connection:
            topup = topup_of_account(connection, account_id, topup_id)
        if topup is None:
            raise TopupNotFound
        self.settle(topup)
        return self._stored(topup_id)

    def settle(
        self,
        topup: Topup,
        *,
        session_id: str = "",
        intent_id: str = "",
        also: Callable[[Connection], None] = _nothing,
    ) -> bool:
        """Brings one top-up to what Stripe says, and does `also` in the same transaction; True when that credited
        it. StripeAway, ObjectMissing."""
        seen = look_up(self.calls, topup, session_id=session_id, intent_id=intent_id)
        with write(self.engine) as connection:
            told = apply_seen(connection, self.ids, self.terms, topup.id, seen, now_ns=self.clock.now_ns())
            also(connection)
        self.tell(told)
        return topup.state != "paid" and self._stored(topup.id).state == "paid"

    def resume(self, topup: Topup) -> None:
        """A row whose page was perhaps never made: makes it, or finds that it is too late."""
        now_ns = self.clock.now_ns()
        if now_ns - topup.created_at_ns > PAGE_OPEN_S * 10**9 // 3:
            with write(self.engine) as connection:
                late = update(topups).where(topups.c.id == topup.id, topups.c.session_id.is_(None))
                connection.execute(late.values(state="expired", checked_at_ns=now_ns))
            return
        self.open_page(topup, self.customer(topup.account_id), saves_card=False)

    def _customer(self, account: Account, known: str | None) -> str:
        if known is not None:
            return known
        customer_id = self.calls.create_customer(account.id, account.email)
        row = {
            "account_id": account.id,
            "stripe_customer_id": customer_id,
            "created_at_ns": self.clock.now_ns(),
        }
        with write(self.engine) as connection:
            insert_missing(connection, payment_customers, row)
            stored = customer_of(connection, account.id)
        assert stored is not None, "it was inserted above"
        return stored

    def _stored(self, topup_id: str) -> Topup:
        with read(self.engine) as connection:
            topup = topup_by_id(connection, topup_id)
        assert topup is not None, "top-ups are never deleted"
        return topup


def begin_topup(connection: Connection, ids: IdSource, terms: PaymentTerms, wish: TopupWish, *, now_ns: int) -> Topup:
    """The row of a top-up, before Stripe is asked for anything."""
    if wish.client_key is not None:
        known = topup_of_key(connection, wish.account_id, wish.client_key)
        if known is not None:
            if known.amount_cents != parse_cents(wish.amount):
                raise TopupConflict
            return known
    standing = standing_of(connection, wish.account_id, address_digest=wish.address_digest, now_ns=now_ns)
    account = account_by_id(connection, wish.account_id)
    if account is None or account.verified_at_ns is None or standing.is_frozen:
        raise PaymentsPaused
    _limit_attempts(terms, standing)
    cents_max = topup_cents_max(terms.limits, standing, now_ns)
    cents = parse_cents(wish.amount)
    if cents is None or not terms.limits.cents_min <= cents <= cents_max:
        raise AmountInvalid(terms.limits.cents_min, cents_max)
    row = new_topup_row(ids, wish.account_id, "checkout", cents, wish.language, now_ns)
    row |= {"client_key": wish.client_key, "address_digest": wish.address_digest}
    try:
        connection.execute(insert(topups).values(row))
    except IntegrityError:
        raise TopupConflict from None  # the same key at the same moment: the twin answers
    topup = topup_by_id(connection, str(row["id"]))
    assert topup is not None, "it was inserted above"
    return topup


def new_topup_row(
    ids: IdSource, account_id: AccountId, kind: str, cents: int, language: str, now_ns: int
) -> dict[str, object]:
    """A row that Stripe has not heard of."""
    return {
        "id": ids.new("top-", now_ns),
        "account_id": account_id,
        "kind": kind,
        "state": "created",
        "currency": "usd",
        "amount_cents": cents,
        "tax_cents": 0,
        "language": language,
        "created_at_ns": now_ns,
        "checked_at_ns": now_ns,
    }


def _limit_attempts(terms: PaymentTerms, standing: Standing) -> None:
    limits = terms.limits
    if standing.checkouts_hour >= limits.checkouts_per_hour:
        raise TooManyCheckouts
    if standing.address_checkouts_hour >= ADDRESS_FACTOR * limits.checkouts_per_hour:
        raise TooManyCheckouts
    if standing.declines_day >= limits.declines_per_day:
        raise TooManyCheckouts
