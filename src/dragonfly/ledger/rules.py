"""Pure bookkeeping: which books there are, and what each event posts.

A positive amount adds to a book. The entries of a group sum to zero, always.
"""

import enum
from typing import NamedTuple

from dragonfly.core.ids import AccountId
from dragonfly.core.money import NUSD_MAX


class BookKind(enum.Enum):
    """What a book counts. The value begins the book's id."""

    CUSTOMER = "customer"
    """What we owe a customer: their balance. One per account."""
    PROMO_COST = "promo_cost"
    """Credit given away; negative, for it is our expense."""
    REVENUE = "revenue"
    """What customers paid for requests."""
    UPSTREAM_COST = "upstream_cost"
    """What providers bill for requests that customers paid; negative."""
    ABSORBED_COST = "absorbed_cost"
    """What providers bill and no customer paid for: broken answers, overruns; negative."""
    UPSTREAM_PAYABLE = "upstream_payable"
    """What we owe a provider by its list prices. One per provider."""


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


PROMO_COST_BOOK = BookKind.PROMO_COST.value
REVENUE_BOOK = BookKind.REVENUE.value
UPSTREAM_COST_BOOK = BookKind.UPSTREAM_COST.value
ABSORBED_COST_BOOK = BookKind.ABSORBED_COST.value
SHARED_BOOKS = (PROMO_COST_BOOK, REVENUE_BOOK, UPSTREAM_COST_BOOK, ABSORBED_COST_BOOK)


def customer_book(account_id: AccountId) -> str:
    """The book of one customer."""
    return f"{BookKind.CUSTOMER.value}/{account_id}"


def payable_book(provider: str) -> str:
    """The book of what we owe one provider."""
    return f"{BookKind.UPSTREAM_PAYABLE.value}/{provider}"


def check(posting: Posting) -> None:
    """Asserts what the ledger is built on."""
    assert posting.entries, "a group has entries"
    assert sum(entry.amount_nusd for entry in posting.entries) == 0, "the entries of a group sum to zero"
    assert all(0 < abs(entry.amount_nusd) <= NUSD_MAX for entry in posting.entries), "an amount fits 64 bits"
    assert len({entry.book_id for entry in posting.entries}) == len(posting.entries), "one entry per book"


def grant(posting_id: str, account_id: AccountId, amount_nusd: int) -> Posting:
    """Credit as a gift: the customer has it, our promotional expense pays it."""
    posting = Posting(
        posting_id,
        "grant",
        account_id,
        (Entry(customer_book(account_id), amount_nusd), Entry(PROMO_COST_BOOK, -amount_nusd)),
    )
    check(posting)
    return posting


def absorbed_upstream_nusd(upstream_nusd: int, absorbed_nusd: int) -> int:
    """The part of the provider's bill for which no customer paid; both in nano-USD.

    `absorbed_nusd` is in customer prices, so it may exceed the bill; what we owe the provider does not.
    """
    return min(upstream_nusd, absorbed_nusd)
