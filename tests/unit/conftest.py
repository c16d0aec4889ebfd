"""Event loops of the unit tests: a module that says `BOTH_LOOPS = True` runs on asyncio's and on uvloop's."""

import asyncio
from collections.abc import Callable, Mapping

import pytest
import uvloop

LoopFactory = Callable[[], asyncio.AbstractEventLoop]


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Function) -> Mapping[str, LoopFactory]:
    own: dict[str, LoopFactory] = {"asyncio": asyncio.new_event_loop}
    return {**own, "uvloop": uvloop.new_event_loop} if getattr(item.module, "BOTH_LOOPS", False) else own
