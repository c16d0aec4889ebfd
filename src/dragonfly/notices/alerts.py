"""What the operator is told although nobody asks: weighty actions of operators, a wave of sign-ups, mail that stands.

Looked for every minute by whoever serves; each alert has a key of its own, so that many workers send it once.
"""

from collections.abc import Mapping
from typing import NamedTuple

from sqlalchemy import Connection, and_, func, select

from dragonfly.accounts.tables import sign_ups
from dragonfly.core.ids import IdSource
from dragonfly.mail.alerts import Operator, queue_alert
from dragonfly.mail.tables import mail_outbox
from dragonfly.operations.rules import AuditAction
from dragonfly.operations.tables import audit_log

NS_PER_HOUR = 3_600 * 10**9
LOOKS_BACK_NS = 6 * NS_PER_HOUR
"""How far back actions are looked for, e.g. after a stop; older ones stand in the log."""
ACTIONS_MAX = 100
"""Actions told in one turn, the newest; a flood of them is in the log anyway."""
WEIGHTY = frozenset(
    {
        AuditAction.OPERATOR_ADD,
        AuditAction.OPERATOR_REMOVE,
        AuditAction.CREDIT_GRANT,
        AuditAction.ACCOUNT_FREEZE,
        AuditAction.ACCOUNT_UNFREEZE,
        AuditAction.CHANNEL_PAUSE,
    }
)
"""What another operator should hear of at once."""
WAVE_SIGN_UPS_MIN = 20
WAVE_FACTOR = 5
WAVE_DAYS = 7
"""A wave is at least so many sign-ups in an hour, and so many times the usual hour of the week before."""
STUCK_NS = 15 * 60 * 10**9
"""Mail that is due for longer than this stands still."""


ACTED: Mapping[str, str] = {
    "en": "{actor} did this to {target}.\nReason: {reason}\n\nIt is number {number} of the audit log. If nobody of"
    " you did it, remove that operator at once: dragonfly operator remove.",
    "zh": "{actor} 对 {target} 执行了此操作。\n原因：{reason}\n\n审计日志编号 {number}。如果不是你们执行的，"
    "请立即移除该操作员：dragonfly operator remove。",
}
WAVE: Mapping[str, str] = {
    "en": "{lately} accounts were registered within the last hour; a usual hour has {usual}.\n{risky} of them have"
    " a risk of 50 or more.\n\nTrial credit is bounded for each person, network and day. To stop registrations, set"
    " accounts.registration to false.",
    "zh": "过去一小时内注册了 {lately} 个账户；平时每小时 {usual} 个。\n其中 {risky} 个的风险为 50 或更高。\n\n"
    "试用额度按个人、网络和每日均有上限。如需停止注册，请将 accounts.registration 设为 false。",
}


class Standing(NamedTuple):
    """Mail that waits although it is due."""

    waiting: int
    oldest_s: int


def tell_operator(connection: Connection, ids: IdSource, to: Operator, *, now_ns: int) -> None:
    """Queues what the operator has not been told yet."""
    _tell_actions(connection, ids, to, now_ns)
    _tell_wave(connection, ids, to, now_ns)


def standing_mail(connection: Connection, *, now_ns: int) -> Standing | None:
    """Mail that has been due for a quarter of an hour, or is tried again and again; None: mail flows."""
    is_waiting = and_(mail_outbox.c.state == "queued", mail_outbox.c.created_at_ns <= now_ns - STUCK_NS)
    row = connection.execute(select(func.count(), func.min(mail_outbox.c.created_at_ns)).where(is_waiting)).one()
    return Standing(int(row[0]), int((now_ns - row[1]) // 10**9)) if row[0] else None


def _tell_actions(connection: Connection, ids: IdSource, to: Operator, now_ns: int) -> None:
    newest = select(audit_log).order_by(audit_log.c.number.desc()).limit(ACTIONS_MAX)
    for row in connection.execute(newest).all():
        if row.at_ns <= now_ns - LOOKS_BACK_NS or AuditAction(row.action) not in WEIGHTY:
            continue
        said = {"actor": row.actor_id, "target": row.target, "reason": row.reason, "number": row.number}
        _queue(connection, ids, to, (row.action, ACTED, said), key=f"audit/{row.number}", now_ns=now_ns)


def _tell_wave(connection: Connection, ids: IdSource, to: Operator, now_ns: int) -> None:
    hour_ago_ns = now_ns - NS_PER_HOUR
    counted = select(func.count()).select_from(sign_ups)
    lately = connection.execute(counted.where(sign_ups.c.created_at_ns > hour_ago_ns)).scalar_one()
    if lately < WAVE_SIGN_UPS_MIN:
        return
    week = and_(
        sign_ups.c.created_at_ns > hour_ago_ns - WAVE_DAYS * 24 * NS_PER_HOUR, sign_ups.c.created_at_ns <= hour_ago_ns
    )
    usual = connection.execute(counted.where(week)).scalar_one() / (WAVE_DAYS * 24)
    if lately < WAVE_FACTOR * usual:
        return
    risky = connection.execute(
        counted.where(sign_ups.c.created_at_ns > hour_ago_ns, sign_ups.c.risk_score >= 50)
    ).scalar_one()
    said = {"lately": lately, "usual": f"{usual:.1f}", "risky": risky}
    key = f"sign_ups/{now_ns // (6 * NS_PER_HOUR)}"
    _queue(connection, ids, to, ("sign_up_wave", WAVE, said), key=key, now_ns=now_ns)


def _queue(
    connection: Connection,
    ids: IdSource,
    to: Operator,
    what: tuple[str, Mapping[str, str], Mapping[str, object]],
    *,
    key: str,
    now_ns: int,
) -> None:
    event, words, said = what
    detail = words[to.language].format_map(said)
    queue_alert(connection, ids, to, event=event, detail=detail, key=key, now_ns=now_ns)
