"""A statement as JSON and as lines of a table, the same for the command line and the API."""

from collections.abc import Iterator, Mapping, Sequence

from dragonfly.admission.account_statement import Statement
from dragonfly.catalog.quotes import moment_text
from dragonfly.core.money import usd_text
from dragonfly.core.spreadsheets import harmless
from dragonfly.usage.queries import NS_PER_DAY, DayTotal, date_text

HEADINGS = (
    "date",
    "kind",
    "reference",
    "key_id",
    "model",
    "provider",
    "requests",
    "prompt_tokens",
    "completion_tokens",
    "amount_usd",
)

Fields = Mapping[str, str | int | Sequence[Mapping[str, str | int]]]


def statement_fields(made: Statement) -> Fields:
    """The statement as JSON; money as decimal strings of dollars."""
    return {
        "account": made.account_id,
        "month": made.month.text,
        "opening_balance_usd": usd_text(made.opening_nusd),
        "events": [
            {
                "at": moment_text(event.created_at_ns),
                "kind": event.kind,
                "reference": event.group_id,
                "amount_usd": usd_text(event.amount_nusd),
            }
            for event in made.events
        ],
        "usage": [_usage_fields(total) for total in made.usage],
        "closed_usage_usd": usd_text(made.closed_usage_nusd),
        "usage_usd": usd_text(made.closed_usage_nusd + sum(total.cost_nusd for total in made.usage)),
        "closing_balance_usd": usd_text(made.closing_nusd),
    }


def statement_rows(made: Statement) -> Iterator[tuple[str | int, ...]]:
    """The statement as lines under HEADINGS: what comes is positive, what goes negative; all amounts between the two
    balances add up to their difference. No cell begins a formula."""
    first, last = date_text(made.month.first_day), date_text(made.month.last_day)
    yield HEADINGS
    yield (first, "opening_balance", "", "", "", "", "", "", "", usd_text(made.opening_nusd))
    for event in made.events:
        day = date_text(event.created_at_ns // NS_PER_DAY)
        kind, reference = harmless(event.kind), harmless(event.group_id)
        yield (day, kind, reference, "", "", "", "", "", "", usd_text(event.amount_nusd))
    for total in made.usage:
        yield (
            date_text(total.day),
            "usage",
            "",
            harmless(total.key_id),
            harmless(total.model),
            harmless(total.provider),
            total.requests,
            total.prompt_tokens,
            total.completion_tokens,
            usd_text(-total.cost_nusd),
        )
    if made.closed_usage_nusd:
        yield (last, "closed_usage", "", "", "", "", "", "", "", usd_text(-made.closed_usage_nusd))
    yield (last, "closing_balance", "", "", "", "", "", "", "", usd_text(made.closing_nusd))


def _usage_fields(total: DayTotal) -> Mapping[str, str | int]:
    return {
        "date": date_text(total.day),
        "key_id": total.key_id,
        "model": total.model,
        "provider": total.provider,
        "requests": total.requests,
        "prompt_tokens": total.prompt_tokens,
        "completion_tokens": total.completion_tokens,
        "cached_tokens": total.cached_tokens,
        "reasoning_tokens": total.reasoning_tokens,
        "cost_usd": usd_text(total.cost_nusd),
    }
