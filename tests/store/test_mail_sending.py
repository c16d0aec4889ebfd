"""The postman: every mail once, whoever dies; nothing to those who want none; nothing kept that was said."""

import asyncio
import contextlib
import multiprocessing
import random
from collections.abc import AsyncIterator, Iterator

import pytest
from sqlalchemy import Engine, select, update

from dragonfly.core.ids import AccountId
from dragonfly.infra.database import open_engine, read, write
from dragonfly.mail.actions import (
    PreferencesOwnerUnknown,
    ThresholdInvalid,
    allow_address,
    note_bad_news,
    set_choices,
    set_low_balance,
)
from dragonfly.mail.kinds import Choice, MailKind
from dragonfly.mail.messages import Failure, Message
from dragonfly.mail.outbox import CLAIM_S, claim_due, note_sent, put_back
from dragonfly.mail.queries import Preferences, outbox_page, preferences_of
from dragonfly.mail.rules import ATTEMPTS_MAX, STALE_S, backoff_s
from dragonfly.mail.seals import OptOut
from dragonfly.mail.tables import mail_outbox
from dragonfly.privacy.retention import run_retention
from tests.factories import START_NS, MovableClock, make_account
from tests.fakes.outage import Outage
from tests.fakes.outage import Trouble as DatabaseTrouble
from tests.fakes.resend import FakeResend, Trouble
from tests.store.mailing_process import main
from tests.store.postroom import SEALS, Postroom, open_postroom, queue_one, resend_at

DAY_S = 86_400
MAILS = 40
KILLS = 8
WAIT_S = 30.0


@pytest.fixture
def resend() -> Iterator[FakeResend]:
    with FakeResend().running() as fake:
        yield fake


@pytest.fixture
async def room(engine: Engine, clock: MovableClock, resend: FakeResend) -> AsyncIterator[Postroom]:
    async with open_postroom(engine, clock, resend_at(resend.url)) as opened:
        yield opened


async def test_a_mail_is_sent_once_and_its_values_are_scrubbed(room: Postroom, resend: FakeResend) -> None:
    room.queue("one")
    for _ in range(3):
        await room.postman.run()
    (mail,) = resend.mails
    (row,) = room.rows()
    assert (row.state, row.details, row.claim, row.transport_id, row.attempts) == ("sent", None, None, mail["id"], 1)
    assert mail["to"] == ["alice@example.com"]
    assert "token=abc" in mail["text"]
    assert mail["headers"] == {"Auto-Submitted": "auto-generated"}
    assert resend.keys == [row.id]


async def test_many_mails_leave_in_one_turn(room: Postroom, resend: FakeResend) -> None:
    for number in range(30):
        room.queue(f"{number:02d}", address=f"alice{number}@example.com")
    await room.postman.run()
    assert set(room.states()) == {"sent"}
    assert len({mail["to"][0] for mail in resend.mails}) == 30


async def test_a_provider_in_trouble_is_tried_again_later_and_later(
    room: Postroom, resend: FakeResend, clock: MovableClock
) -> None:
    room.queue("one")
    resend.troubles += [Trouble(500, "application_error")] * 3
    for attempt in (1, 2, 3):
        await room.postman.run()
        await room.postman.run()
        assert len(resend.requests) == attempt
        clock.move(backoff_s(attempt, 1.0) - 0.001)
        await room.postman.run()
        assert len(resend.requests) == attempt, "not before its time"
        clock.move(0.001)
    await room.postman.run()
    assert room.states() == ["sent"]
    assert len(resend.mails) == 1
    assert room.logged.count('"mail_delayed"') == 3


async def test_a_mail_is_given_up_after_a_bounded_number_of_attempts(
    room: Postroom, resend: FakeResend, clock: MovableClock
) -> None:
    room.queue("one")
    resend.troubles += [Trouble(503, "unavailable")] * 100
    passed_s = 0.0
    for attempt in range(1, ATTEMPTS_MAX + 1):
        await room.postman.run()
        clock.move(backoff_s(attempt, 1.0))
        passed_s += backoff_s(attempt, 1.0)
    await room.postman.run()
    (row,) = room.rows()
    assert (row.state, row.failure, row.attempts, row.details) == ("dead", "provider_away", ATTEMPTS_MAX, None)
    assert len(resend.requests) == ATTEMPTS_MAX
    assert passed_s < DAY_S, "Resend remembers a key for 24 hours"
    assert '"mail_dead"' in room.logged
    assert "alice" not in room.logged
    with read(room.engine) as connection:
        (shown,) = outbox_page(connection, state="dead")
    assert (shown.address, shown.failure) == ("alice@example.com", "provider_away")


async def test_a_final_refusal_is_not_repeated(room: Postroom, resend: FakeResend, clock: MovableClock) -> None:
    room.queue("one")
    resend.troubles.append(Trouble(422, "validation_error"))
    await room.postman.run()
    clock.move(DAY_S)
    await room.postman.run()
    assert room.states() == ["dead"]
    assert len(resend.requests) == 1


async def test_a_limit_of_the_provider_silences_the_whole_postman(
    room: Postroom, resend: FakeResend, clock: MovableClock
) -> None:
    room.queue("one")
    resend.troubles.append(Trouble(429, "rate_limit_exceeded", {"retry-after": "90"}))
    await room.postman.run()
    room.queue("two", address="bob@example.com")
    await room.postman.run()
    assert len(resend.requests) == 1
    assert room.rows()[0].attempts == 0, "being asked to slow down is no refusal"
    clock.move(90)
    await room.postman.run()
    assert room.states() == ["sent", "sent"]


async def test_a_burst_beyond_the_provider_s_limit_leaves_at_the_provider_s_pace(
    room: Postroom, resend: FakeResend, clock: MovableClock
) -> None:
    for number in range(20):
        room.queue(f"{number:02d}")
    resend.troubles += [Trouble(429, "rate_limit_exceeded", {"retry-after": "1"})] * 60
    for _ in range(60):
        await room.postman.run()
        clock.move(1)
    assert set(room.states()) == {"sent"}
    assert len(resend.mails) == 20


async def test_a_mail_whose_answer_is_lost_is_not_sent_again(
    room: Postroom, resend: FakeResend, clock: MovableClock
) -> None:
    room.queue("one")
    resend.troubles.append(Trouble(0, "connection lost", is_accepted=True))
    await room.postman.run()
    assert room.states() == ["queued"]
    clock.move(60)
    await room.postman.run()
    assert room.states() == ["sent"]
    assert (len(resend.mails), len(resend.requests)) == (1, 2)


async def test_a_mail_that_was_sent_while_the_database_was_away_is_noted_when_it_is_back(
    url: str, engine: Engine, clock: MovableClock
) -> None:
    shaky = open_engine(url)
    outage = Outage(shaky)
    queue_one(engine, "one")

    class Telling:
        """Takes the mail; from then on the database is away, for as long as the first note needs to fail."""

        sent = 0

        async def send(self, message: Message) -> str | None:
            self.sent += 1
            outage.trouble = DatabaseTrouble.AWAY
            asyncio.get_running_loop().call_later(0.05, self.end)
            return "transport-1"

        def end(self) -> None:
            outage.trouble = DatabaseTrouble.NONE

        async def close(self) -> None:
            return None

    telling = Telling()
    async with open_postroom(shaky, clock, telling) as room:
        await room.postman.run()
        (row,) = room.rows()
    assert (row.state, row.transport_id, telling.sent) == ("sent", "transport-1", 1)
    shaky.dispose()


async def test_several_workers_share_the_work_and_never_a_mail(
    engine: Engine, clock: MovableClock, resend: FakeResend
) -> None:
    for number in range(MAILS):
        queue_one(engine, f"{number:02d}")
    async with contextlib.AsyncExitStack() as stack:
        rooms = [
            await stack.enter_async_context(open_postroom(engine, clock, resend_at(resend.url))) for _ in range(4)
        ]
        await asyncio.gather(*(room.postman.run() for room in rooms))
        assert set(rooms[0].states()) == {"sent"}, [room.logged for room in rooms]
    assert len(resend.keys) == len(set(resend.keys)) == MAILS


def test_a_claim_ends_with_its_time_and_the_late_one_changes_nothing(engine: Engine, clock: MovableClock) -> None:
    queue_one(engine, "one")
    with write(engine) as connection:
        (first,) = claim_due(connection, "claim-1", now_ns=START_NS)
        assert claim_due(connection, "claim-2", now_ns=START_NS + round((CLAIM_S - 1) * 1e9)) == []
        later_ns = START_NS + round(CLAIM_S * 1e9)
        (second,) = claim_due(connection, "claim-3", now_ns=later_ns)
        assert (first.attempts, second.attempts) == (1, 2)
        assert not note_sent(connection, first, None, now_ns=later_ns)
        assert not put_back(connection, first, Failure.AWAY, due_at_ns=later_ns)
        assert note_sent(connection, second, None, now_ns=later_ns)


async def test_a_mail_that_kills_its_process_is_given_up(
    room: Postroom, resend: FakeResend, clock: MovableClock
) -> None:
    room.queue("one")
    for number in range(ATTEMPTS_MAX):
        with write(room.engine) as connection:
            assert len(claim_due(connection, f"claim-{number}", now_ns=clock.now_ns())) == 1
        clock.move(CLAIM_S)
    await room.postman.run()
    assert [(row.state, row.failure) for row in room.rows()] == [("dead", "interrupted")]
    assert resend.requests == []


async def test_workers_that_are_killed_lose_no_mail_and_send_none_twice(
    url: str, engine: Engine, resend: FakeResend
) -> None:
    """kill -9 at random moments. The next worker begins when the claims of the dead one have run out."""
    for number in range(MAILS):
        queue_one(engine, f"{number:02d}", address=f"alice{number}@example.com")
    source = random.Random(7)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([main.__module__])
    for life in range(KILLS + 1):
        told, theirs = context.Pipe(duplex=False)
        now_ns = START_NS + round(life * (CLAIM_S + 1) * 1e9)
        victim = context.Process(target=main, args=(url, resend.url, now_ns, theirs), daemon=True)
        victim.start()
        theirs.close()
        if life < KILLS:
            wanted = len(resend.requests) + source.randrange(1, 6)
            await asyncio.to_thread(_until_requests, resend, wanted, victim)
            victim.kill()
        else:
            assert await asyncio.to_thread(told.poll, WAIT_S)
            assert told.recv() == "done"
        await asyncio.to_thread(victim.join, WAIT_S)
        told.close()
    with read(engine) as connection:
        rows = connection.execute(select(mail_outbox.c.state, mail_outbox.c.id)).all()
    assert {row.state for row in rows} == {"sent"}
    assert sorted(mail["key"] for mail in resend.mails) == sorted(row.id for row in rows)
    assert len(resend.requests) >= MAILS


def _until_requests(resend: FakeResend, count: int, victim: multiprocessing.process.BaseProcess) -> None:
    """Until Resend has been asked so often, or the worker has nothing left to send."""
    with resend.changed:
        assert resend.changed.wait_for(lambda: len(resend.requests) >= count or not victim.is_alive(), WAIT_S) or (
            not victim.is_alive()
        )


async def test_a_turn_that_is_cancelled_still_notes_what_it_sent(room: Postroom, resend: FakeResend) -> None:
    room.queue("one")
    turn = asyncio.create_task(room.postman.run())
    async with asyncio.timeout(WAIT_S):
        while not resend.requests:
            await asyncio.sleep(0.005)
    turn.cancel()
    await asyncio.gather(turn, return_exceptions=True)
    await room.postman.stop()
    assert room.states() == ["sent"]
    room.queue("two")
    await room.postman.run()
    assert room.states() == ["sent", "queued"], "who has stopped claims nothing more"


async def test_a_mail_that_waited_for_days_is_not_sent(
    room: Postroom, resend: FakeResend, clock: MovableClock
) -> None:
    room.queue("one")
    clock.move(STALE_S + 1)
    await room.postman.run()
    assert [(row.state, row.failure) for row in room.rows()] == [("dead", "stale")]
    assert resend.requests == []


async def test_a_kind_of_a_newer_version_waits_for_that_version(room: Postroom, resend: FakeResend) -> None:
    room.queue("one")
    with write(room.engine) as connection:
        connection.execute(update(mail_outbox).values(kind="from_the_future"))
    await room.postman.run()
    assert room.states() == ["queued"]


async def test_non_essential_mail_carries_a_link_that_stops_it_and_is_then_withheld(
    room: Postroom, resend: FakeResend
) -> None:
    alice = make_account(room.engine)
    room.queue("1", kind=MailKind.WELCOME_START, account_id=alice, values={})
    await room.postman.run()
    (mail,) = resend.mails
    link = mail["headers"]["List-Unsubscribe"].strip("<>")
    assert mail["headers"]["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    assert link in mail["text"]
    token = link.partition("?token=")[2]
    assert SEALS.opened(token) == OptOut(alice, Choice.WELCOME)
    with write(room.engine) as connection:
        set_choices(connection, alice, {Choice.WELCOME: False}, now_ns=START_NS)
    room.queue("2", kind=MailKind.WELCOME_HELP, account_id=alice, values={})
    room.queue("3", kind=MailKind.LOW_BALANCE, account_id=alice, values={"threshold_usd": "5"})
    room.queue("4", account_id=alice)
    await room.postman.run()
    assert room.states() == ["sent", "withheld", "sent", "sent"]
    assert room.rows()[1].failure == "opted_out"
    assert '"mail_withheld"' in room.logged


async def test_nothing_goes_to_an_address_that_bounced_until_it_is_allowed_again(
    room: Postroom, resend: FakeResend
) -> None:
    digest = SEALS.address_digest("Alice@Example.com")
    with write(room.engine) as connection:
        assert note_bad_news(connection, "msg_1", "bounce", "id-1", [digest], now_ns=START_NS)
        assert not note_bad_news(connection, "msg_1", "bounce", "id-1", ["f" * 64], now_ns=START_NS)
    room.queue("1")
    room.queue("2", address="bob@example.com")
    await room.postman.run()
    assert room.states() == ["withheld", "sent"]
    with write(room.engine) as connection:
        assert allow_address(connection, digest)
        assert not allow_address(connection, digest)
    room.queue("3")
    await room.postman.run()
    assert room.states()[2] == "sent"


def test_forged_and_changed_tokens_open_nothing() -> None:
    token = SEALS.opt_out_token(AccountId("acc-1"), Choice.WELCOME)
    assert SEALS.opened(token) == OptOut(AccountId("acc-1"), Choice.WELCOME)
    for wrong in ("", ".", token[:-1], token + "A", token.replace("acc-1", "acc-2"), token + "x" * 10_000, "ü.ü.ü"):
        assert SEALS.opened(wrong) is None
    assert SEALS.opened(token.replace("welcome", "announcements")) is None


def test_preferences_begin_as_defaults_and_change_one_by_one(engine: Engine) -> None:
    alice = make_account(engine)
    with write(engine) as connection:
        assert preferences_of(connection, alice) == Preferences(frozenset(Choice), None)
        set_choices(connection, alice, {Choice.WELCOME: False, Choice.ANNOUNCEMENTS: False}, now_ns=START_NS)
        set_choices(connection, alice, {Choice.WELCOME: True}, now_ns=START_NS)
        set_low_balance(connection, alice, 7, now_ns=START_NS)
        wanted = frozenset({Choice.WELCOME, Choice.LOW_BALANCE})
        assert preferences_of(connection, alice) == Preferences(wanted, 7)
        set_low_balance(connection, alice, None, now_ns=START_NS)
        assert preferences_of(connection, alice).low_balance_nusd is None
        for wrong in (-1, 10**15 + 1):
            with pytest.raises(ThresholdInvalid):
                set_low_balance(connection, alice, wrong, now_ns=START_NS)
    with pytest.raises(PreferencesOwnerUnknown), write(engine) as connection:
        set_choices(connection, AccountId("acc-unknown"), {Choice.WELCOME: False}, now_ns=START_NS)


def test_rows_go_when_they_have_lived_their_time(engine: Engine) -> None:
    queue_one(engine, "one")
    with write(engine) as connection:
        note_bad_news(connection, "msg_1", "complaint", None, ["a" * 64], now_ns=START_NS)
    both = {"mail_outbox": 1, "mail_notices": 1}
    for days, expected in ((29, {}), (31, both), (364, {}), (366, {"mail_dead_addresses": 1})):
        assert run_retention(engine, now_ns=START_NS + days * DAY_S * 10**9).deleted == expected
