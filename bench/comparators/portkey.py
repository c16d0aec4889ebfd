"""Portkey's open gateway on Node.js."""

import shutil

from bench.launch import Launch, NotRunning, Site

DOES = "routes by headers; no keys, no limits, no metering in the open edition"


def launch(site: Site) -> Launch:
    """Say how to start; it listens on all interfaces."""
    node = shutil.which("node")
    if node is None:
        raise NotRunning("Node.js is not installed")
    program = site.programs / "npm" / "node_modules" / "@portkey-ai" / "gateway" / "build" / "start-server.js"
    if not program.exists():
        raise NotRunning("the npm package is not installed")
    mock = f"http://127.0.0.1:{site.mock_port}/v1"
    headers = (
        ("x-portkey-provider", "openai"),
        ("x-portkey-custom-host", mock),
        ("authorization", "Bearer sk-bench"),
    )
    return Launch(
        (node, str(program), "--headless", f"--port={site.port}"),
        {"NODE_ENV": "production"},
        port=site.port,
        headers=headers,
        configuration={"headers": "; ".join(f"{name}: {value}" for name, value in headers)},
    )
