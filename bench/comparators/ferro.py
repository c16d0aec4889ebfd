"""Ferro Labs' gateway in Go."""

from bench.launch import Launch, Site

DOES = "one master key, parses and rebuilds; no customer keys, no ledger; rate limit and log off"
_KEY = "fgw_bench_0123456789abcdef0123456789abcdef"


def launch(site: Site) -> Launch:
    """Say how to start; it listens on all interfaces."""
    settings = {
        "MASTER_KEY": _KEY,
        "PORT": str(site.port),
        "OPENAI_API_KEY": "sk-bench",
        "OPENAI_BASE_URL": f"http://127.0.0.1:{site.mock_port}",
        "LOG_LEVEL": "error",
        "RATE_LIMIT_RPS": "0",
    }
    return Launch(
        (str(site.programs / "bin" / "ferrogw"), "serve"),
        settings,
        port=site.port,
        fixed_model="gpt-4o-mini",
        headers=(("authorization", f"Bearer {_KEY}"),),
        configuration={name: value for name, value in settings.items() if name != "MASTER_KEY"},
    )
