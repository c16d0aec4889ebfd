"""The welcome over a week of the injected clock, and the low-balance mail once per crossing."""

import json
import random
from typing import Any

import pytest
from sqlalchemy import Engine, insert, select, update

from dragonfly.accounts.actions import freeze_account
from dragonfly.core.ids import AccountId, IdSource
from dragonfly.infra.database import DatabaseThreads, read, write
from dragonfly.ledger.tables import wallets
from dragonfly.mail.actions import set_choices, set_low_balance
from dragonfly.mail.kinds import Choice, MailKind
from dragonfly.mail.tables import mail_outbox
from dragonfly.notices.actions import begin_welcomes, send_welcomes, tell_low_balances
from dragonfly.notices.jobs import watching_balances, welcoming
from dragonfly.notices.rules import WELCOME_STEPS, next_welcome_ns
from dragonfly.notices.tables import welcomes
from dragonfly.privacy.retention import run_retention
from dragonfly.usage.tables import usage
from tests.factories import START_NS, MovableClock, give_credit, make_account
from tests.store.callers import make_person

DAY_S = 86_400
KINDS = [kind.value for kind, _ in WELCOME_STEPS]
DEFAULT_NUSD = 1_000


def mails(engine: Engine) -> list[Any]:
    with read(engine) as connection:
        return list(connection.execute(select(mail_outbox).order_by(mail_outbox.c.created_at_ns)))


def kinds(engine: Engine) -> list[str]:
    return [mail.kind for mail in mails(engine)]


def turn(engine: Engine, clock: MovableClock) -> None:
    with write(engine) as connection:
        begin_welcomes(connection, now_ns=clock.now_ns())
        send_welcomes(connection, IdSource(), now_ns=clock.now_ns())


def answer_a_request(engine: Engine, account_id: AccountId, outcome: str = "complete") -> None:
    """One row of usage, as settling writes it."""
    row: dict[str, Any] = {}
    for column in usage.columns:
        row[column.name] = 0 if column.type.python_type is int else "x"
    row |= {"request_id": f"gen-{random.random()}", "account_id": account_id, "outcome": outcome}
    row |= {"created_at_ns": START_NS, "group_id": None}
    with write(engine) as connection:
        connection.execute(insert(usage).values(row))


def test_three_mails_come_over_a_week_and_no_more(engine: Engine, clock: MovableClock) -> None:
    make_person(engine, language="zh")
    sent_on: dict[str, float] = {}
    for quarter in range(20 * 4):
        turn(engine, clock)
        for kind in kinds(engine):
            sent_on.setdefault(kind, quarter / 4)
        clock.move(DAY_S / 4)
    assert kinds(engine) == KINDS
    assert sent_on == {"welcome_start": 0, "welcome_routes": 3, "welcome_help": 7}
    assert {mail.language for mail in mails(engine)} == {"zh"}
    with read(engine) as connection:
        assert connection.execute(select(welcomes.c.ended_at_ns)).scalar_one() is not None


@pytest.mark.parametrize(("day", "expected"), [(0, KINDS[:0]), (1, KINDS[:1]), (4, KINDS[:2])])
def test_the_first_answered_request_ends_it(
    engine: Engine, clock: MovableClock, day: int, expected: list[str]
) -> None:
    alice = make_person(engine)
    for passed in range(10):
        if passed == day:
            answer_a_request(engine, alice)
        turn(engine, clock)
        clock.move(DAY_S)
    assert kinds(engine) == expected


def test_a_request_that_failed_does_not_end_it(engine: Engine, clock: MovableClock) -> None:
    answer_a_request(engine, make_person(engine), "upstream_error")
    answer_a_request(engine, make_person(engine, name="Bob", address="bob@example.com"), "client_gone_early")
    for _ in range(10):
        turn(engine, clock)
        clock.move(DAY_S)
    assert sorted(kinds(engine)) == sorted(KINDS * 2)


def test_who_opts_out_gets_no_further_one_also_after_opting_in_again(engine: Engine, clock: MovableClock) -> None:
    alice = make_person(engine)
    turn(engine, clock)
    with write(engine) as connection:
        set_choices(connection, alice, {Choice.WELCOME: False}, now_ns=clock.now_ns())
    clock.move(4 * DAY_S)
    turn(engine, clock)
    with write(engine) as connection:
        set_choices(connection, alice, {Choice.WELCOME: True}, now_ns=clock.now_ns())
    for _ in range(10):
        clock.move(DAY_S)
        turn(engine, clock)
    assert kinds(engine) == KINDS[:1]


def test_nobody_else_is_welcomed(engine: Engine, clock: MovableClock) -> None:
    make_account(engine)  # an account for a program
    frozen = make_person(engine, name="Bob", address="bob@example.com")
    with write(engine) as connection:
        freeze_account(connection, frozen, is_frozen=True, now_ns=START_NS)
    clock.move(8 * DAY_S)
    make_person(engine, name="Charlie", address="charlie@example.com")  # verified 8 days ago
    turn(engine, clock)
    assert kinds(engine) == []


def test_after_a_long_stop_mails_do_not_come_all_at_once(engine: Engine, clock: MovableClock) -> None:
    make_person(engine)
    turn(engine, clock)
    clock.move(7.5 * DAY_S)
    turn(engine, clock)
    turn(engine, clock)
    assert kinds(engine) == KINDS[:2]
    clock.move(DAY_S)
    turn(engine, clock)
    assert kinds(engine) == KINDS
    late = next_welcome_ns(START_NS, 2, now_ns=START_NS + 14 * DAY_S * 10**9)
    assert late is None, "two weeks later nobody needs a welcome"


def test_workers_that_look_at_the_same_time_send_one_mail(engine: Engine, clock: MovableClock) -> None:
    make_person(engine)
    for _ in range(3):
        turn(engine, clock)
    with write(engine) as connection:
        connection.execute(update(welcomes).values(steps=0, due_at_ns=START_NS))
    turn(engine, clock)
    assert kinds(engine) == KINDS[:1]


def test_a_welcome_that_is_forgotten_does_not_begin_again(engine: Engine, clock: MovableClock) -> None:
    make_person(engine)
    turn(engine, clock)
    clock.move(91 * DAY_S)
    assert run_retention(engine, now_ns=clock.now_ns()).deleted["welcomes"] == 1
    turn(engine, clock)
    assert kinds(engine) == []


def look(engine: Engine, clock: MovableClock) -> int:
    with write(engine) as connection:
        return tell_low_balances(connection, IdSource(), DEFAULT_NUSD, now_ns=clock.now_ns())


def spend(engine: Engine, account_id: AccountId, amount_nusd: int) -> None:
    """As a settled charge changes the wallet."""
    with write(engine) as connection:
        mine = update(wallets).where(wallets.c.account_id == account_id)
        left = wallets.c.balance_nusd - amount_nusd
        connection.execute(mine.values(balance_nusd=left, charged_nusd=wallets.c.charged_nusd + amount_nusd))


def test_a_low_balance_is_told_once_per_crossing_and_again_after_a_top_up(
    engine: Engine, clock: MovableClock
) -> None:
    alice = make_person(engine)
    give_credit(engine, alice, nusd=5_000)
    assert look(engine, clock) == 0
    spend(engine, alice, 4_100)
    assert [look(engine, clock) for _ in range(3)] == [1, 0, 0]
    spend(engine, alice, 300)
    assert look(engine, clock) == 0
    give_credit(engine, alice, nusd=100)
    assert look(engine, clock) == 0, "a top-up that leaves it low is no crossing"
    give_credit(engine, alice, nusd=3_000)
    assert look(engine, clock) == 0
    spend(engine, alice, 3_000)
    assert look(engine, clock) == 1
    told = [json.loads(mail.details) for mail in mails(engine)]
    assert told == [{"threshold_usd": "0.000001"}] * 2
    assert {mail.kind for mail in mails(engine)} == {MailKind.LOW_BALANCE.value}


def test_a_top_up_that_was_spent_before_anybody_looked_counts_too(engine: Engine, clock: MovableClock) -> None:
    alice = make_person(engine)
    give_credit(engine, alice, nusd=5_000)
    spend(engine, alice, 4_500)
    assert look(engine, clock) == 1
    give_credit(engine, alice, nusd=5_000)
    spend(engine, alice, 5_200)
    assert look(engine, clock) == 1


def test_credit_that_was_never_above_the_threshold_is_not_low(engine: Engine, clock: MovableClock) -> None:
    alice = make_person(engine)
    give_credit(engine, alice, nusd=DEFAULT_NUSD)
    spend(engine, alice, 900)
    assert look(engine, clock) == 0


def test_each_account_has_its_own_threshold_and_may_want_none(engine: Engine, clock: MovableClock) -> None:
    people = [
        make_person(engine, name=name, address=f"{name.lower()}@example.com") for name in ("Alice", "Bob", "Charlie")
    ]
    alice, bob, charlie = people
    for account_id in people:
        give_credit(engine, account_id, nusd=10_000)
        spend(engine, account_id, 5_000)
    with write(engine) as connection:
        set_low_balance(connection, alice, 6_000, now_ns=START_NS)
        set_low_balance(connection, bob, 0, now_ns=START_NS)
        set_choices(connection, charlie, {Choice.LOW_BALANCE: False}, now_ns=START_NS)
    assert look(engine, clock) == 1
    for account_id in people:
        spend(engine, account_id, 5_000)
    assert look(engine, clock) == 0
    assert [mail.account_id for mail in mails(engine)] == [alice]
    with write(engine) as connection:
        set_choices(connection, charlie, {Choice.LOW_BALANCE: True}, now_ns=START_NS)
    assert look(engine, clock) == 1


async def test_the_jobs_do_both(engine: Engine, clock: MovableClock) -> None:
    alice = make_person(engine)
    give_credit(engine, alice, nusd=5_000)
    spend(engine, alice, 5_000)
    threads = DatabaseThreads()
    for _ in range(2):
        await welcoming(engine, threads, clock, IdSource())()
        await watching_balances(engine, threads, clock, IdSource(), default_nusd=DEFAULT_NUSD)()
    threads.close()
    assert sorted(kinds(engine)) == ["low_balance", "welcome_start"]
