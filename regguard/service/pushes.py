"""Push records: told in the log, and in an access log of JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted.logger import Logger

from regguard.ops import AccessLog, PushLedger
from regguard.ops.pushes import in_words

HOLD = 0.25
"""Seconds for which what workers tell is kept, so that it can be put in order: the last layer of a
push may have gone through one of them, and the manifest a millisecond later through another."""

_LOG = Logger(namespace="regguard")


class Pushes:
    """Counts what requests did for pushes, and tells of each that is there."""

    def __init__(self, access_log: AccessLog) -> None:
        self._ledger = PushLedger()
        self._access_log = access_log

    def note(self, event: Mapping[str, Any]) -> None:
        """Take an event of ``ops.push_event``, in the order of their ends."""
        record = self._ledger.note(event)
        if record is not None:
            _LOG.info("{line}", line=in_words(record), **record)
            self._access_log.log_push(record)


class GatheredPushes(Pushes):
    """The same of several processes, whose clock is one (CLOCK_MONOTONIC)."""

    def __init__(self, access_log: AccessLog, clock: Any) -> None:
        super().__init__(access_log)
        self._clock = clock
        self._held: list[Mapping[str, Any]] = []
        self._later: Any = None

    def gather(self, event: Mapping[str, Any]) -> None:
        """Take an event that may be late."""
        self._held.append(event)
        if self._later is None:
            self._later = self._clock.callLater(HOLD, self._look)

    def _look(self) -> None:
        until = self._clock.seconds() - HOLD / 2
        self._later = None
        self._held.sort(key=_ended_at)
        while self._held and self._held[0]["at"] <= until:
            self.note(self._held.pop(0))
        if self._held:
            self._later = self._clock.callLater(HOLD, self._look)

    def stop(self) -> None:
        """Tell what is there; nothing will come any more."""
        if self._later is not None:
            self._later.cancel()
            self._later = None
        held, self._held = self._held, []
        for event in sorted(held, key=_ended_at):
            self.note(event)


def _ended_at(event: Mapping[str, Any]) -> float:
    at: float = event["at"]
    return at
