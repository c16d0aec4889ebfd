"""/api/data-requests: asking for a copy and for deletion, with real sign-ins; what is fetched, once; what is kept."""

import asyncio
import io
import json
import os
import socket
import zipfile
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import pytest
from sqlalchemy import Engine, insert

from dragonfly.accounts.actions import freeze_account
from dragonfly.accounts.queries import account_by_id
from dragonfly.accounts.sessions import FRESH_S
from dragonfly.api.admin_data_requests import admin_data_request_routes
from dragonfly.api.data_requests import data_request_routes
from dragonfly.api.desk import Desk
from dragonfly.core.ids import AccountId, IdSource
from dragonfly.infra.database import DatabaseThreads, read, write
from dragonfly.operations.queries import audit_page
from dragonfly.rights.actions import RightsTools, approve, refuse
from dragonfly.support.actions import open_ticket
from dragonfly.support.rules import TicketKind
from dragonfly.support.tables import support_messages
from tests.factories import MovableClock, give_credit
from tests.http.people import Browser, Site, site_on
from tests.store.callers import make_rights_tools

REQUESTS = "/api/data-requests"
QUEUE = "/api/admin/data-requests"
WHY = "signed in, asked twice"
ALICE, BOB, CHARLIE = "alice@example.com", "bob@example.com", "charlie@example.com"
DAY_S = 86_400


class Counter:
    """A site with these routes, and what stands behind them."""

    def __init__(self, engine: Engine, clock: MovableClock, site: Site, tools: RightsTools) -> None:
        self.engine = engine
        self.clock = clock
        self.site = site
        self.tools = tools

    def decide(self, request_id: str, *, reason: str = "") -> None:
        """An operator approves, or refuses for a reason."""
        with write(self.engine) as connection:
            if reason:
                refuse(
                    connection,
                    self.tools,
                    request_id,
                    reason=reason,
                    reviewed_by="acc-charlie",
                    now_ns=self.clock.now_ns(),
                )
            else:
                approve(connection, self.tools, request_id, reviewed_by="acc-charlie", now_ns=self.clock.now_ns())

    async def fetch(self, url: str) -> tuple[int, bytes]:
        parts = urlsplit(url)
        got = await self.site.browser().client.get(f"{parts.path}?{parts.query}")
        return got.status_code, got.content


async def counter_on(engine: Engine, clock: MovableClock, *, self_service: bool) -> AsyncIterator[Counter]:
    threads = DatabaseThreads()
    desk = Desk(engine, threads, clock, IdSource())
    tools = make_rights_tools("ops@example.com", self_service=self_service)
    routers = (data_request_routes(desk, tools, lambda request: None), admin_data_request_routes(desk, tools))
    async with site_on(engine, clock, None, *routers) as site:
        yield Counter(engine, clock, site, tools)
    threads.close()


@pytest.fixture
async def counter(engine: Engine, clock: MovableClock) -> AsyncIterator[Counter]:
    async for made in counter_on(engine, clock, self_service=False):
        yield made


@pytest.fixture
async def self_service(engine: Engine, clock: MovableClock) -> AsyncIterator[Counter]:
    async for made in counter_on(engine, clock, self_service=True):
        yield made


async def opened(browser: Browser, kind: str, **more: bool) -> str:
    made = await browser.post(REQUESTS, kind=kind, **more)
    assert made.status_code == 201, made.text
    return str(made.json()["id"])


async def link_of(browser: Browser, request_id: str) -> str:
    made = await browser.post(f"{REQUESTS}/{request_id}/link")
    assert made.status_code == 200, made.text
    return str(made.json()["url"])


async def test_a_copy_is_asked_for_approved_and_fetched_once(counter: Counter) -> None:
    alice = await counter.site.browser().join(ALICE)
    await counter.site.browser("203.0.113.8").join(BOB)
    request_id = await opened(alice, "export")
    early = await alice.post(f"{REQUESTS}/{request_id}/link")
    assert (early.status_code, early.json()["error"]["code"]) == (409, "nothing_to_fetch")
    counter.decide(request_id)
    shown = (await alice.get(f"{REQUESTS}/{request_id}")).json()
    assert (shown["state"], shown["kind"]) == ("approved", "export")
    first, url = await link_of(alice, request_id), await link_of(alice, request_id)
    assert (await counter.fetch(first))[0] == 400, "a newer link voids the older one"
    status, data = await counter.fetch(url)
    assert status == 200
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        people = json.loads(archive.read("accounts.json"))
        everything = b"".join(archive.read(name) for name in archive.namelist())
    assert [person["email"] for person in people] == [ALICE]
    assert BOB.encode() not in everything
    assert (await counter.fetch(url))[0] == 400, "a link works once"
    assert (await alice.get(f"{REQUESTS}/{request_id}")).json()["state"] == "done"
    assert (await alice.post(f"{REQUESTS}/{request_id}/link")).status_code == 409
    kinds = [mail["kind"] for mail in counter.site.mails(ALICE) if "reference" in mail]
    assert kinds == ["data_request_status", "export_ready"]
    assert "token" not in json.dumps(counter.site.mails(ALICE, "export_ready")), "no mail can fetch it"


async def test_a_link_ends_after_ten_minutes_and_a_copy_after_a_week(counter: Counter) -> None:
    alice = await counter.site.browser().join(ALICE)
    request_id = await opened(alice, "export")
    counter.decide(request_id)
    url = await link_of(alice, request_id)
    counter.clock.move(601)
    assert (await counter.fetch(url))[0] == 400
    counter.clock.move(7 * DAY_S - 600)
    await alice.sign_in(ALICE)
    assert (await alice.post(f"{REQUESTS}/{request_id}/link")).status_code == 409


async def test_it_wants_a_recent_sign_in_and_the_second_factor(counter: Counter) -> None:
    alice = await counter.site.browser().join(ALICE)
    elsewhere = counter.site.browser("203.0.113.9")
    await elsewhere.sign_in(ALICE)
    await alice.enrol()
    for kind in ("export", "deletion"):
        without = await elsewhere.post(REQUESTS, kind=kind)
        assert (without.status_code, without.json()["error"]["code"]) == (403, "forbidden")
    request_id = await opened(alice, "export")
    counter.decide(request_id)
    assert (await elsewhere.post(f"{REQUESTS}/{request_id}/link")).status_code == 403
    counter.clock.move(FRESH_S + 1)
    await alice.refresh()
    for path, body in ((REQUESTS, {"kind": "deletion"}), (f"{REQUESTS}/{request_id}/link", {})):
        stale = await alice.send("POST", path, body)
        assert (stale.status_code, stale.json()["error"]["code"]) == (403, "sign_in_again")


async def test_there_is_one_open_request_of_each_kind_and_a_list_of_all(counter: Counter) -> None:
    alice = await counter.site.browser().join(ALICE)
    made = []
    for _ in range(3):
        made.append(await opened(alice, "export"))
        again = await alice.post(REQUESTS, kind="export")
        assert (again.status_code, again.json()["error"]["code"]) == (409, "data_request_open")
        for _ in range(2):
            cancelled = await alice.post(f"{REQUESTS}/{made[-1]}/cancel")
            assert (cancelled.status_code, cancelled.json()["state"]) == (200, "cancelled")
    made.append(await opened(alice, "deletion", gives_up_balance=True))
    page = (await alice.get(f"{REQUESTS}?limit=3")).json()
    rest = (await alice.get(f"{REQUESTS}?limit=3&cursor={page['next_cursor']}")).json()
    assert [one["id"] for one in page["data"] + rest["data"]] == made[::-1]
    assert rest["next_cursor"] is None


async def test_a_refusal_says_why_here_and_by_mail(counter: Counter) -> None:
    alice = await counter.site.browser().join(ALICE)
    request_id = await opened(alice, "export")
    counter.decide(request_id, reason="Somebody else claims this account.")
    shown = (await alice.get(f"{REQUESTS}/{request_id}")).json()
    assert (shown["state"], shown["reason"]) == ("refused", "Somebody else claims this account.")
    (mail,) = counter.site.mails(ALICE, "data_request_refused")
    assert mail["reason"] == "Somebody else claims this account."


async def test_who_has_a_balance_says_what_becomes_of_it(counter: Counter) -> None:
    alice = await counter.site.browser().join(ALICE)
    account_id = AccountId(counter.site.account_of(ALICE).id)
    give_credit(counter.engine, account_id, usd="5")
    refused = await alice.post(REQUESTS, kind="deletion")
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "balance_left")
    await opened(alice, "deletion", gives_up_balance=True)


async def test_an_approved_deletion_ends_sessions_and_the_link_in_the_mail_takes_it_back(counter: Counter) -> None:
    alice = await counter.site.browser().join(ALICE)
    request_id = await opened(alice, "deletion", gives_up_balance=True)
    counter.decide(request_id)
    assert (await alice.get(REQUESTS)).status_code == 401
    assert (await alice.refresh()).status_code == 401
    account_id = AccountId(counter.site.account_of(ALICE).id)
    with read(counter.engine) as connection:
        stopped = account_by_id(connection, account_id)
    assert stopped is not None
    assert stopped.frozen_at_ns is not None
    (mail,) = counter.site.mails(ALICE, "deletion_scheduled")
    page, _, token = counter.site.tools.seal.finished(mail["link"]).partition("#token=")
    assert page == "https://dragonfly.example/keep-account"
    kept = await counter.site.browser().post(f"{REQUESTS}/keep", token=token)
    assert (kept.status_code, kept.json()["state"]) == (200, "cancelled")
    assert (await counter.site.browser().post(f"{REQUESTS}/keep", token=token)).status_code == 400
    with read(counter.engine) as connection:
        going_on = account_by_id(connection, account_id)
    assert going_on is not None
    assert going_on.frozen_at_ns is None
    assert (await alice.sign_in(ALICE)).status_code == 200


async def test_a_deletion_that_is_cancelled_leaves_an_account_stopped_that_an_operator_had_stopped(
    counter: Counter,
) -> None:
    alice = await counter.site.browser().join(ALICE)
    account_id = AccountId(counter.site.account_of(ALICE).id)
    stopped_ns = counter.clock.now_ns()
    with write(counter.engine) as connection:
        freeze_account(connection, account_id, is_frozen=True, now_ns=stopped_ns)
    request_id = await opened(alice, "deletion", gives_up_balance=True)
    counter.decide(request_id)
    await alice.sign_in(ALICE)
    assert (await alice.post(f"{REQUESTS}/{request_id}/cancel")).json()["state"] == "cancelled"
    with read(counter.engine) as connection:
        account = account_by_id(connection, account_id)
    assert account is not None
    assert account.frozen_at_ns == stopped_ns


async def test_people_serve_themselves_where_the_operator_lets_them(self_service: Counter) -> None:
    alice = await self_service.site.browser().join(ALICE)
    made = (await alice.post(REQUESTS, kind="export")).json()
    assert made["state"] == "approved"
    status, data = await self_service.fetch(await link_of(alice, made["id"]))
    assert (status, data[:2]) == (200, b"PK")
    ended = (await alice.post(REQUESTS, kind="deletion", gives_up_balance=True)).json()
    assert ended["state"] == "approved"
    assert (await alice.get(REQUESTS)).status_code == 401


@pytest.mark.parametrize("token", ["", "df-ex-none", "df-ex-" + "0" * 65, "df-ka-" + "0" * 65])
async def test_what_is_no_link_of_ours_fetches_and_keeps_nothing(counter: Counter, token: str) -> None:
    browser = counter.site.browser()
    assert (await browser.client.get(f"{REQUESTS}/download?token={token}")).status_code == 400
    assert (await browser.post(f"{REQUESTS}/keep", token=token)).status_code in (400, 422)


async def test_whoever_is_cut_off_makes_another_link(counter: Counter) -> None:
    alice = await counter.site.browser().join(ALICE)
    account_id = AccountId(counter.site.account_of(ALICE).id)
    now_ns, ids = counter.clock.now_ns(), IdSource()
    with write(counter.engine) as connection:
        ticket_id = open_ticket(
            connection,
            ids,
            account_id=account_id,
            address=ALICE,
            language="en",
            kind=TicketKind.QUESTION,
            text="Why?",
            request_ids=(),
            now_ns=now_ns,
        )
        row = {"ticket_id": ticket_id, "author": "customer", "created_at_ns": now_ns}
        rows = [{**row, "id": f"msg-{number}", "note": os.urandom(600).hex()} for number in range(4_000)]
        connection.execute(insert(support_messages), rows)
    request_id = await opened(alice, "export")
    counter.decide(request_id)
    parts = urlsplit(await link_of(alice, request_id))
    host = urlsplit(counter.site.url)
    with socket.socket() as hasty:
        hasty.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        hasty.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(hasty, (host.hostname, host.port))
        asked = f"GET {parts.path}?{parts.query} HTTP/1.1\r\nHost: {host.netloc}\r\n\r\n"
        await loop.sock_sendall(hasty, asked.encode())
        assert (await loop.sock_recv(hasty, 100)).startswith(b"HTTP/1.1 200")
    status, data = await counter.fetch(await link_of(alice, request_id))
    assert status == 200
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        assert len(json.loads(archive.read("support_messages.json"))) == 4_001
    assert (await alice.get(f"{REQUESTS}/{request_id}")).json()["state"] == "done"


async def test_operators_review_what_is_due_first_and_every_decision_stands_in_the_log(counter: Counter) -> None:
    alice = await counter.site.browser().join(ALICE)
    bob = await counter.site.browser("203.0.113.8").join(BOB)
    charlie = await counter.site.browser("203.0.113.9").join(CHARLIE)
    counter.site.make_operator(CHARLIE)
    await charlie.enrol()
    first = await opened(alice, "export")
    counter.clock.move(60)
    second = await opened(bob, "export")
    own = await opened(charlie, "export")
    found = (await charlie.get(f"{QUEUE}?kind=export&limit=2")).json()
    rest = (await charlie.get(f"{QUEUE}?kind=export&cursor={found['next_cursor']}")).json()
    assert [one["id"] for one in found["data"] + rest["data"]] == [first, second, own]
    assert [one["is_overdue"] for one in found["data"]] == [False, False]
    for _ in range(2):
        done = await charlie.post(f"{QUEUE}/{first}/approve", reason=WHY)
        assert (done.status_code, done.json()["state"]) == (200, "approved")
    assert (await charlie.post(f"{QUEUE}/{first}/refuse", reason=WHY)).status_code == 409
    assert (await charlie.post(f"{QUEUE}/{own}/approve", reason=WHY)).status_code == 403, "nobody serves themselves"
    noted = await charlie.post(f"{QUEUE}/{second}/note", text="Called him.")
    assert noted.json()["note"] == "Called him."
    assert "Called" not in (await bob.get(f"{REQUESTS}/{second}")).text
    refused = await charlie.post(f"{QUEUE}/{second}/refuse", reason="You did not answer.")
    assert refused.json()["state"] == "refused"
    account_id = counter.site.account_of(BOB).id
    written = await charlie.post(QUEUE, account_id=account_id, kind="deletion", reason=WHY)
    assert (written.status_code, written.json()["origin"]) == (201, "operator")
    given = await charlie.post(f"{QUEUE}/{written.json()['id']}/give-up-balance", reason=WHY)
    assert given.json()["gives_up_balance"] is True
    assert (await charlie.post(f"{QUEUE}/{written.json()['id']}/cancel", reason=WHY)).json()["state"] == "cancelled"
    assert (await charlie.get(f"{QUEUE}/{first}")).json()["reviewed_by"] == counter.site.account_of(CHARLIE).id
    with read(counter.engine) as connection:
        actions = [row.action.removeprefix("data_request.") for row in audit_page(connection)]
    assert actions == ["read", "cancel", "forfeit", "open", "refuse", "note", "approve"]


async def test_only_operators_see_the_queue_and_late_requests_are_marked(counter: Counter) -> None:
    alice = await counter.site.browser().join(ALICE)
    request_id = await opened(alice, "export")
    assert (await alice.get(QUEUE)).status_code == 403
    counter.clock.move(31 * DAY_S)
    charlie = await counter.site.browser("203.0.113.9").join(CHARLIE)
    counter.site.make_operator(CHARLIE)
    await charlie.enrol()
    (late,) = (await charlie.get(f"{QUEUE}?overdue=true&state=requested")).json()["data"]
    assert (late["id"], late["is_overdue"]) == (request_id, True)
    assert (await charlie.get(f"{QUEUE}/drq-none")).status_code == 404
