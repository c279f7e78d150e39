"""Whether a registry can be reached, for whoever asks how regguard is.

Probes come as they like, and the registry must not notice how many there are: it is looked at
when somebody asks, and not again within HOLD.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import Any

from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.error import TimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from regguard.relay.upstream import Upstream

HOLD = 0.5
"""Seconds for which an outcome holds: a registry that is back counts as back within one."""

LIMIT = 2.0
"""Seconds within which a registry has to take a connection: below the usual limits of probes, once
one of them has a look under way."""


class Reachability:
    """Looks whether one of ``upstreams`` takes a connection."""

    def __init__(self, upstreams: Sequence[Upstream], clock: IReactorTime) -> None:
        self._upstreams = upstreams
        self._clock = clock
        self._complaints: list[str] = []
        self._holds_until = -inf
        self._waiting: list[Deferred[list[str]]] = []

    def complaints(self) -> Deferred[list[str]]:
        """Why no registry can be reached, a line for each; none if one can.  Never fails."""
        waiter: Deferred[list[str]] = Deferred()
        if not self._waiting and self._clock.seconds() < self._holds_until:
            waiter.callback(list(self._complaints))
            return waiter
        self._waiting.append(waiter)
        if len(self._waiting) == 1:
            # The first one that is there decides: another may be silent for its whole time.
            looking = DeferredList(
                [self._look_at(each) for each in self._upstreams],
                fireOnOneCallback=True,
                consumeErrors=True,
            )
            looking.addCallback(self._looked)
        return waiter

    def _look_at(self, upstream: Upstream) -> Deferred[None]:
        looking: Deferred[None] = maybeDeferred(upstream.knock)
        return looking.addTimeout(LIMIT, self._clock, _too_late)

    def _looked(self, outcome: Any) -> None:
        # With fireOnOneCallback: a pair for the first success, or a list when there was none.
        self._complaints = []
        if isinstance(outcome, list):
            self._complaints = [
                f"the registry {upstream.address} cannot be reached: {_reason(failure)}"
                for upstream, (_, failure) in zip(self._upstreams, outcome, strict=True)
            ]
        self._holds_until = self._clock.seconds() + HOLD
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            waiter.callback(list(self._complaints))


def _reason(failure: Failure) -> str:
    return failure.getErrorMessage().rstrip(".")


def _too_late(result: Any, seconds: float) -> Any:
    if isinstance(result, Failure):
        raise TimeoutError(string=f"no connection in {seconds:g} s")
    return result
