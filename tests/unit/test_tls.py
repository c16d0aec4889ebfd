"""TLS towards providers: verified, by name, HTTP/1.1 only, and resumed."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from dragonfly.core.clock import SystemClock
from dragonfly.providers.connection import BrokenKind
from dragonfly.providers.pool import Pool, PoolLimits, UnreachableKind, UpstreamUnreachable
from dragonfly.providers.tls import client_context
from tests.fakes.calls import call, channel_to, start_call
from tests.fakes.certificates import Identity, new_authority, new_server

BOTH_LOOPS = True
AUTHORITY = new_authority()
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


@asynccontextmanager
async def tls_server(identity: Identity, folder: Path, answer: bytes = ANSWER) -> AsyncIterator[int]:
    """A server that answers every request head it sees; yields the port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.readuntil(b"\r\n\r\n{}"):
                writer.write(answer)
                if b"Content-Length" not in answer:
                    break
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=identity.server_context(folder))
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


@asynccontextmanager
async def trusting_pool(folder: Path) -> AsyncIterator[Pool]:
    ca_file = folder / "ca.pem"
    ca_file.write_text(AUTHORITY.certificate)
    pool = Pool(limits=PoolLimits(), clock=SystemClock(), ca_file=ca_file)
    yield pool
    await pool.close()


async def test_a_server_of_a_trusted_authority_is_served_over_one_kept_connection(tmp_path: Path) -> None:
    async with trusting_pool(tmp_path) as pool, tls_server(new_server(AUTHORITY, "localhost"), tmp_path) as port:
        channel = channel_to(port, host="localhost", tls=True)
        for _ in range(3):
            assert (await call(pool, channel)).body == b"{}"
        assert pool.open_connections == 1
        connection = pool.take(channel)
        assert connection is not None
        assert connection.transport is not None
        assert connection.transport.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
        connection.abort()


async def test_an_address_in_the_certificate_is_enough(tmp_path: Path) -> None:
    async with trusting_pool(tmp_path) as pool, tls_server(new_server(AUTHORITY, "127.0.0.1"), tmp_path) as port:
        assert (await call(pool, channel_to(port, tls=True))).body == b"{}"


async def test_a_certificate_for_another_host_is_refused(tmp_path: Path) -> None:
    async with trusting_pool(tmp_path) as pool, tls_server(new_server(AUTHORITY, "example.com"), tmp_path) as port:
        with pytest.raises(UpstreamUnreachable) as caught:
            await pool.dial(channel_to(port, host="localhost", tls=True))
        assert caught.value.kind is UnreachableKind.CERTIFICATE
        assert pool.open_connections == 0


async def test_an_authority_that_nobody_trusts_is_refused(tmp_path: Path) -> None:
    stranger = new_server(new_authority("stranger"), "localhost")
    async with trusting_pool(tmp_path) as pool, tls_server(stranger, tmp_path) as port:
        with pytest.raises(UpstreamUnreachable) as caught:
            await pool.dial(channel_to(port, host="localhost", tls=True))
        assert caught.value.kind is UnreachableKind.CERTIFICATE


async def test_a_server_that_does_not_speak_tls_is_told_as_such(tmp_path: Path) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with trusting_pool(tmp_path) as pool:
        with pytest.raises(UpstreamUnreachable) as caught:
            await pool.dial(channel_to(server.sockets[0].getsockname()[1], host="localhost", tls=True))
        assert caught.value.kind in (UnreachableKind.TLS, UnreachableKind.NETWORK)
    server.close()


async def test_a_second_connection_resumes_the_session_of_the_first(tmp_path: Path) -> None:
    async with trusting_pool(tmp_path) as pool, tls_server(new_server(AUTHORITY, "localhost"), tmp_path) as port:
        channel = channel_to(port, host="localhost", tls=True)
        reused = []
        for _ in range(2):
            await call(pool, channel)
            connection = pool.take(channel)
            assert connection is not None
            assert connection.transport is not None
            reused.append(connection.transport.get_extra_info("ssl_object").session_reused)
            connection.abort()
        assert reused == [False, True]


ENDLESS = b"HTTP/1.1 200 OK\r\n\r\nabc"


async def test_a_body_that_lasts_until_close_notify_is_whole(tmp_path: Path) -> None:
    identity = new_server(AUTHORITY, "localhost")
    async with trusting_pool(tmp_path) as pool, tls_server(identity, tmp_path, ENDLESS) as port:
        collector = await call(pool, channel_to(port, host="localhost", tls=True))
        assert (collector.body, collector.end) == (b"abc", "end")


# asyncio's own loop does not tell a torn connection from an orderly end; production runs on uvloop.
@pytest.mark.asyncio(loop_factories=["uvloop"])
async def test_a_body_that_is_torn_off_without_close_notify_is_cut(tmp_path: Path) -> None:
    identity = new_server(AUTHORITY, "localhost")

    async def tear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"{}")
        writer.write(ENDLESS)
        await writer.drain()
        writer.transport.abort()

    server = await asyncio.start_server(tear, "127.0.0.1", 0, ssl=identity.server_context(tmp_path))
    async with trusting_pool(tmp_path) as pool:
        port = server.sockets[0].getsockname()[1]
        _, collector = await start_call(pool, channel_to(port, host="localhost", tls=True))
        assert await collector.ended() is BrokenKind.CUT
    server.close()


def test_the_context_is_as_strict_as_the_standard_librarys_and_writes_no_key_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys.log"))
    ours, model = client_context(None), ssl.create_default_context()
    for name in ("verify_mode", "check_hostname", "verify_flags", "minimum_version", "options"):
        assert getattr(ours, name) == getattr(model, name), name
    assert ours.cert_store_stats() == model.cert_store_stats()
    assert ours.keylog_filename is None


def test_a_ca_file_that_is_none_is_an_error(tmp_path: Path) -> None:
    broken = tmp_path / "ca.pem"
    broken.write_text("no certificate")
    with pytest.raises(ssl.SSLError):
        client_context(broken)
    with pytest.raises(OSError, match="No such file"):
        client_context(tmp_path / "missing.pem")
