"""What every start needs before anything runs: settings, catalogue, data directory, database, pepper."""

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Engine, make_url
from sqlalchemy.exc import ArgumentError

from dragonfly.app.mail import mail_problems
from dragonfly.app.payments import payment_problems
from dragonfly.catalog.build import build_catalog
from dragonfly.catalog.catalog import Catalog
from dragonfly.catalog.errors import CatalogInvalid
from dragonfly.core.addresses import parse_networks
from dragonfly.core.credentials import Seal
from dragonfly.core.errors import DragonflyError
from dragonfly.infra.database import open_engine
from dragonfly.infra.lockdown import OFF, Lockdown
from dragonfly.keys.rules import PEPPER_BYTES_MIN, Peppers
from dragonfly.migrations import applied_revision, newest_revision, upgrade
from dragonfly.settings import CatalogSettings, Settings, SettingsInvalid, find_settings
from dragonfly.usage.partitions import make_days

DATABASE_FILE = "dragonfly.db"
PEPPER_FILE = "key-pepper"
PEPPER_BYTES = 32
DIRECTORY_MODE = 0o700
SECRET_MODE = 0o600
METRICS_TOKEN_LENGTH_MIN = 16


class SchemaOutdated(DragonflyError):
    """The database was made by another version, or is empty."""

    code = "schema_outdated"

    def __init__(self, applied: str | None) -> None:
        empty = "The database is empty. Check data_dir and database_url, or run `dragonfly migrate` to set it up."
        other = "The database has another schema than this version: run `dragonfly migrate` first."
        super().__init__(empty if applied is None else other)


@dataclass(frozen=True, slots=True)
class Configured:
    """A start whose settings are all right."""

    settings: Settings
    catalog: Catalog
    lockdown: Lockdown = OFF
    """What the process has taken from itself."""


def configure(environ: Mapping[str, str], config: Path | None = None) -> Configured:
    """Settings and catalogue. Raises SettingsInvalid with everything that is wrong with either."""
    found = find_settings(environ, config)
    problems = list(found.problems)
    settings = found.settings
    catalog = None
    try:
        catalog = build_catalog(settings.catalog if settings else CatalogSettings(), found.tables, environ)
    except CatalogInvalid as invalid:
        problems += invalid.problems
    if settings is not None:
        problems += _contradictions(settings)
    if problems or settings is None or catalog is None:
        raise SettingsInvalid(tuple(problems))
    return Configured(settings, catalog)


def _contradictions(settings: Settings) -> list[str]:
    """What each value alone does not show."""
    problems = []
    for name, networks in (("proxies", settings.server.proxies), ("cdn", settings.server.cdn)):
        try:
            parse_networks(networks)
        except ValueError:
            problems.append(f"server.{name}: needs addresses or networks such as 10.0.0.0/8.")
    if settings.server.workers > 1 and is_sqlite(settings):
        problems.append(
            "server.workers: SQLite lets one process write at a time, and answers would wait for their turn."
            " Leave it at 1, or move to PostgreSQL with `dragonfly database copy`."
        )
    pepper = settings.key_pepper.get_secret_value()
    if pepper and len(pepper.encode()) < PEPPER_BYTES_MIN:
        problems.append(f"key_pepper: needs {PEPPER_BYTES_MIN} bytes or more.")
    token = settings.server.metrics_token.get_secret_value()
    if token and (len(token) < METRICS_TOKEN_LENGTH_MIN or not token.isascii()):
        problems.append(f"server.metrics_token: needs {METRICS_TOKEN_LENGTH_MIN} ASCII characters or more.")
    if settings.limits.body_bytes_open_max < settings.limits.body_bytes_max:
        problems.append("limits.body_bytes_open_max: needs at least limits.body_bytes_max.")
    if settings.admission.heartbeat_dead_s < 3 * settings.admission.heartbeat_s:
        problems.append("admission.heartbeat_dead_s: needs at least three times admission.heartbeat_s.")
    if settings.admission.refresh_s > 1:
        problems.append("admission.refresh_s: needs 1 or less, so that a revoked key is refused within a second.")
    return problems + mail_problems(settings) + payment_problems(settings)


def is_sqlite(settings: Settings) -> bool:
    """The installation's database is a file, in data_dir or elsewhere."""
    return not settings.database_url or settings.database_url.startswith("sqlite")


def open_database(settings: Settings) -> Engine:
    """The engine; the data directory and an SQLite file are made when they are missing. No schema is looked at."""
    url = settings.database_url
    try:
        if not url:
            settings.data_dir.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
            url = f"sqlite:///{settings.data_dir / DATABASE_FILE}"
        return open_engine(url)
    except OSError as failure:
        name = "database_url" if settings.database_url else "data_dir"
        raise SettingsInvalid((f"{name}: cannot be used ({failure.strerror}).",)) from None
    except (ValueError, ArgumentError):
        raise SettingsInvalid(
            ("database_url: needs sqlite:///path/to/file.db or postgresql://user@host/database.",)
        ) from None


def database_file(settings: Settings) -> Path:
    """The SQLite file that the settings point to."""
    path = make_url(settings.database_url).database if settings.database_url else None
    return Path(path) if path else data_folder(settings) / DATABASE_FILE


def data_folder(settings: Settings) -> Path:
    """The data directory, made when it is missing."""
    settings.data_dir.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
    return settings.data_dir


def open_store(settings: Settings) -> Engine:
    """The engine of a database that this version can use; SchemaOutdated for one that it cannot."""
    engine = open_database(settings)
    _require_schema(engine)
    return engine


def set_up_store(settings: Settings, *, now_ns: int) -> Engine:
    """As open_store, but an empty database gets its tables, so that the first start needs no second command."""
    engine = open_database(settings)
    if applied_revision(engine) is None:
        migrate_store(settings, engine)
    _require_schema(engine)
    make_days(engine, now_ns=now_ns)
    return engine


def migrate_store(settings: Settings, engine: Engine) -> str:
    """Brings the database to this version's schema and returns its name; an empty one also gets its pepper."""
    if applied_revision(engine) is None and not settings.key_pepper.get_secret_value():
        _make_pepper(settings)
    return upgrade(engine)


def _require_schema(engine: Engine) -> None:
    applied = applied_revision(engine)
    if applied != newest_revision():
        raise SchemaOutdated(applied)


def is_at_head(engine: Engine) -> bool:
    """For readiness: the database answers and has this version's schema."""
    return applied_revision(engine) == newest_revision()


def peppers_of(settings: Settings) -> Peppers:
    """The secret under which keys are stored; SettingsInvalid when it is missing."""
    return Peppers({1: _pepper_of(settings)})


def seal_of(settings: Settings) -> Seal:
    """Signs and digests the credentials of people, under the same secret. SettingsInvalid when it is missing."""
    return Seal({1: _pepper_of(settings)})


def _pepper_of(settings: Settings) -> bytes:
    """From the settings, else the file made with the database.

    A missing file is an error and never replaced: with another pepper, every key and password would be refused.
    """
    pepper = settings.key_pepper.get_secret_value().encode()
    path = settings.data_dir / PEPPER_FILE
    try:
        pepper = pepper or path.read_bytes().strip()
    except OSError as failure:
        raise SettingsInvalid(
            (
                f"key_pepper: not set, and {path} cannot be read ({failure.strerror})."
                " Restore the file or set the pepper that the keys were made with.",
            )
        ) from None
    if len(pepper) < PEPPER_BYTES_MIN:
        raise SettingsInvalid((f"key_pepper: {path} is damaged; restore it from a backup.",))
    return pepper


def _make_pepper(settings: Settings) -> None:
    """Makes the file in one step, or leaves the one that is there."""
    path = settings.data_dir / PEPPER_FILE
    if path.exists():
        return
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        settings.data_dir.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
        _write_durably(draft, os.urandom(PEPPER_BYTES).hex().encode() + b"\n")
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
        draft.unlink()
    except OSError as failure:
        raise SettingsInvalid((f"data_dir: {path} cannot be written ({failure.strerror}).",)) from None


def _write_durably(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, SECRET_MODE)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
