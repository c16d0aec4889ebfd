"""The test cards, from Stripe's page "Testing": their numbers mean nothing outside a test mode."""

from typing import NamedTuple


class Card(NamedTuple):
    """One test card and what happens when it is charged."""

    number: str
    brand: str
    story: str
    """For the pay page."""
    decline_code: str = ""
    """Declined for this reason; empty: not declined."""
    error_code: str = "card_declined"
    asks_on_session: bool = False
    """3-D Secure is asked for when the customer is there."""
    asks_off_session: bool = False
    """A charge without the customer is refused until they confirm."""
    declines_off_session: bool = False
    """The first payment goes through, later ones without the customer do not."""
    is_disputed: bool = False
    has_warning: bool = False

    @property
    def last4(self) -> str:
        return self.number[-4:]


CARDS: tuple[Card, ...] = (
    Card("4242424242424242", "visa", "is paid"),
    Card("4000000000003220", "visa", "asks for 3-D Secure", asks_on_session=True, asks_off_session=True),
    Card("4000000000000002", "visa", "is declined", "generic_decline"),
    Card("4000000000009995", "visa", "is declined: insufficient funds", "insufficient_funds"),
    Card("4000000000009987", "visa", "is declined: lost card", "lost_card"),
    Card("4000000000000069", "visa", "is declined: expired", "expired_card", "expired_card"),
    Card("4000000000000119", "visa", "fails in processing", "processing_error", "processing_error"),
    Card("5555555555554444", "mastercard", "is paid"),
    Card("4000002760003184", "visa", "asks for 3-D Secure each time", asks_on_session=True, asks_off_session=True),
    Card("4000000000000341", "visa", "is paid once, declined later", "generic_decline", declines_off_session=True),
    Card("4000000000000259", "visa", "is paid, then disputed", is_disputed=True),
    Card("4000000000005423", "visa", "is paid, then warned about", has_warning=True),
)


NAMED_CARDS = {
    "pm_card_visa": CARDS[0],
    "pm_card_authenticationRequired": Card(
        "4000002500003155", "visa", "asks for 3-D Secure", asks_on_session=True, asks_off_session=True
    ),
    "pm_card_chargeCustomerFail": Card(
        "4000000000000341", "visa", "is declined later", "generic_decline", declines_off_session=True
    ),
}
"""Names that can be attached to a customer without a payment page."""


def card_of(number: str) -> Card:
    """The test card with this number; KeyError when it is none of ours."""
    return {card.number: card for card in CARDS}[number]


def is_declined(card: Card, *, off_session: bool) -> bool:
    """What the issuer says to a charge that needs no 3-D Secure any more."""
    return bool(card.decline_code) and (off_session or not card.declines_off_session)
