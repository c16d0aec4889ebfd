"""The public pages about privacy say what this installation really does, in two languages, and load nothing."""

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import Engine
from starlette.responses import Response

from dragonfly.catalog.catalog import Provider
from dragonfly.infra.database import DatabaseThreads
from dragonfly.infra.lockdown import Lockdown
from dragonfly.privacy.audit.report import REPORT_FILE, as_json, code_digest, signed_report
from dragonfly.privacy.policy import load_manifest
from dragonfly.privacy.retention import run_retention
from dragonfly.privacy.signing import public_key_of
from dragonfly.settings import MailSettings, PrivacySettings, ServerSettings, Settings
from dragonfly.web.pages import Pages
from dragonfly.web.privacy import NoReport, Running, web_routes
from tests.factories import START_NS, make_database
from tests.reports import a_report

KEY = b"a key for reports in tests"
DEEPSEEK = Provider("deepseek", "DeepSeek", privacy_policy_url="https://example.com/deepseek?a=1&b=2")
OWN = Provider("own", "<b>Own</b>")
WALLED = Lockdown(missing=(), landlock_abi=7)


class Site:
    """The pages of an installation, over HTTP without a socket."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.engine: Engine = make_database(folder)
        self.settings = Settings(data_dir=folder)
        self.providers: tuple[Provider, ...] = (DEEPSEEK,)
        self.lockdown = WALLED

    async def get(self, path: str, **headers: str) -> httpx.Response:
        app = FastAPI()
        threads = DatabaseThreads()
        running = Running(self.settings, load_manifest(), self.providers, self.lockdown, lambda: public_key_of(KEY))
        app.add_exception_handler(NoReport, lambda _request, _failure: Response(status_code=NoReport.status))
        app.include_router(web_routes(Pages("Acme"), running, self.engine, threads, lambda: START_NS))
        transport = httpx.ASGITransport(app=app)
        try:
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                return await client.get(path, headers=headers)
        finally:
            threads.close()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    one = Site(tmp_path)
    yield one
    one.engine.dispose()


def words_of(page: httpx.Response) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", page.text))


@pytest.mark.proof("upstreams", "providers-behaviour")
async def test_every_provider_that_is_switched_on_is_named_with_its_policy_and_no_other(site: Site) -> None:
    site.providers = (DEEPSEEK, OWN)
    page = await site.get("/privacy")
    assert '<a href="https://example.com/deepseek?a=1&amp;b=2" rel="noreferrer">DeepSeek</a>' in page.text
    assert "&lt;b&gt;Own&lt;/b&gt;" in page.text
    assert "Moonshot" not in page.text
    site.providers = ()
    assert "none is switched on" in words_of(await site.get("/privacy"))


@pytest.mark.proof("processors", "cdn-cookies", "cdn-plaintext")
async def test_a_processor_is_named_when_it_is_switched_on_and_only_then(site: Site) -> None:
    plain = words_of(await site.get("/privacy"))
    for name in ("Stripe", "Resend", "Google", "Discord", "Cloudflare", "These also receive data"):
        assert name not in plain
    site.settings = Settings(
        data_dir=site.folder,
        server=ServerSettings(cdn=("192.0.2.0/24",)),
        mail=MailSettings(transport="resend", resend_api_key="re_a"),
    )
    named = words_of(await site.get("/privacy"))
    assert "Resend (delivers mail)" in named
    assert "Cloudflare may set cookies" in named
    assert "Cloudflare ends the encryption" in named
    assert "Discord" not in named


@pytest.mark.proof("support-review", "export", "deletion", "contact")
async def test_the_page_says_whom_to_write_to(site: Site) -> None:
    assert "Questions about privacy: privacy@dragonfly-api.com." in words_of(await site.get("/privacy"))
    site.settings = Settings(data_dir=site.folder, privacy=PrivacySettings(contact="<alice@example.com>"))
    page = await site.get("/privacy")
    assert "Questions about privacy: &lt;alice@example.com&gt;." in page.text
    assert "privacy@dragonfly-api.com" not in page.text


async def test_the_page_tells_retention_lockdown_and_what_cannot_be_promised(site: Site) -> None:
    page = words_of(await site.get("/privacy"))
    assert "Usage logs are retained for 90 days" in page
    assert "Backups are kept for 7 days" in page
    assert "locks itself down: it cannot write outside its folder" in page
    assert "We cannot promise that it is wiped from memory" in page
    site.lockdown = Lockdown(missing=("landlock",), landlock_abi=0)
    assert "locks itself down: in part" in words_of(await site.get("/privacy"))


@pytest.mark.parametrize("path", ["/privacy", "/privacy/status"])
async def test_pages_speak_both_languages(site: Site, path: str) -> None:
    english, chinese = await site.get(path), await site.get(f"{path}?lang=zh")
    preferred = await site.get(path, **{"accept-language": "fr, zh-CN;q=0.9, en;q=0.8"})
    assert english.headers["content-language"] == "en"
    assert '<html lang="zh-Hans">' in chinese.text
    assert preferred.text == chinese.text
    assert (await site.get(f"{path}?lang=<script>")).text == english.text


@pytest.mark.proof("no-cookies", "no-tracking")
@pytest.mark.parametrize("path", ["/privacy", "/privacy/status", "/privacy?lang=zh"])
async def test_no_page_sets_a_cookie_or_loads_anything_from_elsewhere(site: Site, path: str) -> None:
    page = await site.get(path)
    assert page.status_code == 200
    assert "set-cookie" not in page.headers
    assert page.headers["cache-control"] == "no-store"
    policy = page.headers["content-security-policy"]
    for rule in ("default-src 'none'", "require-trusted-types-for 'script'", "base-uri 'none'", "form-action 'none'"):
        assert rule in policy
    assert "unsafe" not in policy
    assert not re.search(r"<(script|img|iframe|form|object|embed)|\son\w+=|style=|javascript:", page.text)
    assert re.findall(r'<link rel="stylesheet" href="([^"]+)"', page.text) == [
        Pages("Acme").assets.address("site.css")
    ]


async def test_the_style_sheet_is_named_by_its_content_and_may_be_kept(site: Site) -> None:
    pages = Pages("Acme")
    style = await site.get(pages.assets.address("site.css"))
    assert style.headers["content-type"].startswith("text/css")
    assert "immutable" in style.headers["cache-control"]
    digest = base64.b64encode(hashlib.sha256(style.content).digest()).decode()
    assert f'integrity="sha256-{digest}"' in (await site.get("/privacy")).text
    assert b"url(" not in style.content
    assert b"@import" not in style.content


async def test_the_status_tells_what_was_last_done(site: Site) -> None:
    empty = (await site.get("/privacy/status", accept="application/json")).json()
    assert (empty["last_retention_run"], empty["last_audit"], empty["oldest_usage_row"]) == (None, None, None)
    run_retention(site.engine, now_ns=START_NS)
    report = as_json(a_report(at_ns=START_NS, code_digest=code_digest()), KEY)
    (site.folder / REPORT_FILE).write_text(report)
    site.lockdown = Lockdown(missing=("landlock",), landlock_abi=0)
    status = (await site.get("/privacy/status", accept="application/json")).json()
    assert status["last_retention_run"].startswith("2026-11-")
    assert (status["last_audit_clean"], status["last_audit_of_this_code"]) == (True, True)
    assert status["lockdown_missing"] == ["landlock"]
    page = words_of(await site.get("/privacy/status"))
    assert "nothing was kept" in page
    assert "missing: landlock" in page


async def test_a_report_that_somebody_else_signed_counts_as_none(site: Site) -> None:
    (site.folder / REPORT_FILE).write_text(as_json(a_report(), b"another key"))
    status = (await site.get("/privacy/status", accept="application/json")).json()
    assert (status["last_audit"], status["last_audit_clean"]) == (None, None)
    (site.folder / REPORT_FILE).write_text(json.dumps([1]))
    assert (await site.get("/privacy/status")).status_code == 200


async def test_anybody_can_check_the_last_report_with_what_the_pages_show(site: Site) -> None:
    assert (await site.get("/privacy/audit")).status_code == 404
    (site.folder / REPORT_FILE).write_text(as_json(a_report(at_ns=START_NS), KEY))
    shown = await site.get("/privacy/audit")
    status = (await site.get("/privacy/status", accept="application/json")).json()
    found = signed_report(shown.text, status["public_key"])
    assert found is not None
    assert found["at_ns"] == START_NS
    assert signed_report(shown.text, "not a key") is None
    (site.folder / REPORT_FILE).write_text(as_json(a_report(), b"another key"))
    assert (await site.get("/privacy/audit")).status_code == 404
