"""regguard.service.pushes: one record of a push whose parts several processes have seen."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.task import Clock

from regguard.ops import AccessLog
from regguard.service.pushes import HOLD, GatheredPushes


class Gathered:
    """What is told, by a clock of its own."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.told: list[tuple[str, int]] = []
        log = AccessLog(lambda lines: None, self.clock, log_format="json")
        log.log_push = self._log  # type: ignore[assignment, method-assign]
        self.pushes = GatheredPushes(log, self.clock)

    def _log(self, record: dict[str, Any]) -> None:
        self.told.append((record["repository"], record["blobs_uploaded"]))

    def hear(self, kind: str, ended_at: float, repository: str = "a") -> None:
        event = {"kind": kind, "user": "ci", "repository": repository, "bytes": 1}
        event |= {"began": 0.0, "at": ended_at}
        if kind == "manifest":
            event |= {"tags": ["v1"], "digest": None, "media_type": None}
        self.pushes.gather(event)


@pytest.fixture
def gathered() -> Gathered:
    """Nothing was heard yet."""
    return Gathered()


def test_what_ended_first_counts_first_whoever_tells_it_first(gathered: Gathered) -> None:
    """The manifest went through another process than the last layer, and its word came first."""
    gathered.clock.advance(10)
    gathered.hear("uploaded", 9.97)
    gathered.hear("manifest", 10.0)
    gathered.hear("uploaded", 9.99)
    assert gathered.told == []
    gathered.clock.advance(HOLD)

    assert gathered.told == [("a", 2)]
    assert gathered.clock.getDelayedCalls() == []


def test_what_is_new_waits_for_what_may_still_come(gathered: Gathered) -> None:
    """Each event is kept for a while of its own."""
    gathered.clock.advance(10)
    gathered.hear("manifest", 10.0, "old")
    gathered.clock.advance(HOLD - 0.01)
    gathered.hear("manifest", 10.0 + HOLD - 0.01, "new")
    gathered.clock.advance(0.01)
    assert gathered.told == [("old", 0)]
    gathered.hear("uploaded", 10.0 + HOLD - 0.02, "new")
    gathered.clock.advance(HOLD)

    assert gathered.told == [("old", 0), ("new", 1)]


def test_in_the_end_everything_is_told(gathered: Gathered) -> None:
    """Nothing more will come, and no timer is left."""
    gathered.clock.advance(10)
    gathered.hear("manifest", 10.0)
    gathered.hear("uploaded", 9.9)
    gathered.pushes.stop()

    assert gathered.told == [("a", 1)]
    assert gathered.clock.getDelayedCalls() == []
