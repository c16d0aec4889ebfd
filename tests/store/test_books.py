"""Credit, the ledger, and the proof of the books, which must find whatever somebody planted."""

import pytest
from sqlalchemy import Engine, update

from dragonfly.accounts.actions import AccountInvalid, create_account, verify_account
from dragonfly.accounts.queries import account_by_id, accounts_page
from dragonfly.admission.verify import Report, verify
from dragonfly.core.ids import AccountId, IdSource
from dragonfly.core.outcomes import Outcome
from dragonfly.core.tokens import TokenUsage
from dragonfly.infra.database import read, write
from dragonfly.ledger.actions import grant_credit
from dragonfly.ledger.journal import (
    AMOUNT_NUSD_MAX,
    CreditInvalid,
    IdempotencyConflict,
    WalletOwnerUnknown,
    post,
)
from dragonfly.ledger.queries import credits_of_account, wallet_of
from dragonfly.ledger.rules import Entry, Posting
from dragonfly.ledger.tables import wallets
from dragonfly.usage.queries import day_of, day_totals, key_costs, usage_by_request, usage_page, week_start
from tests.factories import START_NS, Customer, MovableClock, give_credit, make_account, make_customer
from tests.store.desk import MODEL, running_desk


def report_on(engine: Engine) -> Report:
    with read(engine) as connection:
        return verify(connection)


def test_credit_comes_once_per_idempotency_key(engine: Engine) -> None:
    account_id = make_account(engine)
    for _ in range(3):
        with write(engine) as connection:
            wallet = grant_credit(connection, account_id, amount_nusd=500, idempotency_key="welcome", now_ns=START_NS)
        assert wallet == (500, 0, 0)
    with pytest.raises(IdempotencyConflict), write(engine) as connection:
        grant_credit(connection, account_id, amount_nusd=501, idempotency_key="welcome", now_ns=START_NS)
    with write(engine) as connection:
        wallet = grant_credit(connection, account_id, amount_nusd=7, idempotency_key="more", now_ns=START_NS + 1)
    assert (wallet.balance_nusd, wallet.available_nusd, wallet.credited_nusd) == (507, 507, 507)
    with read(engine) as connection:
        credit = credits_of_account(connection, account_id)
    assert [(item.kind, item.amount_nusd) for item in credit] == [("grant", 7), ("grant", 500)]
    assert report_on(engine).findings == ()


def test_the_same_idempotency_key_serves_each_account_once(engine: Engine) -> None:
    accounts = [make_account(engine, name=name) for name in ("Alice", "Bob")]
    for account_id in accounts:
        with write(engine) as connection:
            grant_credit(connection, account_id, amount_nusd=5, idempotency_key="welcome", now_ns=START_NS)
    with read(engine) as connection:
        assert [wallet_of(connection, account_id) for account_id in accounts] == [(5, 0, 0), (5, 0, 0)]


@pytest.mark.parametrize("amount", [0, -1, AMOUNT_NUSD_MAX + 1])
@pytest.mark.parametrize("key", ["fine", "", "x" * 201, "line\nfeed"])
def test_credit_out_of_bounds_is_refused(engine: Engine, amount: int, key: str) -> None:
    account_id = make_account(engine)
    with pytest.raises(CreditInvalid), write(engine) as connection:
        grant_credit(connection, account_id, amount_nusd=amount, idempotency_key=key, now_ns=START_NS)
    with read(engine) as connection:
        assert wallet_of(connection, account_id) is None


def test_credit_needs_an_account(engine: Engine) -> None:
    with pytest.raises(WalletOwnerUnknown), write(engine) as connection:
        grant_credit(connection, AccountId("acc-none"), amount_nusd=1, idempotency_key="x", now_ns=START_NS)


@pytest.mark.parametrize(
    "amounts",
    [(), (1,), (1, -2), (0, 0), (2**63, -(2**63))],
)
def test_postings_that_do_not_balance_are_never_written(engine: Engine, amounts: tuple[int, ...]) -> None:
    posting = Posting("test", "test", None, tuple(Entry(f"b{i}", amount) for i, amount in enumerate(amounts)))
    with pytest.raises(AssertionError), write(engine) as connection:
        post(connection, posting, now_ns=START_NS)


@pytest.mark.parametrize(
    ("name", "email"),
    [("", None), ("x" * 101, None), ("two\nlines", None), ("Alice", ""), ("Alice", "x" * 255)],
)
def test_accounts_have_printable_names(engine: Engine, name: str, email: str | None) -> None:
    with pytest.raises(AccountInvalid), write(engine) as connection:
        create_account(connection, IdSource(), name=name, email=email, now_ns=START_NS)


def test_accounts_are_verified_once_and_listed_in_order(engine: Engine) -> None:
    ids = [make_account(engine, name=name, is_verified=False) for name in ("Alice", "Bob", "Charlie")]
    with write(engine) as connection:
        verify_account(connection, ids[0], now_ns=5)
        verify_account(connection, ids[0], now_ns=6)
    with read(engine) as connection:
        alice = account_by_id(connection, ids[0])
        assert alice is not None
        assert (alice.name, alice.verified_at_ns) == ("Alice", 5)
        assert account_by_id(connection, AccountId("acc-none")) is None
        listed = [account.id for account in accounts_page(connection, limit=2)]
        listed += [account.id for account in accounts_page(connection, after=listed[-1])]
    assert sorted(listed) == sorted(ids)


async def _some_requests(engine: Engine, clock: MovableClock) -> tuple[Customer, str]:
    """A customer with two settled requests, one of them broken; and the id of the first."""
    alice = make_customer(engine)
    async with running_desk(engine, clock) as desk:
        grants = [await desk.admit(await desk.ask(alice)) for _ in range(2)]
        await desk.settle_durably(grants[0], TokenUsage(10, 20, 5, 0, 7))
        await desk.settle_durably(grants[1], TokenUsage(10, 20), Outcome.UPSTREAM_BROKE)
    return alice, grants[0].ask.request_id


async def test_usage_is_read_by_its_owner_only(engine: Engine, clock: MovableClock) -> None:
    alice, request_id = await _some_requests(engine, clock)
    bob = make_account(engine, name="Bob")
    day = day_of(START_NS)
    with read(engine) as connection:
        assert usage_by_request(connection, bob, request_id) is None
        assert usage_page(connection, bob) == []
        assert day_totals(connection, bob, first_day=0, last_day=day) == []
        rows = usage_page(connection, alice.account_id)
        assert [row.cost_nusd for row in rows] in ([50_000, 0], [0, 50_000])
        older = usage_page(connection, alice.account_id, before=(rows[0].created_at_ns, rows[0].request_id))
        assert older == rows[1:]
        (total,) = day_totals(connection, alice.account_id, first_day=day, last_day=day)
        assert total[:5] == (day, alice.key_id, MODEL, "acme", 2)
        assert (total.prompt_tokens, total.completion_tokens, total.cost_nusd) == (20, 40, 50_000)
        assert (total.cached_tokens, total.reasoning_tokens) == (5, 7)
        costs = key_costs(connection, alice.key_id, day=day, month_first_day=day - 3)
        assert costs == (50_000, 50_000, 50_000)
        costs = key_costs(connection, alice.key_id, day=day + 7, month_first_day=day + 1)
        assert costs == (0, 0, 0)


def test_weeks_begin_on_monday() -> None:
    assert [week_start(day) for day in range(12)] == [-3] * 4 + [4] * 7 + [11]


def test_a_grant_to_a_full_wallet_is_refused(engine: Engine) -> None:
    account_id = make_account(engine)
    give_credit(engine, account_id, nusd=5)
    with write(engine) as connection:
        connection.execute(update(wallets).values(balance_nusd=10**18))
    with pytest.raises(CreditInvalid), write(engine) as connection:
        grant_credit(connection, account_id, amount_nusd=1, idempotency_key="x", now_ns=START_NS)
