"""Decisions about notices without any I/O: when which welcome mail is due, and when a balance has crossed."""

from dragonfly.mail.kinds import MailKind

NS_PER_DAY = 86_400_000_000_000
WELCOME_STEPS: tuple[tuple[MailKind, int], ...] = (
    (MailKind.WELCOME_START, 0),
    (MailKind.WELCOME_ROUTES, 3),
    (MailKind.WELCOME_HELP, 7),
)
"""Each mail with its day, counted from the moment at which the address was proven."""
BEGINS_DAYS = 7
"""Accounts that were verified earlier than that get no welcome any more, e.g. after a long stop."""
ENDS_DAYS = 14
PAUSE_DAYS = 1
"""At least between two mails, also when a worker was away and several are due."""


def next_welcome_ns(started_at_ns: int, step: int, *, now_ns: int) -> int | None:
    """When the mail with that number (from 0) is due; None: there is no further one, or it would come too late."""
    if step >= len(WELCOME_STEPS):
        return None
    due_ns = max(started_at_ns + WELCOME_STEPS[step][1] * NS_PER_DAY, now_ns + PAUSE_DAYS * NS_PER_DAY)
    return due_ns if due_ns <= started_at_ns + ENDS_DAYS * NS_PER_DAY else None
