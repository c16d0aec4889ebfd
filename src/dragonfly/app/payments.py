"""Puts the parts of payments together."""

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from fastapi import APIRouter
from sqlalchemy import Connection, select
from starlette.requests import Request

from dragonfly.api.desk import Desk
from dragonfly.api.payment_admin import payment_admin_routes
from dragonfly.api.payment_webhook import payment_webhook_routes
from dragonfly.api.receipt_page import ReceiptLinks
from dragonfly.api.topup_page import topup_page_routes
from dragonfly.api.wallet import PaymentDesk, wallet_routes
from dragonfly.core.addresses import ClientAddresses, network_of, parse_networks
from dragonfly.core.ids import AccountId
from dragonfly.core.lazily import Lazily
from dragonfly.core.secrets import Secret
from dragonfly.infra.logging import EventLog
from dragonfly.keys.rules import Peppers
from dragonfly.keys.tables import keys
from dragonfly.payments.jobs import (
    EVENTS_EVERY_S,
    RECHARGES_EVERY_S,
    RECONCILE_EVERY_S,
    REFUNDS_EVERY_S,
    WATCH_EVERY_S,
    Refusals,
    Repairs,
    StripeThreads,
    watch,
    work_on_events,
    work_on_recharges,
    work_on_refunds,
)
from dragonfly.payments.rules import METHODS, TopupLimits
from dragonfly.payments.terms import PaymentTerms
from dragonfly.payments.topups import Cashier
from dragonfly.settings import PaymentSettings, Settings
from dragonfly.worker import Job

if TYPE_CHECKING:
    from dragonfly.payments import stripe_calls
else:
    stripe_calls = Lazily("dragonfly.payments.stripe_calls")

METHODS_DEFAULT = ("card", "link")
LOOPBACK = ("localhost", "127.0.0.1", "::1")
LIVE_KEYS = ("sk_live_", "rk_live_")
KEYS = (*LIVE_KEYS, "sk_test_", "rk_test_")


class PaymentParts(NamedTuple):
    """What payments add to a serving process."""

    routers: tuple[APIRouter, ...]
    jobs: tuple[Job, ...]
    close: Callable[[], None]


def payment_parts(settings: Settings, desk: Desk, peppers: Peppers, log: EventLog) -> PaymentParts:
    """Routes and jobs; without a key for Stripe, routes that say so."""
    threads = StripeThreads()
    cashier = open_cashier(settings, desk, log)
    payments = PaymentDesk(
        desk,
        threads,
        cashier,
        _address_digest(settings, peppers),
        ReceiptLinks(functools.partial(_digest, peppers)),
        is_simulated=is_loopback(settings.payments),
        seller=settings.mail.from_name,
        seller_url=settings.server.public_url.rstrip("/"),
    )
    routers = (wallet_routes(payments), payment_admin_routes(payments), topup_page_routes(payments))
    if cashier is None:
        return PaymentParts(routers, (), threads.close)
    refusals, repairs = Refusals(), Repairs()
    secret = Secret(settings.payments.stripe_webhook_secret.get_secret_value())
    webhook = payment_webhook_routes(cashier, threads, refusals, secret)
    work: tuple[tuple[str, float, Callable[[], None]], ...] = (
        ("payment_events", EVENTS_EVERY_S, lambda: work_on_events(cashier, refusals)),
        ("payment_recharges", RECHARGES_EVERY_S, lambda: work_on_recharges(cashier, is_braked)),
        ("payment_refunds", REFUNDS_EVERY_S, lambda: work_on_refunds(cashier)),
        ("payment_repairs", RECONCILE_EVERY_S, lambda: repairs.run(cashier)),
        ("payment_watch", WATCH_EVERY_S, lambda: watch(cashier)),
    )
    jobs = tuple(Job(name, every_s, functools.partial(threads.run, run)) for name, every_s, run in work)
    return PaymentParts((*routers, webhook), jobs, threads.close)


def open_cashier(settings: Settings, desk: Desk, log: EventLog) -> Cashier | None:
    """None when no key for Stripe is set."""
    payments = settings.payments
    key = payments.stripe_secret_key.get_secret_value()
    if not key:
        return None
    calls = stripe_calls.StripeCalls(Secret(key), api_base=payments.stripe_url.rstrip("/"))
    return Cashier(desk.engine, calls, terms_of(settings), desk.clock, desk.ids, log)


def terms_of(settings: Settings) -> PaymentTerms:
    """The [payments] section as payments take it."""
    payments = settings.payments
    return PaymentTerms(
        limits=TopupLimits(
            cents_min=payments.topup_cents_min,
            first_cents_max=payments.first_topup_cents_max,
            cents_max=payments.topup_cents_max,
            checkouts_per_hour=payments.checkouts_per_hour,
            declines_per_day=payments.declines_per_day,
        ),
        methods=payments.methods or METHODS_DEFAULT,
        tax=payments.tax,
        livemode=payments.stripe_secret_key.get_secret_value().startswith(LIVE_KEYS),
        public_url=settings.server.public_url.rstrip("/"),
        operator_address=settings.mail.operator_address,
        operator_language=settings.mail.operator_language,
    )


def is_braked(connection: Connection, account_id: AccountId) -> bool:
    """Whether the breaker has paused a key of the account for spending far above its habit."""
    paused = select(keys.c.id).where(keys.c.account_id == account_id, keys.c.paused_at_ns.is_not(None))
    return connection.execute(paused.limit(1)).scalar_one_or_none() is not None


def is_loopback(payments: PaymentSettings) -> bool:
    """The simulated Stripe of the demo."""
    host = payments.stripe_url.partition("://")[2].partition("/")[0].rpartition(":")[0]
    return host in LOOPBACK


def payment_problems(settings: Settings) -> list[str]:
    """What is wrong with the [payments] section as a whole."""
    payments = settings.payments
    problems = []
    if payments.topup_cents_min > payments.first_topup_cents_max:
        problems.append("payments.first_topup_cents_max: needs at least payments.topup_cents_min.")
    if payments.first_topup_cents_max > payments.topup_cents_max:
        problems.append("payments.topup_cents_max: needs at least payments.first_topup_cents_max.")
    if not set(payments.methods) <= set(METHODS):
        problems.append(f"payments.methods: knows {', '.join(METHODS)}.")
    if not payments.stripe_url.startswith("https://") and not is_loopback(payments):
        problems.append("payments.stripe_url: needs an address that begins with https://.")
    key = payments.stripe_secret_key.get_secret_value()
    if not key:
        return problems
    if not key.startswith(KEYS):
        problems.append("payments.stripe_secret_key: needs a secret or restricted key, sk_… or rk_….")
    if not payments.stripe_webhook_secret.get_secret_value().startswith("whsec_"):
        problems.append(
            "payments.stripe_webhook_secret: needed by payments.stripe_secret_key. Without it anybody could say that"
            " a payment arrived."
        )
    if not settings.server.public_url:
        problems.append("server.public_url: needed by payments.stripe_secret_key, so that customers find back.")
    return problems


def _address_digest(settings: Settings, peppers: Peppers) -> Callable[[Request], str]:
    """A keyed hash of the caller's network, which counts payment pages without keeping addresses."""
    addresses = ClientAddresses(parse_networks(settings.server.proxies), parse_networks(settings.server.cdn))

    def digest(request: Request) -> str:
        peer = request.client.host if request.client else ""
        forwarded = ",".join(request.headers.getlist("x-forwarded-for"))
        network = network_of(addresses.of(peer, forwarded, request.headers.get("cf-connecting-ip", "")))
        return _digest(peppers, b"checkout\0" + network.encode()).hex()

    return digest


def _digest(peppers: Peppers, words: bytes) -> bytes:
    made = peppers.digest(peppers.current, words)
    assert made is not None, "the current pepper is there"
    return made
