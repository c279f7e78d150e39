"""regguard.front.expiry: warned of ahead, once for each stage."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs

from regguard.front.expiry import LOOK, Expiring, ExpiryWatch

DAY = 86_400
EPOCH = 1_800_000_000.0


class Watched:
    """A watch over ``things``, on a clock that stands until it is moved."""

    def __init__(self, *things: Expiring) -> None:
        self.things = list(things)
        self.clock = Clock()
        self.watch = ExpiryWatch(
            lambda: self.things, self.clock, lambda: EPOCH + self.clock.seconds()
        )
        self.watch.startService()

    def pass_days(self, days: float) -> list[str]:
        """What is said meanwhile."""
        with capturedLogs() as logs:
            self.clock.pump([LOOK] * round(days * DAY / LOOK))
        assert {event["log_level"] for event in logs} <= {LogLevel.warn}
        return [event["warning"] for event in logs]


@pytest.fixture
def watched() -> Iterator[Watched]:
    """One certificate that is good for 40 days."""
    watched = Watched(Expiring("a.crt", "the certificate", EPOCH + 40 * DAY, "clients refuse it"))
    yield watched
    watched.watch.stopService()
    assert not watched.clock.getDelayedCalls()


def test_it_is_told_30_7_and_1_days_ahead_and_at_the_end(watched: Watched) -> None:
    """Once each, within an hour."""
    for days, texts in (
        (9.9, []),
        (0.2, ["a.crt: the certificate expires in 30 days, on 2027-02-24 08:00 UTC; put a new"]),
        (22.8, []),
        (0.2, ["a.crt: the certificate expires in 7 days, on"]),
        (5.8, []),
        (0.2, ["a.crt: the certificate expires within a day, on"]),
        (0.8, []),
        (0.2, ["a.crt: the certificate expired on 2027-02-24 08:00 UTC, clients refuse it; put a"]),
        (100, []),
    ):
        said = watched.pass_days(days)
        assert len(said) == len(texts), (said, texts)
        for line, text in zip(said, texts, strict=True):
            assert line.startswith(text)


def test_a_new_one_is_a_new_matter(watched: Watched) -> None:
    """Renewed in time nothing is said; one with few days left is named."""
    assert len(watched.pass_days(15)) == 1
    watched.things[0] = Expiring("a.crt", "the certificate", EPOCH + 400 * DAY, "")
    assert watched.pass_days(30) == []
    watched.things[0] = Expiring("a.crt", "the certificate", EPOCH + 50 * DAY, "")
    assert [line[:40] for line in watched.pass_days(0.5)] == [
        "a.crt: the certificate expires in 5 days"
    ]


def test_what_is_due_at_the_start_was_said_already() -> None:
    """By the daemon's first lines; the next stage is news again."""
    watched = Watched(Expiring("a.crt", "the certificate", EPOCH + 10 * DAY, ""))

    assert watched.pass_days(2.5) == []
    assert len(watched.pass_days(1)) == 1
    watched.watch.stopService()


def test_what_came_due_just_before_the_start_is_told() -> None:
    """A worker that takes another one's place does not know what that one had no time to tell."""
    watched = Watched(Expiring("a.crt", "the certificate", EPOCH + 7 * DAY - LOOK, ""))

    assert len(watched.pass_days(1 / 24)) == 1
    assert watched.pass_days(5.5) == []
    watched.watch.stopService()


def test_something_short_lived_has_days_of_its_own() -> None:
    """A revocation list that lives for a week is not warned of for all of it."""
    thing = Expiring("ca.crt", "the revocation list of CN=x", EPOCH + 6 * DAY, "", ahead=(1,))
    watched = Watched(thing)

    assert thing.warning(EPOCH) is None
    assert len(watched.pass_days(5.5)) == 1
    watched.watch.stopService()
