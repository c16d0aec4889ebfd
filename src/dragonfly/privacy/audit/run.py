"""One audit from beginning to end."""

import asyncio
import os
import secrets
import signal
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Engine, make_url

import dragonfly
from dragonfly.core.secrets import KEY_CHECKSUM_LENGTH, KEY_ID_LENGTH, KEY_PREFIX
from dragonfly.infra.database import open_engine, read
from dragonfly.privacy.audit.decoys import missed_decoys
from dragonfly.privacy.audit.instance import METRICS_TOKEN, PROGRAM, Instance, Wishes
from dragonfly.privacy.audit.matrix import Canaries, Client, Drive, Driven, exchange
from dragonfly.privacy.audit.needles import needles_for
from dragonfly.privacy.audit.places import Search, new_files
from dragonfly.privacy.audit.provider import EchoingProvider
from dragonfly.privacy.audit.report import Report, code_digest
from dragonfly.privacy.audit.shapes import Ask, head
from dragonfly.privacy.inventory import all_tables

SHARED_FOLDERS = (
    Path("/tmp"),
    Path("/var/tmp"),
    Path("/dev/shm"),
    Path("/var/crash"),
    Path("/var/lib/systemd/coredump"),
)
ROWS_PAGE = 5_000
SECRET_PART = slice(len(KEY_PREFIX) + KEY_ID_LENGTH, -KEY_CHECKSUM_LENGTH)
METRICS = "/metrics"
AUDIT_PAGE = "/privacy/audit"
PAGES = (
    "/v1/key",
    "/v1/credits",
    "/v1/models",
    "/healthz",
    "/readyz",
    "/openapi.json",
    METRICS,
    "/privacy",
    "/privacy/status",
    AUDIT_PAGE,
    "/stats",
    "/sign-in",
    "/sign-up",
    "/support",
    "/dashboard",
)
OPTIONAL_PAGES = frozenset({METRICS, "/openapi.json", AUDIT_PAGE})
"""Missing where they are switched off, or where there has been no audit yet."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be audited and how much of it."""

    is_reduced: bool = False
    database_url: str = ""
    """Of an empty PostgreSQL database that may be filled; "": SQLite in the audit's own folder."""
    program: tuple[str, ...] = PROGRAM


def audit(plan: Plan) -> Report:
    """Audits this version. AuditFailed when it cannot be done."""
    with tempfile.TemporaryDirectory(prefix="dragonfly-audit-") as folder:
        return asyncio.run(_audit(plan, Path(folder)))


async def _audit(plan: Plan, folder: Path) -> Report:
    began_s, at_ns = time.monotonic(), time.time_ns()
    planted, missed = missed_decoys(folder / "decoys")
    canaries, driven = Canaries(), Driven()
    secret = secrets.token_hex(20)
    search = Search((("canary", needles_for(canaries.run)), ("provider's key", needles_for(secret))))
    work = folder / "instance"
    work.mkdir()
    (folder / "credential").write_text(secret)
    async with EchoingProvider() as provider:
        wishes = Wishes(work, provider.port, folder / "credential", plan.database_url, plan.program)
        instance = Instance(wishes)
        await instance.set_up()
        search.needles += (("customer's key", needles_for(instance.key[SECRET_PART])),)
        await _drive(Drive(instance, canaries, search, driven, plan.is_reduced), _pages(instance))
    search_everywhere(search, instance, at_ns / 1e9)
    return Report(
        version=dragonfly.__version__,
        code_digest=code_digest(),
        at_ns=at_ns,
        took_s=round(time.monotonic() - began_s, 1),
        database="postgresql" if plan.database_url else "sqlite",
        is_reduced=plan.is_reduced,
        cases=driven.cases,
        shapes=len(driven.shapes),
        endings=len(driven.endings),
        statuses=dict(driven.statuses),
        places=search.places_seen,
        bytes_seen=search.bytes_seen,
        areas=search.areas,
        hits=tuple(f"{hit.place} ({hit.form})" for hit in search.hits),
        hits_beyond=search.hits_beyond,
        decoys=planted,
        decoys_missed=tuple(missed),
        not_seen=tuple(search.unreadable),
        lockdown=_lockdown_of(work / "log"),
    )


async def _drive(drive: Drive, pages: dict[str, bytes]) -> None:
    """Without the walls first: nothing but the code keeps things from being written, and the kernel shows what the
    process holds open. Then with the walls, for the end that writes memory to a file."""
    instance, search = drive.instance, drive.search
    async with instance.serving(lockdown="off"):
        await drive.endings()
        await drive.refusals()
        await drive.clients()
        for page, request in pages.items():
            search.look_at(f"pages: {page}", await exchange(instance.where, request))
        assert instance.process is not None
        search.look_at_process(instance.process.pid)
        _search_folder(search, instance)
        await drive.ends(Client.SHUTDOWN, signal.SIGTERM)
    async with instance.serving(lockdown="off"):
        await drive.ends(Client.KILLED, signal.SIGKILL)
        _search_folder(search, instance)
    async with instance.serving(lockdown="available"):
        await drive.ends(Client.ABORTED, signal.SIGABRT)
    await instance.command("backup")
    await instance.command("privacy", "export", instance.account_id, "export.zip")


def _pages(instance: Instance) -> dict[str, bytes]:
    ask = Ask("", "", instance.key, "127.0.0.1")
    keys = {METRICS: METRICS_TOKEN}
    return {page: head(ask, target=page, method="GET", key=keys.get(page, "")) for page in PAGES}


def _search_folder(search: Search, instance: Instance) -> None:
    search.look_below("folder", instance.wishes.folder)


def search_everywhere(search: Search, instance: Instance, since_s: float) -> None:
    """What is left when everything has ended."""
    _search_folder(search, instance)
    for folder in SHARED_FOLDERS:
        for path in new_files(folder, since_s):
            search.look_into(f"{folder}: {path.name}", path)
    url = instance.wishes.database_url or f"sqlite:///{instance.data / 'dragonfly.db'}"
    search_database(search, url)


def search_database(search: Search, url: str) -> None:
    """Every value of every row, and on this machine the files of a PostgreSQL server."""
    engine = open_engine(url, create=False)
    try:
        for row in _rows(engine):
            search.look_at("rows of the database", row)
        if make_url(url).get_backend_name() != "sqlite":
            _search_server(search, engine)
    finally:
        engine.dispose()


def _rows(engine: Engine) -> Iterator[bytes]:
    """Every value of every table, as text."""
    with read(engine) as connection:
        for table in all_tables():
            for page in connection.execute(table.select()).partitions(ROWS_PAGE):
                yield "\n".join("\t".join(str(value) for value in row) for row in page).encode()


def _search_server(search: Search, engine: Engine) -> None:
    """The files of a PostgreSQL server on this machine: tables, indexes, journal, its own log."""
    with read(engine) as connection:
        folder = Path(str(connection.exec_driver_sql("SHOW data_directory").scalar_one()))
    if not os.access(folder, os.R_OK | os.X_OK):
        search.unreadable.append("the files of the PostgreSQL server")
        return
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            search.look_below(f"PostgreSQL {path.name}", path)
        else:
            search.look_into(f"PostgreSQL: {path.name}", path)


def _lockdown_of(log: Path) -> str:
    """What the last start said about its walls."""
    last = [line for line in log.read_bytes().splitlines() if b"lock" in line][-1:]
    return "complete" if last and b'"locked_down"' in last[0] else "incomplete on this machine"
