"""What is built from this tree installs into an empty environment and runs from there."""

import subprocess
import sys
import venv
from pathlib import Path

import httpx
import pytest

from tests.system.program import Program
from tests.system.test_demo import begun, stream

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def empty_environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment that holds the built wheel and what it depends on; returns its Python."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = folder.glob("dragonfly_gateway-*.whl")
    venv.create(folder / "venv", with_pip=True)
    python = folder / "venv/bin/python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", str(wheel)], check=True, capture_output=True)
    return python


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_built_wheel_brings_the_program_along(empty_environment: Path, program: Program) -> None:
    command = [empty_environment.parent / "dragonfly", "version"]
    done = subprocess.run(command, env=program.environment(), check=True, capture_output=True, text=True)
    assert done.stdout.startswith("dragonfly ")


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_the_built_wheel_runs_the_demo_in_an_empty_environment(empty_environment: Path, tmp_path: Path) -> None:
    async with Program(tmp_path, str(empty_environment)).running("demo", PORT="0") as running:
        demo = await begun(running)
        async with demo.client as client:
            assert (await client.get(demo.base_url.replace("/v1", "/readyz"))).status_code == httpx.codes.OK
            assert (await stream(client, "simulated/chat"))[-1] == "[DONE]"
        assert await running.stop() == 0
