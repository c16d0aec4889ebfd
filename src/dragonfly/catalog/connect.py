"""From what the files say about a provider to where requests go and with which key."""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from urllib.parse import urlsplit

from dragonfly.catalog.catalog import Provider
from dragonfly.catalog.config import ProviderOverlay
from dragonfly.catalog.errors import shown
from dragonfly.catalog.schema import Currency, ProviderTable
from dragonfly.core.secrets import Secret
from dragonfly.providers.channel import ChannelTimeouts, Origin
from dragonfly.providers.dialects import DIALECTS

KEY_CHARACTERS_MAX = 4_096
KEY_FILE_BYTES_MAX = 64 * 1024
DIALECT_DEFAULT = "openai"
PARAMETERS_DEFAULT = (
    "max_tokens",
    "temperature",
    "top_p",
    "stop",
    "seed",
    "frequency_penalty",
    "presence_penalty",
    "tools",
    "tool_choice",
    "response_format",
)
"""What an OpenAI-compatible server of the operator's own is assumed to understand."""
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True, slots=True)
class Connected:
    """An enabled provider: who it is, where it is, how it wants to be spoken to."""

    public: Provider
    origin: Origin
    path: str
    credential: Secret
    dialect: str
    currency: Currency
    usd_per_cny: Fraction | None
    concurrency_max: int | None
    timeouts: ChannelTimeouts
    max_tokens_field: str
    drop_fields: tuple[str, ...]
    supported_parameters: tuple[str, ...]


class Report:
    """Collects what is wrong (start fails) and what is worth knowing (start goes on)."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.notes: list[str] = []


def connect(
    slug: str,
    builtin: ProviderTable | None,
    overlay: ProviderOverlay | None,
    environ: Mapping[str, str],
    report: Report,
) -> Connected | None:
    """The provider when it is enabled: its key is there, or it says that it needs none."""
    configured = overlay or ProviderOverlay()
    credential = _credential(slug, builtin, overlay, environ, report)
    site = _site(slug, builtin, configured, report)
    address = _address(site[0], f"providers.{slug}.base_url", report) if site else None
    if credential is None or site is None or address is None:
        return None
    _, currency = site
    origin, path = address
    if credential and not origin.tls and origin.host not in _LOOPBACK:
        report.notes.append(
            f"providers.{slug}: base_url is plain http, so its key and every prompt travel in the open."
        )
    if currency == "CNY" and configured.usd_per_cny is None:
        report.problems.append(
            f'providers.{slug}.usd_per_cny: write what one CNY costs you in USD, such as "0.1412".'
        )
    dialect = configured.dialect or (builtin.dialect if builtin else DIALECT_DEFAULT)
    if dialect not in DIALECTS:
        report.problems.append(f"providers.{slug}.dialect: write one of {', '.join(sorted(DIALECTS))}.")
    return Connected(
        public=_public(slug, builtin, configured),
        origin=origin,
        path=path,
        credential=credential,
        dialect=dialect,
        currency=currency,
        usd_per_cny=configured.usd_per_cny,
        concurrency_max=configured.concurrency_max or (builtin.concurrency_max if builtin else None),
        timeouts=_timeouts(configured),
        max_tokens_field=configured.max_tokens_field or (builtin.max_tokens_field if builtin else "max_tokens"),
        drop_fields=_first(configured.drop_fields, builtin.drop_fields if builtin else ()),
        supported_parameters=_first(
            configured.supported_parameters, builtin.supported_parameters if builtin else PARAMETERS_DEFAULT
        ),
    )


def _first(chosen: tuple[str, ...] | None, otherwise: tuple[str, ...]) -> tuple[str, ...]:
    return otherwise if chosen is None else chosen


def _public(slug: str, builtin: ProviderTable | None, configured: ProviderOverlay) -> Provider:
    return Provider(
        slug=slug,
        name=configured.name or (builtin.name if builtin else slug),
        simulated=configured.simulated,
        headquarters=configured.headquarters or (builtin.headquarters if builtin else None),
        privacy_policy_url=configured.privacy_policy_url or (builtin.privacy_policy_url if builtin else None),
        terms_of_service_url=configured.terms_of_service_url or (builtin.terms_of_service_url if builtin else None),
        status_page_url=configured.status_page_url or (builtin.status_page_url if builtin else None),
        trains=configured.trains,
        retains=configured.retains,
    )


def _timeouts(configured: ProviderOverlay) -> ChannelTimeouts:
    default, given = ChannelTimeouts(), configured.timeouts
    return ChannelTimeouts(
        connect_s=given.connect_s or default.connect_s,
        head_s=given.head_s or default.head_s,
        idle_s=given.idle_s or default.idle_s,
    )


def _site(
    slug: str, builtin: ProviderTable | None, configured: ProviderOverlay, report: Report
) -> tuple[str, Currency] | None:
    """Base URL and the currency that is charged there."""
    base_url = builtin.base_url if builtin else None
    currency: Currency = "USD"
    if configured.site is not None:
        sites = builtin.sites if builtin else {}
        site = sites.get(configured.site)
        if site is None:
            known = ", ".join(sorted(sites)) or "none, so remove the line"
            report.problems.append(f"providers.{slug}.site: write one of the known sites ({known}).")
            return None
        base_url, currency = site.base_url, site.currency
    base_url = configured.base_url or base_url
    if base_url is None:
        report.problems.append(
            f"providers.{slug}.base_url: is missing; write the address before /chat/completions, such as"
            ' "http://localhost:8000/v1".'
        )
        return None
    return base_url, currency


def _address(base_url: str, where: str, report: Report) -> tuple[Origin, str] | None:
    try:
        parts = urlsplit(base_url)
        port = parts.port
    except ValueError:
        report.problems.append(f"{where}: write a port between 1 and 65535, or none.")
        return None
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        report.problems.append(f"{where}: write the plain address, without user name, key, ? or #.")
        return None
    if not parts.hostname or not parts.path.isascii() or not parts.hostname.isascii() or port == 0:
        report.problems.append(f"{where}: write a host name in ASCII letters, such as https://api.example.com/v1.")
        return None
    tls = parts.scheme == "https"
    path = parts.path.rstrip("/")
    if path.endswith("/chat/completions"):
        report.problems.append(f"{where}: leave /chat/completions out; it is added.")
        return None
    return Origin(parts.hostname.lower(), port or (443 if tls else 80), tls), f"{path}/chat/completions"


def _credential(
    slug: str,
    builtin: ProviderTable | None,
    overlay: ProviderOverlay | None,
    environ: Mapping[str, str],
    report: Report,
) -> Secret | None:
    """The key; None when there is none, which leaves the provider out."""
    where = f"providers.{slug}"
    configured = overlay or ProviderOverlay()
    given = [name for name in ("api_key", "api_key_env", "api_key_file") if getattr(configured, name) is not None]
    if len(given) > 1:
        report.problems.append(f"{where}: keep one of {' and '.join(given)}.")
        return None
    if configured.api_key is not None:
        return _checked(configured.api_key, f"{where}.api_key", report)
    if configured.api_key_file is not None:
        return _from_file(configured.api_key_file, f"{where}.api_key_file", report)
    variable = configured.api_key_env or (builtin.api_key_env if builtin else None)
    if variable is None:
        report.problems.append(
            f'{where}: needs its key; write api_key_env = "NAME_OF_A_VARIABLE", or api_key = "" for a server'
            " without keys."
        )
        return None
    value = environ.get(variable, "").strip()
    if not value:
        if overlay is not None:
            report.notes.append(f"{where}: is left out, because {shown(variable)} is not set.")
        return None
    return _checked(value, f"{where}: {shown(variable)}", report)


def _from_file(path: str, where: str, report: Report) -> Secret | None:
    try:
        with Path(path).open("rb") as file:
            raw = file.read(KEY_FILE_BYTES_MAX + 1)
        value = raw.decode("ascii").strip()
    except (OSError, ValueError):
        report.problems.append(f"{where}: cannot be read; write the path of a readable text file with the key.")
        return None
    if not value:
        report.problems.append(f"{where}: the file is empty; write the key into it.")
        return None
    return _checked(value, where, report)


def _checked(value: str, where: str, report: Report) -> Secret | None:
    """A key goes into a header, so nothing that could end one may be in it."""
    if len(value) > KEY_CHARACTERS_MAX or any(not "!" <= letter <= "~" for letter in value):
        report.problems.append(
            f"{where}: a key is visible ASCII without spaces, at most {KEY_CHARACTERS_MAX} characters."
        )
        return None
    return Secret(value)
