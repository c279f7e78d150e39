"""regguard.auth.audit: what the log says of refused log-ins, and how much."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs, formatEvent

from regguard.auth.audit import DISTINCT, INTERVAL, Audit
from regguard.auth.interfaces import Throttled

HOME = "192.0.2.0/24"
WRONG = "wrong user name or password"


@pytest.fixture
def audit(clock: Clock) -> Audit:
    audit = Audit(clock)
    audit.startService()
    return audit


@pytest.fixture
def events() -> Iterator[list[Any]]:
    with capturedLogs() as events:
        yield events


def lines(events: list[Any]) -> list[str]:
    return [formatEvent(event) for event in events]


def test_a_refused_log_in_is_one_event_with_fields(audit: Audit, events: list[Any]) -> None:
    """User, network and reason stand in fields of their own, for whatever reads them."""
    audit.refused("ci", HOME, WRONG)

    (event,) = events
    assert event["log_level"] is LogLevel.info
    assert (event["user"], event["network"], event["reason"]) == ("ci", HOME, WRONG)
    assert lines(events) == [f"refused ci from {HOME}: {WRONG}"]


def test_repeats_are_summed_up_at_the_minutes_end(
    audit: Audit, events: list[Any], clock: Clock
) -> None:
    """docker push with an outdated password is two lines, not a hundred."""
    for _ in range(100):
        audit.refused("ci", HOME, WRONG)
    audit.refused("bob", HOME, WRONG)
    assert len(events) == 2

    clock.advance(INTERVAL)

    assert lines(events)[2:] == [f"refused ci from {HOME} 99 more times within a minute: {WRONG}"]
    assert events[2]["count"] == 99
    assert clock.getDelayedCalls() == []
    audit.refused("ci", HOME, WRONG)
    assert lines(events)[3:] == [f"refused ci from {HOME}: {WRONG}"]


def test_e12_a_flood_of_names_does_not_fill_the_log(
    audit: Audit, events: list[Any], clock: Clock
) -> None:
    """Beyond a hundred there is one line for all others, and nothing is kept of them."""
    for number in range(10_000):
        audit.refused(f"user{number}", HOME, WRONG)
    assert len(events) == DISTINCT

    clock.advance(INTERVAL)

    assert lines(events)[DISTINCT:] == [
        f"refused {10_000 - DISTINCT} other log-ins within a minute"
    ]


def test_throttling_warns_once_when_it_begins(audit: Audit, events: list[Any]) -> None:
    """Somebody should look; the refusals that follow are refusals like others."""
    reason = "too many wrong passwords for this user from this network"
    for begins in (True, False, False):
        audit.throttled("ci", HOME, Throttled(reason, 287, begins))

    assert [event["log_level"] for event in events] == [LogLevel.warn, LogLevel.info]
    assert lines(events) == [
        f"{reason}: ci from {HOME} is refused without a look for 287 s",
        f"refused ci from {HOME}: {reason}",
    ]


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("", "-"),
        ("a b\\c", r"a\x20b\x5cc"),
        ("eve\nroot", r"eve\x0aroot"),
        ("\x1b[2J", r"\x1b[2J"),
        ("\x85\u2028\u202e", r"\x85\u2028\u202e"),
        ("Zo\u00eb", "Zo\u00eb"),
        ("{log_level}", "{log_level}"),
        ("x" * 8000, "x" * 64 + "..."),
    ],
)
def test_f02_a_name_is_one_bounded_word(
    audit: Audit, events: list[Any], name: str, shown: str
) -> None:
    """Whatever somebody claims to be called, he cannot write a line of his own."""
    audit.refused(name, HOME, WRONG)

    assert lines(events) == [f"refused {shown} from {HOME}: {WRONG}"]


def test_stopping_sums_up_and_leaves_no_timer(
    audit: Audit, events: list[Any], clock: Clock
) -> None:
    """The last minute is not lost, and what comes later waits for no timer."""
    for _ in range(3):
        audit.refused("ci", HOME, WRONG)

    audit.stopService()
    audit.refused("late", HOME, WRONG)

    assert "2 more times" in lines(events)[1]
    assert clock.getDelayedCalls() == []
