"""Dragonfly with all policies on: keys, limits, holds, prices, and settlement that is durable on SQLite.

It is started as an operator starts it: settings file, `migrate`, an account with credit, a key, `serve`.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

from bench.launch import Launch, NotRunning, Site
from bench.modes import MODELS

DOES = (
    "customer keys, rate and concurrency limits, price check, hold, metering to the token, double-entry ledger;"
    " each answer ends after its charge is on disk"
)
CREDIT_USD = "1000000"
REQUESTS_PER_MINUTE = 1_000_000
"""Counted and checked, but never reached."""
PREPARE_TIMEOUT_S = 60.0
MODEL_PREFIX = "bench/"

_SETTINGS = """\
data_dir = "{data_dir}"
log_level = "warning"
[server]
port = {port}
backlog = 4096
[limits]
body_bytes_max = 67108864
[admission]
concurrency_max = 100000
[catalog]
builtin = false
[providers.mock]
base_url = "{scheme}://127.0.0.1:{mock_port}/v1"
dialect = "deepseek"
api_key = "bench"
"""

_MODEL = """\
[[models]]
id = "{prefix}{name}"
context_tokens = 10000000
output_tokens_max = 65536
channels = [{{ provider = "mock", model = "{name}", prices = [{{ prompt = "0.28", completion = "0.42" }}] }}]
"""


def program() -> str:
    """The command of the environment that runs the benchmark."""
    return str(Path(sys.executable).with_name("dragonfly"))


def settings_text(*, port: int, mock_port: int, data_dir: str, authority: str = "") -> str:
    """The settings file: one provider, the mock, and a model for each of its modes.

    With a certificate authority (a file) the mock is spoken to by TLS.
    """
    models = "".join(_MODEL.format(prefix=MODEL_PREFIX, name=name) for name in MODELS)
    upstream = f'[upstream]\nca_file = "{authority}"\n' if authority else ""
    scheme = "https" if authority else "http"
    return _SETTINGS.format(port=port, mock_port=mock_port, data_dir=data_dir, scheme=scheme) + upstream + models


def launch(site: Site) -> Launch:
    """Write the settings, prepare database, account and key, and say how to start."""
    text = settings_text(port=site.port, mock_port=site.mock_port, data_dir="data")
    (site.folder / "dragonfly.toml").write_text(text)
    key = prepare(site)
    return Launch(
        (program(), "serve", "--config", "dragonfly.toml"),
        port=site.port,
        headers=(("authorization", f"Bearer {key}"),),
        model_prefix=MODEL_PREFIX,
        ready_timeout_s=30.0,
        configuration={"dragonfly.toml": text},
    )


def prepare(site: Site, *, requests_per_minute: int = REQUESTS_PER_MINUTE) -> str:
    """Database, account, credit; the value is a fresh key."""
    _command(site, "migrate")
    account = _command(site, "account", "create", "Bench", "--json")["account"]
    _command(site, "credit", "grant", str(account), CREDIT_USD)
    made = _command(site, "key", "create", str(account), "--requests-per-minute", str(requests_per_minute), "--json")
    return str(made["key"])


def _command(site: Site, *arguments: str) -> dict[str, object]:
    kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    done = subprocess.run(
        (program(), *arguments, "--config", "dragonfly.toml"),
        cwd=site.folder,
        env={**kept, "HOME": str(site.folder)},
        capture_output=True,
        text=True,
        timeout=PREPARE_TIMEOUT_S,
        check=False,
    )
    if done.returncode:
        raise NotRunning(f"`dragonfly {arguments[0]}` ended with status {done.returncode}: {done.stderr[-300:]}")
    found = json.loads(done.stdout) if "--json" in arguments else {}
    assert isinstance(found, dict)
    return found
