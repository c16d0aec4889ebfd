"""No card number, bank detail, name or address that Stripe may show reaches the database or the log."""

import io
import json
import re
from collections.abc import Iterator, Mapping

import pytest
import stripe
from sqlalchemy import Engine, select

from dragonfly.core.secrets import Secret
from dragonfly.infra.database import SCHEMA, read
from dragonfly.payments.events import HANDLED, Details
from dragonfly.payments.simulated import CARDS, SimulatedStripe
from dragonfly.payments.simulated.state import Json
from dragonfly.payments.stripe_calls import StripeCalls
from dragonfly.privacy.inventory import all_tables
from tests.factories import MovableClock
from tests.fakes.stripe_line import StripeLine
from tests.store.till import TillDesk, make_terms, till_desk
from tests.store.walk import walk

SPILLED: Mapping[str, object] = {
    "number": CARDS[0].number,
    "cvc": "canary-cvc",
    "exp_year": 2_034,
    "iban": "DE89370400440532013000",
    "account_number": "000123456789",
    "routing_number": "110000000",
    "bank_name": "Canary Bank",
    "fingerprint": "canaryprint",
    "name": "Canary Holder",
    "email": "canary@example.com",
    "phone": "+4930canary",
    "ip": "203.0.113.77",
    "description": "canary text",
    "client_secret": "canary_secret",
    "us_bank_account": {"routing_number": "110000000", "account_number": "000123456789"},
    "sepa_debit": {"iban": "DE89370400440532013000"},
}
"""More than Stripe's API ever shows, in every object that it sends."""
CANARIES = ("canary", "4242424242424242", "DE8937040044", "000123456789", "110000000", "203.0.113.77")
KEPT_OF_AN_EVENT = {
    "object", "id", "session", "intent", "topup", "account", "currency", "amount", "status", "card",
}  # fmt: skip


def spilling(shown: object) -> object:
    """The same JSON with all of that in every object, where it does not stand in the way of what is there."""
    if isinstance(shown, list):
        return [spilling(one) for one in shown]
    if not isinstance(shown, dict):
        return shown
    inner = {name: spilling(value) for name, value in shown.items() if name != "metadata"}
    kept = {"metadata": shown["metadata"]} if "metadata" in shown else {}
    return {**SPILLED, **inner, **kept}


def spilled(event: Json) -> Json:
    shown = spilling(event)
    assert isinstance(shown, dict)
    return shown


class SpillingLine(StripeLine):
    """Says more than Stripe would, and remembers every byte that it would say itself."""

    def __init__(self, fake: SimulatedStripe) -> None:
        super().__init__(fake)
        self.said = bytearray()

    def request(
        self, method: str, url: str, headers: Mapping[str, str] | None, post_data: object = None
    ) -> tuple[bytes, int, Mapping[str, str]]:
        body, status, others = super().request(method, url, headers, post_data)
        self.said += body
        return json.dumps(spilling(json.loads(body))).encode(), status, others


@pytest.fixture
def desk(engine: Engine, clock: MovableClock) -> Iterator[TillDesk]:
    terms = make_terms(methods=("card", "link", "alipay", "wechat_pay"), operator_address="ops@example.org")
    with till_desk(engine, clock, terms=terms) as made:
        yield made


def everything_stored(engine: Engine) -> str:
    """Every value of every table, as text."""
    words = io.StringIO()
    with read(engine) as connection:
        for table in all_tables():
            for row in connection.execute(select(table)):
                words.write(f"{table.name} {tuple(row)!r}\n")
    return words.getvalue()


def is_card_number(digits: str) -> bool:
    """Luhn's sum, which every card number has."""
    doubled = [int(digit) * (1 + place % 2) for place, digit in enumerate(reversed(digits))]
    return sum(value - 9 if value > 9 else value for value in doubled) % 10 == 0


def test_whatever_stripe_shows_only_the_needed_fields_arrive(engine: Engine, desk: TillDesk) -> None:
    line = SpillingLine(desk.fake)
    desk.cashier.calls = StripeCalls(Secret(desk.fake.api_key), http=line)
    said = walk(desk, spilled) + bytes(line.said)
    stored = everything_stored(engine)
    assert stored.count("'paid'") > 10
    for canary in CANARIES:
        assert canary not in stored, f"{canary} is in the database"
        assert canary.encode() not in desk.log.getvalue(), f"{canary} is in the log"
    # The stand-in's own words have the shapes of Stripe's objects, where a card number has no place either.
    assert len(said) > 100_000
    numbers = re.findall(r"(?<![0-9A-Za-z_])\d{12,19}(?![0-9A-Za-z])", said.decode())
    assert [number for number in numbers if is_card_number(number)] == []


def test_what_is_kept_of_an_event_is_a_closed_list(desk: TillDesk) -> None:
    assert set(Details.__struct_fields__) == KEPT_OF_AN_EVENT
    walk(desk)
    with read(desk.engine) as connection:
        table = SCHEMA.tables["external_events"]
        rows = connection.execute(select(table.c.type, table.c.details)).all()
    assert {row.type for row in rows} <= HANDLED
    assert len(rows) > 30
    assert all(set(json.loads(row.details)) <= KEPT_OF_AN_EVENT for row in rows)


def test_the_sdks_objects_have_no_field_for_a_card_number() -> None:
    """Of the objects that we ask for; generated from Stripe's description of its API."""
    shown: list[type] = [stripe.PaymentMethod.Card, stripe.Charge.PaymentMethodDetails.Card]
    for resource in shown:
        assert not {"number", "cvc"} & set(resource.__annotations__)
