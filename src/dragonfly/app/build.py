"""Puts the parts of a serving process together: the only file that names each of them."""

import asyncio
import contextlib
import random
import socket
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import BinaryIO

from sqlalchemy import Engine

from dragonfly.admission.gate import STOP_WAIT_S_MAX, Gate
from dragonfly.api.credits import credits_reader
from dragonfly.api.desk import Desk
from dragonfly.api.generation import generation_reader
from dragonfly.api.health import Readiness
from dragonfly.api.key import key_reader
from dragonfly.api.models import ChannelFigures, ModelPages
from dragonfly.api.stop import stop_action
from dragonfly.app.mail import mail_jobs, mail_routers, open_post_office
from dragonfly.app.metrics import metrics_parts
from dragonfly.app.payments import payment_parts
from dragonfly.app.people import people_parts
from dragonfly.app.rights import rights_parts, rights_tools
from dragonfly.app.routes import account_surface
from dragonfly.app.serve import STOP_STEP_S, Served, Step, bind, run_on_uvloop, serve
from dragonfly.app.setup import Configured, is_at_head, open_store, peppers_of, seal_of, set_up_store
from dragonfly.app.site import site_routes
from dragonfly.app.supervise import Post, Supervisor
from dragonfly.app.walls import close_walls
from dragonfly.catalog.catalog import Catalog
from dragonfly.core.clock import Clock, SystemClock
from dragonfly.core.ids import IdSource
from dragonfly.gateway.gateway import Gateway, Reader, Report
from dragonfly.gateway.server import lane
from dragonfly.infra.database import DatabaseThreads
from dragonfly.infra.logging import Event, EventLog, Level, as_name, catch_uncaught, describe, tame_libraries
from dragonfly.mail.sending import Postman
from dragonfly.providers.pool import Pool, PoolLimits
from dragonfly.settings import UpstreamSettings
from dragonfly.worker import (
    Job,
    Pulse,
    book_jobs,
    breaker_job,
    gate_jobs,
    pause_job,
    retention_job,
    run_jobs,
    statistics_job,
)

ON_OFFER = Event("on_offer", Level.INFO, {"models": int, "providers": int, "notes": int})
SURFACE_FAILED = Event("surface_failed", Level.ERROR, {"exceptions": tuple, "frames": tuple})
GATEWAY_EVENTS = {
    event.name: event
    for event in (
        Event("reader_failed", Level.ERROR, {"kind": str}),
        Event("exchange_crashed", Level.ERROR, {"kind": str}),
        Event("lane_crashed", Level.ERROR, {"kind": str}),
        Event("model_unknown", Level.WARNING, {"channel": str}),
        Event("channel_failed", Level.WARNING, {"channel": str, "kind": str, "status": int}),
    )
}
"""What the data plane reports, by name: it may not import the log itself."""


class Unmeasured:
    """Uptime and percentiles need a history over time, which is not kept yet; the API shows them as null."""

    def figures(self, channel_id: str) -> ChannelFigures | None:
        return None


def open_log(stream: BinaryIO, clock: Clock, level: Level, *, worker: int | None = None) -> EventLog:
    """The process's log; from here on libraries and last resorts write to it too."""
    log = EventLog(stream, clock, level=level, worker=worker)
    tame_libraries(log)
    catch_uncaught(log)
    return log


def serve_forever(configured: Configured) -> None:
    """`dragonfly serve`: until a signal. Raises what keeps it from starting as an error with a sentence."""
    settings = configured.settings
    clock = SystemClock()
    with bind(settings.server.host, settings.server.port) as bound:
        engine = set_up_store(settings, now_ns=clock.now_ns())
        log = open_log(sys.stderr.buffer, clock, Level[settings.log_level.upper()])
        configured = replace(configured, lockdown=close_walls(configured, log))  # workers are forked inside them
        if settings.server.workers == 1:
            run(configured, engine, bound, log, clock)
        else:
            engine.dispose()  # no connection is open when workers are forked
            supervise(configured, bound, log, clock)


def supervise(configured: Configured, bound: socket.socket, log: EventLog, clock: Clock) -> None:
    """Runs the workers until a signal. Call it before there are threads."""
    settings = configured.settings

    def work(post: Post) -> None:
        own_log = open_log(sys.stderr.buffer, clock, Level[settings.log_level.upper()], worker=post.number)
        run(configured, open_store(settings), bound, own_log, clock, post=post)

    bound.listen(settings.server.backlog)
    Supervisor(work, bound, log, workers=settings.server.workers, shutdown_s=settings.server.shutdown_s).run()


def run(
    configured: Configured,
    engine: Engine,
    bound: socket.socket,
    log: EventLog,
    clock: Clock,
    started: Callable[[], None] = lambda: None,
    post: Post | None = None,
) -> None:
    """Builds on a fresh event loop and serves on `bound` until a signal."""

    async def main() -> None:
        served = build(configured, engine, log, clock, worker=post.number if post is not None else 0)
        await serve(served, bound, configured.settings.server, log, started, post)

    run_on_uvloop(log, main)


def build(configured: Configured, engine: Engine, log: EventLog, clock: Clock, *, worker: int = 0) -> Served:
    """Every part of the process, none started. Call on the event loop that will serve."""
    settings, catalog = configured.settings, configured.catalog
    log.write(ON_OFFER, models=len(catalog.names()), providers=len(catalog.providers()), notes=len(catalog.notes))
    ids = IdSource()
    threads = DatabaseThreads()
    desk = Desk(engine, threads, clock, ids)
    peppers = peppers_of(settings)
    gate = Gate(settings.admission, engine, catalog=catalog, peppers=peppers, clock=clock, ids=ids, log=log)
    pool = Pool(limits=pool_limits(settings.upstream), clock=clock, ca_file=settings.upstream.ca_file)
    gateway = Gateway(
        settings=settings,
        gate=gate,
        pool=pool,
        clock=clock,
        ids=ids,
        readers=build_readers(catalog, engine, threads, clock),
        report=reporter(log),
    )
    gate.on_stop(gateway.stop_running)
    gateway.add_action("/v1/generation/{id}/stop", stop_action(engine, threads, clock, gateway.stop_running))
    recurring = {job.name: job for job in gate_jobs(gate, settings.admission, log)}
    pulse = Pulse(recurring["beat"], clock)
    recurring["beat"] = pulse.job
    books = book_jobs(engine, threads, clock, log, operator_address=settings.mail.operator_address)
    recurring |= {job.name: job for job in books}
    office = open_post_office(settings, peppers, seal_of(settings), sys.stdout)
    postman = Postman(engine, threads, office, clock=clock, log=log, random=random.random)
    forgetful = (
        breaker_job(gate, engine, threads, settings.admission, clock=clock, log=log),
        retention_job(engine, threads, clock, log),
        statistics_job(engine, clock),
    )
    posted = mail_jobs(settings, desk, postman, log)
    payments = payment_parts(settings, desk, peppers, log)
    people = people_parts(settings, engine, threads, clock, ids)
    tools = rights_tools(settings, peppers, ids)
    rights = rights_parts(desk, tools, people.identity.moderate, log)
    work = (*recurring.values(), pause_job(gate, engine, threads), *forgetful, *posted, *payments.jobs, *rights.jobs)
    metered, measuring = metrics_parts(settings.server.metrics_token, gateway, gate, pool, clock=clock, worker=worker)
    jobs = Recurring((*work, *measuring), log)
    mailing = mail_routers(settings, desk, office, people.identity, tools)
    routers = (*mailing, site_routes(configured, desk, peppers), *payments.routers, *rights.routers, *metered)

    async def database() -> bool:
        return pulse.is_steady and await threads.run(is_at_head, engine)

    readiness = Readiness({"database": database}, clock)

    def drain() -> None:
        readiness.draining = True

    async def start_gateway() -> None:
        gateway.start()

    return Served(
        app=account_surface(desk, peppers, catalog, people, readiness, failure_sink(log), routers),
        protocol=lane(gateway),
        starts=(Step("gate", gate.start), Step("jobs", jobs.start), Step("gateway", start_gateway)),
        stops=(
            Step("gateway", gateway.stop),
            Step("mail", postman.stop),
            Step("jobs", jobs.stop),
            Step("gate", gate.stop, s_max=2 * STOP_WAIT_S_MAX + STOP_STEP_S),
            Step("pool", pool.close),
            Step("database", closing(engine, people.passwords.close, payments.close, threads.close)),
        ),
        draining=drain,
    )


def closing(engine: Engine, *closes: Callable[[], None]) -> Callable[[], Awaitable[None]]:
    """The last step: threads that use the database, then the database."""

    async def close() -> None:
        for one in closes:
            one()
        await asyncio.get_running_loop().run_in_executor(None, engine.dispose)

    return close


def build_readers(catalog: Catalog, engine: Engine, threads: DatabaseThreads, clock: Clock) -> dict[str, Reader]:
    """Who answers which GET under /v1."""
    return {
        **ModelPages(catalog, clock, Unmeasured()).readers(),
        "/v1/generation": generation_reader(engine, threads),
        "/v1/key": key_reader(engine, threads, clock),
        "/v1/credits": credits_reader(engine, threads),
    }


class Recurring:
    """The recurring work of this process, from the start to the end of serving."""

    def __init__(self, jobs: tuple[Job, ...], log: EventLog) -> None:
        self._jobs = jobs
        self._log = log
        self._running: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._running = asyncio.get_running_loop().create_task(run_jobs(self._jobs, self._log), name="jobs")

    async def stop(self) -> None:
        running, self._running = self._running, None
        if running is not None:
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running


def pool_limits(settings: UpstreamSettings) -> PoolLimits:
    """The [upstream] section as the pool takes it."""
    return PoolLimits(
        idle_connections_max=settings.idle_connections_max,
        connections_max=settings.connections_max,
        dials_max=settings.dials_max,
        idle_s=settings.idle_s,
    )


def reporter(log: EventLog) -> Report:
    """Writes what the data plane reports. Names are code's and configuration's: they are cleaned, not refused."""

    def report(event: str, /, **values: str | int | float) -> None:
        shown = {name: as_name(value) if isinstance(value, str) else value for name, value in values.items()}
        log.write(GATEWAY_EVENTS[event], **shown)

    return report


def failure_sink(log: EventLog) -> Callable[[BaseException], None]:
    """Writes an exception that the ASGI side did not expect."""

    def failed(failure: BaseException) -> None:
        exceptions, frames = describe(failure)
        log.write(SURFACE_FAILED, exceptions=exceptions, frames=frames)

    return failed
