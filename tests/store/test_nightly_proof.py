"""The books are proven once a night, whoever serves, and an operator hears of what does not hold."""

import io
import json
from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, select, update

from dragonfly.admission.proofs import GIVEN_UP_NS, NS_PER_HOUR, PROOF_HOUR, claim_proof, latest_proofs
from dragonfly.core.clock import SystemClock
from dragonfly.infra.database import DatabaseThreads, read, write
from dragonfly.infra.logging import EventLog
from dragonfly.ledger.actions import grant_credit
from dragonfly.ledger.queries import wallet_of
from dragonfly.ledger.tables import wallets
from dragonfly.mail.tables import mail_outbox
from dragonfly.usage.queries import NS_PER_DAY
from dragonfly.worker import Job, book_jobs, prove_books
from tests.factories import START_NS, MovableClock, make_customer

MIDNIGHT_NS = START_NS // NS_PER_DAY * NS_PER_DAY
OPERATOR = "operator@example.com"
NIGHT_NS = MIDNIGHT_NS + PROOF_HOUR * NS_PER_HOUR


@pytest.fixture
def threads() -> Iterator[DatabaseThreads]:
    threads = DatabaseThreads()
    yield threads
    threads.close()


def jobs_of(engine: Engine, threads: DatabaseThreads, now_ns: int, stream: io.BytesIO) -> dict[str, Job]:
    log = EventLog(stream, SystemClock(), strict=True)
    return {job.name: job for job in book_jobs(engine, threads, MovableClock(now_ns), log, operator_address=OPERATOR)}


def test_one_process_makes_the_proof_of_a_night(engine: Engine) -> None:
    make_customer(engine)
    assert prove_books(engine, MovableClock(NIGHT_NS - 1)) is None
    report = prove_books(engine, MovableClock(NIGHT_NS))
    assert report is not None
    assert report.is_clean
    assert prove_books(engine, MovableClock(NIGHT_NS + GIVEN_UP_NS + 1)) is None
    assert prove_books(engine, MovableClock(NIGHT_NS + NS_PER_DAY)) is not None
    with read(engine) as connection:
        newest, oldest = latest_proofs(connection)
    assert (newest.day, newest.findings, newest.broken) == (oldest.day + 1, 0, ())
    assert oldest.ended_at_ns == NIGHT_NS


def test_another_process_makes_the_proof_when_the_first_died(engine: Engine) -> None:
    with write(engine) as connection:
        assert claim_proof(connection, now_ns=NIGHT_NS)
        assert not claim_proof(connection, now_ns=NIGHT_NS + GIVEN_UP_NS)
        assert claim_proof(connection, now_ns=NIGHT_NS + GIVEN_UP_NS + 1)
        assert not claim_proof(connection, now_ns=NIGHT_NS + GIVEN_UP_NS + 2)
    with read(engine) as connection:
        assert [proof.ended_at_ns for proof in latest_proofs(connection)] == [None]


async def test_what_does_not_hold_is_told_as_an_error_and_kept(engine: Engine, threads: DatabaseThreads) -> None:
    make_customer(engine)
    with write(engine) as connection:
        connection.execute(update(wallets).values(balance_nusd=wallets.c.balance_nusd + 1))
    stream = io.BytesIO()
    job = jobs_of(engine, threads, NIGHT_NS, stream)["proof"]
    await job.run()
    await job.run()
    (line,) = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert (line["event"], line["level"], line["count"]) == ("ledger_broken", "error", 2)
    assert line["checks"] == ["wallets_equal_ledger", "lots_equal_wallets"]
    with read(engine) as connection:
        (proof,) = latest_proofs(connection)
    assert proof.broken == ("wallets_equal_ledger", "lots_equal_wallets")


def mails(engine: Engine) -> list[tuple[str, str]]:
    with read(engine) as connection:
        wanted = select(mail_outbox.c.address, mail_outbox.c.details).where(mail_outbox.c.kind == "operator_alert")
        return [(row.address, row.details) for row in connection.execute(wanted.order_by(mail_outbox.c.id))]


def add_to_balance(engine: Engine, account_id: str) -> None:
    """What nothing in the program does."""
    with write(engine) as connection:
        mine = update(wallets).where(wallets.c.account_id == account_id)
        connection.execute(mine.values(balance_nusd=wallets.c.balance_nusd + 1))


def test_the_operator_gets_one_mail_about_findings_until_there_are_others(engine: Engine) -> None:
    alice, bob = make_customer(engine), make_customer(engine, name="Bob")
    prove_books(engine, MovableClock(NIGHT_NS), operator_address=OPERATOR)
    assert mails(engine) == []
    add_to_balance(engine, alice.account_id)
    for night in (1, 2):
        clock = MovableClock(NIGHT_NS + night * NS_PER_DAY)
        report = prove_books(engine, clock, operator_address=OPERATOR)
        assert report is not None
        assert not report.is_clean
    ((address, details),) = mails(engine)
    assert address == OPERATOR
    assert "wallets_equal_ledger" in details
    assert alice.account_id not in details
    add_to_balance(engine, bob.account_id)
    prove_books(engine, MovableClock(NIGHT_NS + 3 * NS_PER_DAY), operator_address=OPERATOR)
    assert len(mails(engine)) == 2


def test_nobody_is_mailed_where_no_operator_is_named(engine: Engine) -> None:
    add_to_balance(engine, make_customer(engine).account_id)
    report = prove_books(engine, MovableClock(NIGHT_NS))
    assert report is not None
    assert not report.is_clean
    assert mails(engine) == []


async def test_credit_that_was_given_for_a_time_goes_back_by_itself(engine: Engine, threads: DatabaseThreads) -> None:
    alice = make_customer(engine, usd="0").account_id
    with write(engine) as connection:
        for number in range(101):
            grant_credit(
                connection,
                alice,
                amount_nusd=1,
                idempotency_key=str(number),
                now_ns=START_NS,
                expires_at_ns=START_NS + number,
            )
    stream = io.BytesIO()
    await jobs_of(engine, threads, START_NS + 99, stream)["expire"].run()
    with read(engine) as connection:
        assert wallet_of(connection, alice) == (1, 0, 0)
    await jobs_of(engine, threads, START_NS + 100, stream)["expire"].run()
    counts = [json.loads(line)["count"] for line in stream.getvalue().splitlines()]
    assert counts == [100, 1]
