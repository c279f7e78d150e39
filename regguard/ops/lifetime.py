"""From the start of a process to its end: signals, what systemd hears, and the exit status.

SIGHUP
    everything is read anew.
SIGTERM, SIGINT
    the first one ends the process when what is under way has ended, with status 0; the second
    one cuts that.  Where something was cut, then or at the limit, the status is 1.

Twisted itself ends a process "by the signal", and ``twist`` knows no exit status of its own: so
the handlers here take the place of the reactor's, and the status is given when it has stopped.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from typing import Any, Protocol

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from regguard.ops.notify import Notify

FAILED = 1
"""Exit status where something was cut, or did not start."""

_LOG = Logger(namespace="regguard.ops")


class Serving(Protocol):
    """What a process lives for: one that serves, or the parent of those that do."""

    @property
    def was_cut(self) -> bool:
        """Whether something under way was ended before its time."""

    def startService(self) -> None:
        """Begin, before the reactor runs; SystemExit where that can't be."""

    def when_ready(self) -> Deferred[str]:
        """Fires with a line for the status when everybody may come; fails with what is wrong."""

    def reload(self) -> Deferred[Any]:
        """Read every file anew; fires when that is done."""

    def stopService(self) -> Deferred[Any]:
        """Take no more; fires when what was under way has ended."""

    def cut(self) -> None:
        """End what is under way now."""


class Lifetime(Service):
    """Starts and stops ``serving`` with the process, and tells ``notify`` of it."""

    def __init__(self, serving: Serving, reactor: Any, notify: Notify) -> None:
        self._serving = serving
        self._reactor = reactor
        self._notify = notify
        self._status = ""
        self._ending = False
        self._failed = False
        self._reloading = False
        self._reload_again = False
        self._watchdog = LoopingCall(notify.alive)
        self._watchdog.clock = reactor

    def startService(self) -> None:
        """Before the reactor runs; see ``Serving``."""
        super().startService()  # type: ignore[no-untyped-call]
        # Before anybody sees that it listens: without a handler SIGHUP ends the process.
        self._take_signals()
        self._serving.startService()
        self._reactor.callWhenRunning(self._running)

    def _take_signals(self) -> None:
        for number, act in (
            (signal.SIGHUP, self._reload),
            (signal.SIGTERM, self._end),
            (signal.SIGINT, self._end),
        ):
            signal.signal(number, lambda *_, act=act: self._reactor.callFromThread(act))

    def _running(self) -> None:
        # The reactor has put its own handlers in their place.
        self._take_signals()
        if self._notify.watchdog is not None:
            self._watchdog.start(self._notify.watchdog / 2).addErrback(
                lambda failure: _LOG.failure("the watchdog's timer stopped", failure)
            )
        self._serving.when_ready().addCallbacks(self._ready, self._not_ready).addErrback(
            lambda failure: _LOG.failure("fault at the start", failure)
        )

    def _ready(self, status: str) -> None:
        self._status = status
        if not self._ending:
            self._notify.ready(status)

    def _not_ready(self, failure: Failure) -> None:
        _LOG.critical("{complaint}", complaint=failure.getErrorMessage())
        self._failed = True
        if not self._ending:
            self._end()

    def _reload(self) -> None:
        """Once at a time; who asks meanwhile gets one more after it."""
        self._reload_again = self._reloading
        if self._reloading or self._ending:
            return
        self._reloading = True
        if self._status:
            self._notify.reloading()
        self._serving.reload().addErrback(
            lambda failure: _LOG.failure("fault in a reload", failure)
        ).addCallback(self._reloaded)

    def _reloaded(self, _: Any) -> None:
        self._reloading = False
        if self._reload_again:
            self._reload()
        elif self._status and not self._ending:
            self._notify.ready(self._status)

    def _end(self) -> None:
        if self._ending:
            self._serving.cut()
        else:
            self._ending = True
            self._reactor.stop()

    def stopService(self) -> Deferred[Any]:
        """Fires when the process may end."""
        self._ending = True
        self._notify.stopping()
        return self._serving.stopService().addCallback(self._stopped)

    def _stopped(self, _: Any) -> Any:
        if self._watchdog.running:
            self._watchdog.stop()
        if self._failed or self._serving.was_cut:
            end_with(FAILED, self._reactor)
        return super().stopService()  # type: ignore[no-untyped-call]


def end_with(status: int, reactor: Any) -> None:
    """Let the process end with this status after the reactor has stopped."""
    reactor.addSystemEventTrigger("after", "shutdown", _leave, status)


def _leave(status: int) -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # nobody reads it any more
            stream.flush()
    os._exit(status)
