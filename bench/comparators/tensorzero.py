"""TensorZero's Rust gateway, started from its Python extension (a private function, so the version is pinned)."""

from bench.launch import Launch, Site
from bench.modes import MODELS

DOES = "parses and rebuilds requests and answers; observability off, so no metering; no keys, no ledger"

_PROGRAM = """\
import sys, threading
from tensorzero.tensorzero import _start_http_gateway
gateway = _start_http_gateway(
    config_file=sys.argv[1], clickhouse_url=None, postgres_url=None, valkey_url=None, async_setup=False)
print("listening on", gateway.base_url.split(":")[2].split("/")[0], flush=True)
threading.Event().wait()
"""

_HEAD = """\
[gateway]
observability.enabled = false
"""

_MODEL = """\
[models."{name}"]
routing = ["mock"]
[models."{name}".providers.mock]
type = "openai"
model_name = "{name}"
api_base = "http://127.0.0.1:{mock_port}/v1/"
api_key_location = "none"
"""


def launch(site: Site) -> Launch:
    """Write program and configuration and say how to start. The port is random and announced."""
    models = "".join(_MODEL.format(name=name, mock_port=site.mock_port) for name in MODELS)
    text = _HEAD + models
    (site.folder / "tensorzero.toml").write_text(text)
    (site.folder / "program.py").write_text(_PROGRAM)
    return Launch(
        (str(site.programs / "bin" / "python"), "program.py", "tensorzero.toml"),
        path="/openai/v1/chat/completions",
        model_prefix="tensorzero::model_name::",
        configuration={"tensorzero.toml": text, "program.py": _PROGRAM},
    )
