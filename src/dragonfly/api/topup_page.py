"""Two pages that need no session: how a payment stands, where Stripe sends people back to; and its receipt.

Whoever has the id of a top-up sees how it stands: the id is unguessable, and the page names no person. Coming back
asks Stripe too, so a payment is credited even when its webhook is late. A receipt names one: it wants a sealed link.
"""

from collections.abc import Mapping
from html import escape
from typing import Annotated

from fastapi import APIRouter, Path, Query
from sqlalchemy import Connection
from starlette.responses import Response

from dragonfly.api.paper import paper, paper_language
from dragonfly.api.receipt_page import receipt_page
from dragonfly.api.wallet import Language, PaymentDesk, receipt_of
from dragonfly.api.wallet_shapes import ReceiptShown
from dragonfly.payments.orders import ObjectMissing, StripeAway, StripeRefused
from dragonfly.payments.queries import Topup, topup_by_id
from dragonfly.payments.rules import cents_text
from dragonfly.payments.topups import TopupNotFound

ASK_AGAIN_NS = 5 * 10**9
"""Reloading the page asks Stripe no more often than this."""
RELOAD_S = 6
WAITING = ("created", "open", "processing")
WORDS: Mapping[str, Mapping[str, str]] = {
    "en": {
        "title": "Top-up of {amount} USD",
        "number": "Number",
        "back": "Back to the payment page",
        "wallet": "To the wallet",
        "created": "The payment page is being made.",
        "open": "The payment is not complete yet.",
        "processing": "The payment is on its way. Some ways to pay take a while.",
        "paid": "Thank you. The payment arrived and the credit is there.",
        "failed": "The payment failed. Nothing was credited; try again with another card.",
        "expired": "This payment page has expired. Nothing was charged; begin again.",
        "mismatch": "The payment needs a look by support. Quote the number below.",
    },
    "zh": {
        "title": "充值 {amount} 美元",
        "number": "编号",
        "back": "返回付款页面",
        "wallet": "前往钱包",
        "created": "正在生成付款页面。",
        "open": "付款尚未完成。",
        "processing": "付款正在处理中，部分付款方式需要一些时间。",
        "paid": "谢谢。款项已到账，额度已增加。",
        "failed": "付款失败，未增加额度。请换一张卡重试。",
        "expired": "此付款页面已过期，未扣款。请重新开始。",
        "mismatch": "此付款需要客服核查，请提供下面的编号。",
    },
}

TopupId = Annotated[str, Path(min_length=1, max_length=80, pattern=r"^top-[0-9a-f]+$")]
Until = Annotated[int, Query(ge=0, lt=2**40)]
Seal = Annotated[str, Query(max_length=200, pattern=r"^[0-9a-f]+$")]


def topup_page_routes(payments: PaymentDesk) -> APIRouter:
    """The pages, and nothing that needs a session."""
    routes = APIRouter(tags=["wallet"])

    @routes.get("/wallet/topups/{topup_id}", include_in_schema=False)
    async def show(topup_id: TopupId) -> Response:
        return _page(await _as_it_stands(payments, topup_id), payments.seller)

    @routes.get("/wallet/receipts/{topup_id}", include_in_schema=False)
    async def show_receipt(topup_id: TopupId, until: Until, seal: Seal, lang: Language = "en") -> Response:
        payments.receipts.check(topup_id, until, seal, now_ns=payments.desk.clock.now_ns())

        def find(connection: Connection) -> ReceiptShown:
            topup = topup_by_id(connection, topup_id)
            if topup is None:
                raise TopupNotFound
            return receipt_of(connection, topup.account_id, topup_id)

        receipt = await payments.desk.read(find)
        return receipt_page(receipt, lang, seller=payments.seller, seller_url=payments.seller_url)

    return routes


async def _as_it_stands(payments: PaymentDesk, topup_id: str) -> Topup:
    """The top-up, after a look at Stripe when it waits and the last look is a while ago. TopupNotFound."""

    def find(connection: Connection) -> Topup | None:
        return topup_by_id(connection, topup_id)

    topup = await payments.desk.read(find)
    if topup is None:
        raise TopupNotFound
    asked_ns = payments.desk.clock.now_ns() - topup.checked_at_ns
    if payments.cashier is not None and topup.state in WAITING and topup.session_id and asked_ns > ASK_AGAIN_NS:
        try:
            await payments.threads.run(payments.cashier.settle, topup)
        except (StripeAway, StripeRefused, ObjectMissing):
            pass  # the page says how it stood before
        topup = await payments.desk.read(find) or topup
    return topup


def _page(topup: Topup, seller: str) -> Response:
    language = paper_language(topup.language)
    words = WORDS[language]
    title = words["title"].format(amount=cents_text(topup.amount_cents))
    back = ""
    if topup.state == "open" and topup.session_url:
        back = f'<p><a href="{escape(topup.session_url)}" rel="noreferrer">{words["back"]}</a></p>\n'
    body = (
        f'<header><h1>{title}</h1><p class="brand">{escape(seller)}</p></header>\n'
        f'<p class="state" role="status">{words[topup.state]}</p>\n{back}'
        f'<p class="screen"><a href="/dashboard/wallet?lang={language}">{words["wallet"]}</a></p>\n'
        f'<p class="note">{words["number"]}: {escape(topup.id)}</p>'
    )
    reload = f'<meta http-equiv="refresh" content="{RELOAD_S}">\n' if topup.state in WAITING else ""
    return paper(title, language, body, head=reload)
