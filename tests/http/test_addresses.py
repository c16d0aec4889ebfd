"""A key that is bound to networks works from there only; who asks is the socket's peer, or what our proxies say."""

from dataclasses import replace

import pytest

from dragonfly.core.addresses import parse_networks
from dragonfly.gateway.gateway import Gateway
from tests.fakes.purse import POLICY
from tests.fakes.upstream import answer
from tests.http.rig import Rig, chat_body
from tests.http.test_heads import WHOLE


@pytest.mark.parametrize(
    ("networks", "proxies", "headers", "is_served"),
    [
        (None, (), (), True),
        (("127.0.0.0/8",), (), (), True),
        (("192.0.2.0/24",), (), (), False),
        (("192.0.2.0/24",), (), ("X-Forwarded-For: 192.0.2.7",), False),
        (("192.0.2.0/24",), ("127.0.0.1",), ("X-Forwarded-For: 192.0.2.7",), True),
        (("192.0.2.0/24",), ("127.0.0.1",), ("X-Forwarded-For: 192.0.2.7, 198.51.100.9",), False),
        (("2001:db8::/32",), ("127.0.0.1",), ("X-Forwarded-For: 2001:db8::7",), True),
        (("192.0.2.0/24",), ("127.0.0.1",), ("X-Forwarded-For: nonsense",), False),
    ],
)
async def test_an_address_decides(
    networks: tuple[str, ...] | None, proxies: tuple[str, ...], headers: tuple[str, ...], is_served: bool
) -> None:
    async with Rig([answer(200, WHOLE)]) as rig:
        server = rig.settings.server.model_copy(update={"proxies": proxies})
        behind = Gateway(
            settings=rig.settings.model_copy(update={"server": server}),
            gate=rig.purse,
            pool=rig.pool,
            clock=rig.gateway.clock,
            ids=rig.gateway.ids,
            readers={},
            report=rig.gateway.report,
        )
        rig.gateway._addresses = behind._addresses
        rig.purse.policy = replace(POLICY, networks=None if networks is None else parse_networks(networks))
        got = await rig.ask(chat_body(), headers=headers)
        assert (got.status, got.headers.get("x-ratelimit-limit-tokens")) == (200 if is_served else 403, None)
        if not is_served:
            assert got.code == "address_not_allowed"
            assert not rig.upstream.requests


async def test_a_limit_of_tokens_is_told_with_every_answer() -> None:
    async with Rig([answer(200, WHOLE)]) as rig:
        rig.purse.policy = replace(POLICY, tokens_per_minute=5_000)
        got = await rig.ask(chat_body())
        names = ("limit", "remaining", "reset")
        assert [got.headers[f"x-ratelimit-{name}-tokens"] for name in names] == ["5000", "4993", "0.250s"]
