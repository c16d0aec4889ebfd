"""GET /wallet/topups/{id}: where Stripe sends people back to. It says how the payment stands, and nothing else.

Whoever has the id sees the page: it is unguessable, and the page names no person. Coming back asks Stripe too, so a
payment is credited even when its webhook is late.
"""

from html import escape
from typing import Annotated

from fastapi import APIRouter, Path
from sqlalchemy import Connection
from starlette.responses import Response

from dragonfly.api.wallet import PaymentDesk
from dragonfly.payments.orders import ObjectMissing, StripeAway, StripeRefused
from dragonfly.payments.queries import Topup, topup_by_id
from dragonfly.payments.rules import cents_text
from dragonfly.payments.topups import TopupNotFound

ASK_AGAIN_NS = 5 * 10**9
"""Reloading the page asks Stripe no more often than this."""
WAITING = ("created", "open", "processing")
WORDS = {
    "created": "The payment page is being made.",
    "open": "The payment is not complete yet.",
    "processing": "The payment is on its way. Some ways to pay take a while.",
    "paid": "Thank you. The payment arrived and the credit is there.",
    "failed": "The payment failed. Nothing was credited; try again with another card.",
    "expired": "This payment page has expired. Nothing was charged; begin again.",
    "mismatch": "The payment needs a look by support. Quote the number below.",
}

TopupId = Annotated[str, Path(min_length=1, max_length=80, pattern=r"^top-[0-9a-f]+$")]


def topup_page_routes(payments: PaymentDesk) -> APIRouter:
    """The page, and nothing that needs a session."""
    routes = APIRouter(tags=["wallet"])

    @routes.get("/wallet/topups/{topup_id}", include_in_schema=False)
    async def show(topup_id: TopupId) -> Response:
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
        return Response(_page(topup), media_type="text/html; charset=utf-8")

    return routes


def _page(topup: Topup) -> str:
    reload = '<meta http-equiv="refresh" content="6">' if topup.state in WAITING else ""
    back = ""
    if topup.state == "open" and topup.session_url:
        back = f'<p><a href="{escape(topup.session_url)}" rel="noreferrer">Back to the payment page</a></p>'
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8">{reload}<title>Top-up</title>'
        f"<h1>Top-up of {cents_text(topup.amount_cents)} USD</h1><p>{escape(WORDS[topup.state])}</p>{back}"
        f"<p>Number: {escape(topup.id)}</p></html>\n"
    )
