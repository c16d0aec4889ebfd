"""One frozen Settings object, read once at start from TOML and the environment.

Order of precedence: environment (`DRAGONFLY_…`, nested by `__`; `DRAGONFLY_…_FILE` reads a secret from a
file), then the TOML file (`DRAGONFLY_CONFIG`, else `dragonfly.toml` in the working directory), then the
defaults here. Everything wrong is reported at once.
"""

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, SecretStr

MIB = 1024 * 1024

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
    shutdown_s: PositiveSeconds = Field(30.0, description="How long running answers may finish on SIGTERM")


class LimitSettings(Section):
    """Bounds on what a client may send and how long it may take."""

    head_bytes_max: int = Field(32 * 1024, ge=1_024)
    header_count_max: int = Field(100, ge=10)
    body_bytes_max: int = Field(20 * MIB, ge=1_024)
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
    refresh_s: PositiveSeconds = Field(0.5, description="How often revocations are looked for; at most 1 s")
    settle_queue_max: int = Field(50_000, ge=100)
    settle_batch_max: int = Field(2_000, ge=1)
    requests_per_minute: int = Field(600, ge=0, description="Default per key; 0: no limit")
    concurrency_max: int = Field(200, ge=0, description="Default per key; 0: no limit")


class CatalogSettings(Section):
    """What is sold. Providers, channels and models themselves stand in the TOML file's [providers.*] and
    [[models]] tables, read by the catalogue."""

    markup_percent: str = Field("0", description="Added to the list price; decimal text")
    builtin: bool = Field(True, description="Offer the built-in catalogue for every provider with a key")


class Settings(Section):
    """Everything that can be set."""

    data_dir: Path = Path("data")
    database_url: str = Field("", description="SQLAlchemy URL; empty: SQLite in data_dir")
    key_pepper: SecretStr = Field(
        SecretStr(""),
        description="Keys are stored hashed with it; empty: a file in data_dir, made at first start",
    )
    server: ServerSettings = ServerSettings()
    limits: LimitSettings = LimitSettings()
    upstream: UpstreamSettings = UpstreamSettings()
    admission: AdmissionSettings = AdmissionSettings()
    catalog: CatalogSettings = CatalogSettings()
    catalog_tables: dict[str, object] = Field(default_factory=dict, description="[providers.*] and [[models]]")
