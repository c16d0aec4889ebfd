"""The watch over a recurring job, which tells readiness that the database takes writes."""

import pytest

from dragonfly.infra.database import DatabaseAway
from dragonfly.worker import TURNS_MISSED_MAX, Job, Pulse
from tests.factories import MovableClock


async def test_a_pulse_is_steady_while_its_job_succeeds_and_comes_back_with_it() -> None:
    clock, problems = MovableClock(), list[Exception]()

    async def beat() -> None:
        for problem in problems:
            raise problem

    pulse = Pulse(Job("beat", 2.0, beat), clock)
    assert (pulse.job.name, pulse.job.every_s) == ("beat", 2.0)
    clock.move(2.0 * TURNS_MISSED_MAX)
    assert pulse.is_steady
    await pulse.job.run()
    problems.append(DatabaseAway())
    clock.move(2.0 * TURNS_MISSED_MAX + 0.1)
    with pytest.raises(DatabaseAway):
        await pulse.job.run()
    assert not pulse.is_steady
    problems.clear()
    await pulse.job.run()
    assert pulse.is_steady
