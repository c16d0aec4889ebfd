"""Whatever stands in a field or a path, the answer is one of the documented refusals, on both databases."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import Engine

from tests.factories import MovableClock
from tests.http.people import CONSENT, PASSWORD, Site, site_on

ALICE = "alice@example.com"
WORDS = [
    "\0",
    "alice\0@example.com",
    "\ud800",
    "' OR 1=1 --",
    "%",
    "é\u202e\u2028😀",
    "x" * 100_000,
    "",
    None,
    5,
    1e999,
    [],
    {"email": ALICE},
    True,
]
BODIES: dict[tuple[str, str], dict[str, Any]] = {
    ("POST", "/api/auth/register"): {"email": ALICE, "password": PASSWORD, "name": "A", "language": "en", **CONSENT},
    ("POST", "/api/auth/verification"): {"email": ALICE},
    ("POST", "/api/auth/verify"): {"token": "x", "password": PASSWORD},
    ("POST", "/api/auth/sign-in"): {"email": ALICE, "password": PASSWORD},
    ("POST", "/api/auth/second-factor"): {"ticket": "x", "code": "123456"},
    ("POST", "/api/auth/refresh"): {"refresh_token": "x"},
    ("POST", "/api/auth/password-reset"): {"email": ALICE},
    ("POST", "/api/auth/password-reset/confirm"): {"token": "x", "password": PASSWORD},
    ("POST", "/api/auth/email/confirm"): {"token": "x"},
    ("POST", "/api/auth/google/finish"): {"code": "x", "state": "x", "iss": "x"},
    ("POST", "/api/auth/google/begin"): {"consent": CONSENT, "language": "en"},
    ("PATCH", "/api/me"): {"name": "A", "language": "en"},
    ("POST", "/api/me/email"): {"email": ALICE},
    ("POST", "/api/me/password"): {"password": PASSWORD},
    ("POST", "/api/me/second-factor/confirm"): {"code": "123456"},
    ("POST", "/api/me/second-factor/remove"): {"code": "123456"},
}


@pytest.fixture
async def site(engine: Engine, clock: MovableClock) -> AsyncIterator[Site]:
    async with site_on(engine, clock) as made:
        yield made


async def test_no_field_breaks_anything(site: Site) -> None:
    alice, number = await site.browser("203.0.113.7").join(ALICE), 0
    for (method, path), body in BODIES.items():
        for name in body:
            for word in WORDS:
                number += 1
                alice.ip = f"10.{number // 65_536}.{number // 256 % 256}.{number % 256}"
                answer = await alice.send_raw(method, path, {**body, name: word})
                assert answer.status_code < 500, (path, name, repr(word)[:40], answer.text)
                if path == "/api/me/password" and answer.status_code == 200:
                    assert word == PASSWORD or isinstance(word, str)


@pytest.mark.parametrize("word", ["%00", "%ff", "..%2f", "ses-", "ses-" + "0" * 32, "%F0%9F%98%80", "x" * 2_000])
async def test_no_path_breaks_anything(site: Site, word: str) -> None:
    alice = await site.browser().join(ALICE)
    for method, path in (
        ("DELETE", f"/api/me/sessions/{word}"),
        ("DELETE", f"/api/me/identities/{word}"),
        ("POST", f"/api/me/identities/{word}"),
    ):
        answer = await alice.send(method, path)
        assert answer.status_code in (401, 404), (path, answer.text)
        assert (await alice.send("GET", "/api/me")).status_code == 200
