"""Puts the parts of people's rights together: requests about data, their review, and what carries them out."""

from typing import NamedTuple

from fastapi import APIRouter

from dragonfly.api.admin_data_requests import admin_data_request_routes
from dragonfly.api.data_requests import data_request_routes
from dragonfly.api.desk import Desk, Moderate
from dragonfly.app.people import tools_of
from dragonfly.core.ids import IdSource
from dragonfly.infra.logging import EventLog
from dragonfly.keys.rules import Peppers
from dragonfly.privacy.signing import signing_key
from dragonfly.rights.actions import RightsTools
from dragonfly.rights.jobs import ALERT_EVERY_S, CARRY_OUT_EVERY_S, RightsWork
from dragonfly.settings import Settings
from dragonfly.worker import Job


class RightsParts(NamedTuple):
    """What requests about data add to a serving process."""

    routers: tuple[APIRouter, ...]
    jobs: tuple[Job, ...]


def rights_tools(settings: Settings, peppers: Peppers, ids: IdSource) -> RightsTools:
    """What the actions of requests about data work with."""
    return RightsTools(
        people=tools_of(settings, ids),
        settings=settings.privacy,
        operator_address=settings.mail.operator_address,
        certificate_key=signing_key(peppers),
    )


def rights_parts(desk: Desk, tools: RightsTools, moderate: Moderate, log: EventLog) -> RightsParts:
    """Routes of people and operators, and the recurring work."""
    work = RightsWork(desk.engine, desk.threads, desk.clock, tools, log)
    return RightsParts(
        routers=(data_request_routes(desk, tools, moderate), admin_data_request_routes(desk, tools)),
        jobs=(
            Job("data_requests", CARRY_OUT_EVERY_S, work.carry_out),
            Job("data_request_alerts", ALERT_EVERY_S, work.alert),
        ),
    )
