"""The reactor's turn: quick for what nearly every event is, and requests before bulk.

Twisted asks each selectable whom to log as, puts that into a context variable for the legacy log,
and looks at four bits, for every event.  Nothing here logs that way, and it is a tenth of what a
small request costs.

A transfer always has something to read, a tenth of a millisecond of work each time.  Where some
of them run, a request would wait for all of them, twice.  So whatever filled its last read
(``is_bulk``) comes after everything else, a part of them at a time, before the next look.

Private names of Twisted: ``EPollReactor._poller``, ``_selectables``, ``_doReadOrWrite``,
``_disconnectSelectable``, ``_newTimedCalls``, ``_pendingTimedCalls``, ``_justStopped``.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from select import EPOLLIN
from typing import Any

from twisted.internet.epollreactor import EPollReactor
from twisted.logger import Logger
from twisted.python import log

PART = 4
"""Of the transfers that can read, one in so many does before we look for requests again: with few
of them after each; with hundreds, looking after each would cost more than the work."""

LONGEST = 3600.0
"""Seconds that one turn may wait: epoll takes no more than 2**31 milliseconds, and for more than an
hour the main loop may see to it."""

_LOG = Logger(namespace="regguard.transport")


def quicken(reactor: Any) -> None:
    """Let an epoll reactor take ``quick_turn``; any other one keeps its own."""
    if type(reactor) is EPollReactor:
        reactor.doIteration = quick_turn(reactor)  # type: ignore[method-assign]


def quick_turn(reactor: Any) -> Callable[[float | None], None]:
    """``EPollReactor.doPoll`` for ``reactor``, with the same outcome of every event.

    It turns on by itself for as long as the main loop would have nothing else to do.
    """
    selectables: dict[int, Any] = reactor._selectables
    poll = reactor._poller.poll
    read_or_write = reactor._doReadOrWrite
    disconnect = reactor._disconnectSelectable
    order = _Order(selectables)

    def turn(timeout: float | None) -> None:
        while True:
            try:
                events = poll(-1 if timeout is None else timeout, len(selectables))
            except OSError as error:
                if error.errno == errno.EINTR:
                    return
                raise
            if len(events) > 1:
                events = order.bulk_last(events)
            for descriptor, event in events:
                selectable = selectables.get(descriptor)
                if selectable is None:
                    continue  # it went in this turn
                if event != EPOLLIN:
                    log.callWithLogger(selectable, read_or_write, selectable, descriptor, event)
                    continue
                try:
                    why = selectable.doRead()
                except BaseException as error:
                    _LOG.failure("unhandled error in {selectable}", selectable=selectable)
                    why = error
                if why:
                    disconnect(selectable, why, True)
            # What else the main loop would do between two turns.
            if (
                reactor.threadCallQueue
                or reactor._newTimedCalls
                or reactor._justStopped
                or not reactor.running
            ):
                return
            calls = reactor._pendingTimedCalls
            timeout = calls[0].time - reactor.seconds() if calls else None
            if timeout is not None and not 0 < timeout <= LONGEST:
                return

    return turn


class _Order:
    """Who comes when, among those that epoll reports together."""

    def __init__(self, selectables: dict[int, Any]) -> None:
        self._selectables = selectables
        self._served = 0

    def bulk_last(self, events: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """The events with no more than a part of the bulk, and that at the end.

        Those come first that have waited longest; epoll reports the others again.
        """
        find = self._selectables.get
        bulk: list[tuple[int, tuple[int, int], Any]] = []
        first: list[tuple[int, int]] = []
        for each in events:
            selectable = find(each[0])
            if each[1] == EPOLLIN and getattr(selectable, "is_bulk", False):
                bulk.append((getattr(selectable, "served", 0), each, selectable))
            else:
                first.append(each)
        if not bulk:
            return events
        bulk.sort(key=_waited)
        for _, each, selectable in bulk[: -(-len(bulk) // PART)]:
            self._served += 1
            selectable.served = self._served
            first.append(each)
        return first


def _waited(each: tuple[int, Any, Any]) -> int:
    return each[0]
