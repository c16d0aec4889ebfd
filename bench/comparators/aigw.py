"""Envoy AI Gateway (`aigw run`): an Envoy with an external processor in Go that reads requests and answers."""

import shutil

from bench.launch import Launch, Site, installed_folder

DOES = "routes by model and counts tokens; no customer keys, no limits, no ledger; its own Envoy beside it"
_ENVOY_VERSION = "1.40.0"
_PORT = 1_975


def launch(site: Site) -> Launch:
    """Put Envoy where aigw looks for it and say how to start. Its ports are fixed and on all interfaces."""
    envoy = site.folder / "data" / "envoy-versions" / _ENVOY_VERSION / "bin" / "envoy"
    envoy.parent.mkdir(parents=True)
    shutil.copy2(installed_folder(site, "envoy") / "_bin" / "envoy", envoy)
    program = str(installed_folder(site, "theagentrouter_local_gateway") / "bin" / "aigw")
    settings = {
        "ENVOY_VERSION": _ENVOY_VERSION,
        "OPENAI_API_KEY": "sk-bench",
        "OPENAI_BASE_URL": f"http://127.0.0.1:{site.mock_port}/v1",
    }
    folders = {
        "AIGW_DATA_HOME": str(site.folder / "data"),
        "AIGW_CONFIG_HOME": str(site.folder / "configuration"),
        "AIGW_STATE_HOME": str(site.folder / "state"),
        "AIGW_RUNTIME_DIR": str(site.folder / "run"),
    }
    return Launch((program, "run"), {**settings, **folders}, port=_PORT, configuration=settings)
