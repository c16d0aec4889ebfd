"""Connections to all providers: warm ones are handed out at once, new ones are dialled within bounds.

One pool per process and event loop. Nothing is shared between origins but the TLS context and the sweep.
"""

import asyncio
import contextlib
import enum
import socket
import ssl
from pathlib import Path
from typing import NamedTuple

from dragonfly.core.clock import Clock
from dragonfly.providers.channel import Channel, Origin
from dragonfly.providers.connection import BrokenKind, Connection
from dragonfly.providers.tls import ClientContext, client_context

SWEEP_S = 1.0
"""Each connection is looked at this often: deadlines are kept to within two sweeps."""
SWEEP_SLICES = 8
"""A sweep is spread over this many steps, so that 10,000 connections stall nobody."""
CLOSE_S = 2.0
"""How long `close` waits for sockets to be gone."""
KNOWN_CHANNELS_MAX = 4_096
PROBE_IDLE_S = 45
PROBE_INTERVAL_S = 15
PROBES_MAX = 4


class UnreachableKind(enum.Enum):
    """Why there is no connection."""

    REFUSED = "refused"
    NAME = "name"
    """The host name has no address."""
    NETWORK = "network"
    TIMEOUT = "timeout"
    CERTIFICATE = "certificate"
    TLS = "tls"
    BUSY = "busy"
    """The bound on connections to this origin is reached."""
    CLOSED = "closed"
    """The pool is closing."""


class UpstreamUnreachable(Exception):
    """No connection could be made; nothing was sent, so trying again is safe."""

    def __init__(self, kind: UnreachableKind) -> None:
        super().__init__(f"no connection to the provider: {kind.value}")
        self.kind = kind


class PoolLimits(NamedTuple):
    """Bounds per origin, from the settings' [upstream] section."""

    idle_connections_max: int = 64
    connections_max: int = 12_000
    dials_max: int = 32
    idle_s: float = 30.0


class _OriginState:
    """The connections to one origin. Idle ones are taken last in, first out: the warmest, and the rest age."""

    __slots__ = ("_pool", "count", "dials", "host", "idle", "idle_s", "origin", "slices")

    def __init__(self, pool: "Pool", origin: Origin) -> None:
        self._pool = pool
        self.origin = origin
        self.idle_s = pool.limits.idle_s
        self.idle: list[Connection] = []
        self.count = 0
        """Open connections and dials under way."""
        self.dials = asyncio.Semaphore(pool.limits.dials_max)

    def take(self, channel: Channel) -> Connection | None:
        idle = self.idle
        while idle:
            connection = idle.pop()
            if connection.is_usable:
                connection.timeouts = channel.timeouts
                return connection
        return None

    def opened(self, connection: Connection) -> None:
        self._pool.opened(connection)

    def gone(self, connection: Connection) -> None:
        self._pool.gone(connection)

    def release(self, connection: Connection) -> None:
        if len(self.idle) >= self._pool.limits.idle_connections_max or self._pool.is_closed:
            connection.abort()
            return
        self.idle.append(connection)
        if self.origin.tls and not connection.session_kept:
            connection.session_kept = True
            self._pool.remember_session(self.origin, connection)

    def discard(self, connection: Connection) -> None:
        if self._pool.forget(connection):
            self.count -= 1
            if connection in self.idle:
                self.idle.remove(connection)


class Pool:
    """Warm and new connections. `take` is synchronous and costs well under a microsecond."""

    def __init__(
        self, *, limits: PoolLimits, clock: Clock, ca_file: Path | None = None, sweep_s: float = SWEEP_S
    ) -> None:
        self.limits = limits
        self.is_closed = False
        self._clock = clock
        self._ca_file = ca_file
        self._sweep_s = sweep_s
        self._origins: dict[Origin, _OriginState] = {}
        self._known: dict[str, tuple[Channel, _OriginState]] = {}
        self._slices: tuple[set[Connection], ...] = tuple(set() for _ in range(SWEEP_SLICES))
        self._open: dict[Connection, set[Connection]] = {}
        """Usable connections, each with its slice."""
        self._sockets: set[Connection] = set()
        self._emptied = asyncio.Event()
        self._dialled = 0
        self._step = 0
        self._timer: asyncio.TimerHandle | None = None
        # With a file of the operator's, now: a file that is unusable is found at start.
        self._context: ClientContext | None = client_context(ca_file) if ca_file is not None else None

    @property
    def open_connections(self) -> int:
        """Connections that hold a socket, idle ones included."""
        return len(self._sockets)

    def idle_connections(self, origin: Origin) -> int:
        """Connections to this origin that wait for a request."""
        state = self._origins.get(origin)
        return len(state.idle) if state else 0

    def take(self, channel: Channel) -> Connection | None:
        """An idle, warm connection for this channel, or None: then `dial`."""
        known = self._known.get(channel.id)
        if known is not None and known[0] is channel:
            return known[1].take(channel)
        return self._state(channel).take(channel)

    async def dial(self, channel: Channel) -> Connection:
        """A connection ready for `send`: a new one, or one that became free meanwhile.

        Raises UpstreamUnreachable. Waits at most `channel.timeouts.connect_s`, queueing for a dial included.
        """
        state = self._state(channel)
        if self.is_closed:
            raise UpstreamUnreachable(UnreachableKind.CLOSED)
        if state.count >= self.limits.connections_max:
            raise UpstreamUnreachable(UnreachableKind.BUSY)
        state.count += 1
        dialled = False
        try:
            async with asyncio.timeout(channel.timeouts.connect_s), state.dials:
                warm = state.take(channel)
                if warm is not None:
                    return warm
                connection = await self._connect(state, channel)
                dialled = True
                return connection
        except (OSError, UnicodeError) as error:
            raise UpstreamUnreachable(_unreachable(error)) from None
        finally:
            if not dialled:
                state.count -= 1

    async def close(self) -> None:
        """Close every connection; exchanges under way end as broken. Returns when the sockets are gone."""
        self.is_closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for connection in tuple(self._sockets):
            connection.fail(BrokenKind.RESET)
        if self._sockets:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._emptied.wait(), CLOSE_S)

    def tls_context(self) -> ClientContext:
        """The context of all TLS connections. Making it reads the system's authorities and takes some 30 ms, once:
        call this at start when a channel uses TLS, so that no request waits for it."""
        if self._context is None:
            self._context = client_context(self._ca_file)
        return self._context

    def sweep(self) -> None:
        """Look at every connection now and close those whose deadline has passed."""
        for connections in self._slices:
            self._sweep(connections)

    # What the connections' owners call

    def opened(self, connection: Connection) -> None:
        """A socket exists."""
        self._sockets.add(connection)

    def gone(self, connection: Connection) -> None:
        """The socket does not exist any more."""
        self._sockets.discard(connection)
        if not self._sockets and self.is_closed:
            self._emptied.set()

    def forget(self, connection: Connection) -> bool:
        """True when the connection was still counted."""
        connections = self._open.pop(connection, None)
        if connections is None:
            return False
        connections.discard(connection)
        return True

    def remember_session(self, origin: Origin, connection: Connection) -> None:
        """Keep the TLS session of a connection that has served a request: by then its ticket has come."""
        if self._context is not None and connection.transport is not None:
            ssl_object = connection.transport.get_extra_info("ssl_object")
            self._context.remember(origin.host, ssl_object.session)

    def _state(self, channel: Channel) -> _OriginState:
        state = self._origins.get(channel.origin)
        if state is None:
            state = self._origins[channel.origin] = _OriginState(self, channel.origin)
        if len(self._known) >= KNOWN_CHANNELS_MAX:
            self._known.clear()
        self._known[channel.id] = (channel, state)
        return state

    async def _connect(self, state: _OriginState, channel: Channel) -> Connection:
        loop = asyncio.get_running_loop()
        origin = state.origin
        context = self.tls_context() if origin.tls else None

        def make() -> Connection:
            return Connection(state, channel.timeouts, self._clock.monotonic_s())

        if context is None:
            _, connection = await loop.create_connection(make, origin.host, origin.port)
        else:
            _, connection = await loop.create_connection(
                make, origin.host, origin.port, ssl=context, server_hostname=origin.host
            )
        if self.is_closed or not connection.is_usable:
            connection.abort()
            raise ConnectionResetError
        _keep_alive(connection)
        connections = self._slices[self._dialled % SWEEP_SLICES]
        self._dialled += 1
        connections.add(connection)
        self._open[connection] = connections
        self._keep_sweeping()
        return connection

    def _keep_sweeping(self) -> None:
        if self._timer is None and self._open and not self.is_closed:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._sweep_s / SWEEP_SLICES, self._sweep_step)

    def _sweep_step(self) -> None:
        self._timer = None
        self._step = (self._step + 1) % SWEEP_SLICES
        self._sweep(self._slices[self._step])
        self._keep_sweeping()

    def _sweep(self, connections: set[Connection]) -> None:
        now_s = self._clock.monotonic_s()
        for connection in tuple(connections):
            connection.sweep(now_s)


def _keep_alive(connection: Connection) -> None:
    """Have the system probe a silent connection: a provider may think for minutes, and routers on the way forget
    connections sooner than that."""
    assert connection.transport is not None
    sock: socket.socket = connection.transport.get_extra_info("socket")
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if hasattr(socket, "TCP_KEEPIDLE"):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, PROBE_IDLE_S)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, PROBE_INTERVAL_S)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, PROBES_MAX)


def _unreachable(error: OSError | UnicodeError) -> UnreachableKind:
    """TimeoutError, gaierror and SSLError are all OSErrors: the narrow ones come first."""
    if isinstance(error, TimeoutError):
        return UnreachableKind.TIMEOUT
    if isinstance(error, ssl.SSLCertVerificationError):
        return UnreachableKind.CERTIFICATE
    if isinstance(error, ssl.SSLError):
        return UnreachableKind.TLS
    if isinstance(error, socket.gaierror | UnicodeError):
        return UnreachableKind.NAME
    if isinstance(error, ConnectionRefusedError):
        return UnreachableKind.REFUSED
    return UnreachableKind.NETWORK
