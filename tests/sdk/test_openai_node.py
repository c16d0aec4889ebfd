"""OpenAI's Node SDK, unmodified. Skipped where there is no Node or its packages are not installed."""

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.purse import KEY
from tests.http.rig import MODEL, Rig
from tests.sdk.test_openai_python import WORDS, provider

FOLDER = Path(__file__).parent / "node"
NODE = shutil.which("node")
RUN_S = 60


@pytest.mark.skipif(NODE is None, reason="there is no Node on this machine")
@pytest.mark.skipif(not (FOLDER / "node_modules" / "openai").exists(), reason="`make install-node` was not run")
async def test_the_node_sdk_asks_streams_calls_tools_parses_and_raises() -> None:
    async with Rig(provider) as rig:
        process = await asyncio.create_subprocess_exec(
            str(NODE),
            str(FOLDER / "chat.mjs"),
            f"http://127.0.0.1:{rig.port}/v1",
            KEY.decode(),
            MODEL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(RUN_S):
            out, errors = await process.communicate()
        assert process.returncode == 0, errors.decode()
        said: dict[str, Any] = {line["name"]: line["value"] for line in map(json.loads, out.splitlines())}
        assert said["whole"]["content"] == said["stream"]["content"] == "".join(WORDS)
        assert said["whole"]["model"] == MODEL
        assert said["whole"]["usage"]["cost"] == said["stream"]["usage"]["cost"] == "0.0000072"
        assert json.loads(said["tools"]["arguments"]) == {"city": "Oslo"}
        assert json.loads(said["streamed tools"]["arguments"]) == {"city": "Oslo"}
        assert said["parsed"] == {"name": "Oslo", "inhabitants": 717710}
        assert said["error"]["code"] == "model_not_found"
        assert said["error"]["status"] == 404
        await rig.at_rest()
