"""/api/mail and /api/preferences: notices that are really the provider's, and a way out of mail for everybody."""

import base64
import hashlib
import hmac
import json
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine, select

from dragonfly.api.mail import resend_routes, unsubscribe_routes
from dragonfly.api.preferences import preferences_routes
from dragonfly.core.ids import AccountId
from dragonfly.core.secrets import Secret
from dragonfly.infra.database import DatabaseThreads, read
from dragonfly.mail.kinds import Choice
from dragonfly.mail.notices import TOLERANCE_S, secret_key
from dragonfly.mail.pages import MAILS, WORDS, OptOutPage, OptOutState
from dragonfly.mail.queries import is_dead_address, preferences_of
from dragonfly.mail.tables import mail_notices
from tests.factories import START_NS, MovableClock, make_account
from tests.store.callers import Api, make_desk, make_person
from tests.store.postroom import SEALS, SITE

KEY = b"a signing key of 24 byte"
WEBHOOK = "/api/mail/webhooks/resend"
UNSUBSCRIBE = "/api/mail/unsubscribe"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@pytest.fixture
def api(engine: Engine, clock: MovableClock) -> Iterator[Api]:
    threads = DatabaseThreads()
    desk = make_desk(engine, clock, threads)
    yield Api(
        (
            unsubscribe_routes(desk, SEALS, OptOutPage(SITE)),
            resend_routes(desk, SEALS, KEY),
            preferences_routes(desk, low_balance_default_nusd=10**9),
        ),
        clock,
    )
    threads.close()


def notice(kind: str = "email.bounced", *, to: tuple[str, ...] = ("alice@example.com",), **data: Any) -> bytes:
    """A notice as Resend's page on event types shows it."""
    shown = {
        "created_at": "2026-11-23T18:00:00.000Z",
        "email_id": "56761188-7520-42d8-8898-ff6fc54ce618",
        "from": "Dragonfly <hello@mail.example.com>",
        "to": list(to),
        "subject": "Confirm your email address",
        "tags": {},
        **data,
    }
    return json.dumps({"type": kind, "created_at": "2026-11-23T18:00:01.000Z", "data": shown}).encode()


PERMANENT = {"bounce": {"message": "No such mailbox.", "subType": "General", "type": "Permanent"}}


def signed(body: bytes, *, at_s: int = START_NS // 10**9, name: str = "msg_1", key: bytes = KEY) -> dict[str, str]:
    content = f"{name}.{at_s}.".encode() + body
    signature = base64.b64encode(hmac.digest(key, content, hashlib.sha256)).decode()
    return {"svix-id": name, "svix-timestamp": str(at_s), "svix-signature": f"v1,{signature}"}


async def post(api: Api, body: bytes, headers: dict[str, str]) -> httpx.Response:
    return await api.send("POST", WEBHOOK, headers={"Content-Type": "application/json", **headers}, content=body)


def is_dead(engine: Engine, address: str = "alice@example.com") -> bool:
    with read(engine) as connection:
        return is_dead_address(connection, SEALS.address_digest(address))


@pytest.mark.parametrize(
    ("body", "dies"),
    [
        (notice(**PERMANENT), True),
        (notice(), True),
        (notice("email.complained"), True),
        (notice("email.suppressed"), True),
        (notice(bounce={"message": "Full.", "subType": "MailboxFull", "type": "Transient"}), False),
        (notice("email.delivered"), False),
        (notice("email.delivery_delayed"), False),
        (notice("email.opened"), False),
        (notice(to=("Alice <alice@example.com>",)), False),
        (notice("contact.created"), False),
    ],
)
async def test_bounces_and_complaints_stop_mail_and_other_notices_do_not(
    api: Api, engine: Engine, body: bytes, dies: bool
) -> None:
    answer = await post(api, body, signed(body))
    assert (answer.status_code, answer.content) == (204, b"")
    assert is_dead(engine) == dies
    with read(engine) as connection:
        rows = connection.execute(select(mail_notices)).all()
    assert "alice" not in repr(rows)


async def test_a_notice_is_understood_once(api: Api, engine: Engine) -> None:
    body = notice("email.complained")
    other = notice("email.complained", to=("bob@example.com",))
    for sent in (body, body, other):
        assert (await post(api, sent, signed(sent))).status_code == 204
    assert is_dead(engine)
    assert not is_dead(engine, "bob@example.com"), "one id is one notice"


async def test_one_fitting_signature_of_several_is_enough(api: Api, engine: Engine) -> None:
    body = notice()
    headers = signed(body)
    old = signed(body, key=b"another key of 24 bytes.")["svix-signature"]
    headers["svix-signature"] = f"{old} v1a,xyz {headers['svix-signature']}"
    assert (await post(api, body, headers)).status_code == 204
    assert is_dead(engine)


NOW_S = START_NS // 10**9


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {**signed(notice()), "svix-signature": ""},
        {**signed(notice()), "svix-id": "msg_2"},
        {**signed(notice()), "svix-id": ""},
        {**signed(notice()), "svix-timestamp": str(NOW_S + 1)},
        {**signed(notice()), "svix-timestamp": "now"},
        {**signed(notice()), "svix-timestamp": "-1"},
        {**signed(notice()), "svix-timestamp": "9" * 400},
        signed(notice(), at_s=NOW_S - TOLERANCE_S - 1),
        signed(notice(), at_s=NOW_S + TOLERANCE_S + 1),
        signed(notice(), key=b"another key of 24 bytes."),
        signed(notice(), key=b""),
        signed(notice("email.complained")),
        {**signed(notice()), "svix-signature": signed(notice())["svix-signature"].replace("v1,", "v2,")},
        {**signed(notice()), "svix-signature": "v1," + "A" * 43 + "="},
    ],
)
async def test_what_the_provider_did_not_sign_now_is_refused(
    api: Api, engine: Engine, headers: dict[str, str]
) -> None:
    answer = await post(api, notice(), headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "notice_refused")
    assert not is_dead(engine)


@pytest.mark.parametrize("body", [b"{}", b"[]", b"null", b"x", b'{"type":1,"data":{}}', b'{"type":"email.bounced"}'])
async def test_a_signed_body_that_is_no_notice_is_refused(api: Api, body: bytes) -> None:
    assert (await post(api, body, signed(body))).status_code == 400


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_c2hvcnQ=", "YSBzaWduaW5nIGtleSBvZiAyNCBieXRl", "whsec_%%%"])
def test_a_secret_that_is_none_is_refused_at_the_start(secret: str) -> None:
    with pytest.raises(ValueError):
        secret_key(Secret(secret))


def test_a_secret_as_the_dashboard_shows_it_is_understood() -> None:
    assert secret_key(Secret("whsec_" + base64.b64encode(KEY).decode())) == KEY


def link_of(account_id: AccountId, choice: Choice = Choice.WELCOME) -> str:
    return f"{UNSUBSCRIBE}?token={SEALS.opt_out_token(account_id, choice)}"


def wants(engine: Engine, account_id: AccountId) -> frozenset[Choice]:
    with read(engine) as connection:
        return preferences_of(connection, account_id).choices


async def test_one_click_of_a_mail_program_switches_one_kind_off(api: Api, engine: Engine) -> None:
    alice, bob = make_account(engine), make_account(engine, name="Bob")
    answer = await api.send("POST", link_of(alice), headers=FORM, content=b"List-Unsubscribe=One-Click")
    assert answer.status_code == 200
    assert wants(engine, alice) == {Choice.LOW_BALANCE, Choice.ANNOUNCEMENTS}
    assert wants(engine, bob) == set(Choice)
    again = await api.send("POST", link_of(alice), headers=FORM, content=b"List-Unsubscribe=One-Click")
    assert again.status_code == 200


async def test_opening_the_link_changes_nothing_and_its_button_does(api: Api, engine: Engine) -> None:
    alice = make_account(engine)
    for method in ("GET", "HEAD"):
        await api.send(method, link_of(alice))
    assert wants(engine, alice) == set(Choice)
    page = await api.send("GET", link_of(alice))
    found = re.search(r'<form method="post" action="([^"]+)">', page.text)
    assert found is not None
    await api.send("POST", UNSUBSCRIBE + found[1], headers=FORM, content=b"List-Unsubscribe=One-Click")
    assert Choice.WELCOME not in wants(engine, alice)
    after = await api.send("GET", link_of(alice))
    assert "<form" not in after.text
    assert WORDS["en"][OptOutState.DONE].title in after.text


async def test_the_page_speaks_the_reader_s_language(api: Api, engine: Engine) -> None:
    alice = make_account(engine)
    chinese = {"Accept-Language": "zh-CN,zh;q=0.9"}
    page = await api.send("GET", link_of(alice, Choice.LOW_BALANCE), headers=chinese)
    assert '<html lang="zh">' in page.text
    assert MAILS["zh"][Choice.LOW_BALANCE] in page.text
    broken = await api.send("GET", UNSUBSCRIBE, headers=chinese)
    assert (broken.status_code, WORDS["zh"][OptOutState.BROKEN].title in broken.text) == (404, True)


async def test_the_page_loads_nothing_and_its_style_is_the_one_that_is_allowed(api: Api, engine: Engine) -> None:
    page = await api.send("GET", link_of(make_account(engine)))
    style = re.search(r"<style>(.*?)</style>", page.text, re.DOTALL)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    policy = page.headers["content-security-policy"]
    assert f"style-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert page.headers["cache-control"] == "no-store"
    assert page.headers["referrer-policy"] == "no-referrer"
    assert "<script" not in page.text


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_forged_links_change_nothing(api: Api, engine: Engine, method: str) -> None:
    alice, bob = make_account(engine), make_account(engine, name="Bob")
    token = SEALS.opt_out_token(bob, Choice.WELCOME).replace(bob, alice)
    for wrong in (token, "", "<script>", "x" * 200):
        answer = await api.send(method, UNSUBSCRIBE, params={"token": wrong})
        assert answer.status_code == 404
        assert "<script>" not in answer.text
    too_long = await api.send(method, UNSUBSCRIBE, params={"token": "x" * 201})
    assert too_long.status_code == 422
    assert wants(engine, alice) == set(Choice)


async def test_a_link_of_an_account_that_is_gone_is_a_broken_one(api: Api) -> None:
    assert (await api.send("POST", link_of(AccountId("acc-gone")), headers=FORM, content=b"x")).status_code == 404


async def test_preferences_are_one_s_own_and_change_one_by_one(api: Api, engine: Engine) -> None:
    alice, bob = make_person(engine), make_account(engine, name="Bob")
    defaults = {
        "language": "en",
        "mail": {"welcome": True, "low_balance": True, "announcements": True},
        "low_balance_usd": None,
        "low_balance_default_usd": "1",
    }
    assert (await api.send("GET", "/api/preferences", alice)).json() == defaults
    changed = await api.send("PATCH", "/api/preferences", alice, json={"low_balance_usd": "2.50"})
    assert changed.json() == {**defaults, "low_balance_usd": "2.5"}
    wanted = {"language": "zh", "mail": {"welcome": False}}
    expected = {**changed.json(), "language": "zh", "mail": {**defaults["mail"], "welcome": False}}  # type: ignore[dict-item]
    assert (await api.send("PATCH", "/api/preferences", alice, json=wanted)).json() == expected
    unset = await api.send("PATCH", "/api/preferences", alice, json={"low_balance_usd": None})
    assert unset.json()["low_balance_usd"] is None
    assert (await api.send("GET", "/api/preferences", bob)).json() == defaults
    assert (await api.send("GET", "/api/preferences")).status_code == 401


@pytest.mark.parametrize(
    "wanted",
    [
        {"language": "de"},
        {"mail": {"security": False}},
        {"mail": {"welcome": 0}},
        {"low_balance_usd": -1},
        {"low_balance_usd": "1e3"},
        {"low_balance_usd": "999999999"},
        {"account_id": "acc-bob"},
        [],
    ],
)
async def test_preferences_that_are_none_are_refused(api: Api, engine: Engine, wanted: Any) -> None:
    answer = await api.send("PATCH", "/api/preferences", make_account(engine), json=wanted)
    assert answer.status_code == 422
