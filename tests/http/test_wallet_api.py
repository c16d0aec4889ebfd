"""/api/wallet, /api/admin/payments and the webhook over HTTP, with a Stripe that only pretends."""

from collections.abc import AsyncIterator

import pytest

from dragonfly.infra.database import read
from dragonfly.payments.queries import refusals_since
from dragonfly.payments.simulated import SimulatedStripe
from dragonfly.payments.simulated.delivery import sign
from tests.factories import MovableClock, make_database
from tests.http.counter import ADMIN, TOPUPS, Counter, paid


@pytest.fixture
async def counter(tmp_path: object) -> AsyncIterator[Counter]:
    engine = make_database(tmp_path)  # type: ignore[arg-type]
    clock = MovableClock()
    fake = SimulatedStripe(clock=clock)
    made = Counter(engine, clock, fake)
    yield made
    made.threads.close()
    fake.stop()
    engine.dispose()


async def test_a_payment_from_the_first_click_to_the_receipt(counter: Counter) -> None:
    before = (await counter.ask("alice", "GET", "/api/wallet")).json()
    assert (before["balance"], before["card_payments"]["minimum"], before["card_payments"]["maximum"]) == (
        "0",
        "1.00",
        "50.00",
    )
    topup_id = await paid(counter)
    wallet = (await counter.ask("alice", "GET", "/api/wallet")).json()
    assert (wallet["balance"], wallet["available"], wallet["frozen"]) == ("20", "20", False)
    (lot,) = (await counter.ask("alice", "GET", "/api/wallet/lots")).json()["data"]
    assert (lot["source"], lot["remaining"], lot["expires_at"]) == ("paid", "20", None)
    (moved,) = (await counter.ask("alice", "GET", "/api/wallet/transactions")).json()["data"]
    assert (moved["kind"], moved["amount"]) == ("top_up", "20")
    billing = {"name": "Alice <b>", "company": "Acme", "address": "1 Road", "country": "DE", "tax_id": "DE1"}
    assert (await counter.ask("alice", "PUT", "/api/wallet/billing", billing)).json() == billing
    receipt = (await counter.ask("alice", "GET", f"{TOPUPS}/{topup_id}/receipt")).json()
    assert (receipt["total"], receipt["tax"], receipt["billing"]["company"]) == ("20.00", "0.00", "Acme")
    page = await counter.ask("alice", "GET", f"{TOPUPS}/{topup_id}/receipt.html")
    assert "20.00 USD" in page.text
    assert "sha256-" in page.headers["content-security-policy"]
    assert page.headers["content-type"].startswith("text/html")
    assert "Alice &lt;b&gt;" in page.text
    async with counter.office.client() as stranger:
        thanks = await stranger.get(f"/wallet/topups/{topup_id}")
    assert "The payment arrived" in thanks.text


async def test_a_link_opens_the_receipt_in_either_language_for_a_quarter_of_an_hour(counter: Counter) -> None:
    topup_id = await paid(counter)
    refund = {"topup": topup_id, "amount": "5.00", "reason": "mistake"}
    asked = (await counter.ask("alice", "POST", "/api/wallet/refunds", refund)).json()
    await counter.ask("charlie", "POST", f"{ADMIN}/refunds/{asked['id']}", {"approve": True})
    links = {}
    for language in ("en", "zh"):
        path = f"{TOPUPS}/{topup_id}/receipt-link?lang={language}"
        assert (await counter.ask("bob", "POST", path)).status_code == 404
        url = (await counter.ask("alice", "POST", path)).json()["url"]
        assert url.startswith("https://gateway.example/wallet/receipts/")
        links[language] = url.removeprefix("https://gateway.example")
    async with counter.office.client() as stranger:
        english, chinese = [(await stranger.get(links[language])).text for language in ("en", "zh")]
        for words, page in (("Total paid", english), ("实付总额", chinese)):
            assert words in page
            assert "−5.00 USD" in page
            assert "15.00 USD" in page
            assert "<script" not in page
        for broken in (
            links["en"].replace("seal=", "seal=0"),
            links["en"].replace("until=", "until=9"),
            links["en"].replace(topup_id, "top-" + "0" * 32),
        ):
            assert (await stranger.get(broken)).json()["error"]["code"] == "receipt_link_invalid"
        counter.clock.move(901)
        assert (await stranger.get(links["en"])).status_code == 404


async def test_the_page_after_a_payment_speaks_the_customers_language(counter: Counter) -> None:
    begun = await counter.ask("alice", "POST", TOPUPS, {"amount": "20", "language": "zh-CN"})
    async with counter.office.client() as stranger:
        page = await stranger.get(f"/wallet/topups/{begun.json()['id']}")
    assert "付款尚未完成" in page.text
    assert page.headers["content-language"] == "zh"


async def test_what_is_somebody_elses_is_not_there(counter: Counter) -> None:
    topup_id = await paid(counter)
    for path in (f"{TOPUPS}/{topup_id}", f"{TOPUPS}/{topup_id}/receipt"):
        assert (await counter.ask("bob", "GET", path)).status_code == 404
    assert (await counter.ask("bob", "POST", f"{TOPUPS}/{topup_id}/check")).status_code == 404
    wanted = {"topup": topup_id, "reason": "mistake"}
    assert (await counter.ask("bob", "POST", "/api/wallet/refunds", wanted)).status_code == 404
    for path in ("topups", "refunds", "disputes", "events", "codes", "margins?first=2026-11-01&last=2026-11-30"):
        assert (await counter.ask("alice", "GET", f"{ADMIN}/{path}")).status_code == 403
        assert (await counter.ask("charlie", "GET", f"{ADMIN}/{path}")).status_code == 200
        refused = await counter.ask("charlie without a second factor", "GET", f"{ADMIN}/{path}")
        assert refused.status_code == 403


async def test_pages_of_payments_follow_each_other(counter: Counter) -> None:
    ids = [await paid(counter, "1") for _ in range(3)]
    first = (await counter.ask("alice", "GET", f"{TOPUPS}?limit=2")).json()
    second = (await counter.ask("alice", "GET", f"{TOPUPS}?limit=2&cursor={first['next_cursor']}")).json()
    assert {one["id"] for one in (*first["data"], *second["data"])} == set(ids)
    assert second["next_cursor"] is None
    found = (await counter.ask("charlie", "GET", f"{ADMIN}/topups?q={ids[0]}")).json()["data"]
    assert [one["id"] for one in found] == [ids[0]]


async def test_support_refunds_and_gives_codes(counter: Counter) -> None:
    topup_id = await paid(counter)
    wanted = {"topup": topup_id, "amount": "5.00", "reason": "not_needed"}
    asked = await counter.ask("alice", "POST", "/api/wallet/refunds", wanted)
    assert asked.status_code == 201, asked.text
    (open_one,) = (await counter.ask("charlie", "GET", f"{ADMIN}/refunds")).json()["data"]
    decided = await counter.ask("charlie", "POST", f"{ADMIN}/refunds/{open_one['id']}", {"approve": True})
    assert decided.status_code == 200
    (seen,) = (await counter.ask("alice", "GET", "/api/wallet/refunds")).json()
    assert (seen["state"], seen["amount"]) == ("succeeded", "5.00")
    made = await counter.ask("charlie", "POST", f"{ADMIN}/codes", {"count": 1, "amount": "2"})
    code = made.json()["codes"][0]
    used = await counter.ask("alice", "POST", "/api/wallet/codes", {"code": code})
    assert used.json()["amount"] == "2"
    assert (await counter.ask("alice", "POST", "/api/wallet/codes", {"code": code})).status_code == 404
    grant = {"account": counter.office.alice, "amount": "1", "reason": "goodwill", "key": "ticket-1"}
    for _ in range(2):
        assert (await counter.ask("charlie", "POST", f"{ADMIN}/grants", grant)).status_code == 204
    assert (await counter.ask("alice", "GET", "/api/wallet")).json()["balance"] == "18"


async def test_automatic_top_ups_are_agreed_to_and_ended(counter: Counter) -> None:
    path = "/api/wallet/auto-recharge"
    assert (await counter.ask("alice", "GET", path)).json()["state"] == "off"
    wanted = {"threshold": "5", "amount": "20", "monthly_cap": "100"}
    agreed = (await counter.ask("alice", "PUT", path, wanted)).json()
    assert (agreed["state"], agreed["pause_reason"]) == ("paused", "card_needed")
    refused = await counter.ask("alice", "PUT", path, {**wanted, "monthly_cap": "10"})
    assert refused.json()["error"]["code"] == "auto_recharge_invalid"
    assert (await counter.ask("alice", "DELETE", path)).status_code == 204
    assert (await counter.ask("alice", "GET", path)).json()["state"] == "off"


async def test_forged_stale_and_oversized_webhooks_are_refused_counted_and_never_logged(counter: Counter) -> None:
    assert counter.fake is not None
    assert counter.cashier is not None
    now_s = counter.clock.now_ns() // 10**9
    secret = counter.fake.webhook_secret
    canary = b'{"canary": "nobody-may-see-this"}'
    assert await counter.post(canary, "") == 400
    assert await counter.post(canary, sign(canary, "whsec_other", now_s).signature) == 400
    assert await counter.post(canary, sign(canary, secret, now_s - 301).signature) == 400
    assert await counter.post(canary, sign(canary, secret, now_s).signature) == 400
    assert await counter.post(b"x" * 300_000, "t=1,v1=0") == 400
    counter.work()
    with read(counter.cashier.engine) as connection:
        counted = refusals_since(connection, first_day=0)
    assert counted == {"forged": 2, "stale": 1, "malformed": 1, "too_large": 1}
    assert b"canary" not in counter.log.getvalue()
    assert b"nobody" not in counter.log.getvalue()
    assert counter.log.getvalue().count(b"payment_event_refused") == 4


async def test_without_stripe_the_wallet_says_how_to_set_it_up_and_everything_else_works(tmp_path: object) -> None:
    engine = make_database(tmp_path)  # type: ignore[arg-type]
    counter = Counter(engine, MovableClock(), None)
    wallet = (await counter.ask("alice", "GET", "/api/wallet")).json()
    assert wallet["card_payments"]["enabled"] is False
    assert "payments.stripe_secret_key" in wallet["card_payments"]["message"]
    refused = await counter.ask("alice", "POST", TOPUPS, {"amount": "20"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "payments_not_set_up")
    grant = {"account": counter.office.alice, "amount": "1", "reason": "goodwill", "key": "1"}
    assert (await counter.ask("charlie", "POST", f"{ADMIN}/grants", grant)).status_code == 204
    assert (await counter.ask("alice", "GET", "/api/wallet")).json()["balance"] == "1"
    counter.threads.close()
    engine.dispose()
