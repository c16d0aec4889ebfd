"""The audit of a deployment as a black box: what can be seen from outside, and in folders that one may read."""

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import dragonfly
from dragonfly.privacy.audit.instance import AuditFailed, Where
from dragonfly.privacy.audit.matrix import Canaries, Driven, exchange, look_at_answer
from dragonfly.privacy.audit.needles import needles_for
from dragonfly.privacy.audit.places import Search
from dragonfly.privacy.audit.report import Report, code_digest
from dragonfly.privacy.audit.run import PAGES
from dragonfly.privacy.audit.shapes import FORWARDED, REFUSED, Ask, head


@dataclass(frozen=True, slots=True)
class OutsidePlan:
    """A deployment, and how to ask it."""

    url: str
    """https://api.example.com, with or without /v1."""
    key: str
    model: str
    """Whose provider is really asked, with thirteen short requests that are paid for."""
    look: tuple[Path, ...] = ()
    """Folders to search afterwards, such as the data directory and that of the log."""


def audit_from_outside(plan: OutsidePlan) -> Report:
    """Asks in every shape; no error, head or page may repeat a canary, nor any file below the given folders hold one.

    AuditFailed when nothing answers there.
    """
    began_s, at_ns = time.monotonic(), time.time_ns()
    canaries, driven = Canaries(), Driven()
    search = Search((("canary", needles_for(canaries.run)),))
    asyncio.run(_ask(plan, where_of(plan.url), canaries, search, driven))
    if set(driven.statuses) == {"none"}:
        raise AuditFailed("Nothing that speaks HTTP answers at that address.")
    for folder in plan.look:
        search.look_below(str(folder), folder)
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
        hits=tuple(f"{hit.place} ({hit.form})" for hit in search.hits),
        hits_beyond=search.hits_beyond,
        decoys=0,
        decoys_missed=(),
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


async def _ask(plan: OutsidePlan, where: Where, canaries: Canaries, search: Search, driven: Driven) -> None:
    host = where.host if where.port in (80, 443) else where.authority
    for ending, shapes in (("as it comes", FORWARDED), ("refused", REFUSED)):
        for name, shape in shapes.items():
            answer = await exchange(where, shape(Ask(canaries.next(name), plan.model, plan.key, host)))
            is_error = ending == "refused" and not answer.startswith(b"HTTP/1.1 200")
            look_at_answer(search, name, answer, is_error=is_error)
            driven.note(name, ending, answer)
    for page in PAGES:
        ask = Ask("", plan.model, plan.key, host)
        search.look_at(f"the page {page}", await exchange(where, head(ask, method="GET", target=page)))
