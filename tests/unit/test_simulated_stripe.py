"""The simulated Stripe, asked by the real SDK over HTTP: shapes, states, errors, idempotency, lists, deliveries."""

import json
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import stripe

from dragonfly.payments.simulated import CARDS, SimulatedStripe
from dragonfly.payments.simulated.faults import Outage
from dragonfly.payments.simulated.state import Json
from tests.factories import MovableClock
from tests.fakes.contract import differences
from tests.fakes.json_server import Asked, Told, json_server

PAID = CARDS[0].number
THREE_D_SECURE = "4000000000003220"
DECLINED = "4000000000000002"
ASKS_LATER = "4000002760003184"


@pytest.fixture
def clock() -> MovableClock:
    return MovableClock()


@pytest.fixture
def fake(clock: MovableClock) -> Iterator[SimulatedStripe]:
    with SimulatedStripe(clock=clock) as running:
        yield running


@pytest.fixture
def client(fake: SimulatedStripe) -> stripe.StripeClient:
    return stripe.StripeClient(fake.api_key, base_addresses={"api": fake.url}, max_network_retries=0)


def checkout(client: stripe.StripeClient, cents: int = 1_000, **more: Any) -> Any:
    """An open Checkout Session of a new customer."""
    customer = client.v1.customers.create({"email": "alice@example.com"})
    price = {"currency": "usd", "unit_amount": cents, "product_data": {"name": "Credit"}}
    return client.v1.checkout.sessions.create(
        {
            "mode": "payment",
            "customer": customer.id,
            "line_items": [{"quantity": 1, "price_data": price}],
            "success_url": "https://gateway.example/wallet?session={CHECKOUT_SESSION_ID}",
            "metadata": {"topup": "top-1"},
            "payment_intent_data": {"metadata": {"topup": "top-1"}},
            **more,  # type: ignore[typeddict-item]
        }
    )


def types_of(events: list[Json]) -> list[object]:
    return [event["type"] for event in events]


def test_everything_it_shows_has_the_shape_of_the_resource(
    fake: SimulatedStripe, client: stripe.StripeClient
) -> None:
    saving = {"card": {"setup_future_usage": "off_session"}}
    for number in (PAID, THREE_D_SECURE, DECLINED, "4000000000000259", "4000000000005423"):
        fake.pay(checkout(client, payment_method_options=saving).id, number)
    for kind in ("alipay", "wechat_pay", "link"):
        options = {"wechat_pay": {"client": "web"}}
        session = checkout(client, allowed_payment_method_types=[kind], payment_method_options=options)
        fake.pay_by(session.id, kind)
        client.v1.refunds.create({"payment_intent": fake.session(session.id).intent or "", "amount": 300})
    taxed = checkout(client, automatic_tax={"enabled": True})
    with fake.till() as till:
        till.pay_session_later(fake.session(taxed.id), "link")
        till.settle_session(fake.session(taxed.id), succeeds=True)
        for refund in till.state.refunds:
            till.finish_refund(refund, succeeds=refund.amount_cents % 2 == 1)
        for place, dispute in enumerate(till.state.disputes):
            till.close_dispute(dispute, is_won=place % 2 == 0)
        for method in till.state.methods:
            if method.customer:
                till.detach(method)
        shapes = till.shapes
        shown = [
            *map(shapes.customer, till.state.customers), *map(shapes.method, till.state.methods),
            *map(shapes.session, till.state.sessions), *map(shapes.intent, till.state.intents),
            *map(shapes.charge, till.state.charges), *map(shapes.refund, till.state.refunds),
            *map(shapes.dispute, till.state.disputes), *map(shapes.warning, till.state.warnings),
            *map(shapes.movement, till.state.movements), *map(shapes.event, till.state.events),
        ]  # fmt: skip
    assert len({one["object"] for one in shown}) == 10
    for one in shown:
        assert differences(one) == []
    expanded = client.v1.charges.retrieve(fake.charge_of(taxed.id).id, {"expand": ["balance_transaction"]})
    assert differences(expanded.to_dict()) == []
    assert differences(client.v1.accounts.retrieve_current().to_dict()) == []


def test_a_payment_tells_its_story_and_pays_the_fee(fake: SimulatedStripe, client: stripe.StripeClient) -> None:
    session = checkout(client)
    assert (session.status, session.payment_status) == ("open", "unpaid")
    assert session.payment_intent is None
    assert fake.pay(session.id) == "paid"
    found = client.v1.checkout.sessions.retrieve(
        session.id, {"expand": ["payment_intent.latest_charge.balance_transaction"]}
    )
    intent: Any = found.payment_intent
    assert (found.status, found.payment_status, intent.status) == ("complete", "paid", "succeeded")
    assert intent.metadata.topup == "top-1"
    assert intent.latest_charge.balance_transaction.fee == 59
    assert types_of(fake.undelivered) == [
        "payment_intent.succeeded",
        "charge.succeeded",
        "checkout.session.completed",
    ]


def test_the_same_idempotency_key_answers_the_same_and_refuses_other_parameters(
    fake: SimulatedStripe, client: stripe.StripeClient, clock: MovableClock
) -> None:
    first = client.v1.customers.create({"name": "Alice"}, {"idempotency_key": "one"})
    again = client.v1.customers.create({"name": "Alice"}, {"idempotency_key": "one"})
    assert again.id == first.id
    with pytest.raises(stripe.IdempotencyError) as refused:
        client.v1.customers.create({"name": "Bob"}, {"idempotency_key": "one"})
    assert refused.value.http_status == 400
    clock.move(86_401)
    assert client.v1.customers.create({"name": "Alice"}, {"idempotency_key": "one"}).id != first.id


@pytest.mark.parametrize(
    ("params", "param", "code"),
    [
        ({"colour": "red"}, "colour", "parameter_unknown"),
        ({"payment_method_types": ["card"]}, "payment_method_types", "parameter_unknown"),
        ({"mode": "gift"}, "mode", None),
        ({"expires_at": "soon"}, "expires_at", "parameter_invalid_integer"),
        ({"expires_at": 1}, "expires_at", None),
        ({"success_url": "nowhere"}, "success_url", "url_invalid"),
        ({"customer": "cus_none"}, "customer", "resource_missing"),
        ({"allowed_payment_method_types": ["wechat_pay"]}, "payment_method_options[wechat_pay][client]", None),
        (
            {"line_items": [{"quantity": 1, "price_data": {"unit_amount": 5}}]},
            "line_items[0][price_data][currency]",
            "parameter_missing",
        ),
    ],
)
def test_parameters_that_stripe_would_refuse_are_refused(
    client: stripe.StripeClient, params: dict[str, Any], param: str, code: str | None
) -> None:
    with pytest.raises(stripe.InvalidRequestError) as refused:
        checkout(client, **params)
    assert (refused.value.param, refused.value.code) == (param, code)


def test_a_wrong_key_a_wrong_path_and_a_missing_object_are_told(
    fake: SimulatedStripe, client: stripe.StripeClient
) -> None:
    stranger = stripe.StripeClient("sk_test_other", base_addresses={"api": fake.url}, max_network_retries=0)
    with pytest.raises(stripe.AuthenticationError):
        stranger.v1.customers.create({})
    with pytest.raises(stripe.InvalidRequestError) as unknown:
        client.v1.checkout.sessions.retrieve("cs_none")
    assert (unknown.value.http_status, unknown.value.code) == (404, "resource_missing")
    with pytest.raises(stripe.InvalidRequestError):
        client.v1.coupons.list()


def test_lists_have_pages_filters_and_times(
    fake: SimulatedStripe, client: stripe.StripeClient, clock: MovableClock
) -> None:
    ids = []
    for _ in range(5):
        session = checkout(client)
        fake.pay(session.id)
        ids.append(fake.session(session.id).intent)
        clock.move(60)
    page = client.v1.payment_intents.list({"limit": 2})
    assert page.has_more
    assert [intent.id for intent in page.auto_paging_iter()] == ids[::-1]
    since_s = clock.now_ns() // 10**9 - 130
    late = client.v1.payment_intents.list({"created": {"gte": since_s}})
    assert [intent.id for intent in late] == ids[:2:-1]
    charges = client.v1.charges.list({"payment_intent": ids[0] or ""})
    assert [charge.payment_intent for charge in charges] == [ids[0]]


@pytest.mark.parametrize(
    ("number", "code", "decline_code"),
    [
        (ASKS_LATER, "authentication_required", "authentication_required"),
        ("4000000000000341", "card_declined", "generic_decline"),
        (PAID, "", ""),
    ],
)
def test_a_saved_card_is_charged_without_its_owner_or_refused(
    fake: SimulatedStripe, client: stripe.StripeClient, number: str, code: str, decline_code: str
) -> None:
    session = checkout(client, payment_method_options={"card": {"setup_future_usage": "off_session"}})
    assert fake.pay(session.id, number) == "paid"
    intent = client.v1.payment_intents.retrieve(fake.session(session.id).intent or "")
    order: Any = {
        "amount": 500,
        "currency": "usd",
        "customer": session.customer,
        "payment_method": intent.payment_method,
        "off_session": True,
        "confirm": True,
        "error_on_requires_action": True,
    }
    if not code:
        assert client.v1.payment_intents.create(order).status == "succeeded"
        return
    with pytest.raises(stripe.CardError) as refused:
        client.v1.payment_intents.create(order)
    error: Any = refused.value.error
    assert (error.code, error.decline_code, error.payment_intent.status) == (
        code,
        decline_code,
        "requires_payment_method",
    )


def test_refunds_are_bounded_by_the_charge_and_may_fail_later(
    fake: SimulatedStripe, client: stripe.StripeClient
) -> None:
    session = checkout(client)
    fake.pay(session.id)
    charge = fake.charge_of(session.id)
    first = client.v1.refunds.create({"charge": charge.id, "amount": 400})
    with pytest.raises(stripe.InvalidRequestError):
        client.v1.refunds.create({"charge": charge.id, "amount": 601})
    with fake.till() as till:
        refund = till.state.refunds.get(first.id)
        assert refund is not None
        till.finish_refund(refund, succeeds=False)
    assert client.v1.refunds.retrieve(first.id).status == "failed"
    assert client.v1.charges.retrieve(charge.id).amount_refunded == 0
    assert types_of(fake.undelivered)[-4:] == [
        "refund.created",
        "charge.refunded",
        "refund.updated",
        "refund.failed",
    ]


def test_a_dispute_takes_the_money_and_gives_it_back_when_it_is_won(
    fake: SimulatedStripe, client: stripe.StripeClient
) -> None:
    session = checkout(client)
    fake.pay(session.id)
    with fake.till() as till:
        opened = till.open_dispute(fake.charge_of(session.id), reason="fraudulent")
    client.v1.disputes.update(opened.id, {"evidence": {"product_description": "Credit"}, "submit": True})
    assert client.v1.disputes.retrieve(opened.id).status == "under_review"
    with fake.till() as till:
        till.close_dispute(opened, is_won=True)
    found = client.v1.disputes.retrieve(opened.id)
    assert [(moved.amount, moved.fee) for moved in found.balance_transactions] == [(-1_000, 1_500), (1_000, 0)]


def test_sessions_expire_by_the_clock(
    fake: SimulatedStripe, client: stripe.StripeClient, clock: MovableClock
) -> None:
    session = checkout(client, expires_at=clock.now_ns() // 10**9 + 1_800)
    clock.move(1_801)
    assert client.v1.checkout.sessions.retrieve(session.id).status == "expired"
    assert types_of(fake.undelivered) == ["checkout.session.expired"]


@pytest.mark.parametrize(
    ("outage", "error", "happened"),
    [
        (Outage.REFUSED, stripe.APIError, False),
        (Outage.LIMITED, stripe.RateLimitError, False),
        (Outage.CUT, stripe.APIConnectionError, False),
        (Outage.LOST, stripe.APIConnectionError, True),
    ],
)
def test_outages_come_before_or_after_the_work(
    fake: SimulatedStripe,
    client: stripe.StripeClient,
    outage: Outage,
    error: type[stripe.StripeError],
    happened: bool,
) -> None:
    fake.plan("POST", "/v1/customers", outage)
    with pytest.raises(error):
        client.v1.customers.create({"name": "Alice"}, {"idempotency_key": "one"})
    assert (len(list(fake.state.customers)) == 1) is happened
    client.v1.customers.create({"name": "Alice"}, {"idempotency_key": "one"})
    assert len(list(fake.state.customers)) == 1


def test_the_pay_page_takes_a_choice_asks_for_3d_secure_and_says_that_it_is_simulated(
    fake: SimulatedStripe, client: stripe.StripeClient
) -> None:
    session = checkout(client)
    url = str(session.url)
    page = httpx.get(url)
    assert "simulated" in page.text
    assert "10.00 USD" in page.text
    assert "Your card was declined" in httpx.post(url, data={"choice": "card-2", "press": "pay"}).text
    assert "3-D Secure" in httpx.post(url, data={"choice": "card-1", "press": "pay"}).text
    paid = httpx.post(url, data={"choice": "card-1", "press": "confirm"})
    assert paid.status_code == 303
    assert paid.headers["location"] == f"https://gateway.example/wallet?session={session.id}"
    assert "Nothing more can be paid here" in httpx.get(url).text
    assert "10.00 USD" in httpx.get(fake.charge_of(session.id).receipt_url).text
    assert httpx.get(f"{fake.url}/pay/cs_none").status_code == 404


def test_events_are_signed_as_the_sdk_expects_and_delivered_until_they_are_taken(
    fake: SimulatedStripe, client: stripe.StripeClient
) -> None:
    fake.clock = MovableClock()
    taken: list[str] = []
    everything = threading.Event()
    answers = iter([500, 200, 200, 200])

    def webhook(asked: Asked) -> Told:
        signature = asked.headers["stripe-signature"]
        stripe.WebhookSignature.verify_header(asked.body, signature, fake.webhook_secret, tolerance=None)
        status = next(answers)
        if status == 200:
            taken.append(json.loads(asked.body)["type"])
        if len(taken) == 3:
            everything.set()
        return Told(status, {})

    with json_server(webhook) as address:
        fake.deliver_to(f"{address}/webhooks/stripe")
        fake.pay(checkout(client).id)
        assert everything.wait(30)
    assert taken == ["payment_intent.succeeded", "charge.succeeded", "checkout.session.completed"]
