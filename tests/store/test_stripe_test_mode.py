"""One walk through what we ask of Stripe: by the stand-in always, and by Stripe's own test mode when there is a key.

`STRIPE_TEST_KEY=sk_test_… make stripe-test` moves test money only. Stripe's pay page needs a person: the walk makes
and closes one, and pays with saved test cards.
"""

import os
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
import stripe

from dragonfly.core.ids import IdSource
from dragonfly.core.secrets import Secret
from dragonfly.payments.orders import CardRefused, ChargeOrder, CheckoutOrder, ObjectMissing, StripeRefused
from dragonfly.payments.simulated import SimulatedStripe
from dragonfly.payments.stripe_calls import API_VERSION, StripeCalls
from tests.fakes.contract import differences

KEY = os.environ.get("STRIPE_TEST_KEY", "")
BACK_S = 60


class Till(NamedTuple):
    """Stripe, by our calls and by the SDK."""

    calls: StripeCalls
    client: stripe.StripeClient
    started_s: int
    customer_id: str
    own_id: str
    """New in each run: idempotency keys are made from it."""

    def attached(self, card: str) -> str:
        return self.client.v1.payment_methods.attach(card, {"customer": self.customer_id}).id

    def charge(self, card: str, name: str) -> str:
        order = ChargeOrder(f"{self.own_id}-{name}", "acc-test", self.customer_id, self.attached(card), 1_200)
        return self.calls.charge_saved_card(order)


@pytest.fixture(params=["simulated", "stripe"])
def till(request: pytest.FixtureRequest) -> Iterator[Till]:
    if request.param == "stripe" and not KEY:
        pytest.skip("STRIPE_TEST_KEY is not set: Stripe's test mode was not asked")
    assert not KEY or KEY.startswith(("sk_test_", "rk_test_")), "only a key of the test mode"
    with SimulatedStripe() as fake:
        is_real = request.param == "stripe"
        key, base = (KEY, "") if is_real else (fake.api_key, fake.url)
        addresses: Any = {"api": base} if base else {}
        calls = StripeCalls(Secret(key), api_base=base)
        client = stripe.StripeClient(key, stripe_version=API_VERSION, base_addresses=addresses)
        own_id = IdSource().new("top-", time.time_ns())
        customer_id = calls.create_customer(own_id, "alice@example.com")
        yield Till(calls, client, int(time.time()) - BACK_S, customer_id, own_id)


def assert_shape(shown: stripe.StripeObject) -> None:
    """What the SDK read has the fields of its class."""
    assert differences(shown.to_dict()) == []


def test_the_account_tells_its_name(till: Till) -> None:
    assert till.calls.account_id().startswith("acct_")


def test_a_payment_page_is_made_once_and_closed(till: Till) -> None:
    order = CheckoutOrder(
        topup_id=till.own_id,
        account_id="acc-test",
        customer_id=till.customer_id,
        cents=1_200,
        tax="off",
        methods=("card", "link"),
        saves_card=True,
        language="zh",
        success_url="https://gateway.example/wallet/topups/top-1",
        cancel_url="https://gateway.example/wallet/topups/top-1",
        expires_s=int(time.time()) + 3_000,
    )
    made = till.calls.create_checkout(order)
    assert till.calls.create_checkout(order).id == made.id
    assert (made.status, made.is_paid, made.livemode) == ("open", False, False)
    assert (made.subtotal_cents, made.total_cents, made.tax_cents, made.currency) == (1_200, 1_200, 0, "usd")
    assert (made.topup_id, made.account_id, made.customer_id) == (till.own_id, "acc-test", till.customer_id)
    assert made.url.startswith("http")
    till.calls.expire_session(made.id)
    till.calls.expire_session(made.id)
    assert till.calls.session(made.id).status == "expired"
    assert made.id in {one.id for one in till.calls.sessions_since(till.started_s)}
    assert_shape(till.client.v1.checkout.sessions.retrieve(made.id))


def test_a_saved_card_is_charged_once_refunded_in_parts_and_found_in_the_lists(till: Till) -> None:
    intent_id = till.charge("pm_card_visa", "paid")
    seen = till.calls.intent(intent_id)
    assert (seen.status, seen.amount_cents, seen.received_cents, seen.currency) == ("succeeded", 1_200, 1_200, "usd")
    assert seen.charge is not None
    assert seen.charge.is_paid
    assert seen.charge.card is not None
    assert seen.charge.card.label == "visa 4242"
    first = till.calls.create_refund(f"ref-{till.own_id}", intent_id, 500, "mistake")
    assert till.calls.create_refund(f"ref-{till.own_id}", intent_id, 500, "mistake").id == first.id
    with pytest.raises(StripeRefused):
        till.calls.create_refund(f"ref-{till.own_id}", intent_id, 501, "mistake")
    with pytest.raises(StripeRefused):
        till.calls.create_refund(f"ref-{till.own_id}-more", intent_id, 701, "mistake")
    assert [one.amount_cents for one in till.calls.refunds_of(intent_id)] == [500]
    assert till.calls.disputes_of(intent_id) == []
    assert intent_id in {one.id for one in till.calls.intents_since(till.started_s)}
    assert first.id in {one.id for one in till.calls.refunds_since(till.started_s)}
    assert seen.charge.id in {one.source for one in till.calls.movements_since(till.started_s)}
    assert intent_id not in {one.intent_id for one in till.calls.disputes_since(till.started_s)}
    assert intent_id not in {one.intent_id for one in till.calls.warnings_since(till.started_s)}
    assert_shape(till.client.v1.payment_intents.retrieve(intent_id))
    assert_shape(till.client.v1.charges.retrieve(seen.charge.id))
    assert_shape(till.client.v1.refunds.retrieve(first.id))


@pytest.mark.parametrize(
    ("card", "reason", "decline_code"),
    [
        ("pm_card_authenticationRequired", "authentication_required", "authentication_required"),
        ("pm_card_chargeCustomerFail", "card_declined", "generic_decline"),
    ],
)
def test_a_saved_card_that_is_refused_says_why(till: Till, card: str, reason: str, decline_code: str) -> None:
    with pytest.raises(CardRefused) as refused:
        till.charge(card, "refused")
    assert (refused.value.reason, refused.value.decline_code) == (reason, decline_code)
    seen = till.calls.intent(refused.value.intent_id)
    assert (seen.status, seen.received_cents) == ("requires_payment_method", 0)


def test_what_is_not_there_is_told(till: Till) -> None:
    with pytest.raises(ObjectMissing):
        till.calls.intent("pi_nothing")
    with pytest.raises(ObjectMissing):
        till.calls.session("cs_test_nothing")
