"""Requests about data from their opening to their end: reviews, days of grace, obstacles, erasure, certificate."""

import json
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, Table, func, insert, select, update

from dragonfly.accounts.people import person_of
from dragonfly.accounts.queries import account_by_id
from dragonfly.accounts.sessions import Browser, begin_session
from dragonfly.accounts.tables import sessions
from dragonfly.admission.account_statement import parse_month, statement_of
from dragonfly.admission.errors import AccountFrozen
from dragonfly.admission.verify import verify
from dragonfly.core.ids import AccountId, IdSource
from dragonfly.core.tokens import TokenUsage
from dragonfly.infra.database import read, write
from dragonfly.keys.tables import keys
from dragonfly.ledger.tables import refunds, wallets
from dragonfly.mail.outbox import claim_due, note_sent
from dragonfly.mail.tables import mail_outbox
from dragonfly.payments.tables import auto_recharges, payment_disputes, topups
from dragonfly.privacy.certificates import is_genuine
from dragonfly.privacy.inventory import all_tables
from dragonfly.privacy.retention import run_retention
from dragonfly.privacy.signing import public_key_of
from dragonfly.rights.actions import (
    AccountUnnamed,
    DataRequestDecided,
    DataRequestNotFound,
    DataRequestOpen,
    WordsInvalid,
    approve,
    cancel,
    give_up_balance,
    note,
    open_request,
    refuse,
)
from dragonfly.rights.jobs import alert_late, carry_out_due, wipe_due
from dragonfly.rights.queries import DataRequest, request_by_id, requests_page
from dragonfly.rights.rules import Origin, RequestKind, State
from dragonfly.rights.tables import data_requests
from dragonfly.support.actions import open_ticket
from dragonfly.support.rules import TicketKind
from tests.factories import START_NS, Customer, MovableClock, give_credit, make_customer, make_key
from tests.store.callers import make_person, make_rights_tools
from tests.store.desk import WAIT_S, running_desk
from tests.store.erasing_process import main as erase_half_way

DAY_S = 86_400
OPERATOR = "ops@example.com"
TOOLS = make_rights_tools(OPERATOR)
REVIEWER = AccountId("acc-charlie")
ADDRESS = "alice.of.wonderland@example.com"
NAME = "Alice Pleasance Liddell"
DEVICE = "a looking-glass"


def asked(
    engine: Engine,
    account_id: AccountId | None,
    kind: RequestKind = RequestKind.DELETION,
    *,
    gives_up: bool = True,
    now_ns: int = START_NS,
    ticket_id: str | None = None,
) -> str:
    with write(engine) as connection:
        request = open_request(
            connection,
            TOOLS,
            account_id=account_id,
            kind=kind,
            origin=Origin.OPERATOR if ticket_id is None else Origin.TICKET,
            ticket_id=ticket_id,
            gives_up_balance=gives_up,
            now_ns=now_ns,
        )
    return request.id


def approved(engine: Engine, request_id: str, *, now_ns: int = START_NS) -> None:
    with write(engine) as connection:
        approve(connection, TOOLS, request_id, reviewed_by=REVIEWER, now_ns=now_ns)


def stored(engine: Engine, request_id: str) -> DataRequest:
    with read(engine) as connection:
        found = request_by_id(connection, request_id)
    assert found is not None
    return found


def mails(engine: Engine, address: str = ADDRESS, kind: str = "") -> list[dict[str, Any]]:
    wanted = select(mail_outbox).where(mail_outbox.c.address == address).order_by(mail_outbox.c.id)
    with read(engine) as connection:
        rows = connection.execute(wanted).all()
    return [{"kind": row.kind, **json.loads(row.details)} for row in rows if kind in ("", row.kind)]


async def a_life(engine: Engine, clock: MovableClock) -> Customer:
    """Alice, who signed in, wrote to support, had mail and made requests."""
    alice = make_person(engine, name=NAME, address=ADDRESS)
    key_id, secret = make_key(engine, alice)
    give_credit(engine, alice, usd="10")
    customer = Customer(alice, key_id, secret)
    async with running_desk(engine, clock) as desk:
        await desk.settle_durably(await desk.admit(await desk.ask(customer)), TokenUsage(10, 20))
    with write(engine) as connection:
        browser = Browser("fingerprint", DEVICE, "192.0.2.77")
        begin_session(
            connection,
            TOOLS.people.seal,
            IdSource(),
            alice,
            browser,
            has_second_factor=False,
            now_ns=clock.now_ns(),
        )
        for account_id in (alice, None):
            open_ticket(
                connection,
                IdSource(),
                account_id=account_id,
                address=ADDRESS,
                language="en",
                kind=TicketKind.QUESTION,
                text=f"My name is {NAME}.",
                request_ids=(),
                now_ns=clock.now_ns(),
            )
    return customer


def values_in(engine: Engine) -> str:
    """Every value of every row."""
    with read(engine) as connection:
        return "\n".join(repr(row) for table in all_tables() for row in connection.execute(table.select()))


def bytes_of(engine: Engine) -> bytes:
    """The files of the database: on SQLite with its journal, on PostgreSQL every table, index and overflow."""
    if engine.dialect.name == "sqlite":
        path = Path(str(engine.url.database))
        return b"".join(one.read_bytes() for one in path.parent.glob(f"{path.name}*"))
    with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        connection.exec_driver_sql("CHECKPOINT")
        names = "SELECT pg_relation_filepath(oid) FROM pg_class WHERE relkind IN ('r', 'i', 't') AND oid >= 16384"
        paths = [path for path in connection.exec_driver_sql(names).scalars() if path]
        return b"".join(
            connection.exec_driver_sql("SELECT pg_read_binary_file(%s)", (path,)).scalar_one() for path in paths
        )


async def test_an_account_is_erased_on_its_day_and_what_stays_proves_the_books(
    engine: Engine, clock: MovableClock
) -> None:
    alice = await a_life(engine, clock)
    earlier = asked(engine, alice.account_id, RequestKind.EXPORT)
    with write(engine) as connection:
        refuse(connection, TOOLS, earlier, reason=f"{NAME} is too curious.", reviewed_by=REVIEWER, now_ns=START_NS)
    month = parse_month("2026-11", now_ns=START_NS)
    with read(engine) as connection:
        statement = statement_of(connection, alice.account_id, month)
    request_id = asked(engine, alice.account_id, now_ns=clock.now_ns())
    approved(engine, request_id, now_ns=clock.now_ns())
    async with running_desk(engine, clock) as desk:
        with pytest.raises(AccountFrozen):
            await desk.settle_durably(await desk.admit(await desk.ask(alice)), TokenUsage(1, 1))
    clock.move(14 * DAY_S - 1)
    assert carry_out_due(engine, TOOLS, now_ns=clock.now_ns()) == 0
    assert NAME in values_in(engine)
    clock.move(1)
    assert carry_out_due(engine, TOOLS, now_ns=clock.now_ns()) == 1
    assert carry_out_due(engine, TOOLS, now_ns=clock.now_ns()) == 0, "once"
    done = stored(engine, request_id)
    assert (done.state, done.ended_at_ns, done.note, done.account_id) == (
        State.DONE,
        clock.now_ns(),
        None,
        alice.account_id,
    )
    with read(engine) as connection:
        assert person_of(connection, alice.account_id) is None
        report = verify(connection)
        after = statement_of(connection, alice.account_id, month)
    assert report.is_clean
    assert (after.opening_nusd, after.closing_nusd) == (statement.opening_nusd, statement.closing_nusd)
    left = values_in(engine)
    for word in (NAME, DEVICE, "192.0.2.77"):
        assert word not in left
    (told,) = mails(engine, kind="deletion_done")
    (copy,) = mails(engine, OPERATOR)
    assert copy["event"] == "account_erased"
    for text in (told["certificate"], copy["detail"]):
        assert "Signed-in browsers" in text
        assert "Until: the end of the time for which books must be kept by law." in text
    assert left.count(ADDRESS) == 1, "in the mail that waits to be sent"


async def test_the_last_mail_takes_the_address_with_it(engine: Engine, clock: MovableClock) -> None:
    alice = await a_life(engine, clock)
    request_id = asked(engine, alice.account_id)
    approved(engine, request_id)
    clock.move(15 * DAY_S)
    carry_out_due(engine, TOOLS, now_ns=clock.now_ns())
    with write(engine) as connection:
        for claimed in claim_due(connection, "claim", now_ns=clock.now_ns()):
            assert note_sent(connection, claimed, "id", now_ns=clock.now_ns())
    assert ADDRESS not in values_in(engine)


async def test_the_bytes_of_an_erased_person_are_gone_from_the_files(engine: Engine, clock: MovableClock) -> None:
    alice = await a_life(engine, clock)
    request_id = asked(engine, alice.account_id)
    approved(engine, request_id)
    before = bytes_of(engine)
    for word in (NAME, ADDRESS, DEVICE):
        assert word.encode() in before, "the search would find it"
    clock.move(15 * DAY_S)
    assert carry_out_due(engine, TOOLS, now_ns=clock.now_ns()) == 1
    with write(engine) as connection:
        for claimed in claim_due(connection, "claim", now_ns=clock.now_ns()):
            note_sent(connection, claimed, "id", now_ns=clock.now_ns())
    assert wipe_due(engine, now_ns=clock.now_ns()) == 1
    assert wipe_due(engine, now_ns=clock.now_ns()) == 0
    after = bytes_of(engine)
    for word in (NAME, ADDRESS, DEVICE):
        assert word.encode() not in after, word


async def test_a_certificate_says_what_went_what_stays_why_and_until_when(
    engine: Engine, clock: MovableClock
) -> None:
    alice = await a_life(engine, clock)
    request_id = asked(engine, alice.account_id)
    approved(engine, request_id)
    clock.move(15 * DAY_S)
    carry_out_due(engine, TOOLS, now_ns=clock.now_ns())
    text = stored(engine, request_id).certificate
    assert text is not None
    assert is_genuine(text, public_key_of(TOOLS.certificate_key))
    certificate = json.loads(text)["certificate"]
    assert certificate["deleted"]["people"] == 1
    assert certificate["deleted"]["support_tickets"] == 2, "also the one without an account"
    stays = {one["table"]: one for one in certificate["stays"]}
    assert stays["usage"]["until_text"].endswith("at the latest (90 days)")
    assert stays["data_requests"]["rows"] == 1
    assert all(one["why"] and one["until_text"] for one in stays.values())


@pytest.mark.parametrize("decisions", [("approve", "approve"), ("approve", "refuse"), ("refuse", "refuse")])
def test_of_two_operators_at_once_one_decides(engine: Engine, decisions: tuple[str, str]) -> None:
    alice = make_person(engine, address=ADDRESS)
    request_id = asked(engine, alice, RequestKind.EXPORT)

    def decide(which: str) -> str:
        try:
            with write(engine) as connection:
                if which == "approve":
                    return approve(connection, TOOLS, request_id, reviewed_by=REVIEWER, now_ns=START_NS).state.value
                return refuse(
                    connection, TOOLS, request_id, reason="No.", reviewed_by=REVIEWER, now_ns=START_NS
                ).state.value
        except DataRequestDecided:
            return "late"

    with ThreadPoolExecutor(2) as pool:
        ended = list(pool.map(decide, decisions))
    state = stored(engine, request_id).state.value
    expected = {state} if len(set(decisions)) == 1 else {state, "late"}
    assert set(ended) == expected
    told = sorted(mail["kind"] for mail in mails(engine))
    decided = "export_ready" if state == "approved" else "data_request_refused"
    assert told == sorted(["data_request_status", decided]), "told once"


def test_of_two_nodes_at_once_one_erases(engine: Engine) -> None:
    alice = make_person(engine, address=ADDRESS)
    approved(engine, asked(engine, alice))
    now_ns = START_NS + 15 * DAY_S * 10**9
    with ThreadPoolExecutor(2) as pool:
        erased = list(pool.map(lambda _: carry_out_due(engine, TOOLS, now_ns=now_ns), range(2)))
    assert sum(erased) == 1
    assert len(mails(engine, kind="deletion_done")) == 1
    assert len(mails(engine, OPERATOR)) == 1


async def test_a_kill_in_the_middle_of_an_erasure_leaves_it_to_the_next_turn(
    engine: Engine, url: str, clock: MovableClock
) -> None:
    alice = await a_life(engine, clock)
    request_id = asked(engine, alice.account_id)
    approved(engine, request_id)
    clock.move(15 * DAY_S)
    before = values_in(engine)
    context = multiprocessing.get_context("forkserver")
    ours, theirs = context.Pipe()
    victim = context.Process(target=erase_half_way, args=(url, clock.now_ns(), theirs), daemon=True)
    victim.start()
    assert ours.poll(WAIT_S)
    ours.recv()
    victim.kill()
    victim.join(WAIT_S)
    assert values_in(engine) == before, "nothing of it has happened"
    assert stored(engine, request_id).state is State.APPROVED
    assert carry_out_due(engine, TOOLS, now_ns=clock.now_ns()) == 1
    assert NAME not in values_in(engine)
    assert len(mails(engine, kind="deletion_done")) == 1


def a_dispute(connection: Any, account_id: AccountId) -> None:
    a_topup(connection, account_id, "paid")
    row = {"id": "dp-1", "topup_id": "top-1", "account_id": account_id, "state": "inquiry", "amount_cents": 500}
    row |= {"credit_nusd": 0, "reason": "general", "evidence": "{}", "opened_at_ns": START_NS}
    connection.execute(insert(payment_disputes).values(row))


def a_topup(connection: Any, account_id: AccountId, state: str = "processing") -> None:
    row = {"id": "top-1", "account_id": account_id, "kind": "checkout", "state": state, "currency": "usd"}
    row |= {"amount_cents": 500, "tax_cents": 0, "credit_nusd": 5 * 10**9, "language": "en"}
    connection.execute(insert(topups).values({**row, "created_at_ns": START_NS, "checked_at_ns": START_NS}))


def a_refund(connection: Any, account_id: AccountId) -> None:
    row = {"id": "ref-1", "account_id": account_id, "amount_nusd": 1, "state": "pending", "created_at_ns": START_NS}
    connection.execute(insert(refunds).values(row))


def running(connection: Any, account_id: AccountId) -> None:
    connection.execute(update(wallets).where(wallets.c.account_id == account_id).values(leased_nusd=1))


def settled(connection: Any, table: Table, state: str) -> None:
    connection.execute(update(table).values(state=state))


@pytest.mark.parametrize(
    ("cause", "begin", "end"),
    [
        ("dispute", a_dispute, lambda connection: settled(connection, payment_disputes, "won")),
        ("refund", a_refund, lambda connection: settled(connection, refunds, "completed")),
        ("payment", a_topup, lambda connection: settled(connection, topups, "expired")),
        ("requests", running, lambda connection: connection.execute(update(wallets).values(leased_nusd=0))),
    ],
)
def test_a_deletion_waits_for_what_is_open_and_says_for_what_once(
    engine: Engine, cause: str, begin: Callable[[Any, AccountId], None], end: Callable[[Any], None]
) -> None:
    alice = make_person(engine, address=ADDRESS)
    give_credit(engine, alice, usd="5")
    request_id = asked(engine, alice)
    approved(engine, request_id)
    with write(engine) as connection:
        begin(connection, alice)
    now_ns = START_NS + 15 * DAY_S * 10**9
    for turn in range(3):
        assert carry_out_due(engine, TOOLS, now_ns=now_ns + turn) == 0
    waiting = stored(engine, request_id)
    assert waiting.waits_for is not None
    assert (waiting.state, waiting.waits_for.value) == (State.APPROVED, cause)
    told = [mail["cause"] for mail in mails(engine, kind="deletion_waits")]
    assert told == ([] if cause == "requests" else [cause])
    with write(engine) as connection:
        end(connection)
    assert carry_out_due(engine, TOOLS, now_ns=now_ns + 9) == 1
    assert stored(engine, request_id).waits_for is None


def test_a_deletion_waits_for_money_that_nobody_gave_up(engine: Engine) -> None:
    alice = make_person(engine, address=ADDRESS)
    request_id = asked(engine, alice, gives_up=False)
    approved(engine, request_id)
    give_credit(engine, alice, usd="5")
    now_ns = START_NS + 15 * DAY_S * 10**9
    assert carry_out_due(engine, TOOLS, now_ns=now_ns) == 0
    assert [mail["cause"] for mail in mails(engine, kind="deletion_waits")] == ["balance"]
    with write(engine) as connection:
        give_up_balance(connection, request_id)
    assert carry_out_due(engine, TOOLS, now_ns=now_ns) == 1
    certificate = json.loads(stored(engine, request_id).certificate or "")["certificate"]
    assert certificate["balance_given_up_nusd"] == 5 * 10**9


def test_an_approved_deletion_stops_automatic_payments_and_sessions(engine: Engine) -> None:
    alice = make_person(engine, address=ADDRESS)
    row = {"account_id": alice, "state": "on", "threshold_nusd": 1, "amount_cents": 500, "monthly_cap_cents": 500}
    row |= {"method_id": "pm_1", "card_label": "Visa 4242", "soft_declines": 0}
    with write(engine) as connection:
        connection.execute(insert(auto_recharges).values({**row, "created_at_ns": 1, "updated_at_ns": 1}))
        browser = Browser("fingerprint", DEVICE, "192.0.2.77")
        begin_session(
            connection, TOOLS.people.seal, IdSource(), alice, browser, has_second_factor=False, now_ns=START_NS
        )
    approved(engine, asked(engine, alice))
    with read(engine) as connection:
        assert connection.execute(select(auto_recharges.c.state, auto_recharges.c.method_id)).one() == ("off", None)
        assert connection.execute(select(sessions.c.ends_at_ns)).scalar_one() == START_NS
        account = account_by_id(connection, alice)
    assert account is not None
    assert account.frozen_at_ns == START_NS
    carry_out_due(engine, TOOLS, now_ns=START_NS + 15 * DAY_S * 10**9)
    with read(engine) as connection:
        assert connection.execute(select(func.count()).select_from(auto_recharges)).scalar_one() == 0


async def test_after_a_cancellation_the_keys_work_again(engine: Engine, clock: MovableClock) -> None:
    alice = make_customer(engine)
    request_id = asked(engine, alice.account_id)
    approved(engine, request_id)
    with write(engine) as connection:
        for _ in range(2):
            cancelled = cancel(connection, TOOLS, request_id, now_ns=START_NS + 1)
            assert cancelled.state is State.CANCELLED
    async with running_desk(engine, clock) as desk:
        await desk.settle_durably(await desk.admit(await desk.ask(alice)), TokenUsage(1, 1))
    clock.move(15 * DAY_S)
    assert carry_out_due(engine, TOOLS, now_ns=clock.now_ns()) == 0
    with read(engine) as connection:
        revoked = connection.execute(select(keys.c.revoked_at_ns)).scalars().all()
    assert set(revoked) == {None}


def test_a_copy_that_nobody_fetches_expires_and_its_owner_is_told(engine: Engine) -> None:
    alice = make_person(engine, address=ADDRESS, language="zh")
    request_id = asked(engine, alice, RequestKind.EXPORT)
    approved(engine, request_id)
    week_ns = 7 * DAY_S * 10**9
    carry_out_due(engine, TOOLS, now_ns=START_NS + week_ns - 1)
    assert stored(engine, request_id).state is State.APPROVED
    carry_out_due(engine, TOOLS, now_ns=START_NS + week_ns)
    assert stored(engine, request_id).state is State.EXPIRED
    assert sorted(mail.get("state", "") for mail in mails(engine)) == ["", "expired", "received"]


def test_a_stranger_s_request_is_approved_for_a_named_account_only(engine: Engine) -> None:
    alice, bob = make_person(engine, address=ADDRESS), make_person(engine, name="Bob", address="bob@example.com")
    request_id, other = (asked(engine, None, RequestKind.EXPORT, ticket_id=f"tkt-{number}") for number in range(2))
    asked(engine, bob, RequestKind.EXPORT)
    with write(engine) as connection:
        with pytest.raises(AccountUnnamed):
            approve(connection, TOOLS, request_id, reviewed_by=REVIEWER, now_ns=START_NS)
        with pytest.raises(DataRequestOpen):
            approve(connection, TOOLS, other, reviewed_by=REVIEWER, account_id=bob, now_ns=START_NS)
        done = approve(connection, TOOLS, request_id, reviewed_by=REVIEWER, account_id=alice, now_ns=START_NS)
    assert (done.account_id, done.state) == (alice, State.APPROVED)
    assert [mail["kind"] for mail in mails(engine)] == ["export_ready"]


def test_late_reviews_are_told_once_a_day_in_one_mail(engine: Engine) -> None:
    alice, bob = make_person(engine), make_person(engine, name="Bob", address="bob@example.com")
    late = sorted((asked(engine, alice), asked(engine, bob)))
    due_ns = START_NS + 30 * DAY_S * 10**9
    turns = [(due_ns - 1, 0), (due_ns, 2), (due_ns + DAY_S * 10**9 - 1, 0), (due_ns + DAY_S * 10**9, 2)]
    for now_ns, count in turns:
        assert alert_late(engine, TOOLS, now_ns=now_ns) == count
    told = mails(engine, OPERATOR)
    assert [mail["event"] for mail in told] == ["data_requests_late"] * 2
    assert all(one in told[0]["detail"] for one in late)
    with read(engine) as connection:
        assert {one.id for one in requests_page(connection, overdue_at_ns=due_ns)} == set(late)
        assert requests_page(connection, overdue_at_ns=due_ns - 1) == []


def test_what_has_ended_stays_so_and_what_is_not_there_is_not_found(engine: Engine) -> None:
    request_id = asked(engine, make_person(engine))
    with write(engine) as connection:
        assert note(connection, request_id, "Ask again.").note == "Ask again."
        for words in ("", "\x00", "x" * 2_001):
            with pytest.raises(WordsInvalid):
                note(connection, request_id, words)
            with pytest.raises(WordsInvalid):
                refuse(connection, TOOLS, request_id, reason=words, reviewed_by=REVIEWER, now_ns=START_NS)
        cancel(connection, TOOLS, request_id, now_ns=START_NS)
        with pytest.raises(DataRequestDecided):
            approve(connection, TOOLS, request_id, reviewed_by=REVIEWER, now_ns=START_NS)
        with pytest.raises(DataRequestDecided):
            give_up_balance(connection, request_id)
        for unknown in ("", "drq-none"):
            with pytest.raises(DataRequestNotFound):
                cancel(connection, TOOLS, unknown, now_ns=START_NS)


def test_the_proof_of_an_answer_is_kept_for_three_years(engine: Engine) -> None:
    request_id = asked(engine, make_person(engine))
    with write(engine) as connection:
        cancel(connection, TOOLS, request_id, now_ns=START_NS)
    for days, left in ((1_095, 1), (1_096, 0)):
        run_retention(engine, now_ns=START_NS + days * DAY_S * 10**9)
        with read(engine) as connection:
            assert connection.execute(select(func.count()).select_from(data_requests)).scalar_one() == left
