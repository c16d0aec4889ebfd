"""What the operator is told by mail although nobody asked, once each, and what the log says when mail stands."""

import io
import json
from typing import Any

from sqlalchemy import Engine, insert, select

from dragonfly.accounts.tables import sign_ups
from dragonfly.core.ids import AccountId, IdSource
from dragonfly.infra.database import DatabaseThreads, read, write
from dragonfly.infra.logging import EventLog
from dragonfly.mail.alerts import Operator, queue_alert
from dragonfly.mail.tables import mail_outbox
from dragonfly.notices.alerts import WAVE_SIGN_UPS_MIN, standing_mail, tell_operator
from dragonfly.notices.jobs import alerting
from dragonfly.operations.actions import record_action
from dragonfly.operations.rules import AuditAction
from tests.factories import MovableClock, make_account

OPERATORS = "operators@example.com"
TOLD = Operator(OPERATORS)
CHARLIE = AccountId("acc-charlie")
HOUR_S = 3_600


def turn(engine: Engine, clock: MovableClock, operator: Operator = TOLD) -> None:
    with write(engine) as connection:
        tell_operator(connection, IdSource(), operator, now_ns=clock.now_ns())


def alerts(engine: Engine) -> list[dict[str, Any]]:
    with read(engine) as connection:
        rows = connection.execute(select(mail_outbox.c.details).order_by(mail_outbox.c.id)).scalars()
        return [json.loads(details) for details in rows]


def act(engine: Engine, clock: MovableClock, action: AuditAction) -> None:
    clock.move(1)
    with write(engine) as connection:
        record_action(connection, CHARLIE, action, target="acc-alice", reason="asked to", now_ns=clock.now_ns())


def sign_up(engine: Engine, clock: MovableClock, count: int, score: int = 0) -> None:
    for _ in range(count):
        row = {
            "account_id": make_account(engine),
            "network_digest": bytes(32),
            "risk_score": score,
            "risk_reasons": "[]",
            "trial_nusd": 0,
            "created_at_ns": clock.now_ns(),
        }
        with write(engine) as connection:
            connection.execute(insert(sign_ups).values(row))


def test_weighty_actions_are_told_once_and_others_are_not(engine: Engine, clock: MovableClock) -> None:
    for action in (AuditAction.ACCOUNT_READ, AuditAction.ACCOUNT_FREEZE, AuditAction.OPERATOR_ADD):
        act(engine, clock, action)
    for _ in range(3):
        turn(engine, clock)
        clock.move(60)
    told = alerts(engine)
    assert sorted(one["event"] for one in told) == ["account.freeze", "operator.add"]
    assert all("acc-charlie did this to acc-alice.\nReason: asked to" in one["detail"] for one in told)
    act(engine, clock, AuditAction.CREDIT_GRANT)
    turn(engine, clock)
    assert [one["event"] for one in alerts(engine)][-1] == "credit.grant"
    act(engine, clock, AuditAction.CHANNEL_PAUSE)
    turn(engine, clock, Operator(OPERATORS, "zh"))
    assert "acc-charlie 对 acc-alice 执行了此操作" in alerts(engine)[-1]["detail"]


def test_what_happened_long_before_is_left_to_the_log(engine: Engine, clock: MovableClock) -> None:
    act(engine, clock, AuditAction.ACCOUNT_FREEZE)
    clock.move(7 * HOUR_S)
    turn(engine, clock)
    assert alerts(engine) == []


def test_a_wave_of_sign_ups_is_told_and_a_usual_hour_is_not(engine: Engine, clock: MovableClock) -> None:
    sign_up(engine, clock, WAVE_SIGN_UPS_MIN - 1)
    turn(engine, clock)
    assert alerts(engine) == []
    sign_up(engine, clock, 1, score=70)
    turn(engine, clock)
    clock.move(60)
    turn(engine, clock)
    (told,) = alerts(engine)
    assert told["event"] == "sign_up_wave"
    assert f"{WAVE_SIGN_UPS_MIN} accounts were registered within the last hour" in told["detail"]
    assert "1 of them have a risk of 50 or more" in told["detail"]


def test_an_hour_like_all_others_is_no_wave(engine: Engine, clock: MovableClock) -> None:
    for _ in range(40):
        sign_up(engine, clock, 17)
        clock.move(HOUR_S)
    sign_up(engine, clock, WAVE_SIGN_UPS_MIN)
    turn(engine, clock)
    assert alerts(engine) == []


def test_without_an_address_nobody_is_told(engine: Engine, clock: MovableClock) -> None:
    act(engine, clock, AuditAction.OPERATOR_ADD)
    turn(engine, clock, Operator(""))
    assert alerts(engine) == []


async def test_mail_that_stands_still_is_in_the_log(engine: Engine, clock: MovableClock) -> None:
    stream, threads = io.BytesIO(), DatabaseThreads()
    run = alerting(engine, threads, clock, IdSource(), EventLog(stream, clock), operator=TOLD)
    with write(engine) as connection:
        queue_alert(connection, IdSource(), TOLD, event="e", detail="d", key="k", now_ns=clock.now_ns())
    clock.move(14 * 60)
    await run()
    assert stream.getvalue() == b""
    clock.move(61)
    await run()
    threads.close()
    line = json.loads(stream.getvalue())
    assert (line["event"], line["level"], line["waiting"], line["oldest_s"]) == ("mail_stands", "error", 1, 901)
    with read(engine) as connection:
        assert standing_mail(connection, now_ns=clock.now_ns() - 10**12) is None
