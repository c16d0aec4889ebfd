"""The audit of a deployment as a black box: what can be seen from outside, and in folders that one may read."""

import asyncio
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import dragonfly
from dragonfly.privacy.audit.decoys import missed_decoys
from dragonfly.privacy.audit.instance import AuditFailed, Where
from dragonfly.privacy.audit.matrix import Canaries, Client, Driven, abandon, exchange, look_at_answer
from dragonfly.privacy.audit.needles import WORD_LENGTH_MIN, needles_for
from dragonfly.privacy.audit.places import Search
from dragonfly.privacy.audit.report import Report, code_digest
from dragonfly.privacy.audit.run import OPTIONAL_PAGES, PAGES, SECRET_PART, search_database
from dragonfly.privacy.audit.shapes import FORWARDED, REFUSED, Ask, head

NO_STORE = "no-store"


@dataclass(frozen=True, slots=True)
class OutsidePlan:
    """A deployment, and how to ask it."""

    url: str
    """https://api.example.com, with or without /v1."""
    key: str
    model: str
    """Whose provider is really asked, with short requests that are paid for."""
    look: tuple[Path, ...] = ()
    """Folders to search afterwards, such as the data directory and that of the log."""
    database_url: str = ""
    """Of the deployment's database, to search its rows and, on this machine, a server's files; "": not searched."""


@dataclass(slots=True)
class Faults:
    """What is wrong with answers besides canaries in them; each is told once, with the first place."""

    found: list[str] = field(default_factory=list)
    _known: set[str] = field(default_factory=set)

    def note(self, fault: str, place: str) -> None:
        if fault not in self._known:
            self._known.add(fault)
            self.found.append(f"{fault}: {place}")

    def look_at_head(self, place: str, answer: bytes) -> None:
        """No cookie, and nothing that a cache on the way may keep."""
        if not answer:
            return  # what is not HTTP may be refused without words
        head, _, _ = answer.partition(b"\r\n\r\n")
        _, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        if "set-cookie" in headers:
            self.note("a cookie is set", place)
        if NO_STORE not in headers.get("cache-control", ""):
            self.note("a cache may keep it", place)

    def look_at_page(self, place: str, answer: bytes) -> None:
        """What stands on it is there, and a page allows no script from elsewhere."""
        head, _, _ = answer.partition(b"\r\n\r\n")
        text = head.decode("latin-1").lower()
        if not text.startswith("http/1.1 200"):
            self.note("a page is missing", place)
        elif "text/html" in text and "default-src 'none'" not in text:
            self.note("a page has no strict Content-Security-Policy", place)


def audit_from_outside(plan: OutsidePlan) -> Report:
    """Asks in every shape; no error, head or page may repeat a canary, nor any file below the given folders hold one.

    AuditFailed when nothing answers there.
    """
    began_s, at_ns = time.monotonic(), time.time_ns()
    with tempfile.TemporaryDirectory(prefix="dragonfly-audit-") as own:
        planted, missed = missed_decoys(Path(own))
    canaries, driven = Canaries(), Driven()
    search = Search((("canary", needles_for(canaries.run)),))
    if len(secret := plan.key[SECRET_PART]) >= WORD_LENGTH_MIN:
        search.needles += (("customer's key", needles_for(secret)),)
    faults = Faults()
    asyncio.run(_ask(plan, where_of(plan.url), canaries, search, driven, faults))
    if set(driven.statuses) == {"none"}:
        raise AuditFailed("Nothing that speaks HTTP answers at that address.")
    if driven.statuses["200"] == 0:
        faults.note("no request was answered", "the key has no credit, or the model is not on offer")
    for folder in plan.look:
        search.look_below(str(folder), folder)
    if plan.database_url:
        search_database(search, plan.database_url)
    return Report(
        version=f"{dragonfly.__version__} (the auditor's)",
        code_digest=code_digest(),
        at_ns=at_ns,
        took_s=round(time.monotonic() - began_s, 1),
        database="unknown",
        is_reduced=True,
        cases=driven.cases,
        shapes=len(driven.shapes),
        endings=len(driven.endings),
        statuses=dict(driven.statuses),
        places=search.places_seen,
        bytes_seen=search.bytes_seen,
        areas=search.areas,
        hits=(*(f"{hit.place} ({hit.form})" for hit in search.hits), *faults.found),
        hits_beyond=search.hits_beyond,
        decoys=planted,
        decoys_missed=tuple(missed),
        not_seen=("everything on that machine outside the named folders", *search.unreadable),
        lockdown="unknown",
    )


def where_of(url: str) -> Where:
    """The address in a URL; AuditFailed when there is none."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise AuditFailed("That is not an address; write https://api.example.com.") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise AuditFailed("That is not an address; write https://api.example.com.")
    return Where(parts.hostname, port or (443 if parts.scheme == "https" else 80), parts.scheme == "https")


async def _ask(
    plan: OutsidePlan, where: Where, canaries: Canaries, search: Search, driven: Driven, faults: Faults
) -> None:
    host = where.host if where.port in (80, 443) else where.authority
    for ending, shapes in (("as it comes", FORWARDED), ("refused", REFUSED)):
        for name, shape in shapes.items():
            answer = await exchange(where, shape(Ask(canaries.next(name), plan.model, plan.key, host)))
            is_error = ending == "refused" and not answer.startswith(b"HTTP/1.1 200")
            look_at_answer(search, name, answer, is_error=is_error)
            faults.look_at_head(name, answer)
            driven.note(name, ending, answer)
    for page in PAGES:
        ask = Ask("", plan.model, plan.key, host)
        answer = await exchange(where, head(ask, method="GET", target=page))
        search.look_at(f"pages: {page}", answer)
        if page not in OPTIONAL_PAGES:
            faults.look_at_head(page, answer)
            faults.look_at_page(page, answer)
    for case, mark in ((Client.GONE_EARLY, b""), (Client.GONE_MIDWAY, b"\r\n\r\n")):
        request = FORWARDED["stream"](Ask(canaries.next(case), plan.model, plan.key, host))
        driven.note("stream", case, await abandon(where, request, mark))
