"""What every route of operators shares: who may use it, the reason they give, and the row in the log."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends
from pydantic import Field
from sqlalchemy import Connection

from dragonfly.api.desk import Desk
from dragonfly.api.principal import Principal, operator
from dragonfly.api.shapes import Strict
from dragonfly.operations.actions import record_action
from dragonfly.operations.rules import REASON_LENGTH_MAX, REASON_LENGTH_MIN, AuditAction

LOOKED_UP = "looked up"
"""The reason of whoever only reads."""

Operator = Annotated[Principal, Depends(operator)]
Reason = Annotated[
    str,
    Field(min_length=REASON_LENGTH_MIN, max_length=REASON_LENGTH_MAX, description="Stands in the audit log."),
]


class Because(Strict):
    """Why."""

    reason: Reason


@dataclass(frozen=True, slots=True)
class Case:
    """One action of one operator in one transaction."""

    connection: Connection
    desk: Desk
    principal: Principal

    @property
    def now_ns(self) -> int:
        return self.desk.clock.now_ns()

    def record(self, action: AuditAction, target: str, reason: str = LOOKED_UP) -> None:
        """One row in the log, with the action itself. ReasonInvalid."""
        actor = self.principal.account_id
        record_action(self.connection, actor, action, target=target, reason=reason, now_ns=self.now_ns)
