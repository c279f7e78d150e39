"""regguard.auth.threads: bounded threads, a bounded queue, and nothing left behind."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
from twisted.application.service import IService
from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IReactorFromThreads
from zope.interface import implementer
from zope.interface.verify import verifyObject

from regguard.auth.interfaces import Overloaded
from regguard.auth.threads import (
    NICENESS,
    WAITING_PER_THREAD,
    VerificationThreads,
    hashing_threads,
)

Outcome = Callable[[Any], Any]


def test_interfaces(threads: Any) -> None:
    """It is a service."""
    verifyObject(IService, threads.service)


@pytest.mark.parametrize(("processors", "size"), [(1, 1), (2, 1), (8, 7)])
def test_e11_one_processor_stays_free_of_hashing(
    monkeypatch: pytest.MonkeyPatch, processors: int, size: int
) -> None:
    """The reactor's thread has somewhere to run at once, whatever the others do."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(processors)), raising=False)

    assert hashing_threads() == size


def test_results_and_exceptions_come_back(threads: Any, outcome: Outcome) -> None:
    """The Deferred fires with what the function returned or raised."""
    good = threads.service.run(divmod, 7, 2)
    bad = threads.service.run(divmod, 7, 0)
    assert not good.called

    threads.pool.run_all()

    assert outcome(good) == (3, 1)
    assert isinstance(outcome(bad), ZeroDivisionError)


@pytest.mark.skipif(sys.platform != "linux", reason="priorities are the process's elsewhere")
def test_e11_hashing_threads_step_back_behind_the_reactors() -> None:
    """Who is known already is served first, while strangers' passwords are hashed."""

    class Reactor:
        """Brings the outcome back in whichever thread it came about."""

        def __init__(self) -> None:
            self.done = threading.Event()

        def callFromThread(self, function: Callable[..., Any], *args: Any) -> None:
            function(*args)
            self.done.set()

    reactor = Reactor()
    service = VerificationThreads(reactor, 1)  # type: ignore[arg-type]
    service.startService()
    seen: list[int] = []
    service.run(os.getpriority, os.PRIO_PROCESS, 0).addCallback(seen.append)

    assert reactor.done.wait(30)
    service.stopService()

    assert seen == [min(19, os.getpriority(os.PRIO_PROCESS, 0) + NICENESS)]


def test_no_more_run_than_there_are_threads(threads: Any) -> None:
    """The pool gets a job only when a thread is free; the others wait in order."""
    done: list[int] = []
    for number in range(5):
        threads.service.run(done.append, number)
    assert len(threads.pool.jobs) == 2
    assert threads.service.waiting == 3

    threads.pool.run_one()
    assert len(threads.pool.jobs) == 2
    threads.pool.run_all()

    assert done == [0, 1, 2, 3, 4]
    assert threads.service.waiting == 0


def test_e11_a_full_queue_is_overloaded(threads: Any, outcome: Outcome) -> None:
    """Beyond the bound the answer is immediate, and a freed place is given again."""
    for _ in range(2 + 2 * WAITING_PER_THREAD):
        threads.service.run(int)

    assert isinstance(outcome(threads.service.run(int)), Overloaded)
    assert Overloaded().retry_after > 0

    threads.pool.run_one()
    assert outcome(threads.service.run(int)) is None
    threads.pool.run_all()


def test_who_cancels_leaves_the_queue(threads: Any, outcome: Outcome) -> None:
    """Clients that come and go cannot fill the queue with work that nobody waits for."""
    ran: list[str] = []
    threads.service.run(ran.append, "first")
    running = threads.service.run(ran.append, "running")
    waiting = threads.service.run(ran.append, "waiting")

    waiting.cancel()
    running.cancel()
    assert threads.service.waiting == 0
    threads.pool.run_all()

    assert ran == ["first", "running"]
    assert isinstance(outcome(waiting), CancelledError)
    assert isinstance(outcome(running), CancelledError)
    threads.service.run(ran.append, "next")
    threads.pool.run_all()
    assert ran[-1] == "next"


def test_stopping_turns_away_who_waits_and_lets_the_running_finish(
    threads: Any, outcome: Outcome
) -> None:
    """The pool is stopped, which blocks, only when its threads have nothing left to do."""
    jobs = [threads.service.run(int) for _ in range(3)]

    stopped = threads.service.stopService()

    assert isinstance(outcome(jobs[2]), Overloaded)
    assert threads.pool.state == "started"
    threads.pool.run_all()
    assert stopped.called
    assert threads.pool.state == "stopped"
    assert [job.result for job in jobs[:2]] == [0, 0]
    assert isinstance(outcome(threads.service.run(int)), Overloaded)


def test_an_idle_service_stops_at_once(threads: Any) -> None:
    """Nothing running: nothing to wait for."""
    assert threads.service.stopService().called
    assert threads.pool.state == "stopped"


@pytest.mark.parametrize("jobs", [1, 20])
def test_with_real_threads(jobs: int) -> None:
    """The real pool works the same, and leaves no thread behind."""
    from queue import Queue

    calls: Queue[tuple[Callable[..., Any], tuple[object, ...]]] = Queue()

    @implementer(IReactorFromThreads)
    class QueueReactor:
        def callFromThread(
            self, callable: Callable[..., Any], *args: object, **kwargs: object
        ) -> None:
            calls.put((callable, args))

    service = VerificationThreads(QueueReactor(), 2)
    service.startService()
    results = [service.run(pow, 2, number) for number in range(jobs)]
    for _ in range(jobs):
        function, arguments = calls.get(timeout=30)
        function(*arguments)

    assert [result.result for result in results] == [2**number for number in range(jobs)]
    assert service.stopService().called
    assert not any(thread.is_alive() for thread in service._pool.threads)  # type: ignore[attr-defined]
