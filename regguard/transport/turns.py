"""The reactor's turn, for the case that nearly every one is: something can be read.

Twisted asks each selectable whom to log as, puts that into a context variable for the legacy log,
and looks at four bits, for every event.  Nothing here logs that way, and it is a tenth of what a
small request costs.

Private names of Twisted: ``EPollReactor._poller``, ``_selectables``, ``_doReadOrWrite``,
``_disconnectSelectable``, ``_newTimedCalls``, ``_pendingTimedCalls``,
``_justStopped``.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from select import EPOLLIN
from typing import Any

from twisted.internet.epollreactor import EPollReactor
from twisted.logger import Logger
from twisted.python import log

_LOG = Logger(namespace="regguard.transport")


def quicken(reactor: Any) -> None:
    """Let an epoll reactor take ``quick_turn``; any other one keeps its own."""
    if type(reactor) is EPollReactor:
        reactor.doIteration = quick_turn(reactor)  # type: ignore[method-assign]


def quick_turn(reactor: Any) -> Callable[[float | None], None]:
    """``EPollReactor.doPoll`` for ``reactor``, with the same outcome of every event."""
    selectables: dict[int, Any] = reactor._selectables
    poll = reactor._poller.poll
    read_or_write = reactor._doReadOrWrite
    disconnect = reactor._disconnectSelectable

    def turn(timeout: float | None) -> None:
        while True:
            try:
                events = poll(-1 if timeout is None else timeout, len(selectables))
            except OSError as error:
                if error.errno == errno.EINTR:
                    return
                raise
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
            if timeout is not None and timeout <= 0:
                return

    return turn
