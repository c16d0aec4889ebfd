"""`dragonfly serve` from nothing but a file or the environment, its readiness, its size, its end."""

import json
from pathlib import Path

import httpx
import pytest

from tests.system.program import Program
from tests.system.served import WAIT_S

RESIDENT_MIB_MAX = 120
"""129 were measured. Libraries are most of it: SQLAlchemy 28, FastAPI 15, psycopg, Alembic and signatures 10 each."""


def resident_mib(process_id: int) -> float:
    status = Path(f"/proc/{process_id}/status").read_text()
    kib = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))
    return kib / 1024


async def test_it_starts_from_the_environment_alone_and_needs_little(program: Program) -> None:
    async with program.running("serve", DRAGONFLY_SERVER__PORT="0", DEEPSEEK_API_KEY="sk-CANARY8f2e") as running:
        started = json.loads(await running.until('"started"', errors=True))
        address = f"http://127.0.0.1:{started['port']}"
        account = program.run("account", "create", "Alice").output.strip()
        key = program.run("key", "create", account).output.strip()
        headers = {"Authorization": f"Bearer {key}"}
        async with httpx.AsyncClient(base_url=address, headers=headers, timeout=WAIT_S) as client:
            assert (await client.get("/readyz")).json() == {"status": "ready", "checks": {"database": "ok"}}
            models = (await client.get("/v1/models")).json()["data"]
            refused = await client.post(
                "/v1/chat/completions",
                json={"model": "deepseek/deepseek-flash", "messages": [{"role": "user", "content": "CANARY8f2e"}]},
            )
            missing = await client.get("/nothing")
        assert "deepseek/deepseek-flash" in [model["id"] for model in models]
        assert (refused.status_code, refused.json()["error"]["code"]) == (402, "insufficient_balance")
        assert (missing.status_code, missing.headers["content-type"]) == (404, "application/json")
        assert resident_mib(running.process.pid) <= RESIDENT_MIB_MAX
        assert await running.stop() == 0
    lines = [json.loads(line) for line in running.errors.splitlines()]
    events = [line["event"] for line in lines]
    assert events.pop(0) in ("locked_down", "lockdown_incomplete")
    assert events == ["on_offer", "started", "stopping", "stopped"]
    assert "CANARY8f2e" not in running.errors + running.output


async def test_it_starts_from_a_file_alone(program: Program) -> None:
    (program.folder / "elsewhere.toml").write_text(
        'data_dir = "kept"\n[server]\nport = 0\nhost = "localhost"\nallowed_hosts = ["api.example.com"]\n'
    )
    async with program.running("serve", "--config", "elsewhere.toml") as running:
        started = json.loads(await running.until('"started"', errors=True))
        async with httpx.AsyncClient(
            base_url=f"http://{started['host']}:{started['port']}", timeout=WAIT_S
        ) as client:
            wrong = await client.get("/healthz")
            right = await client.get("/healthz", headers={"Host": "api.example.com"})
        assert (wrong.status_code, right.status_code) == (421, 200)
        assert await running.stop() == 0
    assert (program.folder / "kept/dragonfly.db").exists()


@pytest.mark.parametrize("name", ["DRAGONFLY_SERVER__PORT", "DRAGONFLY_NOTHING"])
def test_wrong_settings_keep_it_from_starting(program: Program, name: str) -> None:
    ended = program.run("serve", **{name: "CANARY8f2e"})
    assert ended.code == 3
    assert "CANARY8f2e" not in ended.errors
    assert not (program.folder / "data").exists()
