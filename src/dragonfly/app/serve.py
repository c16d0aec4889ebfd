"""Serving: the socket, uvicorn on uvloop, signals, and a stop in which nothing is lost."""

import asyncio
import contextlib
import errno
import gc
import resource
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, cast

import uvicorn
import uvloop
from starlette.types import ASGIApp

from dragonfly.app.accepting import Share, SharedListener
from dragonfly.app.supervise import Post
from dragonfly.core.errors import DragonflyError
from dragonfly.infra.logging import Event, EventLog, Level, catch_in_loop, describe
from dragonfly.settings import ServerSettings

SWITCH_INTERVAL_S = 0.0005
GC_YOUNG_OBJECTS = 20_000
GC_MIDDLE_RUNS = 20
GC_OLD_RUNS = 50
STOP_STEP_S = 5.0
"""Each step of stopping after the drain is given up after this long."""
DESCRIPTORS_WANTED = 65_536

STARTED = Event("started", Level.INFO, {"host": str, "port": int, "descriptors_max": int})
STOPPING = Event("stopping", Level.INFO, {"connections": int})
STOPPED = Event("stopped", Level.INFO)
STOP_STEP_FAILED = Event("stop_step_failed", Level.ERROR, {"step": str, "exceptions": tuple})


class Step(NamedTuple):
    """Something to await at the start or at the stop."""

    name: str
    run: Callable[[], Awaitable[None]]
    s_max: float = STOP_STEP_S
    """Given up after this long, when it is part of the stop."""


@dataclass(frozen=True, slots=True)
class Served:
    """What one process serves, put together by `dragonfly.app.build`."""

    app: ASGIApp
    """Answers everything but the data plane."""
    protocol: Callable[..., asyncio.Protocol]
    """Makes the protocol of each connection."""
    starts: tuple[Step, ...]
    """Run in this order before the socket is listened to."""
    stops: tuple[Step, ...]
    """Run in this order after the drain, also when a start failed."""
    draining: Callable[[], None]
    """Told when no new connection is accepted any more."""


class AddressUnusable(DragonflyError):
    """The socket cannot be bound."""

    code = "address_unusable"


def bind(host: str, port: int) -> socket.socket:
    """A listening-to-be socket; AddressUnusable says what to do. Port 0 lets the system choose."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError:
        raise AddressUnusable("server.host: is neither an address nor a name of this machine.") from None
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        bound.bind(address)
    except OSError as failure:
        bound.close()
        raise AddressUnusable(_why_unusable(failure, port)) from None
    return bound


def _why_unusable(failure: OSError, port: int) -> str:
    if failure.errno == errno.EADDRINUSE:
        return f"Port {port} is in use. Stop what listens there, or choose another port."
    if failure.errno == errno.EACCES:
        return f"Port {port} needs privileges. Choose one above 1023 and put a proxy in front."
    return "server.host: is not an address of this machine."


class DrainingServer(uvicorn.Server):
    """uvicorn's server with our signals and with news of its start and stop.

    uvicorn raises a captured signal again when it has drained, which would end the process before the last
    settlements are written; so the signals are handled by `serve`.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        *,
        started: Callable[[], None],
        stopping: Callable[[], None],
        share: Share | None = None,
    ) -> None:
        super().__init__(config)
        self._tell_started = started
        self._tell_stopping = stopping
        self._share = share

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        if self._share is None:
            await super().startup(sockets)
        else:
            assert sockets, "workers share the supervisor's socket"
            await self._listen_with_others(sockets[0], self._share)
        self._tell_started()

    async def on_tick(self, counter: int) -> bool:
        if self._share is not None:
            self._share.put(len(self.server_state.connections))
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._tell_stopping()
        await super().shutdown(sockets)

    async def _listen_with_others(self, bound: socket.socket, share: Share) -> None:
        """What uvicorn's own start does, but for how connections are accepted."""
        await self.lifespan.startup()
        config = self.config

        def protocol() -> asyncio.Protocol:
            made: asyncio.Protocol = config.http_protocol_class(  # type: ignore[call-arg]
                config=config, server_state=self.server_state, app_state=self.lifespan.state
            )
            return made

        connections = self.server_state.connections
        listener = SharedListener(bound, protocol, share, lambda: len(connections), backlog=config.backlog)
        self.servers = [cast(asyncio.base_events.Server, listener)]
        self.started = True


@contextlib.contextmanager
def stopping_with_supervisor(server: uvicorn.Server, post: Post | None) -> Iterator[None]:
    """A worker whose supervisor has died stops as it does on SIGTERM."""
    if post is None:
        yield
        return
    loop = asyncio.get_running_loop()
    lifeline = post.lifeline

    def stop() -> None:
        loop.remove_reader(lifeline)
        server.handle_exit(signal.SIGTERM, None)

    loop.add_reader(lifeline, stop)
    try:
        yield
    finally:
        loop.remove_reader(lifeline)


@contextlib.contextmanager
def stopping_by_signal(server: uvicorn.Server) -> Iterator[None]:
    """SIGTERM and SIGINT stop the server gracefully; a second SIGINT ends the wait for open connections."""
    loop = asyncio.get_running_loop()
    signals = (signal.SIGTERM, signal.SIGINT)
    for number in signals:
        loop.add_signal_handler(number, server.handle_exit, number, None)
    try:
        yield
    finally:
        for number in signals:
            loop.remove_signal_handler(number)


async def stop_in_steps(steps: tuple[Step, ...], log: EventLog) -> None:
    """Each step once, in order; one that fails or hangs is told and does not keep the others from happening."""
    for step in steps:
        try:
            async with asyncio.timeout(step.s_max):
                await step.run()
        except Exception as failure:
            log.write(STOP_STEP_FAILED, step=step.name, exceptions=describe(failure).exceptions)


async def serve(
    served: Served,
    bound: socket.socket,
    settings: ServerSettings,
    log: EventLog,
    started: Callable[[], None] = lambda: None,
    post: Post | None = None,
) -> None:
    """Serves on `bound` until a signal; `started` is told when connections are accepted. A worker has a `post`.

    The stop is bounded: at most `settings.shutdown_s` for running answers, then each step's own.
    """
    host, port = bound.getsockname()[:2]
    descriptors_max = allow_many_descriptors()

    def tell_started() -> None:
        log.write(STARTED, host=host.lstrip(":") or "any", port=port, descriptors_max=descriptors_max)
        started()
        if post is not None:
            post.tell_ready()

    def tell_stopping() -> None:
        served.draining()
        log.write(STOPPING, connections=len(server.server_state.connections))

    config = server_config(served.app, served.protocol, settings)
    share = None if post is None else post.share
    server = DrainingServer(config, started=tell_started, stopping=tell_stopping, share=share)
    with stopping_by_signal(server), stopping_with_supervisor(server, post):
        try:
            for step in served.starts:
                await step.run()
            await server.serve(sockets=[bound])
        finally:
            await stop_in_steps(served.stops, log)
    log.write(STOPPED)


def server_config(
    app: ASGIApp, protocol: Callable[..., asyncio.Protocol], settings: ServerSettings
) -> uvicorn.Config:
    """uvicorn without its logging, its server header, its proxy headers and its web sockets."""
    return uvicorn.Config(
        app,
        http=protocol,  # type: ignore[arg-type]
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=True,
        backlog=settings.backlog,
        timeout_graceful_shutdown=settings.shutdown_s,  # type: ignore[arg-type]
    )


def allow_many_descriptors() -> int:
    """Raises the soft limit as far as it may go; returns the limit in force. A stream needs two descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS_WANTED if hard == resource.RLIM_INFINITY else min(DESCRIPTORS_WANTED, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    return soft


def run_on_uvloop(log: EventLog, main: Callable[[], Awaitable[None]]) -> None:
    """Runs `main` on a fresh loop whose unhandled exceptions lose their words."""

    async def guarded() -> None:
        catch_in_loop(log, asyncio.get_running_loop())
        tune_interpreter()
        await main()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(guarded())


def tune_interpreter() -> None:
    """Settings of CPython for a process whose event loop must not wait.

    The money thread's Python must not keep the lock from the loop for the default of 5 ms. What is loaded at
    start lives for ever: the collector need not look at it again, nor run every 700 objects.
    """
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_YOUNG_OBJECTS, GC_MIDDLE_RUNS, GC_OLD_RUNS)
