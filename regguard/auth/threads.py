"""The threads in which passwords are hashed: a bounded number of them, and a bounded queue.

Hashing is made to be slow, so its queue is where an attack arrives. The rules: never in the
reactor thread; one processor stays free of it where there is more than one; and nobody waits who
would have given up before it is his turn.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from regguard.auth.interfaces import Overloaded

T = TypeVar("T")

# Docker gives up a log-in after 15 s. At bcrypt 12 (0.37 s here) the last of 32 has its answer
# after 12 s.
WAITING_PER_THREAD = 32

# The threads yield to the reactor's, and to whatever else serves people who are known already.
# With 10, Linux gives them a tenth of a busy processor's time: log-ins go on, only slower. That is
# a share of time and no right of way (a thread of Linux 6.6 and later may end its slice of 3 ms
# first), hence the processor that stays free.
NICENESS = 10


def hashing_threads() -> int:
    """One less than the processors that this process may use, and at least one."""
    if hasattr(os, "sched_getaffinity"):
        processors = len(os.sched_getaffinity(0))
    else:
        processors = os.cpu_count() or 1
    return max(1, processors - 1)


class _BackgroundThread(threading.Thread):
    """A thread of low priority, where priorities are a thread's own (Linux)."""

    def run(self) -> None:
        if sys.platform == "linux":
            # Forbidden by a system call filter, say: then it is as fast as any other.
            with contextlib.suppress(OSError):
                os.nice(NICENESS)
        super().run()


class _BackgroundPool(ThreadPool):
    threadFactory = _BackgroundThread


class Pool(Protocol):
    """What is used of a :class:`~twisted.python.threadpool.ThreadPool`."""

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def callInThreadWithCallback(
        self, onResult: Callable[[bool, Any], object], func: Callable[..., Any], *args: Any
    ) -> None: ...


class VerificationThreads(Service):
    """Runs verifications in threads of their own; to be started and stopped as a service.

    :param size: threads, by default :func:`hashing_threads`.
    :param pool: for tests; by default a thread pool of that size.
    """

    def __init__(
        self, reactor: IReactorFromThreads, size: int | None = None, pool: Pool | None = None
    ) -> None:
        self._reactor = reactor
        self._size = size or hashing_threads()
        self._pool = pool or _BackgroundPool(0, self._size, "regguard-verify")
        self._limit = WAITING_PER_THREAD * self._size
        self._busy = 0
        # A dict for its order and for taking one out of the middle. The pool's own queue has no
        # bound, so the pool gets a job only when it has a thread to spare.
        self._waiting: dict[Deferred[Any], Callable[[], Any]] = {}
        self._idle: Deferred[None] | None = None

    @property
    def waiting(self) -> int:
        """How many verifications wait for a thread."""
        return len(self._waiting)

    def startService(self) -> None:
        super().startService()  # type: ignore[no-untyped-call]
        self._pool.start()

    def stopService(self) -> Deferred[None]:
        """Turn away who waits, let the threads finish what they do, and end them."""
        super().stopService()  # type: ignore[no-untyped-call]
        while self._waiting:
            self._waiting.popitem()[0].errback(Overloaded("shutting down"))
        self._idle = idle = Deferred[None]()
        if not self._busy:
            idle.callback(None)
        # Not before: to stop, the pool waits for its threads, here in the reactor's.
        return idle.addCallback(lambda _: self._pool.stop())

    def run(self, function: Callable[..., T], *arguments: Any) -> Deferred[T]:
        """Call the function in a thread as soon as one is free.

        The Deferred fails with what the function raises, or with :exc:`Overloaded` at once when
        the queue is full or the service does not run. Cancelled while it waits, it leaves the
        queue; cancelled later, its outcome is dropped.
        """
        result: Deferred[T] = Deferred(self._cancelled)

        def work() -> T:
            return function(*arguments)

        if not self.running:
            result.errback(Overloaded("not running"))
        elif self._busy < self._size:
            self._start(result, work)
        elif len(self._waiting) < self._limit:
            self._waiting[result] = work
        else:
            result.errback(Overloaded(f"{self._limit} verifications are waiting"))
        return result

    def _cancelled(self, result: Deferred[Any]) -> None:
        self._waiting.pop(result, None)

    def _start(self, result: Deferred[Any], work: Callable[[], Any]) -> None:
        self._busy += 1
        self._pool.callInThreadWithCallback(
            lambda ok, outcome: self._reactor.callFromThread(self._done, result, outcome),
            work,
        )

    def _done(self, result: Deferred[Any], outcome: Any) -> None:
        self._busy -= 1
        if self._waiting:
            # Before the result is told: what it sets off may queue up anew, behind the others.
            following = next(iter(self._waiting))
            self._start(following, self._waiting.pop(following))
        elif self._idle is not None and not self._busy:
            self._idle.callback(None)
        if result.called:
            return  # cancelled meanwhile
        if isinstance(outcome, Failure):
            result.errback(outcome)
        else:
            result.callback(outcome)
