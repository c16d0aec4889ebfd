"""`Idempotency-Key`: what is sent twice happens once, and secrets are shown once."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, Depends
from sqlalchemy import Engine, select, update

from dragonfly.api.principal import customer
from dragonfly.api.repeats import REPLY_LENGTH_MAX, kept
from dragonfly.infra.database import DatabaseAway, read, write
from dragonfly.infra.repeats import (
    LIFETIME_NS,
    REPEATS_PER_ACCOUNT_MAX,
    claim,
    note,
    release,
    repeats,
)
from dragonfly.privacy.retention import run_retention
from tests.factories import START_NS
from tests.http.account import Office

PATH = "/api/routing/profiles"


class Faults(Office):
    """An office with a route that fails as the test says."""

    def __init__(self, engine: Engine) -> None:
        self.done = 0
        self.failure: Exception | None = None
        self.entered = asyncio.Event()
        self.proceed = asyncio.Event()
        self.proceed.set()
        super().__init__(engine, more=(self._routes(),))

    def _routes(self) -> APIRouter:
        made = APIRouter(dependencies=[Depends(customer)])

        @made.post("/api/things", openapi_extra=kept("secret"))
        async def things() -> dict[str, Any]:
            self.entered.set()
            await self.proceed.wait()
            if self.failure is not None:
                raise self.failure
            self.done += 1
            return {"number": self.done, "secret": "s3cr3t"}

        @made.post("/api/forgotten")
        async def forgotten() -> int:
            self.done += 1
            return self.done

        @made.post("/api/long", openapi_extra=kept())
        async def long() -> dict[str, str]:
            self.done += 1
            return {"text": "x" * (REPLY_LENGTH_MAX + 1)}

        return made


@pytest.fixture
def office(engine: Engine) -> Iterator[Faults]:
    made = Faults(engine)
    yield made
    made.threads.close()


async def send(
    office: Office, key: str, *, who: str = "alice", path: str = "/api/things", body: Any = None
) -> httpx.Response:
    return await office.ask(who, "POST", path, {} if body is None else body, **{"idempotency-key": key})


async def test_a_repeat_gets_the_first_answer_and_changes_nothing(office: Faults) -> None:
    first = await send(office, "one", path=PATH, body={"name": "work"})
    again = await send(office, "one", path=PATH, body={"name": "work"})
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.json() == first.json()
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    listed = (await office.ask("alice", "GET", PATH)).json()["data"]
    assert [profile["id"] for profile in listed] == [first.json()["id"]]
    assert (await send(office, "two", path=PATH, body={"name": "work"})).json()["id"] != first.json()["id"]


async def test_a_new_key_s_secret_is_not_kept_and_not_shown_again(office: Faults) -> None:
    first = await send(office, "one", path="/api/keys")
    again = await send(office, "one", path="/api/keys")
    assert again.status_code == 201
    assert again.json() == {**first.json(), "key": None}
    with read(office.engine) as connection:
        row = connection.execute(select(repeats)).mappings().one()
    assert not any(first.json()["key"][16:59] in str(value) for value in row.values())


async def test_the_same_key_with_another_request_is_refused(office: Faults) -> None:
    await send(office, "one", path=PATH, body={"name": "work"})
    for path, body in ((PATH, {"name": "home"}), ("/api/keys", {"name": "work"}), (f"{PATH}?a=b", {"name": "work"})):
        got = await send(office, "one", path=path, body=body)
        assert (got.status_code, got.json()["error"]["code"]) == (422, "idempotency_key_reused")


async def test_the_same_key_of_two_people_means_two_requests(office: Faults) -> None:
    alices = await send(office, "one", path=PATH, body={"name": "work"})
    bobs = await send(office, "one", who="bob", path=PATH, body={"name": "work"})
    assert bobs.status_code == 201
    assert bobs.json()["id"] != alices.json()["id"]


async def test_a_repeat_while_the_first_runs_is_a_conflict(office: Faults) -> None:
    office.proceed.clear()
    first = asyncio.create_task(send(office, "one"))
    await office.entered.wait()
    got = await send(office, "one")
    assert (got.status_code, got.json()["error"]["code"]) == (409, "request_under_way")
    office.proceed.set()
    assert (await first).json() == {"number": 1, "secret": "s3cr3t"}
    assert (await send(office, "one")).json() == {"number": 1, "secret": None}


async def test_what_was_refused_may_be_sent_again(office: Faults) -> None:
    wrong = await send(office, "one", path="/api/keys", body={"routing_profile_id": "rtp-0"})
    assert wrong.status_code == 404
    assert (await send(office, "one", path="/api/keys", body={})).status_code == 201


@pytest.mark.parametrize(
    ("failure", "status", "may_be_sent_again"),
    [(DatabaseAway(), 503, True), (DatabaseAway(is_uncertain=True), 503, False)],
)
async def test_after_a_failure_only_what_surely_did_nothing_is_done_again(
    office: Faults, failure: Exception, status: int, may_be_sent_again: bool
) -> None:
    office.failure = failure
    assert (await send(office, "one")).status_code == status
    office.failure = None
    got = await send(office, "one")
    assert (got.status_code, office.done) == ((200, 1) if may_be_sent_again else (409, 0))


async def test_a_bug_leaves_the_key_taken(office: Faults) -> None:
    office.failure = ValueError("a bug")
    async with office.client(**{"x-person": "alice", "idempotency-key": "one"}) as client:
        assert (await client.post("/api/things", json={})).status_code == 500
        office.failure = None
        assert (await client.post("/api/things", json={})).status_code == 409
    assert [type(one) for one in office.failures] == [ValueError]


@pytest.mark.parametrize("path", ["/api/forgotten", "/api/long"])
async def test_an_answer_that_is_not_kept_says_that_it_was_done(office: Faults, path: str) -> None:
    assert (await send(office, "one", path=path)).status_code == 200
    got = await send(office, "one", path=path)
    assert (got.status_code, got.json()["error"]["code"]) == (409, "request_done")
    assert office.done == 1


@pytest.mark.parametrize("key", ["", "a b", "x" * 256, "é"])
async def test_a_key_that_cannot_be_one_is_refused(office: Faults, key: str) -> None:
    async with office.client() as client:
        got = await client.post(
            "/api/things", json={}, headers=[(b"x-person", b"alice"), (b"idempotency-key", key.encode("latin-1"))]
        )
    assert (got.status_code, got.json()["error"]["code"]) == (400, "idempotency_key_invalid")
    assert not office.done


async def test_strangers_get_the_usual_answer_and_leave_nothing(office: Faults) -> None:
    got = await send(office, "one", who="nobody")
    assert (got.status_code, got.json()["error"]["code"]) == (401, "session_invalid")
    with read(office.engine) as connection:
        assert connection.execute(select(repeats)).all() == []


async def test_the_caller_is_looked_up_once(office: Faults) -> None:
    await send(office, "one")
    assert office.asked == 1


async def test_a_key_is_free_again_after_a_day(office: Faults) -> None:
    await send(office, "one")
    office.clock.move(LIFETIME_NS / 1e9 - 1)
    assert (await send(office, "one")).json()["number"] == 1
    office.clock.move(1)
    assert (await send(office, "one")).json()["number"] == 2


def test_old_claims_are_deleted_and_an_account_has_a_bounded_number(office: Faults) -> None:
    digests = [bytes([number]) * 32 for number in range(3)]
    with write(office.engine) as connection:
        for number, digest in enumerate(digests):
            assert claim(connection, office.alice, digest, digest, now_ns=START_NS + number) is None
    later_ns = START_NS + 2 + LIFETIME_NS
    assert run_retention(office.engine, now_ns=later_ns).deleted["repeats"] == 2
    assert "repeats" not in run_retention(office.engine, now_ns=later_ns).deleted
    with write(office.engine) as connection:
        release(connection, digests[2])
        assert claim(connection, office.alice, digests[2], digests[2], now_ns=START_NS) is None
        note(connection, digests[2], status=200, reply=json.dumps({}))
        release(connection, digests[2])
        kept_one = claim(connection, office.alice, digests[2], digests[2], now_ns=START_NS)
        assert kept_one is not None
        assert (kept_one.status, kept_one.reply) == (200, "{}")
        connection.execute(update(repeats).values(status=None))
    assert REPEATS_PER_ACCOUNT_MAX >= 1_000
