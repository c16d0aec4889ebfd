"""Pure bookkeeping: which books there are, what each event posts, and which credit is spent first.

A positive amount adds to a book. The entries of a group sum to zero, always. What we owe and earn is positive, what
we own and spend is negative.
"""

import enum
from collections.abc import Iterable
from typing import NamedTuple

from dragonfly.core.ids import AccountId
from dragonfly.core.money import NUSD_MAX


class BookKind(enum.Enum):
    """What a book counts. The value begins the book's id."""

    PAID = "paid"
    """What a customer paid and nobody has drawn. One per account."""
    PROMO = "promo"
    """What a customer was given and nobody has drawn. One per account."""
    LEASED = "leased"
    """A customer's money in the hands of workers. One per account. Requests are paid from it."""
    CUSTOMER = "customer"
    """A customer's money as one sum, from before lots; carried over, and zero since."""
    REFUND_PENDING = "refund_pending"
    """Paid credit on its way back to the payer. One per account."""
    DISPUTE = "dispute"
    """What the payer's bank demands back and may get. One per account."""
    RECEIVABLE = "receivable"
    """Disputed money that was spent already: the customer owes it; negative. One per account."""
    STRIPE_CLEARING = "stripe_clearing"
    """What Stripe holds for us; negative, for it is ours."""
    BANK = "bank"
    """What Stripe paid out to us; negative, for it is ours."""
    FEES = "fees"
    """What customers paid as a fee, less what Stripe charged."""
    TAX = "tax"
    """What customers paid as a tax, which we owe."""
    WRITE_OFF = "write_off"
    """What customers owe and will not pay; negative."""
    PROMO_COST = "promo_cost"
    """Credit given away; negative, for it is our expense."""
    REVENUE = "revenue"
    """What customers paid for requests."""
    UPSTREAM_COST = "upstream_cost"
    """What providers bill for requests that customers paid; negative."""
    ABSORBED_COST = "absorbed_cost"
    """The variance: what providers bill and no customer paid for, such as broken answers and overruns; negative."""
    UPSTREAM_PAYABLE = "upstream_payable"
    """What we owe a provider by its list prices. One per provider."""


class Source(enum.Enum):
    """Where a lot of credit came from; the value is that of its book."""

    PAID = "paid"
    PROMO = "promo"


class Entry(NamedTuple):
    """`amount_nusd` added to a book."""

    book_id: str
    amount_nusd: int


class Posting(NamedTuple):
    """What one event writes. `id` makes it idempotent: an event that comes twice has the same id."""

    id: str
    kind: str
    account_id: AccountId | None
    entries: tuple[Entry, ...]


class Lot(NamedTuple):
    """Credit of one origin; `remaining_nusd` is what nobody has drawn of it."""

    id: str
    account_id: AccountId
    source: str
    remaining_nusd: int
    expires_at_ns: int | None
    reference: str
    created_at_ns: int


class Part(NamedTuple):
    """Some of a lot."""

    lot_id: str
    source: str
    amount_nusd: int


PROMO_COST_BOOK = BookKind.PROMO_COST.value
REVENUE_BOOK = BookKind.REVENUE.value
UPSTREAM_COST_BOOK = BookKind.UPSTREAM_COST.value
ABSORBED_COST_BOOK = BookKind.ABSORBED_COST.value
SHARED_BOOKS = (PROMO_COST_BOOK, REVENUE_BOOK, UPSTREAM_COST_BOOK, ABSORBED_COST_BOOK)
WALLET_KINDS = (BookKind.PAID, BookKind.PROMO, BookKind.LEASED, BookKind.CUSTOMER)
"""The books that make up a customer's balance."""

CREDIT_KINDS_ONLY = "kind NOT IN ('settle', 'lease', 'return', 'draw')"
"""SQL: the groups that a person would call an event, and that are few."""


def account_book(kind: BookKind, account_id: AccountId) -> str:
    """The book of that kind of one customer."""
    return f"{kind.value}/{account_id}"


def leased_book(account_id: AccountId) -> str:
    """The book from which a customer's requests are paid."""
    return f"leased/{account_id}"


def payable_book(provider: str) -> str:
    """The book of what we owe one provider."""
    return f"{BookKind.UPSTREAM_PAYABLE.value}/{provider}"


def check(posting: Posting) -> None:
    """Asserts what the ledger is built on."""
    assert posting.entries, "a group has entries"
    assert sum(entry.amount_nusd for entry in posting.entries) == 0, "the entries of a group sum to zero"
    assert all(0 < abs(entry.amount_nusd) <= NUSD_MAX for entry in posting.entries), "an amount fits 64 bits"
    assert len({entry.book_id for entry in posting.entries}) == len(posting.entries), "one entry per book"


def make_posting(
    posting_id: str, kind: str, account_id: AccountId | None, amounts: Iterable[tuple[str, int]]
) -> Posting:
    """A checked group of (book, amount); amounts of one book are added up, books with nothing are left out."""
    totals: dict[str, int] = {}
    for book_id, amount in amounts:
        totals[book_id] = totals.get(book_id, 0) + amount
    entries = tuple(Entry(book_id, amount) for book_id, amount in totals.items() if amount)
    posting = Posting(posting_id, kind, account_id, entries)
    check(posting)
    return posting


def drawn_amounts(account_id: AccountId, parts: Iterable[Part]) -> list[tuple[str, int]]:
    """What leaves the books of the lots' sources when the parts are drawn."""
    return [(account_book(BookKind(part.source), account_id), -part.amount_nusd) for part in parts]


def spending_order(lot: Lot) -> tuple[bool, bool, int, int, str]:
    """Which lot is spent first: promotional before paid; of the promotional what expires soonest, what never does
    last; then the oldest."""
    expires = lot.expires_at_ns
    return lot.source == Source.PAID.value, expires is None, expires or 0, lot.created_at_ns, lot.id


def split(lots: Iterable[Lot], amount_nusd: int) -> list[Part]:
    """Takes the amount from the lots in their order; less, when there is not so much."""
    parts = []
    for lot in lots:
        taken = min(lot.remaining_nusd, amount_nusd)
        if taken:
            parts.append(Part(lot.id, lot.source, taken))
            amount_nusd -= taken
        if not amount_nusd:
            break
    return parts


def absorbed_upstream_nusd(upstream_nusd: int, absorbed_nusd: int) -> int:
    """The part of the provider's bill for which no customer paid; both in nano-USD.

    `absorbed_nusd` is in customer prices, so it may exceed the bill; what we owe the provider does not.
    """
    return min(upstream_nusd, absorbed_nusd)
