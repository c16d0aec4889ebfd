"""Our requests, and everything that the stand-in says, against Stripe's published description of its API.

The description belongs to Stripe and is no part of this project: `STRIPE_OPENAPI=spec3.json python -m pytest
tests/store/test_stripe_description.py` reads the file that you have from github.com/stripe/openapi. Without it, the
SDK's types, which are generated from the same description, are what both are checked against.
"""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import stripe
from sqlalchemy import Engine

from dragonfly.core.secrets import Secret
from dragonfly.payments import stripe_calls
from dragonfly.payments.simulated import SimulatedStripe, shapes
from dragonfly.payments.simulated.api import Call, to_bytes
from dragonfly.payments.simulated.state import Json
from dragonfly.payments.stripe_calls import StripeCalls
from tests.factories import MovableClock, make_database
from tests.fakes.contract import RESOURCES, differences
from tests.fakes.description import Description
from tests.fakes.stripe_line import StripeLine
from tests.store.till import make_terms, till_desk
from tests.store.walk import walk

PATH = os.environ.get("STRIPE_OPENAPI", "")
METHODS = ("card", "link", "alipay", "wechat_pay")


class Said(NamedTuple):
    """One request and its answer."""

    call: Call
    status: int
    body: Json


class RecordingLine(StripeLine):
    """Remembers what was asked and answered."""

    def __init__(self, fake: SimulatedStripe) -> None:
        super().__init__(fake)
        self.said: list[Said] = []
        self._calls = fake.calls

    def request(
        self, method: str, url: str, headers: Mapping[str, str] | None, post_data: object = None
    ) -> tuple[bytes, int, Mapping[str, str]]:
        body, status, others = super().request(method, url, headers, post_data)
        self.said.append(Said(self._calls[-1], status, json.loads(body)))
        return body, status, others


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    made = make_database(tmp_path)
    yield made
    made.dispose()


def everything_said(engine: Engine, clock: MovableClock) -> tuple[list[Said], list[Json]]:
    """Every request of a walk with its answer, and every event; pages with and without tax."""
    said: list[Said] = []
    events: list[Json] = []
    for tax in ("off", "exclusive", "inclusive"):
        with till_desk(engine, clock, seed=tax, terms=make_terms(methods=METHODS)) as desk:
            line = RecordingLine(desk.fake)
            desk.cashier.calls = StripeCalls(Secret(desk.fake.api_key), http=line)
            if tax == "off":
                desk.cashier.calls.account_id()
                walk(desk)
            desk.cashier.terms = make_terms(methods=METHODS, tax=tax)
            desk.pay(desk.begin(desk.account(tax, email=None)))
            closed = desk.begin(desk.account(f"{tax} again", email=None))
            assert closed.session_id is not None
            desk.cashier.calls.expire_session(closed.session_id)
            said += line.said
            events += [json.loads(to_bytes(desk.fake.shapes.event(one))) for one in desk.fake.state.events]
    return said, events


def test_requests_and_answers_are_those_of_stripes_published_description(engine: Engine, clock: MovableClock) -> None:
    if not PATH:
        pytest.skip("STRIPE_OPENAPI names no file: Stripe's published description was not compared")
    document: dict[str, Any] = json.loads(Path(PATH).read_text())
    description = Description(document)
    said, events = everything_said(engine, clock)
    found: set[str] = set()
    for call, status, body in said:
        found |= set(description.request_differences(call.method, call.path, call.text))
        if status == 200:
            found |= set(description.answer_differences(call.method, call.path, body))
    for event in events:
        found |= set(description.object_differences(event))
        found |= set(description.object_differences(event["data"]["object"]))
    if description.version != stripe_calls.API_VERSION:
        pytest.skip(
            f"STRIPE_OPENAPI is of version {description.version}, ours is {stripe_calls.API_VERSION};"
            f" {len(said)} requests and {len(events)} events differ in: {sorted(found)}"
        )
    assert sorted(found) == []


def test_requests_and_answers_are_those_of_the_sdk(engine: Engine, clock: MovableClock) -> None:
    """The stand-in reads each request by the SDK's types; what it says fits the SDK's resources."""
    said, events = everything_said(engine, clock)
    assert {one.status for one in said} <= {200, 400, 402}
    assert all(one.status == 200 or one.body["error"]["type"] == "card_error" for one in said)
    found = {problem for event in events for problem in differences(event)}
    for one in said:
        if one.status == 200 and one.body["object"] in RESOURCES:
            found |= set(differences(one.body))
    assert found == set()
    assert len({(one.call.method, one.call.path.split("/")[2]) for one in said}) >= 10
    assert len({event["type"] for event in events}) >= 13


def test_the_version_is_the_newest_that_the_sdk_knows() -> None:
    assert stripe_calls.API_VERSION == shapes.API_VERSION == stripe.api_version
