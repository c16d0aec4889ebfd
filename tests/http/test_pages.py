"""The pages as they leave the process: strict headers, both languages, nothing about anybody, hashed assets."""

import re
from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI

from dragonfly.web import dashboard, operator, people
from dragonfly.web.dashboard import dashboard_routes
from dragonfly.web.operator import operator_routes
from dragonfly.web.pages import Pages, asset_routes
from dragonfly.web.people import Welcome, people_routes

WELCOME = Welcome(("discord", "google"), True, "2026-03-08", "", "2026-03-08")
PATHS = [place.path for place in (*people.PLACES, *dashboard.PLACES, *dashboard.OTHERS, *operator.PLACES)]


def site(welcome: Welcome = WELCOME) -> httpx.AsyncClient:
    pages, app = Pages("Acme", "https://dragonfly.example"), FastAPI()
    routers = (
        people_routes(pages, welcome),
        dashboard_routes(pages, welcome.providers),
        operator_routes(pages),
        asset_routes(pages.assets),
    )
    for router in routers:
        app.include_router(router)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://test")


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with site() as one:
        yield one


@pytest.mark.proof("no-cookies", "no-tracking")
@pytest.mark.parametrize("path", [*PATHS, "/auth/callback/google"])
async def test_a_page_takes_scripts_from_us_only_and_is_kept_by_nobody(client: httpx.AsyncClient, path: str) -> None:
    page = await client.get(path)
    assert page.status_code == 200
    assert page.headers["cache-control"] == "no-store"
    assert "set-cookie" not in page.headers
    rules = dict(rule.split(" ", 1) for rule in page.headers["content-security-policy"].split("; "))
    assert rules == {
        "default-src": "'none'",
        "style-src": "'self'",
        "img-src": "'self'",
        "script-src": "'self'",
        "connect-src": "'self'",
        "form-action": "'none'",
        "base-uri": "'none'",
        "frame-ancestors": "'none'",
        "require-trusted-types-for": "'script'",
        "trusted-types": "'none'",
    }
    assert not re.search(
        r"<script(?![^>]* src=)|\son\w+=|style=|javascript:|(?:src|href)=\"(?:https?:)?//", page.text
    )


@pytest.mark.parametrize("path", PATHS)
async def test_a_page_speaks_both_languages(client: httpx.AsyncClient, path: str) -> None:
    english, chinese = await client.get(path), await client.get(f"{path}?lang=zh")
    assert '<html lang="en">' in english.text
    assert '<html lang="zh-Hans">' in chinese.text
    words = re.sub(r"<[^>]+>", "", english.text.partition("<body")[2])
    assert "中文" in words
    assert not re.search(r"[\u4e00-\u9fff]", words.replace("中文", ""))


async def test_every_asset_of_a_page_is_there_and_may_be_kept_for_ever(client: httpx.AsyncClient) -> None:
    page = (await client.get("/sign-in")).text
    addresses = set(re.findall(r"/assets/[^\"]+", page))
    assert len(addresses) > 5
    for address in addresses:
        asset = await client.get(address)
        assert asset.status_code == 200
        assert asset.headers["cache-control"] == "public, max-age=31536000, immutable"
        for imported in re.findall(r'from "\./([\w-]+\.js)"', asset.text):
            assert (await client.get(f"{address.rpartition('/')[0]}/{imported}")).status_code == 200
    stale = re.sub(r"/assets/\w+/", "/assets/0000000000000000/", sorted(addresses)[0])
    assert (await client.get(stale)).status_code == 404


async def test_ways_to_sign_in_are_offered_as_they_are_configured() -> None:
    async with site() as both:
        page = (await both.get("/sign-in")).text
    assert re.findall(r'data-provider="(\w+)"', page) == ["discord", "google"]
    async with site(Welcome((), False, "1", "https://example.com/terms", "2")) as closed:
        assert "data-provider" not in (await closed.get("/sign-in")).text
        assert "<form" not in (await closed.get("/sign-up")).text
        assert "/sign-up" not in (await closed.get("/sign-in")).text


async def test_a_callback_repeats_nothing_of_its_address(client: httpx.AsyncClient) -> None:
    page = await client.get("/auth/callback/%3Cb%3Ebold?code=CANARY&state=CANARY")
    assert "bold" not in page.text
    assert "CANARY" not in page.text
