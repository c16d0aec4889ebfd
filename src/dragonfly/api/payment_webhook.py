"""POST /webhooks/stripe: verified, stored, committed, and only then acknowledged. A job applies it."""

from fastapi import APIRouter
from pydantic import BaseModel
from starlette.requests import Request

from dragonfly.core.secrets import Secret
from dragonfly.infra.database import write
from dragonfly.payments.events import BODY_BYTES_MAX, EventRefused, store_event, verify_event
from dragonfly.payments.jobs import Refusals, StripeThreads
from dragonfly.payments.topups import Cashier

PATH = "/webhooks/stripe"


class Received(BaseModel):
    """The event is stored, or needs no storing."""

    received: bool = True


def payment_webhook_routes(cashier: Cashier, threads: StripeThreads, refusals: Refusals, secret: Secret) -> APIRouter:
    """The webhook. Whatever is refused is counted; nothing of its body is logged or kept."""
    routes = APIRouter(tags=["webhooks"])

    def keep(body: bytes, signature: str) -> None:
        now_ns = cashier.clock.now_ns()
        incoming = verify_event(body, signature, secret, now_ns=now_ns)
        with write(cashier.engine) as connection:
            reason = store_event(connection, cashier.terms, incoming, now_ns=now_ns)
        if reason:
            refusals.add(reason)

    @routes.post(PATH, operation_id="stripe_webhook", summary="Events of Stripe, signed")
    async def take(request: Request) -> Received:
        """For Stripe only: other requests are refused by their signature."""
        try:
            body = await _body(request)
            await threads.run(keep, body, request.headers.get("stripe-signature", ""))
        except EventRefused as refused:
            refusals.add(refused.reason)
            raise
        return Received()

    return routes


async def _body(request: Request) -> bytes:
    """The raw bytes, because the signature covers them; refused as soon as they are too many."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > BODY_BYTES_MAX:
            raise EventRefused("too_large")
    return bytes(body)
