"""The proof of the books must find whatever somebody planted."""

from collections import Counter

import pytest
from sqlalchemy import Engine, Executable, delete, func, insert, literal, select, text, update

from dragonfly.accounts.tables import accounts
from dragonfly.admission.tables import leases, workers
from dragonfly.admission.verify import Report, verify
from dragonfly.core.outcomes import Outcome
from dragonfly.core.tokens import TokenUsage
from dragonfly.infra.database import read, write
from dragonfly.keys.tables import key_spend
from dragonfly.ledger.actions import top_up
from dragonfly.ledger.disputes import open_dispute
from dragonfly.ledger.refunds import hold_refund
from dragonfly.ledger.tables import books, disputes, draws, entries, entry_groups, lots, refunds, wallets
from dragonfly.usage.queries import NS_PER_DAY
from dragonfly.usage.tables import usage, usage_days, usage_months
from tests.factories import START_NS, Customer, MovableClock, make_account, make_customer
from tests.store.desk import running_desk


def report_on(engine: Engine) -> Report:
    with read(engine) as connection:
        return verify(connection)


async def _some_events(engine: Engine, clock: MovableClock) -> Customer:
    """Alice was given 10 dollars, paid 3 and wants 1 back; she made two requests, one of which broke. Bob disputes a
    payment of which he has spent nearly half. Charlie has no wallet."""
    alice = make_customer(engine)
    bob = make_account(engine, name="Bob")
    make_account(engine, name="Charlie")
    with write(engine) as connection:
        for owner, amount in ((alice.account_id, 3_000_000_000), (bob, 5)):
            top_up(connection, owner, amount_nusd=amount, idempotency_key="1", reference="pi_1", now_ns=START_NS)
        hold_refund(connection, alice.account_id, refund_id="re_1", amount_nusd=1_000_000_000, now_ns=START_NS)
        open_dispute(connection, bob, dispute_id="dp_1", amount_nusd=9, now_ns=START_NS)
    async with running_desk(engine, clock) as desk:
        grants = [await desk.admit(await desk.ask(alice)) for _ in range(2)]
        await desk.settle_durably(grants[0], TokenUsage(10, 20, 5, 0, 7))
        await desk.settle_durably(grants[1], TokenUsage(10, 20), Outcome.UPSTREAM_BROKE)
    return alice


def _drop_guards(engine: Engine) -> None:
    """As somebody with the rights of the database's owner could."""
    with write(engine) as connection:
        if engine.dialect.name == "sqlite":
            for table in ("entries", "entry_groups", "books"):
                for verb in ("update", "delete"):
                    connection.execute(text(f"DROP TRIGGER {table}_refuse_{verb}"))
        else:
            for table in ("entries", "entry_groups", "books"):
                connection.execute(text(f"DROP TRIGGER {table}_refuse_change ON {table}"))


def _add_to(book: str) -> Executable:
    return update(entries).where(entries.c.book_id.startswith(book)).values(amount_nusd=entries.c.amount_nusd + 1)


_CHARLIES_BOOK = select(literal("paid/charlie"), literal("paid"), accounts.c.id).where(accounts.c.name == "Charlie")
_ANY_GROUP = select(func.min(entry_groups.c.id)).scalar_subquery()
PLANTS: dict[str, list[Executable]] = {
    "groups_sum_to_zero": [update(entries).where(entries.c.book_id == "revenue").values(amount_nusd=1)],
    "groups_have_entries": [insert(entry_groups).values(id="empty", kind="grant", created_at_ns=1)],
    "wallets_equal_ledger": [update(wallets).values(balance_nusd=wallets.c.balance_nusd + 1)],
    "customers_have_wallets": [
        insert(books).from_select(["id", "kind", "account_id"], _CHARLIES_BOOK),
        insert(entries).values(group_id=_ANY_GROUP, book_id="paid/charlie", amount_nusd=1),
    ],
    "charges_equal_ledger": [update(wallets).values(charged_nusd=wallets.c.charged_nusd + 1)],
    "revenue_equals_charges": [_add_to("revenue")],
    "lots_equal_wallets": [update(lots).values(remaining_nusd=0)],
    "lots_equal_groups": [update(lots).values(amount_nusd=lots.c.amount_nusd + 1)],
    "lots_hold_their_draws": [update(draws).values(amount_nusd=10**12)],
    "paid_books_equal_lots": [_add_to("paid/")],
    "promo_books_equal_lots": [_add_to("promo/")],
    "leased_books_equal_wallets": [_add_to("leased/")],
    "old_books_are_carried_over": [
        insert(books).from_select(
            ["id", "kind", "account_id"],
            select("customer/" + wallets.c.account_id, literal("customer"), wallets.c.account_id),
        ),
        insert(entries).values(
            group_id=_ANY_GROUP,
            book_id=select(func.min(books.c.id)).where(books.c.kind == "customer").scalar_subquery(),
            amount_nusd=1,
        ),
    ],
    "refund_books_equal_refunds": [update(refunds).values(state="completed")],
    "dispute_books_equal_disputes": [update(disputes).values(amount_nusd=8)],
    "receivables_equal_disputes": [_add_to("receivable/")],
    "refunds_equal_draws": [update(refunds).values(amount_nusd=7)],
    "disputes_equal_draws": [update(disputes).values(taken_nusd=3)],
    "leases_equal_wallets": [
        update(wallets).values(leased_nusd=wallets.c.leased_nusd + 1, balance_nusd=wallets.c.balance_nusd + 1)
    ],
    "leases_hold_their_draws": [
        insert(workers).values(id="wrk-1", beats=0, is_dead=0, beat_at_ns=1),
        insert(leases).from_select(
            ["id", "worker_id", "account_id", "amount_nusd"],
            select(literal("lea-1"), literal("wrk-1"), wallets.c.account_id, literal(9)).limit(1),
        ),
    ],
    "draws_have_leases": [
        insert(draws).values(holder_id="lea-1", lot_id=select(func.min(lots.c.id)).scalar_subquery(), amount_nusd=1)
    ],
    "leases_equal_keys": [update(key_spend).values(leased_nusd=1)],
    "usage_cost_equals_groups": [update(usage).where(usage.c.cost_nusd > 0).values(cost_nusd=49_999)],
    "usage_upstream_equals_groups": [update(usage).values(upstream_nusd=usage.c.upstream_nusd + 1)],
    "usage_absorbed_equals_groups": [update(usage).values(absorbed_nusd=3)],
    "usage_is_booked": [update(usage).values(group_id=None)],
    "free_outcomes_cost_nothing": [update(usage).values(outcome="empty")],
    "key_totals_equal_days": [update(key_spend).values(spent_nusd=1)],
    "account_totals_equal_days": [update(usage_days).values(cost_nusd=1)],
    "closed_months_equal_days": [
        insert(usage_months).from_select(
            ["account_id", "month", "requests", "cost_nusd"],
            select(wallets.c.account_id, literal(202601), literal(1), literal(1)),
        )
    ],
    "days_equal_usage": [update(usage_days).values(requests=usage_days.c.requests + 1)],
}


@pytest.mark.parametrize("check", list(PLANTS))
async def test_the_proof_finds_what_somebody_planted(engine: Engine, clock: MovableClock, check: str) -> None:
    await _some_events(engine, clock)
    before = report_on(engine)
    assert before.findings == ()
    assert set(PLANTS) | {"leases_within_balances"} == set(before.checks)
    _drop_guards(engine)
    with write(engine) as connection:
        for plant in PLANTS[check]:
            connection.execute(plant)
    after = report_on(engine)
    assert check in {finding.check for finding in after.findings}
    assert not after.is_clean


async def test_rows_that_retention_deleted_are_not_missed(engine: Engine, clock: MovableClock) -> None:
    await _some_events(engine, clock)
    with write(engine) as connection:
        connection.execute(delete(usage))
    found = {finding.check for finding in report_on(engine).findings}
    assert {"usage_cost_equals_groups", "days_equal_usage"} <= found
    with read(engine) as connection:
        report = verify(connection, usage_since_ns=clock.now_ns() + NS_PER_DAY)
    assert report.findings == ()


async def test_the_report_counts_what_it_looked_at(engine: Engine, clock: MovableClock) -> None:
    await _some_events(engine, clock)
    report = report_on(engine)
    with read(engine) as connection:
        kinds = Counter(connection.execute(select(entry_groups.c.kind)).scalars())
    assert kinds == {
        "grant": 1,
        "top_up": 2,
        "refund_hold": 1,
        "dispute_open": 1,
        "lease": 1,
        "settle": 2,
        "return": 1,
    }
    assert (report.groups, report.wallets, report.leases, report.usage_rows) == (9, 2, 0, 2)
    assert report.balances_nusd == 12_000_000_000 - 50_000
    with write(engine) as connection:
        connection.execute(insert(workers).values(id="wrk-1", beats=0, is_dead=0, beat_at_ns=1))
        account_id = connection.execute(select(func.max(wallets.c.account_id))).scalar_one()
        lease = {"id": "lea-1", "worker_id": "wrk-1", "account_id": account_id, "amount_nusd": 9}
        connection.execute(insert(leases).values(lease))
    findings = report_on(engine).findings
    assert findings == (("leases_equal_wallets", account_id, 9, 0), ("leases_hold_their_draws", "lea-1", 0, 9))
