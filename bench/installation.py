"""A Dragonfly installation in this process: database, account with credit, key. For what is measured without HTTP."""

import secrets
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import Engine

from bench.comparators.dragonfly import CREDIT_USD, REQUESTS_PER_MINUTE, settings_text
from dragonfly.accounts.actions import create_account
from dragonfly.admission.gate import Gate
from dragonfly.app.setup import Configured, configure, peppers_of, set_up_store
from dragonfly.core.clock import Clock, SystemClock
from dragonfly.core.ids import IdSource
from dragonfly.core.money import from_usd
from dragonfly.infra.database import write
from dragonfly.infra.logging import EventLog, Level
from dragonfly.keys.actions import issue_key
from dragonfly.keys.rules import KeyLimits
from dragonfly.ledger.actions import grant_credit

CONCURRENCY_MAX = 100_000


class Installation(NamedTuple):
    """Ready to be served."""

    configured: Configured
    engine: Engine
    keys: tuple[str, ...]
    """One for each account."""


@contextmanager
def installation(
    folder: Path,
    *,
    mock_port: int,
    requests_per_minute: int = REQUESTS_PER_MINUTE,
    accounts: int = 1,
    database_url: str = "",
) -> Iterator[Installation]:
    """Create it in an empty folder; the engine is closed at the end. Without a URL its database is a file there."""
    path = folder / "dragonfly.toml"
    path.write_text(settings_text(port=0, mock_port=mock_port, data_dir=str(folder / "data")))
    given = {}
    if database_url:
        # A server may know the schema already, from the run before, while the folder has no pepper yet.
        given = {"DRAGONFLY_DATABASE_URL": database_url, "DRAGONFLY_KEY_PEPPER": secrets.token_hex()}
    configured = configure(given, path)
    engine = set_up_store(configured.settings, now_ns=time.time_ns())
    try:
        keys = tuple(_customer(configured, engine, requests_per_minute) for _ in range(accounts))
        yield Installation(configured, engine, keys)
    finally:
        engine.dispose()


def _customer(configured: Configured, engine: Engine, requests_per_minute: int) -> str:
    now_ns = SystemClock().now_ns()
    limits = KeyLimits(requests_per_minute=requests_per_minute, concurrency_max=CONCURRENCY_MAX)
    with write(engine) as connection:
        account = create_account(
            connection, IdSource(), name="Bench", email=None, verified_at_ns=now_ns, now_ns=now_ns
        )
        grant_credit(connection, account, amount_nusd=from_usd(CREDIT_USD), idempotency_key="bench", now_ns=now_ns)
        key = issue_key(
            connection,
            peppers_of(configured.settings),
            account_id=account,
            name="bench",
            limits=limits,
            now_ns=now_ns,
        )
    return key.secret.reveal()


def open_gate(installed: Installation, clock: Clock) -> Gate:
    """The real gate over the installation, not started yet; call inside the event loop that will use it."""
    settings = installed.configured.settings
    return Gate(
        settings.admission,
        installed.engine,
        catalog=installed.configured.catalog,
        peppers=peppers_of(settings),
        clock=clock,
        ids=IdSource(),
        log=EventLog(sys.stderr.buffer, clock, level=Level.ERROR),
    )
