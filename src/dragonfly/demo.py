"""`dragonfly demo`: a whole gateway to try, with a provider that only pretends, in a folder that goes away.

It serves as `dragonfly serve` does: same gateway, same database, same billing. What differs is where the answers
come from, and that an account with credit and a key is there already.
"""

import asyncio
import secrets
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from pydantic import SecretStr
from sqlalchemy import Engine

from dragonfly.accounts.actions import create_account
from dragonfly.accounts.passwords import Passwords
from dragonfly.accounts.people import add_person, set_password
from dragonfly.api.desk import Desk
from dragonfly.api.payment_webhook import PATH as WEBHOOK_PATH
from dragonfly.app.build import open_log, run
from dragonfly.app.payments import open_cashier
from dragonfly.app.serve import AddressUnusable, bind
from dragonfly.app.setup import Configured, peppers_of, seal_of, set_up_store
from dragonfly.catalog.build import build_catalog
from dragonfly.core.clock import Clock, SystemClock
from dragonfly.core.ids import AccountId, IdSource
from dragonfly.core.money import from_usd, usd_text
from dragonfly.core.secrets import Secret
from dragonfly.infra.database import DatabaseThreads, read, write
from dragonfly.infra.logging import EventLog, Level
from dragonfly.keys.actions import issue_key
from dragonfly.ledger.actions import grant_credit
from dragonfly.payments.queries import topup_by_id
from dragonfly.payments.simulated import SimulatedStripe
from dragonfly.payments.topups import TopupWish, begin_topup
from dragonfly.providers.simulated import MODEL, SimulatedUpstream
from dragonfly.settings import AccountSettings, PaymentSettings, ServerSettings, Settings

HOST = "127.0.0.1"
PORT_DEFAULT = "8080"
CREDIT_NUSD = from_usd("5")
TOPUP_USD = "10"
EMAIL = "demo@example.com"
PASSWORD_BYTES = 6
TRIALS_MAX = 1_000
"""Everybody who registers comes from this machine."""
PAGE_OPEN_S = 23 * 3_600
PUBLIC_MODEL = "simulated/chat"
SHUTDOWN_S = 4.0
UPSTREAM_START_S_MAX = 10.0

BANNER = """\
Dragonfly is running on http://{address}. Its provider "simulated" is a program that streams made-up
text at a human pace: no model, no network, no cost. The account has {credit} USD of play money.
{real}
Keys, usage and wallet are on the dashboard; mails of who registers there are shown here:

  http://{address}/sign-in   {email}   {password}

Paste this into another terminal:

  export OPENAI_BASE_URL=http://{address}/v1 OPENAI_API_KEY={key}

  curl -N $OPENAI_BASE_URL/chat/completions -H "Authorization: Bearer $OPENAI_API_KEY" \\
    -H "Content-Type: application/json" -d '{{"model": "{model}", "stream": true,
    "stream_options": {{"include_usage": true}}, "messages": [{{"role": "user", "content": "Say hello."}}]}}'

See the balance fall by the cost in the last chunk, and what is on offer:

  curl $OPENAI_BASE_URL/credits -H "Authorization: Bearer $OPENAI_API_KEY"
  curl $OPENAI_BASE_URL/models -H "Authorization: Bearer $OPENAI_API_KEY"

Pay in with a test card at a simulated Stripe, on the wallet's page or here, and ask for the credits again:

  {pay_url}

With OpenAI's SDK for Python (pip install openai), in the same terminal:

python3 -c '
from openai import OpenAI
stream = OpenAI().chat.completions.create(
    model="{model}", messages=[{{"role": "user", "content": "Say hello."}}],
    stream=True, stream_options={{"include_usage": True}})
for chunk in stream:
    print(chunk.choices[0].delta.content or "" if chunk.choices else "", end="", flush=True)
print("\\n", chunk.usage.cost, "USD")
'

Stop with Ctrl-C; nothing of this stays."""


def run_demo(environ: Mapping[str, str], show: Callable[[str], None]) -> None:
    """Runs until a signal; `show` gets the banner once everything answers."""
    clock = SystemClock()
    with (
        bind(HOST, _port(environ)) as bound,
        tempfile.TemporaryDirectory(prefix="dragonfly-demo-") as folder,
        simulated_provider(clock) as upstream_port,
        SimulatedStripe(clock=clock) as stripe,
    ):
        address = f"{HOST}:{bound.getsockname()[1]}"
        settings = demo_settings(Path(folder), address, stripe)
        catalog = build_catalog(settings.catalog, demo_tables(upstream_port), environ)
        engine = set_up_store(settings, now_ns=clock.now_ns())
        log = open_log(sys.stderr.buffer, clock, Level.WARNING)
        password = secrets.token_hex(PASSWORD_BYTES)
        account_id, key = make_customer(engine, settings, clock, password)
        pay_url = payment_page(settings, engine, account_id, clock, log)
        stripe.deliver_to(f"http://{address}{WEBHOOK_PATH}")
        banner = BANNER.format(
            address=address,
            email=EMAIL,
            password=password,
            credit=usd_text(CREDIT_NUSD),
            real=_real_providers([provider.name for provider in catalog.providers() if not provider.simulated]),
            key=key.reveal(),
            model=PUBLIC_MODEL,
            pay_url=pay_url,
        )
        run(Configured(settings, catalog), engine, bound, log, clock, lambda: show(banner))


def demo_settings(folder: Path, address: str, stripe: SimulatedStripe) -> Settings:
    """As an operator would set them, with a Stripe that only pretends."""
    return Settings(
        data_dir=folder,
        server=ServerSettings(shutdown_s=SHUTDOWN_S, public_url=f"http://{address}"),
        accounts=AccountSettings(trial_network_day_max=TRIALS_MAX),
        payments=PaymentSettings(
            stripe_secret_key=SecretStr(stripe.api_key),
            stripe_webhook_secret=SecretStr(stripe.webhook_secret),
            stripe_url=stripe.url,
        ),
        log_level="warning",
    )


def payment_page(settings: Settings, engine: Engine, account_id: AccountId, clock: Clock, log: EventLog) -> str:
    """The address of a page where somebody can pay in."""
    threads = DatabaseThreads()
    cashier = open_cashier(settings, Desk(engine, threads, clock, IdSource()), log)
    threads.close()
    assert cashier is not None, "the demo has a key for its Stripe"
    wish = TopupWish(account_id, TOPUP_USD, None, "en", saves_card=False, address_digest=None)
    with write(engine) as connection:
        topup = begin_topup(connection, cashier.ids, cashier.terms, wish, now_ns=clock.now_ns())
    cashier.open_page(topup, cashier.customer(account_id), saves_card=False, open_s=PAGE_OPEN_S)
    with read(engine) as connection:
        opened = topup_by_id(connection, topup.id)
    assert opened is not None, "it was made above"
    return opened.session_url or ""


def _port(environ: Mapping[str, str]) -> int:
    text = environ.get("PORT") or PORT_DEFAULT
    if not (text.isascii() and text.isdigit() and int(text) <= 65_535):
        raise AddressUnusable("PORT: needs a whole number from 0 to 65535.")
    return int(text)


def _real_providers(names: list[str]) -> str:
    if not names:
        return "Set DEEPSEEK_API_KEY, MOONSHOT_API_KEY or another provider's variable to serve real models too."
    return f"Their keys are set, so these are served too, for real money: {', '.join(names)}."


def demo_tables(upstream_port: int) -> dict[str, object]:
    """[providers.simulated] and its model, as an operator would write them."""
    price = {"prompt": "0.28", "cache_read": "0.028", "completion": "1.10"}
    channel = {"provider": "simulated", "model": MODEL, "prices": [price]}
    return {
        "providers": {
            "simulated": {
                "name": "Simulated provider",
                "base_url": f"http://{HOST}:{upstream_port}/v1",
                "api_key": "",
                "dialect": "deepseek",
                "simulated": True,
            }
        },
        "models": [
            {
                "id": PUBLIC_MODEL,
                "name": "Simulated chat",
                "description": "Streams made-up text. There is no model behind it.",
                "context_tokens": 65_536,
                "output_tokens_max": 8_192,
                "channels": [channel],
            }
        ],
    }


def make_customer(engine: Engine, settings: Settings, clock: Clock, password: str) -> tuple[AccountId, Secret]:
    """An account with credit and somebody who may sign in, and its key."""
    now_ns = clock.now_ns()
    passwords = Passwords(seal_of(settings), memory_kib=settings.accounts.password_memory_kib)
    hashed = asyncio.run(passwords.hash(password))
    passwords.close()
    with write(engine) as connection:
        account_id = create_account(
            connection, IdSource(), name="Demo", email=EMAIL, verified_at_ns=now_ns, now_ns=now_ns
        )
        add_person(connection, account_id, EMAIL, role="customer", language="en")
        set_password(connection, account_id, hashed, now_ns=now_ns)
        grant_credit(connection, account_id, amount_nusd=CREDIT_NUSD, idempotency_key="demo", now_ns=now_ns)
        issued = issue_key(connection, peppers_of(settings), account_id=account_id, name="demo", now_ns=now_ns)
    return account_id, issued.secret


@contextmanager
def simulated_provider(clock: Clock) -> Iterator[int]:
    """Runs the simulated provider on an event loop and thread of its own; gives its port."""
    loop = asyncio.new_event_loop()
    upstream = SimulatedUpstream(clock=clock)
    thread = threading.Thread(target=loop.run_forever, name="simulated provider", daemon=True)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(upstream.start(), loop).result(UPSTREAM_START_S_MAX)
        yield upstream.port
    finally:
        asyncio.run_coroutine_threadsafe(upstream.stop(), loop).result(UPSTREAM_START_S_MAX)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(UPSTREAM_START_S_MAX)
        loop.close()
