"""One frozen Settings object, read once at start from TOML and the environment.

Order of precedence: environment (`DRAGONFLY_…`, nested by `__`; `DRAGONFLY_…_FILE` reads a secret from a
file), then the TOML file (`DRAGONFLY_CONFIG`, else `dragonfly.toml` in the working directory), then the
defaults here. Everything wrong is reported at once.
"""

import difflib
import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, get_origin

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError
from pydantic.fields import FieldInfo

from dragonfly.core.errors import DragonflyError

MIB = 1024 * 1024
PREFIX = "DRAGONFLY_"
CONFIG_VARIABLE = "DRAGONFLY_CONFIG"
CONFIG_DEFAULT = Path("dragonfly.toml")
CONFIG_BYTES_MAX = 4 * MIB
SECRET_BYTES_MAX = 64 * 1024
CATALOG_TABLES = ("providers", "models", "calendars")

PositiveSeconds = Annotated[float, Field(gt=0, le=86_400)]


class Section(BaseModel):
    """A frozen group of settings; unknown names are errors, so that typing mistakes are found."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ServerSettings(Section):
    """The listening side."""

    host: str = "127.0.0.1"
    port: int = Field(8080, ge=0, le=65_535, description="0 lets the system choose")
    workers: int = Field(1, ge=1, le=64)
    backlog: int = Field(2_048, ge=16, le=65_535)
    public_url: str = Field("", description="Where customers reach this gateway, e.g. https://api.example.com")
    allowed_hosts: tuple[str, ...] = Field((), description="Accepted Host values; empty: any valid one")
    proxies: tuple[str, ...] = Field((), description="Networks of own proxies; their X-Forwarded-For is believed")
    cdn: tuple[str, ...] = Field((), description="Networks of a CDN; its CF-Connecting-IP is believed")
    shutdown_s: PositiveSeconds = Field(30.0, description="How long running answers may finish on SIGTERM")
    metrics_token: SecretStr = Field(
        SecretStr(""), description="Whoever sends it as bearer reads /metrics; empty: there is none"
    )


class LimitSettings(Section):
    """Bounds on what a client may send and how long it may take."""

    head_bytes_max: int = Field(32 * 1024, ge=1_024)
    header_count_max: int = Field(100, ge=10)
    body_bytes_max: int = Field(20 * MIB, ge=1_024)
    body_bytes_open_max: int = Field(1_024 * MIB, ge=MIB, description="All bodies being received together")
    connections_max: int = Field(20_000, ge=1)
    head_s: PositiveSeconds = Field(10.0, description="From the first byte of a head to its last")
    body_s: PositiveSeconds = Field(60.0, description="From the end of the head to the end of the body")
    idle_s: PositiveSeconds = Field(75.0, description="A kept-alive connection without a request")
    client_stall_s: PositiveSeconds = Field(60.0, description="A reader that takes nothing for this long is gone")
    write_high_water_bytes: int = Field(32 * 1024, ge=4_096)
    event_bytes_max: int = Field(8 * MIB, ge=65_536, description="Largest single SSE event from upstream")
    answer_bytes_max: int = Field(64 * MIB, ge=65_536, description="Largest answer that is not streamed")


class UpstreamSettings(Section):
    """The side towards the providers."""

    idle_connections_max: int = Field(64, ge=1, description="Kept warm per origin")
    connections_max: int = Field(12_000, ge=1, description="Open per origin")
    dials_max: int = Field(32, ge=1, description="Parallel connection attempts per origin")
    idle_s: PositiveSeconds = Field(30.0, description="Below the providers' own limits")
    attempts_max: int = Field(4, ge=1, le=20, description="Tries per request over all channels")
    backoff_s: PositiveSeconds = 0.2
    backoff_max_s: PositiveSeconds = 3.0
    cooldown_s: PositiveSeconds = Field(10.0, description="First cool-down of a failing channel; doubles")
    cooldown_max_s: PositiveSeconds = 300.0
    ca_file: Path | None = Field(None, description="Extra certificate authority, for private upstreams")


class AdmissionSettings(Section):
    """Holds, leases, limits."""

    lease_nusd: int = Field(1_000_000_000, ge=1, description="Usual size of a lease; small balances lease less")
    lease_idle_s: PositiveSeconds = Field(30.0, description="An unused lease goes back after this long")
    heartbeat_s: PositiveSeconds = 2.0
    heartbeat_dead_s: PositiveSeconds = Field(15.0, description="A worker silent for this long is dead")
    key_cache_max: int = Field(100_000, ge=100)
    key_negative_s: PositiveSeconds = 5.0
    recall_s: PositiveSeconds = Field(1.5, description="How long a request waits for money idle in other workers")
    refresh_s: PositiveSeconds = Field(0.5, description="How often revocations are looked for; at most 1 s")
    settle_queue_max: int = Field(50_000, ge=100)
    settle_batch_max: int = Field(2_000, ge=1)
    requests_per_minute: int = Field(600, ge=0, description="Default per key; 0: no limit")
    tokens_per_minute: int = Field(0, ge=0, description="Default per key; 0: no limit")
    concurrency_max: int = Field(200, ge=0, description="Default per key; 0: no limit")
    breaker_factor: int = Field(10, ge=0, description="Usual days of spending in one day that pause a key; 0: none")
    breaker_floor_nusd: int = Field(20_000_000_000, ge=0, description="Less than this in a day pauses no key")


class MailSettings(Section):
    """How mail leaves."""

    transport: Literal["console", "resend", "smtp"] = Field(
        "console", description="console shows mail on standard output and sends none"
    )
    from_address: str = Field("", description="Who mail comes from, e.g. hello@mail.example.com")
    from_name: str = Field("Dragonfly", description="The name beside it, and of this installation in mails")
    reply_to: str = Field("", description="Where answers go; empty: to from_address")
    operator_address: str = Field("", description="Who is told of tickets and alerts; empty: nobody")
    operator_language: Literal["en", "zh"] = Field("en", description="Of alerts to the operator")
    resend_api_key: SecretStr = Field(SecretStr(""), description="For transport resend: re_…")
    resend_webhook_secret: SecretStr = Field(
        SecretStr(""), description="whsec_…; with it, bounces and complaints stop mail to an address"
    )
    resend_url: str = Field("https://api.resend.com", description="Where Resend's API is")
    smtp_host: str = Field("", description="For transport smtp")
    smtp_port: int = Field(587, ge=1, le=65_535, description="587 for starttls, 465 for implicit")
    smtp_tls: Literal["starttls", "implicit", "none"] = Field(
        "starttls", description="none only for a server on this machine"
    )
    smtp_user: str = Field("", description="Empty: without signing in")
    smtp_password: SecretStr = SecretStr("")
    ca_file: Path | None = Field(None, description="Extra certificate authority, for a private mail server")
    low_balance_nusd: int = Field(
        1_000_000_000,
        ge=0,
        le=10**15,
        description="Below this balance customers are told, unless they choose another",
    )


class AccountSettings(Section):
    """People: registration, sign-in, trial credit."""

    registration: bool = Field(True, description="False: nobody new may register")
    terms_version: str = Field("2026-03-08", description="What one accepts when registering")
    terms_url: str = Field("", description="Where your terms are; empty: the page /terms")
    policy_version: str = Field("2026-03-08", description="Of the privacy policy")
    trial_nusd: int = Field(100_000_000, ge=0, description="Trial credit of a verified address; 0: none")
    trial_network_day_max: int = Field(3, ge=0, description="Trial credits for one network within a day")
    trial_day_nusd_max: int = Field(50_000_000_000, ge=0, description="All trial credit within a day")
    disposable_domains: tuple[str, ...] = Field((), description="Domains without trial credit, besides known ones")
    even_answers_ms: int = Field(
        400, ge=0, le=5_000, description="Answers that could tell known addresses by their time come at such steps"
    )
    password_memory_kib: int = Field(65_536, ge=8_192, le=1_048_576, description="Of argon2id, for each check")
    google_client_id: str = Field("", description="Empty: no sign-in with Google")
    google_client_secret: SecretStr = SecretStr("")
    google_issuer: str = "https://accounts.google.com"
    discord_client_id: str = Field("", description="Empty: no sign-in with Discord")
    discord_client_secret: SecretStr = SecretStr("")
    discord_url: str = "https://discord.com"


class CatalogSettings(Section):
    """What is sold. Providers, channels and models themselves stand in the TOML file's [providers.*] and
    [[models]] tables, read by the catalogue."""

    markup_percent: str = Field("0", description="Added to the list price; decimal text")
    builtin: bool = Field(True, description="Offer the built-in catalogue for every provider with a key")


class PaymentSettings(Section):
    """Card payments through Stripe. Without a key the wallet says so, and everything else works."""

    stripe_secret_key: SecretStr = Field(SecretStr(""), description="sk_… or, better, a restricted rk_…")
    stripe_webhook_secret: SecretStr = Field(SecretStr(""), description="whsec_… of the endpoint /webhooks/stripe")
    stripe_url: str = Field("https://api.stripe.com", description="Where Stripe's API is")
    methods: tuple[str, ...] = Field((), description="card, link, alipay, wechat_pay; empty: card and link")
    tax: Literal["off", "exclusive", "inclusive"] = Field("off", description="Stripe Tax: none, on top, or included")
    topup_cents_min: int = Field(100, ge=50, le=100_000, description="The smallest top-up")
    first_topup_cents_max: int = Field(
        5_000, ge=50, description="The largest first top-up; the limit grows from here"
    )
    topup_cents_max: int = Field(50_000, ge=50, le=99_999_900, description="The largest top-up of anybody")
    checkouts_per_hour: int = Field(
        5, ge=1, le=1_000, description="Payment pages per account; three times per network"
    )
    declines_per_day: int = Field(5, ge=1, le=1_000, description="Declined cards after which an account waits a day")


class PrivacySettings(Section):
    """What proves that nothing is kept."""

    lockdown: Literal["required", "available", "off"] = Field(
        "available", description="No cores, no writes outside data_dir, no programs; required: else do not start"
    )
    backup_days: int = Field(7, ge=1, le=60, description="How long a backup is kept")
    contact: str = Field("", description="Address on /privacy; empty: that of the built-in policy")
    request_days: int = Field(30, ge=1, le=60, description="Until when a request about data must be answered")
    export_days: int = Field(7, ge=1, le=30, description="How long an approved copy can be fetched")
    grace_days: int = Field(14, ge=0, le=60, description="How long an approved deletion can be cancelled")
    self_service: bool = Field(False, description="True: requests from the dashboard are approved without a review")


class Settings(Section):
    """Everything that can be set."""

    data_dir: Path = Path("data")
    database_url: str = Field("", description="SQLAlchemy URL; empty: SQLite in data_dir")
    log_level: Literal["info", "warning", "error"] = "info"
    key_pepper: SecretStr = Field(
        SecretStr(""),
        description="Keys are stored hashed with it; empty: a file in data_dir, made at first start",
    )
    server: ServerSettings = ServerSettings()
    limits: LimitSettings = LimitSettings()
    upstream: UpstreamSettings = UpstreamSettings()
    admission: AdmissionSettings = AdmissionSettings()
    mail: MailSettings = MailSettings()
    payments: PaymentSettings = PaymentSettings()
    accounts: AccountSettings = AccountSettings()
    catalog: CatalogSettings = CatalogSettings()
    privacy: PrivacySettings = PrivacySettings()
    catalog_tables: dict[str, object] = Field(
        default_factory=dict, description="[providers.*], [[models]], [[calendars]]"
    )


class SettingsInvalid(DragonflyError):
    """Everything that is wrong with the settings, one sentence each; no sentence holds a value."""

    code = "settings_invalid"

    def __init__(self, problems: tuple[str, ...]) -> None:
        assert problems, "an error about settings names at least one"
        super().__init__("\n".join(problems))
        self.problems = problems


class Setting(NamedTuple):
    """One name that can be set, with where it stands."""

    path: tuple[str, ...]
    """("server", "port")"""
    field: FieldInfo

    @property
    def variable(self) -> str:
        """DRAGONFLY_SERVER__PORT"""
        return PREFIX + "__".join(self.path).upper()

    @property
    def is_secret(self) -> bool:
        """May also be given as `…_FILE`, the name of a file that holds it."""
        return self.field.annotation is SecretStr or self.path == ("database_url",)


def all_settings(section: type[BaseModel] = Settings, parents: tuple[str, ...] = ()) -> Iterator[Setting]:
    """Every setting in the order of this file; the catalogue's tables are not among them."""
    for name, field in section.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, Section):
            yield from all_settings(kind, (*parents, name))
        elif name != "catalog_tables":
            yield Setting((*parents, name), field)


class Found(NamedTuple):
    """What the file and the environment say, as far as it could be read."""

    settings: Settings | None
    """None when anything is wrong."""
    tables: dict[str, object]
    """The catalogue's [providers.*], [[models]] and [[calendars]], unread: the catalogue says what is wrong there."""
    problems: tuple[str, ...]


def find_settings(environ: Mapping[str, str], config: Path | None = None) -> Found:
    """Reads `config` (else as in the module's text) and `environ`, and collects everything that is wrong."""
    problems: list[str] = []
    values = _read_config(environ, config, problems)
    tables = {name: values.pop(name) for name in CATALOG_TABLES if name in values}
    if values.pop("catalog_tables", None) is not None:
        problems.append("catalog_tables: no such setting. Write [providers.…], [[models]] and [[calendars]] tables.")
    _overlay_environment(values, environ, problems)
    settings = None
    try:
        settings = Settings.model_validate_json(json.dumps(values, default=_text_of_date), strict=True)
    except ValidationError as invalid:
        # `loc` and `type` come from our own models or name a setting; the input never leaves this block.
        problems += [_sentence(error) for error in invalid.errors(include_url=False, include_input=False)]
    if problems or settings is None:
        return Found(None, tables, tuple(dict.fromkeys(problems)))
    return Found(settings.model_copy(update={"catalog_tables": tables}), tables, ())


def load_settings(environ: Mapping[str, str], config: Path | None = None) -> Settings:
    """The settings of this start. Raises SettingsInvalid with everything that is wrong with them."""
    found = find_settings(environ, config)
    if found.settings is None:
        raise SettingsInvalid(found.problems)
    return found.settings


def _read_config(environ: Mapping[str, str], config: Path | None, problems: list[str]) -> dict[str, object]:
    """The TOML file as nested tables; {} when there is none or it cannot be read."""
    named = config or (Path(environ[CONFIG_VARIABLE]) if environ.get(CONFIG_VARIABLE) else None)
    path = named or CONFIG_DEFAULT
    if named is None and not path.is_file():
        return {}
    try:
        raw = _read_bounded(path, CONFIG_BYTES_MAX)
        return tomllib.loads(raw.decode())
    except OSError as failure:
        problems.append(f"{path}: cannot be read ({failure.strerror}).")
    except UnicodeDecodeError:
        problems.append(f"{path}: is not UTF-8 text.")
    except tomllib.TOMLDecodeError as failure:
        place = re.search(r"at (line \d+, column \d+|end of document)", str(failure))
        problems.append(f"{path}: is not valid TOML" + (f" at {place[1]}." if place else "."))
    except ValueError:
        problems.append(f"{path}: is larger than {CONFIG_BYTES_MAX} bytes.")
    return {}


def _read_bounded(path: Path, bytes_max: int) -> bytes:
    with path.open("rb") as file:
        raw = file.read(bytes_max + 1)
    if len(raw) > bytes_max:
        raise ValueError("the file is too large")
    return raw


def _overlay_environment(values: dict[str, object], environ: Mapping[str, str], problems: list[str]) -> None:
    """Lays `DRAGONFLY_…` over the file's values, in place."""
    known = {setting.variable: setting for setting in all_settings()}
    files = {name + "_FILE": setting for name, setting in known.items() if setting.is_secret}
    for variable in sorted(environ):
        if not variable.startswith(PREFIX) or variable == CONFIG_VARIABLE:
            continue
        if variable in known:
            _put(values, known[variable], environ[variable])
        elif variable not in files:
            problems.append(f"{_shown(variable)}: no such setting.{_did_you_mean(variable, [*known, *files])}")
        elif files[variable].variable in environ:
            problems.append(f"{variable}: {files[variable].variable} is set too; keep one of the two.")
        else:
            _put_file(values, files[variable], variable, environ[variable], problems)


def _put_file(values: dict[str, object], setting: Setting, variable: str, path: str, problems: list[str]) -> None:
    try:
        text = _read_bounded(Path(path), SECRET_BYTES_MAX).decode().strip()
    except (OSError, ValueError):
        problems.append(f"{variable}: the file cannot be read as text of at most {SECRET_BYTES_MAX} bytes.")
        return
    if not text:
        problems.append(f"{variable}: the file is empty.")
    _put(values, setting, text)


def _put(values: dict[str, object], setting: Setting, text: str) -> None:
    table = values
    for name in setting.path[:-1]:
        inner = table.setdefault(name, {})
        if not isinstance(inner, dict):
            return  # the file has a plain value where a table belongs; validation says so
        table = inner
    table[setting.path[-1]] = _parsed(text, setting.field.annotation)


def _parsed(text: str, kind: object) -> object:
    """A variable's text as what its setting holds; text that does not fit stays text and is refused later."""
    text = text.strip()
    if get_origin(kind) is tuple:
        return [part.strip() for part in text.split(",") if part.strip()]
    if kind is bool:
        return {"true": True, "1": True, "false": False, "0": False}.get(text.lower(), text)
    if kind is int and re.fullmatch(r"[+-]?[0-9_]{1,20}", text):
        return int(text)
    if kind is float and re.fullmatch(r"[+-]?[0-9_]{1,20}(\.[0-9]{1,20})?", text):
        return float(text)
    return text


def _text_of_date(value: object) -> str:
    """TOML knows dates, JSON and our settings do not: a text is refused with the ordinary sentence."""
    return str(value)


_NEEDS = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "string_type": "text in quotes",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "path_type": "a path in quotes",
    "literal_error": "one of the documented words",
    "model_type": "a table",
    "greater_than": "more than {gt:g}",
    "greater_than_equal": "{ge:g} or more",
    "less_than": "less than {lt:g}",
    "less_than_equal": "{le:g} or less",
}


def _sentence(error: Mapping[str, object]) -> str:
    """What is wrong with one setting, from the type of the error and the names of our own fields."""
    location, kind, context = error["loc"], str(error["type"]), error.get("ctx") or {}
    assert isinstance(location, tuple)
    assert isinstance(context, dict)
    name = ".".join(str(part) for part in location if isinstance(part, str))
    if kind == "extra_forbidden":
        known = [".".join(setting.path) for setting in all_settings()]
        sections = sorted({path.split(".")[0] for path in known} | set(CATALOG_TABLES))
        return f"{_shown(name)}: no such setting.{_did_you_mean(name, [*known, *sections])}"
    needs = _NEEDS.get(kind, "another value").format_map(context)
    return f"{name}: needs {needs}."


def _did_you_mean(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name[:200], known, n=1, cutoff=0.6)
    return f" Did you mean {close[0]}?" if close else ""


def _shown(name: str) -> str:
    """A name that somebody typed, bounded and without control characters."""
    return "".join(letter if letter.isprintable() else "?" for letter in name[:80])
