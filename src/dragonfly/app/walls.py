"""What a serving process may still do once it is locked down: computed from its settings and catalogue."""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import BaseModel
from sqlalchemy import make_url

from dragonfly.app.setup import Configured
from dragonfly.infra.lockdown import LOCKDOWN_INCOMPLETE, OFF, Lockdown, Wants, lock_down
from dragonfly.infra.logging import EventLog
from dragonfly.settings import Section, Settings

HTTPS, NAMES, POSTGRESQL = 443, 53, 5432
SCHEME_PORTS = {"https": HTTPS, "http": 80, "postgresql": POSTGRESQL, "postgres": POSTGRESQL}


def close_walls(configured: Configured, log: EventLog) -> Lockdown:
    """Locks this process down as `privacy.lockdown` says. LockdownUnavailable when it demands what is not there."""
    settings = configured.settings
    if settings.privacy.lockdown == "off":
        log.write(LOCKDOWN_INCOMPLETE, missing=OFF.missing)
        return OFF
    wants = Wants(folders=folders_of(settings), ports=ports_of(configured))
    return lock_down(wants, demanded=settings.privacy.lockdown == "required", log=log)


def folders_of(settings: Settings) -> tuple[Path, ...]:
    """The data directory, and that of an SQLite file which lies elsewhere."""
    settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    folders = [settings.data_dir]
    if settings.database_url.startswith("sqlite"):
        folders.append(Path(make_url(settings.database_url).database or "").parent)
    return tuple(folders)


def ports_of(configured: Configured) -> tuple[int, ...]:
    """Where connections may go: HTTPS, name servers, every provider's port, and every port that a setting names."""
    supplies = [supply for model in configured.catalog.models.values() for supply in model.supplies]
    ports = {HTTPS, NAMES, *(supply.channel.origin.port for supply in supplies), *_named(configured.settings)}
    return tuple(sorted(ports - {0}))


def _named(section: BaseModel) -> Iterator[int]:
    """Ports of addresses among the settings, and settings that are ports."""
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, Section):
            yield from _named(value)
        elif isinstance(value, int) and (name == "port" or name.endswith("_port")):
            yield value
        elif isinstance(value, str) and "://" in value:
            address = urlsplit(value)
            yield address.port or SCHEME_PORTS.get(address.scheme.partition("+")[0], 0)
