"""Statements reconcile with the ledger to the nano-dollar, also when the days behind them are closed."""

import csv
import io
import json
from datetime import UTC, datetime
from decimal import Decimal
from itertools import pairwise

import pytest
from sqlalchemy import Engine, delete, select, update

from dragonfly.admission.account_statement import MonthInvalid, Statement, parse_month, statement_of
from dragonfly.admission.statement_lines import HEADINGS, statement_fields, statement_rows
from dragonfly.admission.verify import verify
from dragonfly.core.ids import AccountId
from dragonfly.core.money import from_usd
from dragonfly.core.spreadsheets import harmless
from dragonfly.core.tokens import TokenUsage
from dragonfly.infra.database import read, write
from dragonfly.ledger.actions import grant_credit, top_up
from dragonfly.ledger.queries import wallet_of
from dragonfly.ledger.refunds import complete_refund, hold_refund
from dragonfly.usage.actions import close_old_days
from dragonfly.usage.queries import NS_PER_DAY
from dragonfly.usage.tables import usage, usage_days
from tests.factories import Customer, MovableClock, make_customer
from tests.store.desk import MODEL, running_desk

MONTHS = ("2026-12", "2027-01", "2027-02")


def at_ns(text: str) -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 10**9


async def spend(engine: Engine, alice: Customer, when: str, tokens: int) -> None:
    """A request at an instant."""
    clock = MovableClock(at_ns(when))
    async with running_desk(engine, clock) as desk:
        grant = await desk.admit(await desk.ask(alice, output_tokens=tokens))
        await desk.settle_durably(grant, TokenUsage(10, tokens))


async def _three_months(engine: Engine) -> Customer:
    """Alice pays, is given, gets a refund, and uses some at both ends of January."""
    alice = make_customer(engine, usd="0")
    owner = alice.account_id
    with write(engine) as connection:
        paid = {"idempotency_key": "1", "reference": "pi_1", "now_ns": at_ns("2026-12-31T23:59:59")}
        top_up(connection, owner, amount_nusd=from_usd("5"), **paid)  # type: ignore[arg-type]
        now_ns = at_ns("2027-01-01T00:00:00")
        grant_credit(connection, owner, amount_nusd=from_usd("0.5"), idempotency_key="=1+1", now_ns=now_ns)
        now_ns = at_ns("2027-01-20T12:00:00")
        hold_refund(connection, owner, refund_id="re_1", amount_nusd=from_usd("2"), now_ns=now_ns)
        complete_refund(connection, owner, refund_id="re_1", now_ns=now_ns)
    for when, tokens in (
        ("2027-01-01T00:00:00", 1),
        ("2027-01-31T23:59:59", 20),
        ("2027-02-01T00:00:00", 300),
        ("2027-02-02T00:00:00", 1_000),
    ):
        await spend(engine, alice, when, tokens)
    return alice


def statements(engine: Engine, account_id: AccountId) -> list[Statement]:
    now_ns = at_ns("2027-02-23T00:00:00")
    with read(engine) as connection:
        assert verify(connection, usage_since_ns=now_ns).findings == ()
        made = [statement_of(connection, account_id, parse_month(month, now_ns=now_ns)) for month in MONTHS]
        wallet = wallet_of(connection, account_id)
    assert wallet is not None
    assert made[0].opening_nusd == 0
    assert made[-1].closing_nusd == wallet.balance_nusd
    for before, after in pairwise(made):
        assert before.closing_nusd == after.opening_nusd
    return made


async def test_statements_join_and_end_with_the_wallet(engine: Engine) -> None:
    alice = await _three_months(engine)
    december, january, february = statements(engine, alice.account_id)
    assert [(event.kind, event.amount_nusd) for event in december.events] == [("top_up", from_usd("5"))]
    assert [event.kind for event in january.events] == ["grant", "refund_hold"]
    assert [total.cost_nusd for total in january.usage] == [12_000, 50_000]
    assert [(total.model, total.key_id) for total in january.usage] == [(MODEL, alice.key_id)] * 2
    assert january.closing_nusd == from_usd("3.5") - 62_000
    assert [total.completion_tokens for total in february.usage] == [300, 1_000]


async def test_closed_days_leave_the_total_of_their_month(engine: Engine) -> None:
    alice = await _three_months(engine)
    open_before = statements(engine, alice.account_id)
    with write(engine) as connection:
        connection.execute(delete(usage))
        assert close_old_days(connection, now_ns=at_ns("2027-02-01T12:00:00") + 90 * NS_PER_DAY) == 2
    closed = statements(engine, alice.account_id)
    assert [one.closing_nusd for one in closed] == [one.closing_nusd for one in open_before]
    assert [one.closed_usage_nusd for one in closed] == [0, 62_000, 0]
    assert [len(one.usage) for one in closed] == [0, 0, 2]


async def test_all_lines_of_a_statement_add_up_in_csv_and_json(engine: Engine) -> None:
    alice = await _three_months(engine)
    with write(engine) as connection:
        connection.execute(update(usage_days).values(model='=HYPERLINK("http://x")'))
    for made in statements(engine, alice.account_id):
        text = io.StringIO()
        csv.writer(text).writerows(statement_rows(made))
        head, opening, *lines, closing = csv.reader(io.StringIO(text.getvalue()))
        assert tuple(head) == HEADINGS
        assert Decimal(opening[-1]) + sum(Decimal(line[-1]) for line in lines) == Decimal(closing[-1])
        assert not any(cell.startswith(("=", "+", "@")) for line in lines for cell in line)
        fields = json.loads(json.dumps(statement_fields(made)))
        events = sum(Decimal(event["amount_usd"]) for event in fields["events"])
        change = events - Decimal(fields["usage_usd"])
        assert Decimal(fields["opening_balance_usd"]) + change == Decimal(fields["closing_balance_usd"])


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", " =1", "\r=1", "|x", "%x"])
def test_no_text_begins_a_formula(text: str) -> None:
    assert harmless(text) == f"'{text}"
    assert harmless("acme/plain") == "acme/plain"


@pytest.mark.parametrize(
    "text", ["", "2026", "2026-13", "2026-00", "2026-1", "1999-01", "2027-03", " 2026-10", "2026-10\n"]
)
def test_a_month_is_written_out_and_has_begun(text: str) -> None:
    with pytest.raises(MonthInvalid):
        parse_month(text, now_ns=at_ns("2027-02-23T00:00:00"))


async def test_a_statement_shows_its_owner_only(engine: Engine) -> None:
    await _three_months(engine)
    bob = make_customer(engine, name="Bob", usd="0")
    assert all(not one.events and not one.usage for one in statements_of_nobody(engine, bob.account_id))


def statements_of_nobody(engine: Engine, account_id: AccountId) -> list[Statement]:
    now_ns = at_ns("2027-02-23T00:00:00")
    with read(engine) as connection:
        assert connection.execute(select(usage_days.c.account_id).distinct()).scalar_one() != account_id
        return [statement_of(connection, account_id, parse_month(month, now_ns=now_ns)) for month in MONTHS]
