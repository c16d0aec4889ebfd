"""`dragonfly payments` and grants with a reason: what an operator sees and does on the command line."""

import io
import json
from collections.abc import Iterator

import pytest
from sqlalchemy import select

from dragonfly.accounts.actions import create_account
from dragonfly.core.clock import SystemClock
from dragonfly.core.ids import IdSource
from dragonfly.core.secrets import Secret
from dragonfly.infra.database import open_engine, read, write
from dragonfly.infra.logging import EventLog
from dragonfly.ledger.tables import lots
from dragonfly.payments.promo import redeem
from dragonfly.payments.simulated import SimulatedStripe
from dragonfly.payments.stripe_calls import StripeCalls
from dragonfly.payments.topups import Cashier, TopupWish
from tests.store.till import make_terms
from tests.system.program import Program

SETTINGS = """\
key_pepper = "a pepper for tests, thirty-two bytes or more"
[server]
public_url = "http://127.0.0.1:1"
[payments]
stripe_secret_key = "{fake.api_key}"
stripe_webhook_secret = "{fake.webhook_secret}"
stripe_url = "{fake.url}"
"""
DAYS = ("2026-01-01", "2199-12-31")


@pytest.fixture
def fake() -> Iterator[SimulatedStripe]:
    with SimulatedStripe() as running:
        yield running


@pytest.fixture
def cashier(program: Program, fake: SimulatedStripe) -> Iterator[Cashier]:
    (program.folder / "dragonfly.toml").write_text(SETTINGS.format(fake=fake))
    assert program.run("migrate").code == 0
    engine = open_engine(f"sqlite:///{program.folder}/data/dragonfly.db")
    clock = SystemClock()
    calls = StripeCalls(Secret(fake.api_key), api_base=fake.url)
    yield Cashier(engine, calls, make_terms(), clock, IdSource(), EventLog(io.BytesIO(), clock, strict=True))
    engine.dispose()


def paid_at_stripe(cashier: Cashier, fake: SimulatedStripe) -> str:
    """A payment of Alice's of which no event came; its id at Stripe."""
    now_ns = cashier.clock.now_ns()
    with write(cashier.engine) as connection:
        alice = create_account(connection, cashier.ids, name="Alice", verified_at_ns=now_ns, now_ns=now_ns)
    topup = cashier.begin(TopupWish(alice, "20", None, "en", saves_card=False, address_digest=None))
    assert topup.session_id is not None
    assert fake.pay(topup.session_id) == "paid"
    return str(fake.session(topup.session_id).intent)


def test_a_payment_that_is_missing_shows_is_repaired_and_found_by_stripes_id(
    program: Program, fake: SimulatedStripe, cashier: Cashier
) -> None:
    intent_id = paid_at_stripe(cashier, fake)
    missing = program.run("payments", "compare", *DAYS)
    assert missing.code == 1
    assert f"{intent_id} of top-" in missing.output
    assert "20 USD at Stripe, 0 USD in the books" in missing.output
    repaired = program.run("payments", "repair", "--json")
    assert (repaired.code, repaired.json) == (0, {"looked_at": 2, "repaired": 1, "differing": 0})
    compared = program.run("payments", "compare", *DAYS, "--json")
    assert compared.code == 0
    shown = json.loads(compared.output)
    assert {one["kind"]: one["difference"] for one in shown["lines"] if one["kind"] in ("charge", "fee")} == {
        "charge": "0",
        "fee": "0",
    }
    (found,) = json.loads(program.run("payments", "find", intent_id, "--json").output)
    assert (found["state"], found["total"], found["intent_id"]) == ("paid", "20.00", intent_id)
    assert found["id"] in program.run("payments", "find").output


def test_disputes_and_margins_are_listed(program: Program, fake: SimulatedStripe, cashier: Cashier) -> None:
    intent_id = paid_at_stripe(cashier, fake)
    assert program.run("payments", "repair").code == 0
    with fake.till() as till:
        intent = till.state.intents.get(intent_id)
        assert intent is not None
        opened = till.open_dispute(till.charge(intent.charge or ""), reason="fraudulent")
    program.run("payments", "repair")
    assert opened.id in program.run("payments", "disputes").output
    (shown,) = json.loads(program.run("payments", "disputes", "--json").output)
    assert (shown["state"], shown["evidence"]["amount_usd"]) == ("open", "20.00")
    assert program.run("payments", "margins", *DAYS, "--json").json == []
    assert program.run("payments", "margins", "soon", "later").code == 1


def test_codes_are_printed_once_and_grants_have_a_reason(program: Program, cashier: Cashier) -> None:
    made = program.run("payments", "codes", "3", "5", "--per-account", "2", "--credit-days", "30", "--note", "fair")
    codes = made.output.split()
    assert len(set(codes)) == 3
    now_ns = cashier.clock.now_ns()
    with write(cashier.engine) as connection:
        alice = create_account(connection, cashier.ids, name="Alice", verified_at_ns=now_ns, now_ns=now_ns)
        redeem(connection, alice, codes[0], now_ns=now_ns)
    granted = program.run("credit", "grant", alice, "1", "--reason", "goodwill")
    assert granted.output == "Granted 1 USD. Balance: 6 USD.\n"
    with read(cashier.engine) as connection:
        references = connection.execute(select(lots.c.reference)).scalars().all()
    assert "goodwill" in references
    assert program.run("payments", "codes", "0", "5").code == 2


def test_without_a_key_for_stripe_the_command_says_so(program: Program) -> None:
    assert program.run("migrate").code == 0
    refused = program.run("payments", "repair")
    assert refused.code == 1
    assert "payments.stripe_secret_key" in refused.errors
