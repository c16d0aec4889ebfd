"""/api/admin/channels, announcements and the audit log; /api/announcements for everybody."""

from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, Field
from sqlalchemy import Connection
from starlette.requests import Request

from dragonfly.api.desk import Desk, Moderate
from dragonfly.api.operating import Because, Case, Operator, Reason
from dragonfly.api.repeats import kept
from dragonfly.api.shapes import PAGE_DEFAULT, Cursor, Limit, Moment, Page, Strict, cursor_position, page_of
from dragonfly.catalog.actions import pause_channel, resume_channel
from dragonfly.catalog.catalog import Catalog
from dragonfly.catalog.prices import PriceVersion
from dragonfly.catalog.queries import paused_channels
from dragonfly.catalog.quotes import moment_text
from dragonfly.core.errors import DragonflyError
from dragonfly.core.money import usd_text
from dragonfly.operations.actions import Announced, announce, withdraw
from dragonfly.operations.queries import (
    Announcement,
    AuditRow,
    announcements_shown,
    audit_page,
    first_broken_row,
)
from dragonfly.operations.rules import TARGET_LENGTH_MAX, TEXT_LENGTH_MAX, AuditAction, Severity

SeverityName = Literal["info", "warning", "incident"]
Words = Annotated[str, Field(min_length=1, max_length=TEXT_LENGTH_MAX)]


class ChannelNotFound(DragonflyError):
    code = "channel_not_found"
    status = 404

    def __init__(self) -> None:
        super().__init__("The catalogue has no such channel. GET /api/admin/channels lists them.")


class ChannelSwitched(Strict):
    """Which channel, and why."""

    channel_id: Annotated[str, Field(min_length=1, max_length=256)]
    reason: Reason


class ChannelShown(BaseModel):
    """One way to reach one model, with what customers pay now in USD per million tokens; null: not sold now."""

    id: str
    model: str
    provider: str
    in_service: bool
    prompt_usd: str | None
    completion_usd: str | None


class AnnouncementWanted(Strict):
    """What everybody is to be told, in both languages."""

    severity: SeverityName = "info"
    text_en: Words
    text_zh: Words
    starts_at: Annotated[Moment | None, Field(description="null: now.")] = None
    ends_at: Annotated[Moment | None, Field(description="null: until it is withdrawn.")] = None
    reason: Reason


class AnnouncementShown(BaseModel):
    """An announcement."""

    id: str
    severity: SeverityName
    text_en: str
    text_zh: str
    starts_at: str
    ends_at: str | None


class Withdrawn(BaseModel):
    """An announcement that is shown no longer."""

    id: str
    withdrawn: bool = True


class AuditShown(BaseModel):
    """Who did what to whom, why and when."""

    number: int
    actor_id: str
    action: str
    target: str
    reason: str
    at: str


class AuditProof(BaseModel):
    """Whether the log is whole."""

    is_whole: bool
    first_broken: Annotated[int | None, Field(description="The first row that does not follow from the one before.")]


def admin_service_routes(desk: Desk, catalog: Catalog) -> APIRouter:
    """Channels, announcements and the audit log; for operators with a second factor."""
    routes = APIRouter(prefix="/api/admin", tags=["operators"])

    @routes.get("/channels", operation_id="admin_list_channels", summary="Channels with their prices")
    async def channels(principal: Operator, limit: Limit = PAGE_DEFAULT, cursor: Cursor = None) -> Page[ChannelShown]:
        position = cursor_position("channels", cursor, str)
        paused = await desk.read(paused_channels)
        shown = sorted(_channels(catalog, paused, desk.clock.now_ns()), key=lambda channel: channel.id)
        rest = [channel for channel in shown if position is None or channel.id > str(position[0])]
        page, next_cursor = page_of(rest, limit, "channels", lambda channel: (channel.id,))
        return Page(data=page, next_cursor=next_cursor)

    @routes.post(
        "/channels/pause",
        operation_id="admin_pause_channel",
        summary="Take a channel out of service",
        openapi_extra=kept(),
    )
    async def pause(principal: Operator, wanted: ChannelSwitched) -> ChannelShown:
        """No new request goes there from within a second on; running ones end as they would."""
        action = AuditAction.CHANNEL_PAUSE
        return await desk.write(
            lambda connection: _switch(Case(connection, desk, principal), catalog, wanted, action)
        )

    @routes.post(
        "/channels/resume",
        operation_id="admin_resume_channel",
        summary="Put a channel back into service",
        openapi_extra=kept(),
    )
    async def resume(principal: Operator, wanted: ChannelSwitched) -> ChannelShown:
        action = AuditAction.CHANNEL_RESUME
        return await desk.write(
            lambda connection: _switch(Case(connection, desk, principal), catalog, wanted, action)
        )

    @routes.get("/audit", operation_id="admin_audit", summary="What operators did, newest first")
    async def audit(
        principal: Operator,
        target: Annotated[str | None, Query(max_length=TARGET_LENGTH_MAX)] = None,
        limit: Limit = PAGE_DEFAULT,
        cursor: Cursor = None,
    ) -> Page[AuditShown]:
        position = cursor_position("audit", cursor, int)
        before = None if position is None else int(position[0])
        found = await desk.read(
            lambda connection: audit_page(connection, before=before, target=target, limit=limit + 1)
        )
        page, next_cursor = page_of(found, limit, "audit", lambda row: (row.number,))
        return Page(data=[_audit_shown(row) for row in page], next_cursor=next_cursor)

    @routes.get("/audit/proof", operation_id="admin_audit_proof", summary="Check that the log is whole")
    async def proof(principal: Operator) -> AuditProof:
        broken = await desk.read(first_broken_row)
        return AuditProof(is_whole=broken is None, first_broken=broken)

    return routes


def announcement_routes(desk: Desk, moderate: Moderate) -> APIRouter:
    """Announcements: operators write them, everybody reads them."""
    routes = APIRouter(prefix="/api", tags=["announcements"])

    @routes.get("/announcements", operation_id="list_announcements", summary="What everybody is told now")
    async def shown(request: Request, limit: Limit = PAGE_DEFAULT, cursor: Cursor = None) -> Page[AnnouncementShown]:
        """Needs no session."""
        moderate(request)
        position = cursor_position("announcements", cursor, str)
        after = "" if position is None else str(position[0])
        now_ns = desk.clock.now_ns()
        found = await desk.read(
            lambda connection: announcements_shown(connection, now_ns=now_ns, after=after, limit=limit + 1)
        )
        page, next_cursor = page_of(found, limit, "announcements", lambda one: (one.id,))
        return Page(data=[_announcement_shown(one) for one in page], next_cursor=next_cursor)

    @routes.post(
        "/admin/announcements",
        status_code=201,
        operation_id="admin_announce",
        summary="Tell everybody",
        openapi_extra=kept(),
    )
    async def tell(principal: Operator, wanted: AnnouncementWanted) -> AnnouncementShown:
        now_ns = desk.clock.now_ns()
        starts_at_ns = now_ns if wanted.starts_at is None else wanted.starts_at
        said = Announced(Severity(wanted.severity), wanted.text_en, wanted.text_zh, starts_at_ns, wanted.ends_at)

        def work(connection: Connection) -> str:
            made = announce(connection, desk.ids, said, now_ns=now_ns)
            Case(connection, desk, principal).record(AuditAction.ANNOUNCEMENT_CREATE, made, wanted.reason)
            return made

        return _announcement_shown(Announcement(await desk.write(work), wanted.severity, *said[1:]))

    @routes.post(
        "/admin/announcements/{announcement_id}/withdraw",
        operation_id="admin_withdraw",
        summary="Take an announcement back",
        openapi_extra=kept(),
    )
    async def take_back(
        principal: Operator,
        announcement_id: Annotated[str, Path(min_length=1, max_length=64)],
        wanted: Because,
    ) -> Withdrawn:
        def work(connection: Connection) -> None:
            withdraw(connection, announcement_id)
            Case(connection, desk, principal).record(
                AuditAction.ANNOUNCEMENT_WITHDRAW, announcement_id, wanted.reason
            )

        await desk.write(work)
        return Withdrawn(id=announcement_id)

    return routes


def _switch(case: Case, catalog: Catalog, wanted: ChannelSwitched, action: AuditAction) -> ChannelShown:
    known = {channel.id: channel for channel in _channels(catalog, frozenset(), case.now_ns)}
    if wanted.channel_id not in known:
        raise ChannelNotFound
    case.record(action, wanted.channel_id, wanted.reason)
    in_service = action is AuditAction.CHANNEL_RESUME
    if in_service:
        resume_channel(case.connection, wanted.channel_id)
    else:
        pause_channel(case.connection, wanted.channel_id, now_ns=case.now_ns)
    return known[wanted.channel_id].model_copy(update={"in_service": in_service})


def _channels(catalog: Catalog, paused: frozenset[str], now_ns: int) -> list[ChannelShown]:
    shown = []
    for name in catalog.names():
        listing = catalog.listing(name, now_ns)
        for channel, price in () if listing is None else listing.channels:
            prompt, completion = (None, None) if price is None else _rates(price)
            shown.append(
                ChannelShown(
                    id=channel.id,
                    model=name,
                    provider=channel.provider,
                    in_service=channel.id not in paused,
                    prompt_usd=prompt,
                    completion_usd=completion,
                )
            )
    return shown


def _rates(price: PriceVersion) -> tuple[str, str]:
    prompt, completion = (price.customer_rate(rate) for rate in (price.rates.prompt, price.rates.completion))
    return usd_text(round(prompt)), usd_text(round(completion))


def _announcement_shown(one: Announcement) -> AnnouncementShown:
    return AnnouncementShown(
        id=one.id,
        severity=Severity(one.severity).value,
        text_en=one.text_en,
        text_zh=one.text_zh,
        starts_at=moment_text(one.starts_at_ns),
        ends_at=None if one.ends_at_ns is None else moment_text(one.ends_at_ns),
    )


def _audit_shown(row: AuditRow) -> AuditShown:
    return AuditShown(
        number=row.number,
        actor_id=row.actor_id,
        action=row.action,
        target=row.target,
        reason=row.reason,
        at=moment_text(row.at_ns),
    )
