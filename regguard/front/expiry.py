"""What expires, and who is told in time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timezone

from twisted.application.service import Service
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

AHEAD = (30, 7, 1)
"""Days before the end on which is told of it.  What renews certificates by itself does so about
30 days ahead, and has failed where they get fewer."""

LOOK = 3600.0
"""Seconds between looks: none of the days above is missed by more."""

_DAY = 86_400


@dataclass(frozen=True, slots=True)
class Expiring:
    """Something in a file that is of no use after ``at`` (seconds since the epoch).

    ``what`` it is and what happens ``then`` is for people; ``ahead`` are days; ``counts`` says
    whether this is the end of the file's certificates.
    """

    path: str
    what: str
    at: float
    then: str
    ahead: tuple[int, ...] = AHEAD
    counts: bool = True

    def stage(self, now: float) -> int | None:
        """Which of the days ahead has come (0: all is over); None while it is good."""
        left = self.at - now
        if left <= 0:
            return 0
        return min((days for days in self.ahead if left <= days * _DAY), default=None)

    def warning(self, now: float) -> str | None:
        """What to tell the operator now, in one line."""
        if self.stage(now) is None:
            return None
        date = datetime.fromtimestamp(self.at, timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
        if self.at <= now:
            return f"{self.path}: {self.what} expired on {date}, {self.then}; put a new one there"
        days = math.ceil((self.at - now) / _DAY)
        when = "within a day" if days == 1 else f"in {days} days"
        return f"{self.path}: {self.what} expires {when}, on {date}; put a new one there"


class ExpiryWatch(Service):
    """Warns in the log of what expires, once for each of the days ahead and once when it did.

    What was due well before it starts counts as told: the daemon's first lines say it, or the
    worker whose place is taken has.
    """

    _log = Logger(namespace="regguard.front")

    def __init__(
        self,
        expiring: Callable[[], Iterable[Expiring]],
        clock: IReactorTime,
        wall_clock: Callable[[], float],
    ) -> None:
        self._expiring = expiring
        self._wall_clock = wall_clock
        self._told: dict[Expiring, int] = {}
        self._loop = LoopingCall(self._look)
        self._loop.clock = clock

    def startService(self) -> None:
        """Begin to look."""
        super().startService()  # type: ignore[no-untyped-call]
        # The last look of whom it replaces was up to one interval before the end of that one.
        self._due(self._wall_clock() - 2 * LOOK)
        self._loop.start(LOOK, now=False).addErrback(
            lambda failure: self._log.failure("the watch over certificates stopped", failure)
        )

    def stopService(self) -> None:
        """Look no more."""
        super().stopService()  # type: ignore[no-untyped-call]
        if self._loop.running:
            self._loop.stop()

    def _due(self, now: float) -> list[Expiring]:
        """What has come to a stage of which nobody was told."""
        told, self._told = self._told, {}
        due = []
        for each in self._expiring():
            stage = each.stage(now)
            if stage is not None:
                self._told[each] = stage
                if told.get(each) != stage:
                    due.append(each)
        return due

    def _look(self) -> None:
        now = self._wall_clock()
        for each in self._due(now):
            self._log.warn("{warning}", warning=each.warning(now))
