"""What is no event of Stripe's for this installation: refused, recorded with its reason, and never logged."""

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from dragonfly.infra.database import read, write
from dragonfly.ledger.queries import wallet_of
from dragonfly.payments.events import BODY_BYTES_MAX
from dragonfly.payments.queries import events_in, refusals_since
from dragonfly.payments.simulated import SimulatedStripe
from dragonfly.payments.simulated.delivery import sign
from dragonfly.payments.tables import topups
from tests.factories import MovableClock, make_database
from tests.http.counter import TOPUPS, Counter

CANARY = "nobody-may-see-this"


@pytest.fixture
async def counter(tmp_path: Path) -> AsyncIterator[Counter]:
    engine = make_database(tmp_path)
    clock = MovableClock()
    fake = SimulatedStripe(clock=clock)
    made = Counter(engine, clock, fake)
    yield made
    made.threads.close()
    fake.stop()
    engine.dispose()


async def told(counter: Counter) -> dict[str, Any]:
    """What Stripe tells of a payment of Alice's that is settled there, with words that nobody needs."""
    assert counter.fake is not None
    begun = await counter.ask("alice", "POST", TOPUPS, {"amount": "20"})
    assert counter.fake.pay(begun.json()["url"].rpartition("/")[2]) == "paid"
    (event,) = [one for one in counter.fake.undelivered if one["type"] == "checkout.session.completed"]
    shown: dict[str, Any] = json.loads(json.dumps(event))
    shown["data"]["object"]["customer_details"] = {"email": CANARY, "name": CANARY}
    shown["data"]["object"]["custom_text"]["submit"] = {"message": CANARY}
    return shown


def stored(counter: Counter, state: str) -> list[tuple[str, str | None]]:
    assert counter.cashier is not None
    with read(counter.cashier.engine) as connection:
        return [(one.event_id, one.reason) for one in events_in(connection, state)]


def requests_refused(counter: Counter) -> dict[str, int]:
    assert counter.cashier is not None
    with read(counter.cashier.engine) as connection:
        return refusals_since(connection, first_day=0)


def everything_kept(counter: Counter) -> bytes:
    """The database's files and the log."""
    assert counter.cashier is not None
    folder = Path(counter.cashier.engine.url.database or "").parent
    return b"".join(file.read_bytes() for file in folder.glob("*.db*")) + counter.log.getvalue()


def assert_refused_and_silent(counter: Counter) -> None:
    """Nothing is credited, the refusal is in the log by its reason alone, and the canary is nowhere."""
    assert counter.cashier is not None
    with read(counter.cashier.engine) as connection:
        assert wallet_of(connection, counter.office.alice) is None
    assert b"payment_event_refused" in counter.log.getvalue()
    assert CANARY.encode() not in everything_kept(counter)


@pytest.mark.parametrize(
    ("reason", "secret", "late_s"),
    [
        ("forged", "whsec_of_somebody_else", 0),
        ("forged", "", 0),
        ("stale", None, -301),
        ("stale", None, 301),
    ],
)
async def test_a_signature_that_is_wrong_or_of_another_time_is_refused(
    counter: Counter, reason: str, secret: str | None, late_s: int
) -> None:
    body = json.dumps(await told(counter)).encode()
    assert counter.fake is not None
    at_s = counter.clock.now_ns() // 10**9 + late_s
    right = counter.fake.webhook_secret
    signature = "" if secret == "" else sign(body, secret or right, at_s).signature
    assert await counter.post(body, signature) == 400
    counter.work()
    assert requests_refused(counter) == {reason: 1}
    assert stored(counter, "new") == stored(counter, "done") == stored(counter, "refused") == []
    assert_refused_and_silent(counter)


async def test_a_body_that_was_changed_after_signing_is_forged(counter: Counter) -> None:
    body = json.dumps(await told(counter)).encode()
    assert counter.fake is not None
    signature = sign(body, counter.fake.webhook_secret, counter.clock.now_ns() // 10**9).signature
    assert await counter.post(body.replace(b"2000", b"9000"), signature) == 400
    for scheme in ("v0", "v2"):
        assert await counter.post(body, signature.replace("v1=", f"{scheme}=")) == 400
    counter.work()
    assert requests_refused(counter) == {"forged": 3}
    assert_refused_and_silent(counter)


@pytest.mark.parametrize(
    ("reason", "body"),
    [
        ("malformed", b""),
        ("malformed", b"{" + CANARY.encode()),
        ("malformed", b'["' + CANARY.encode() + b'"]'),
        ("malformed", b'{"canary": "' + CANARY.encode() + b'"}'),
        ("malformed", b'{"id": "evt_1", "object": "event", "type": "refund.created", "data": {"object": "x"}}'),
        ("malformed", b'{"id":"e","object":"list","type":"t","livemode":false,"created":1,"data":{"object":{}}}'),
        ("malformed", b'{"id":"e e","object":"event","type":"t","livemode":false,"created":1,"data":{"object":{}}}'),
        ("malformed", b'{"id":"e","object":"event","type":"t","livemode":"false","created":1,"data":{"object":{}}}'),
        ("forged", b"\xff\xfe" + CANARY.encode()),
        ("malformed", b"[" * 50_000),
        ("too_large", b" " * BODY_BYTES_MAX + CANARY.encode()),
    ],
)
async def test_a_signed_body_that_is_no_event_is_refused(counter: Counter, reason: str, body: bytes) -> None:
    assert counter.fake is not None
    signed = sign(body, counter.fake.webhook_secret, counter.clock.now_ns() // 10**9)
    assert await counter.post(body, signed.signature) == 400
    counter.work()
    assert requests_refused(counter) == {reason: 1}
    assert stored(counter, "new") == stored(counter, "refused") == []
    assert_refused_and_silent(counter)


def changed(**fields: object) -> Callable[[dict[str, Any]], None]:
    """Of the event itself."""
    return lambda event: event.update(fields)


def with_object(**fields: object) -> Callable[[dict[str, Any]], None]:
    """Of the object in it."""
    return lambda event: event["data"]["object"].update(fields)


@pytest.mark.parametrize(
    ("reason", "change"),
    [
        ("wrong_mode", changed(livemode=True)),
        ("wrong_account", changed(account="acct_of_somebody_else")),
        ("wrong_account", lambda event: event["data"]["object"]["metadata"].update(account="acc-of-bob")),
        ("wrong_amount", with_object(amount_subtotal=9_900)),
        ("wrong_amount", with_object(amount_subtotal=1)),
        ("wrong_currency", with_object(currency="eur")),
        ("unknown_object", with_object(object="invoice")),
        ("unknown_object", with_object(id="")),
        ("unknown_object", changed(type="refund.created")),
    ],
)
async def test_an_event_that_does_not_fit_is_refused_and_stays_on_record(
    counter: Counter, reason: str, change: Callable[[dict[str, Any]], None]
) -> None:
    event = await told(counter)
    change(event)
    assert counter.fake is not None
    signed = counter.fake.sign(event)
    assert await counter.post(signed.body, signed.signature) == 200, "Stripe need not tell it again"
    counter.work()
    counter.work()
    assert stored(counter, "refused") == [(event["id"], reason)]
    assert_refused_and_silent(counter)


async def test_an_event_about_what_stripe_does_not_know_is_refused(counter: Counter) -> None:
    event = await told(counter)
    assert counter.cashier is not None
    assert counter.fake is not None
    with write(counter.cashier.engine) as connection:
        connection.execute(topups.update().values(session_id="cs_test_gone"))
    event["data"]["object"]["id"] = "cs_test_gone"
    signed = counter.fake.sign(event)
    assert await counter.post(signed.body, signed.signature) == 200
    counter.work()
    assert stored(counter, "refused") == [(event["id"], "unknown_object")]
    assert_refused_and_silent(counter)


@pytest.mark.parametrize("version", ["2020-08-27", "2099-01-01.future", None])
async def test_an_event_of_another_api_version_only_says_where_to_look(counter: Counter, version: str | None) -> None:
    """What is credited comes from the object as our pinned version shows it, so that a webhook which an operator
    made with an older version loses nothing."""
    event = await told(counter)
    assert counter.fake is not None
    assert counter.cashier is not None
    signed = counter.fake.sign({**event, "api_version": version})
    assert await counter.post(signed.body, signed.signature) == 200
    counter.work()
    assert stored(counter, "done") == [(event["id"], None)]
    with read(counter.cashier.engine) as connection:
        wallet = wallet_of(connection, counter.office.alice)
    assert wallet is not None
    assert wallet.balance_nusd == 20 * 10**9
    assert CANARY.encode() not in everything_kept(counter)


async def test_types_that_change_nothing_here_are_acknowledged_and_not_kept(counter: Counter) -> None:
    event = await told(counter)
    assert counter.fake is not None
    signed = counter.fake.sign({**event, "type": "invoice.created"})
    assert await counter.post(signed.body, signed.signature) == 200
    counter.work()
    assert stored(counter, "new") == stored(counter, "refused") == stored(counter, "done") == []
    assert CANARY.encode() not in everything_kept(counter)
