"""Support: tickets of one's own and of strangers, answers by mail, reviews step by step, nothing secret kept."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Engine, select

from dragonfly.api.admin_tickets import admin_ticket_routes
from dragonfly.api.support import stranger_routes, ticket_routes
from dragonfly.app.people import people_parts
from dragonfly.core.ids import AccountId, IdSource
from dragonfly.infra.database import DatabaseThreads, read, write
from dragonfly.mail.tables import mail_outbox
from dragonfly.operations.tables import audit_log
from dragonfly.privacy.retention import run_retention
from dragonfly.rights.queries import request_of_ticket, requests_page
from dragonfly.rights.rules import Origin, State
from dragonfly.support.actions import (
    OPEN_PER_ACCOUNT_MAX,
    PER_ADDRESS_AND_DAY_MAX,
    RequestStateInvalid,
    close_ticket,
    follow_request,
    open_ticket,
    reply,
)
from dragonfly.support.jobs import SILENT_S, close_silent_tickets
from dragonfly.support.queries import messages_of, ticket_by_id, tickets_page
from dragonfly.support.rules import (
    ENDED,
    REMOVED,
    RequestState,
    TicketKind,
    TicketState,
    is_request_id,
    is_text,
    may_follow,
    without_secrets,
)
from dragonfly.support.tables import support_messages, support_tickets
from tests.factories import START_NS, MovableClock, make_account
from tests.http.people import settings_for
from tests.store.callers import Api, make_desk, make_person, make_rights_tools

TICKETS = "/api/support/tickets"
ADMIN = "/api/admin/tickets"
OPERATOR = "ops@example.com"
REQUEST_ID = "gen-" + "0123456789abcdef" * 2
DAY_S = 86_400


@pytest.fixture
def api(engine: Engine, clock: MovableClock) -> Iterator[Api]:
    threads = DatabaseThreads()
    desk = make_desk(engine, clock, threads)
    people = people_parts(settings_for(), engine, threads, clock, desk.ids)
    yield Api(
        (
            stranger_routes(desk, people.identity, make_rights_tools(OPERATOR)),
            ticket_routes(desk, make_rights_tools(OPERATOR)),
            admin_ticket_routes(desk),
        ),
        clock,
    )
    people.passwords.close()
    threads.close()


def mails(engine: Engine, address: str = "alice@example.com") -> list[tuple[str, dict[str, Any]]]:
    """Kinds and values of what waits for an address."""
    wanted = select(mail_outbox).where(mail_outbox.c.address == address).order_by(mail_outbox.c.created_at_ns)
    with read(engine) as connection:
        return [(row.kind, json.loads(row.details)) for row in connection.execute(wanted)]


def opened(
    engine: Engine,
    *,
    account_id: AccountId | None = None,
    kind: TicketKind = TicketKind.QUESTION,
    now_ns: int = START_NS,
) -> str:
    with write(engine) as connection:
        return open_ticket(
            connection,
            IdSource(),
            account_id=account_id,
            address="alice@example.com",
            language="zh",
            kind=kind,
            text="Why?",
            request_ids=(),
            now_ns=now_ns,
        )


async def test_a_customer_asks_an_operator_answers_by_mail_and_it_goes_on(
    api: Api, engine: Engine, clock: MovableClock
) -> None:
    alice, bob = make_person(engine, language="zh"), make_account(engine, name="Bob")
    wanted = {"kind": "payment", "text": "Where is my receipt?", "request_ids": [REQUEST_ID]}
    made = await api.send("POST", TICKETS, alice, json=wanted)
    assert made.status_code == 201
    ticket = made.json()["id"]
    assert (made.json()["state"], made.json()["request_ids"]) == ("open", [REQUEST_ID])
    assert [kind for kind, _ in mails(engine)] == ["ticket_opened"]
    ((alert, told),) = mails(engine, OPERATOR)
    assert (alert, told["event"]) == ("operator_alert", "ticket_payment")
    assert "receipt" not in json.dumps(told)
    operator = f"operator:{bob}"
    clock.move(1)
    answer = await api.send("POST", f"{ADMIN}/{ticket}/replies", operator, json={"text": "In your account."})
    assert (answer.status_code, answer.json()["state"]) == (201, "answered")
    assert mails(engine)[1] == ("ticket_reply", {"ticket": ticket, "text": "In your account."})
    clock.move(1)
    more = await api.send("POST", f"{TICKETS}/{ticket}/messages", alice, json={"text": "Thank you."})
    assert (more.status_code, more.json()["state"]) == (201, "open")
    said = [(one["author"], one["text"]) for one in more.json()["messages"]]
    assert said == [
        ("customer", "Where is my receipt?"),
        ("operator", "In your account."),
        ("customer", "Thank you."),
    ]
    closed = await api.send("POST", f"{TICKETS}/{ticket}/close", alice)
    assert closed.json()["state"] == "closed"
    late = await api.send("POST", f"{ADMIN}/{ticket}/replies", operator, json={"text": "One more thing."})
    assert (late.status_code, late.json()["error"]["code"]) == (409, "ticket_closed")


async def test_tickets_are_their_owner_s_and_the_operators_alone(api: Api, engine: Engine) -> None:
    alice, bob = make_person(engine), make_person(engine, name="Bob", address="bob@example.com")
    ticket = opened(engine, account_id=alice)
    for method, path, body in (
        ("GET", f"{TICKETS}/{ticket}", None),
        ("POST", f"{TICKETS}/{ticket}/messages", {"text": "Mine?"}),
        ("POST", f"{TICKETS}/{ticket}/close", None),
    ):
        assert (await api.send(method, path, bob, json=body)).status_code == 404
        assert (await api.send(method, path, json=body)).status_code == 401
    for method, path, body in (
        ("GET", ADMIN, None),
        ("GET", f"{ADMIN}/{ticket}", None),
        ("POST", f"{ADMIN}/{ticket}/replies", {"text": "Hello"}),
        ("POST", f"{ADMIN}/{ticket}/close", {"reason": "It is mine."}),
    ):
        assert (await api.send(method, path, alice, json=body)).status_code == 403
    assert (await api.send("GET", TICKETS, bob)).json() == {"data": [], "next_cursor": None}
    assert [one["id"] for one in (await api.send("GET", TICKETS, alice)).json()["data"]] == [ticket]


async def test_lists_come_in_pages_and_operators_filter_them(api: Api, engine: Engine) -> None:
    alice = make_person(engine)
    made = [opened(engine, account_id=alice, now_ns=START_NS + number * 10**9) for number in range(5)]
    request = opened(engine, account_id=alice, kind=TicketKind.DELETION, now_ns=START_NS + 9 * 10**9)
    seen: list[str] = []
    cursor = ""
    while True:
        page = (await api.send("GET", f"{TICKETS}?limit=2{cursor}", alice)).json()
        seen += [one["id"] for one in page["data"]]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert seen == [request, *reversed(made)]
    operator = f"operator:{make_account(engine, name='Bob')}"
    found = (await api.send("GET", f"{ADMIN}?kind=deletion&state=open&request_state=received", operator)).json()
    assert [one["id"] for one in found["data"]] == [request]
    assert found["data"][0]["address"] == "alice@example.com"
    assert (await api.send("GET", f"{ADMIN}?state=closed", operator)).json()["data"] == []
    assert (await api.send("GET", f"{ADMIN}?state=lost", operator)).status_code == 422
    assert (await api.send("GET", f"{ADMIN}?cursor=%22", operator)).status_code == 400


async def test_what_operators_read_and_do_stands_in_the_log(api: Api, engine: Engine) -> None:
    ticket = opened(engine)
    bob = make_account(engine, name="Bob")
    operator = f"operator:{bob}"
    await api.send("GET", ADMIN, operator)
    assert (await api.send("GET", f"{ADMIN}/{ticket}", operator)).json()["messages"][0]["text"] == "Why?"
    await api.send("POST", f"{ADMIN}/{ticket}/replies", operator, json={"text": "Because."})
    assert (await api.send("POST", f"{ADMIN}/{ticket}/close", operator, json={})).status_code == 422
    await api.send("POST", f"{ADMIN}/{ticket}/close", operator, json={"reason": "Answered."})
    with read(engine) as connection:
        rows = connection.execute(select(audit_log).order_by(audit_log.c.number)).all()
    assert [(row.actor_id, row.action, row.target) for row in rows] == [
        (bob, action, ticket) for action in ("ticket.read", "ticket.reply", "ticket.close")
    ]
    assert "Because" not in repr(rows)


STRANGER = {"address": "alice@example.com", "kind": "abuse", "text": "Somebody sends me spam.", "language": "zh"}


async def test_people_without_an_account_write_too_and_learn_nothing(api: Api, engine: Engine) -> None:
    answers = [
        await api.send("POST", "/api/support", json=STRANGER),
        await api.send("POST", "/api/support", json={**STRANGER, "website": "https://example.com"}),
    ]
    assert {(answer.status_code, answer.text) for answer in answers} == {(202, '{"status":"ok"}')}
    with read(engine) as connection:
        (ticket,) = tickets_page(connection)
        (message,) = messages_of(connection, ticket.id)
    assert (ticket.account_id, ticket.language, ticket.kind) == (None, "zh", TicketKind.ABUSE)
    assert message.note == STRANGER["text"]
    assert mails(engine) == [("ticket_opened", {"ticket": ticket.id})]


@pytest.mark.parametrize(
    "change",
    [
        {"address": "alice"},
        {"address": "alice@example.com\r\nBcc: bob@example.com"},
        {"kind": "gossip"},
        {"text": ""},
        {"text": "x" * 5_001},
        {"text": "a\x00b"},
        {"text": " \n "},
        {"language": "de"},
        {"request_ids": ["the one from yesterday"]},
        {"request_ids": [REQUEST_ID] * 11},
        {"account_id": "acc-bob"},
        {"website": 1},
    ],
)
async def test_what_is_no_ticket_is_refused(api: Api, engine: Engine, change: dict[str, Any]) -> None:
    answer = await api.send("POST", "/api/support", json={**STRANGER, **change})
    assert answer.status_code in (400, 422)
    with read(engine) as connection:
        assert tickets_page(connection) == []


async def test_one_network_writes_in_moderation(api: Api, engine: Engine, clock: MovableClock) -> None:
    answers = [await api.send("POST", "/api/support", json=STRANGER) for _ in range(7)]
    assert [answer.status_code for answer in answers] == [202] * 5 + [429] * 2
    assert int(answers[-1].headers["retry-after"]) > 0
    clock.move(3_600)
    assert (await api.send("POST", "/api/support", json=STRANGER)).status_code == 202
    with read(engine) as connection:
        assert len(tickets_page(connection)) == PER_ADDRESS_AND_DAY_MAX, "the address has had enough for a day"
    assert len(mails(engine)) == 1, "an address gets one acknowledgement a day"


async def test_an_account_has_a_bounded_number_of_open_tickets(api: Api, engine: Engine) -> None:
    alice = make_person(engine)
    made = [opened(engine, account_id=alice) for _ in range(OPEN_PER_ACCOUNT_MAX)]
    wanted = {"kind": "question", "text": "And another one?"}
    refused = await api.send("POST", TICKETS, alice, json=wanted)
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "too_many_tickets")
    await api.send("POST", f"{TICKETS}/{made[0]}/close", alice)
    assert (await api.send("POST", TICKETS, alice, json=wanted)).status_code == 201


async def test_an_account_without_an_address_is_sent_to_the_form(api: Api, engine: Engine) -> None:
    wanted = {"kind": "question", "text": "Hello?"}
    refused = await api.send("POST", TICKETS, make_account(engine), json=wanted)
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "address_missing")


async def test_keys_and_cards_that_people_paste_are_not_kept(api: Api, engine: Engine) -> None:
    key = "sk-df-0123456789abcdefghijABCDEFGHIJ0123456789"
    text = f"My key {key} is refused. Authorization: Bearer abcdefghijklmnopqrstuvwxyz, card 4242 4242 4242 4242."
    made = await api.send("POST", TICKETS, make_person(engine), json={"kind": "question", "text": text})
    kept = made.json()["messages"][0]["text"]
    for secret in (key, "abcdefghijklmnopqrstuvwxyz", "4242 4242"):
        assert secret not in kept
    with read(engine) as connection:
        assert key not in repr(connection.execute(select(support_messages)).all())


def test_numbers_and_ids_that_are_no_secrets_stay() -> None:
    plain = f"Request {REQUEST_ID}, invoice 1234 5678 9012 3456, order 20261123184000123, hint sk-df-4Hb2...x9Zq."
    assert without_secrets(plain) == plain
    assert without_secrets("pay 4242424242424242 now") == f"pay {REMOVED} now"
    assert is_request_id(REQUEST_ID)
    assert not is_request_id(REQUEST_ID + "0")
    assert is_text("two\nlines\twith a tab")
    assert not is_text("\u202eturned")


def test_a_ticket_follows_its_request_step_by_step_and_is_closed_by_it(engine: Engine) -> None:
    ticket = opened(engine, account_id=make_person(engine), kind=TicketKind.DELETION)
    with write(engine) as connection:
        with pytest.raises(RequestStateInvalid):
            close_ticket(connection, ticket, now_ns=START_NS)
        with pytest.raises(RequestStateInvalid):
            follow_request(connection, ticket, RequestState.DONE, now_ns=START_NS)
        steps = (RequestState.IN_REVIEW, RequestState.APPROVED, RequestState.APPROVED, RequestState.DONE)
        for number, state in enumerate(steps, start=1):
            follow_request(connection, ticket, state, now_ns=START_NS + number)
        with pytest.raises(RequestStateInvalid):
            follow_request(connection, ticket, RequestState.IN_REVIEW, now_ns=START_NS)
        follow_request(connection, "tkt-gone", RequestState.DONE, now_ns=START_NS)
        stored = ticket_by_id(connection, ticket)
        assert stored is not None
        assert (stored.state, stored.request_state) == (TicketState.CLOSED, RequestState.DONE)
    assert mails(engine) == [], "whoever decides tells of it"


async def test_a_ticket_about_data_opens_a_request_and_closing_it_cancels_that(
    api: Api, engine: Engine, clock: MovableClock
) -> None:
    alice = make_person(engine)
    wanted = {"kind": "deletion", "text": "Delete me."}
    ticket = (await api.send("POST", TICKETS, alice, json=wanted)).json()
    assert ticket["request_state"] == "received"
    assert [(kind, told["state"]) for kind, told in mails(engine)] == [("data_request_status", "received")]
    again = await api.send("POST", TICKETS, alice, json=wanted)
    assert (again.status_code, again.json()["error"]["code"]) == (409, "data_request_open")
    with read(engine) as connection:
        request = request_of_ticket(connection, ticket["id"])
    assert request is not None
    assert (request.account_id, request.state) == (alice, State.REQUESTED)
    clock.move(1)
    closed = (await api.send("POST", f"{TICKETS}/{ticket['id']}/close", alice)).json()
    assert (closed["state"], closed["request_state"]) == ("closed", "cancelled")
    assert mails(engine)[-1][1]["state"] == "cancelled"
    with read(engine) as connection:
        assert request_of_ticket(connection, ticket["id"]) is None


async def test_a_stranger_s_ticket_opens_a_request_of_nobody(api: Api, engine: Engine) -> None:
    make_person(engine)
    wanted = {**STRANGER, "kind": "data_export"}
    assert (await api.send("POST", "/api/support", json=wanted)).status_code == 202
    with read(engine) as connection:
        (request,) = requests_page(connection)
    assert (request.account_id, request.origin) == (None, Origin.TICKET)
    assert [kind for kind, _ in mails(engine)] == ["ticket_opened"], "no mail says whose address has an account"


def test_a_question_is_no_request_about_data(engine: Engine) -> None:
    ticket = opened(engine)
    with write(engine) as connection, pytest.raises(RequestStateInvalid):
        follow_request(connection, ticket, RequestState.IN_REVIEW, now_ns=START_NS)


def test_nothing_is_carried_out_before_it_was_approved() -> None:
    for old in RequestState:
        assert not may_follow(old, old)
        assert may_follow(old, RequestState.DONE) == (old in (RequestState.APPROVED, RequestState.READY))
        assert not any(may_follow(end, old) for end in ENDED)


def test_silent_tickets_are_closed_and_closed_ones_go_with_their_words(engine: Engine) -> None:
    answered, waiting = opened(engine), opened(engine)
    request = opened(engine, account_id=make_person(engine), kind=TicketKind.DATA_EXPORT)
    closed_ns = START_NS + SILENT_S * 10**9
    with write(engine) as connection:
        for ticket in (answered, request):
            reply(connection, IdSource(), ticket, "Because.", now_ns=START_NS)
        assert close_silent_tickets(connection, now_ns=closed_ns - 1) == 0
        assert close_silent_tickets(connection, now_ns=closed_ns) == 1
        states = {ticket.id: ticket.state for ticket in tickets_page(connection)}
    assert (states[answered], states[waiting], states[request]) == (
        TicketState.CLOSED,
        TicketState.OPEN,
        TicketState.ANSWERED,
    )
    assert "support_tickets" not in run_retention(engine, now_ns=closed_ns + 179 * DAY_S * 10**9).deleted
    assert run_retention(engine, now_ns=closed_ns + 181 * DAY_S * 10**9).deleted["support_tickets"] == 1
    with read(engine) as connection:
        left = set(connection.execute(select(support_messages.c.ticket_id)).scalars())
        assert left == set(connection.execute(select(support_tickets.c.id)).scalars()) == {waiting, request}
