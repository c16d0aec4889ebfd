"""What a bank is shown when a payment is disputed: dates, counts and amounts. There are no prompts to show."""

from sqlalchemy import Connection, select

from dragonfly.accounts.queries import account_by_id
from dragonfly.accounts.tables import consents
from dragonfly.payments.news import time_text
from dragonfly.payments.queries import Topup
from dragonfly.payments.rules import cents_text
from dragonfly.usage.queries import day_of, day_totals

DAYS_MAX = 90
ROWS_MAX = 2_000
CONSENTS_MAX = 20

Pack = dict[str, object]


def evidence_of(connection: Connection, topup: Topup, *, now_ns: int) -> Pack:
    """The pack as it can be made now: usage rows live for 90 days, disputes come later than that."""
    account = account_by_id(connection, topup.account_id)
    assert account is not None, "a payment has an account"
    today = day_of(now_ns)
    first_day = max(day_of(topup.paid_at_ns or topup.created_at_ns), today - DAYS_MAX)
    totals = day_totals(connection, topup.account_id, first_day=first_day, last_day=today, limit=ROWS_MAX)
    days: dict[int, int] = {}
    models: dict[str, dict[str, int]] = {}
    for total in totals:
        days[total.day] = days.get(total.day, 0) + total.requests
        counted = models.setdefault(total.model, {"requests": 0, "prompt_tokens": 0, "completion_tokens": 0})
        counted["requests"] += total.requests
        counted["prompt_tokens"] += total.prompt_tokens
        counted["completion_tokens"] += total.completion_tokens
    return {
        "account": account.id,
        "account_opened": time_text(account.created_at_ns),
        "accepted": [
            {"terms": terms, "policy": policy, "at": time_text(at_ns)}
            for terms, policy, at_ns in _consents(connection, topup)
        ],
        "address_proven": None if account.verified_at_ns is None else time_text(account.verified_at_ns),
        "topup": topup.id,
        "paid": time_text(topup.paid_at_ns or topup.created_at_ns),
        "amount_usd": cents_text(topup.total_cents or topup.amount_cents),
        "method": topup.method,
        "country": topup.country,
        "product": "Prepaid credit for an API; delivered at once, used by authenticated requests.",
        "requests": sum(days.values()),
        "days": {time_text(day * 86_400 * 10**9)[:10]: count for day, count in sorted(days.items())},
        "models": models,
        "made": time_text(now_ns),
    }


def _consents(connection: Connection, topup: Topup) -> list[tuple[str, str, int]]:
    """Terms, policy and when they were accepted, the oldest first."""
    wanted = (
        select(consents.c.terms_version, consents.c.policy_version, consents.c.accepted_at_ns)
        .where(consents.c.account_id == topup.account_id)
        .order_by(consents.c.accepted_at_ns)
        .limit(CONSENTS_MAX)
    )
    return [(row.terms_version, row.policy_version, row.accepted_at_ns) for row in connection.execute(wanted)]
