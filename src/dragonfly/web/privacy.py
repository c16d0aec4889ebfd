"""/privacy, made from the manifest and the running configuration, and /privacy/status, what was last proven."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from fastapi import APIRouter
from markupsafe import Markup
from sqlalchemy import Engine
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from dragonfly import __version__
from dragonfly.catalog.catalog import Provider
from dragonfly.core.errors import DragonflyError
from dragonfly.infra.database import DatabaseThreads
from dragonfly.infra.lockdown import Lockdown
from dragonfly.privacy.audit.report import read_report, signed_report
from dragonfly.privacy.policy import Claim, Manifest, enabled_processors, shown_claims
from dragonfly.privacy.status import Status, read_status
from dragonfly.settings import Settings
from dragonfly.usage.actions import RETENTION_DAYS
from dragonfly.web.pages import Pages, asset_routes, language_of

TITLES = {
    "en": {"privacy": "Privacy policy", "status": "Privacy status"},
    "zh": {"privacy": "隐私政策", "status": "隐私状态"},
}
WALLS = {
    "en": {
        "complete": "it cannot write outside its folder, start programs, or be dumped or read by others",
        "partly": "in part, as far as this machine allows; the status page names what is missing",
        "off": "not on this installation",
    },
    "zh": {
        "complete": "无法写入其目录之外的位置、无法启动程序、无法被转储或被他人读取",
        "partly": "部分生效，取决于本机条件；状态页列出缺失项",
        "off": "此安装未启用",
    },
}


class NoReport(DragonflyError):
    code = "no_report"
    status = 404

    def __init__(self) -> None:
        super().__init__("No audit of this installation is on record. Ask its operator to run one.")


@dataclass(frozen=True, slots=True)
class Running:
    """What is true of this process and its configuration."""

    settings: Settings
    manifest: Manifest
    providers: tuple[Provider, ...]
    lockdown: Lockdown
    find_public_key: Callable[[], str]

    @property
    def public_key(self) -> str:
        """With which anybody can check what this installation signed."""
        return self.find_public_key()

    @property
    def contact(self) -> str:
        return self.settings.privacy.contact or self.manifest.contact

    @property
    def walls(self) -> str:
        """How far the process is locked down: a key of WALLS."""
        if not self.lockdown.is_wanted:
            return "off"
        return "complete" if self.lockdown.is_complete else "partly"


def web_routes(
    pages: Pages, running: Running, engine: Engine, threads: DatabaseThreads, now_ns: Callable[[], int]
) -> APIRouter:
    """The public pages about privacy, and the style sheet."""
    routes = APIRouter(include_in_schema=False)

    @routes.get("/privacy")
    async def privacy(request: Request) -> Response:
        language = language_of(request)
        return pages.render("privacy.html", language, "/privacy", policy_values(running, language))

    @routes.get("/privacy/status")
    async def privacy_status(request: Request) -> Response:
        status = await threads.run(
            read_status, engine, running.settings.data_dir, running.public_key, running.lockdown, now_ns=now_ns()
        )
        if "application/json" in request.headers.get("accept", ""):
            return JSONResponse(status_fields(status, running.public_key))
        language = language_of(request)
        values = {"title": TITLES[language]["status"], "status": status, "when": _when}
        return pages.render("status.html", language, "/privacy/status", values)

    @routes.get("/privacy/audit")
    async def privacy_audit() -> Response:
        report = await threads.run(read_report, running.settings.data_dir)
        if signed_report(report, running.public_key) is None:
            raise NoReport
        return Response(report, media_type="application/json")

    routes.include_router(asset_routes(pages.assets))
    return routes


def policy_values(running: Running, language: str) -> Mapping[str, object]:
    """What the template of the policy shows."""
    manifest, settings = running.manifest, running.settings
    filled = _fillings(running, language)

    def said(claim: Claim) -> Markup:
        return Markup(claim.sentence.get(language)).format_map(filled)

    sections = [
        (section, words.get(language), [(said(claim), claim) for claim in shown_claims(manifest, settings, section)])
        for section, words in manifest.sections
    ]
    return {
        "title": TITLES[language]["privacy"],
        "version": manifest.version,
        "sections": [section for section in sections if section[2]],
    }


def _fillings(running: Running, language: str) -> dict[str, Markup | int | str]:
    """What stands for {…} in sentences; links are ours or the operator's, and escaped."""
    comma = "、" if language == "zh" else ", "
    processors = [
        _link(one.name, one.policy_url) + Markup(" ({})").format(one.what.get(language))
        for one in enabled_processors(running.manifest, running.settings)
    ]
    providers = [_link(one.name, one.privacy_policy_url or "") for one in running.providers if not one.simulated]
    nobody = "目前没有" if language == "zh" else "none is switched on at the moment"
    return {
        "days": RETENTION_DAYS,
        "backup_days": running.settings.privacy.backup_days,
        "request_days": running.settings.privacy.request_days,
        "export_days": running.settings.privacy.export_days,
        "grace_days": running.settings.privacy.grace_days,
        "contact": running.contact,
        "providers": Markup(comma).join(providers) if providers else nobody,
        "processors": Markup(comma).join(processors),
        "lockdown": WALLS[language][running.walls],
    }


def _link(name: str, url: str) -> Markup:
    if not url:
        return Markup("{}").format(name)
    return Markup('<a href="{}" rel="noreferrer">{}</a>').format(url, name)


def status_fields(status: Status, public_key: str) -> dict[str, object]:
    """The same facts for programs."""
    return {
        "oldest_usage_row": _when(status.oldest_usage_ns),
        "usage_days_max": RETENTION_DAYS,
        "last_retention_run": _when(status.retention_ran_ns),
        "last_audit": _when(status.audit_at_ns),
        "last_audit_clean": status.audit_clean,
        "last_audit_of_this_code": status.audit_is_of_this_code,
        "lockdown_missing": list(status.missing_walls),
        "public_key": public_key,
        "version": __version__,
    }


def _when(at_ns: int | None) -> str | None:
    """A day in UTC with its minute."""
    if at_ns is None:
        return None
    return datetime.fromtimestamp(at_ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M UTC")
