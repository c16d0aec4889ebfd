"""Every error of docs/use/errors.md, provoked for real: status, shape, headers, and nothing of the request in it."""

import asyncio
import json
import re
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path

from dragonfly.api.generation import GenerationNotFound
from dragonfly.gateway.refusals import SHAPES
from tests.fakes.upstream import Received, Script, Stall, answer
from tests.http.rig import Answer, post
from tests.system.program import Program
from tests.system.served import MODEL, Served, chat, served, well

DOCUMENT = Path(__file__).resolve().parents[2] / "docs/use/errors.md"
DOCUMENTED = {
    code: int(status)
    for code, status in re.findall(r"^\| `(\w+)` \| (\d{3}) \|", DOCUMENT.read_text(), re.MULTILINE)
    if code in SHAPES or code == GenerationNotFound.code
}
"""The errors of the data plane."""
UNPRICED = "acme/old"
CONNECTIONS_MAX = 12
SETTINGS = f"""\
[[models]]
id = "{UNPRICED}"
context_tokens = 1_000
[[models.channels]]
provider = "acme"
model = "m"
prices = [{{ prompt = "1", completion = "2", valid_to = 2020-01-01 }}]
[limits]
body_bytes_max = 100_000
head_s = 1
body_s = 1
connections_max = {CONNECTIONS_MAX}
[upstream]
attempts_max = 1
cooldown_s = 0.01
cooldown_max_s = 0.02
"""
TIMEOUTS = "timeouts = { connect_s = 1, head_s = 1, idle_s = 1 }"
WAITING = {"rate_limited", "upstream_error", "overloaded", "store_unavailable", "no_healthy_channel"}
"""Codes that name the seconds after which trying again makes sense."""
NOT_HERE = {"shutting_down", "generation_stopped"}
"""The first needs a server that stops: see test_serve_under_fire. The second needs the id of an answer that has not
begun: see test_growth."""

Provoke = Callable[[Served], Awaitable[Answer]]


def provider(request: Received) -> Script:
    """Refuses as the request's `user` says."""
    wish = json.loads(request.body).get("user")
    if wish == "long":
        return refusal(400, "This model's maximum context length is 65536 tokens. Please reduce the length.")
    if wish == "policy":
        return refusal(400, "Content Exists Risk")
    if wish == "wrong":
        return refusal(400, "temperature CANARY4e1b is out of range")
    if wish == "broken":
        return answer(500, b"<html>CANARY4e1b</html>", "text/html")
    if wish == "busy":
        return answer(503, b'{"error":{"message":"CANARY4e1b"}}', retry_after="7")
    return [Stall()] if wish == "silent" else well(request)


def refusal(status: int, message: str) -> Script:
    return answer(status, json.dumps({"error": {"message": message, "type": "invalid_request_error"}}).encode())


def asking(**fields: object) -> Provoke:
    return lambda one: one.ask(chat(**fields))


def sending(body: bytes, *headers: str) -> Provoke:
    return lambda one: one.ask(body, headers=headers)


def getting(path: str) -> Provoke:
    return lambda one: one.get(path)


def bare(head: str) -> Provoke:
    return lambda one: one.send(f"{head}\r\n\r\n".encode())


async def unverified(one: Served) -> Answer:
    return await one.ask(key=one.customer("1", "--unverified"))


async def frozen(one: Served) -> Answer:
    key = one.customer("1")
    found = one.program.run("account", "freeze", one.account_of(key), "--reason", "a stolen card")
    assert found.code == 0, found.errors
    return await one.ask(key=key)


async def elsewhere(one: Served) -> Answer:
    return await one.ask(key=one.another_key("--network", "192.0.2.0/24"))


async def paused(one: Served) -> Answer:
    key = one.another_key()
    database = sqlite3.connect(one.database)
    with database:
        database.execute("UPDATE keys SET paused_at_ns = 1 WHERE id = ?", (key[6:16],))
    database.close()
    return await one.ask(key=key)


async def poor(one: Served) -> Answer:
    return await one.ask(key=one.customer("0"))


async def other_model_only(one: Served) -> Answer:
    return await one.ask(key=one.another_key("--model", UNPRICED))


async def once_a_minute(one: Served) -> Answer:
    key = one.another_key("--requests-per-minute", "1")
    await one.ask(chat(user="wrong"), key=key)
    return await one.ask(chat(user="wrong"), key=key)


async def half_a_body(one: Served) -> Answer:
    return await one.send(post(chat(), key=one.key.encode())[:-5])


async def too_many_connections(one: Served) -> Answer:
    others = [await one.connect() for _ in range(CONNECTIONS_MAX)]
    got = await (await one.connect()).receive()
    for other in others:
        other.close()
    return got


async def damaged_table(one: Served) -> Answer:
    with sqlite3.connect(one.database) as database:
        database.execute("ALTER TABLE usage RENAME TO lost")
    got = await one.get("/v1/generation?id=gen-" + "0" * 32)
    with sqlite3.connect(one.database) as database:
        database.execute("ALTER TABLE lost RENAME TO usage")
    return got


async def locked_database(one: Served) -> Answer:
    key = one.customer("3")
    with sqlite3.connect(one.database, isolation_level=None) as other:
        other.execute("BEGIN EXCLUSIVE")
        return await one.ask(key=key)


PROVOKED: dict[str, Provoke] = {
    "invalid_request": bare("GET /v1/key HTTP/1.1\r\nHost: localhost\r\nHost: localhost"),
    "invalid_json": sending(b'{"CANARY4e1b":'),
    "duplicate_field": sending(chat()[:-1] + b',"user":"CANARY4e1b","user":"b"}'),
    "invalid_parameter": asking(n="CANARY4e1b"),
    "context_length_exceeded": asking(user="long"),
    "upstream_refused": asking(user="wrong"),
    "content_policy_violation": asking(user="policy"),
    "invalid_api_key": lambda one: one.ask(key="sk-df-CANARY4e1b"),
    "missing_api_key": bare("GET /v1/key?key=CANARY4e1b HTTP/1.1\r\nHost: localhost"),
    "insufficient_balance": poor,
    "account_unverified": unverified,
    "account_frozen": frozen,
    "address_not_allowed": elsewhere,
    "key_paused": paused,
    "privacy_restricted": asking(provider={"zdr": True}),
    "model_not_allowed": other_model_only,
    "model_not_found": asking(model="CANARY4e1b/x"),
    "model_unpriced": asking(model=UNPRICED),
    "generation_not_found": getting("/v1/generation?id=CANARY4e1b"),
    "not_found": getting("/v1/CANARY4e1b"),
    "method_not_allowed": getting("/v1/chat/completions"),
    "request_timeout": half_a_body,
    "request_too_large": asking(user="CANARY4e1b" * 20_000),
    "unsupported_media_type": sending(chat(), "Content-Encoding: CANARY4e1b"),
    "misdirected_host": bare("GET /v1/key HTTP/1.1\r\nHost: CANARY4e1b.example"),
    "rate_limited": once_a_minute,
    "headers_too_large": bare("GET /v1/key HTTP/1.1\r\nHost: localhost" + "\r\nX-A: CANARY4e1b" * 150),
    "internal_error": damaged_table,
    "upstream_error": asking(user="broken"),
    "overloaded": too_many_connections,
    "store_unavailable": locked_database,
    "no_healthy_channel": asking(user="busy"),
    "no_route": asking(provider={"only": ["CANARY4e1b"]}),
    "upstream_timeout": asking(user="silent"),
}


def mistakes_of(code: str, got: Answer) -> list[str]:
    """What is wrong with an error, if anything."""
    error = got.json()["error"]
    wrong = []
    if (error["code"], got.status) != (code, DOCUMENTED[code]):
        wrong.append(f"is {got.status} {error['code']}")
    if set(error) - {"metadata"} != {"message", "type", "param", "code", "request_id"}:
        wrong.append(f"has the fields {sorted(error)}")
    if got.headers.get("x-request-id") != error["request_id"]:
        wrong.append("names another request")
    if got.headers.get("content-type") != "application/json" or got.headers.get("cache-control") != "no-store":
        wrong.append("has other headers")
    if not re.fullmatch(r"[A-Z`].*\.", error["message"]) or len(error["message"]) > 250:
        wrong.append("does not say a sentence")
    if code in WAITING and int(got.headers.get("retry-after", "0")) < 1:
        wrong.append("does not say when to try again")
    if got.status == 401 and got.headers.get("www-authenticate") != "Bearer":
        wrong.append("does not name the scheme")
    if "CANARY" in got.body.decode() + str(got.headers):
        wrong.append("repeats what came in")
    return wrong


async def test_every_documented_error_can_be_met_and_is_as_documented(program: Program) -> None:
    assert set(PROVOKED) | NOT_HERE == set(DOCUMENTED), "this test knows every code of the document"
    found: dict[str, list[str]] = {}
    settings = {"server": 'allowed_hosts = ["localhost"]', "acme": TIMEOUTS, "more": SETTINGS}
    async with served(program, provider, **settings) as one:
        for code, provoke in PROVOKED.items():
            found[code] = mistakes_of(code, await provoke(one))
            async with asyncio.timeout(20):
                while (await one.ask()).status != 200:  # a fault of the last case may cool the channel down
                    await asyncio.sleep(0.05)
    assert {code: wrong for code, wrong in found.items() if wrong} == {}


async def test_an_empty_wallet_and_an_empty_key_say_what_is_needed_and_whose_limit_it_is(program: Program) -> None:
    async with served(program) as one:
        limited = one.another_key("--limit", "0.00001")
        for key, limit in ((one.customer("0"), "account"), (limited, "key")):
            for streamed in (False, True):
                got = await one.ask(chat(stream=streamed), key=key)
                assert got.status == 402
                told = got.json()["error"]["metadata"]
                assert told["limit"] == limit
                assert float(told["needed_usd"]) > float(told["available_usd"])
                assert told["needed_usd"] in got.json()["error"]["message"]


async def test_success_tells_the_rate_limit_too(program: Program) -> None:
    async with served(program) as one:
        key = one.another_key("--requests-per-minute", "60")
        for streamed in (False, True):
            got = await one.ask(chat(stream=streamed), key=key)
            assert (got.status, got.headers["x-dragonfly-provider"]) == (200, "acme")
            assert got.headers["x-ratelimit-limit-requests"] == "60"
            assert int(got.headers["x-ratelimit-remaining-requests"]) < 60
            assert re.fullmatch(r"\d+\.\d{3}s", got.headers["x-ratelimit-reset-requests"])
        assert (await one.get(f"/v1/models/{MODEL}")).status == 200
