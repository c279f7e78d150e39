"""Several processes that serve: their parent, and what makes one of them a worker.

The parent binds every socket and serves nobody.  Its workers are the same program, started anew
with the same words (a forked reactor would share its epoll), and accept from the shared sockets:
who waits there is taken by whichever worker is free, and a worker that dies takes only its own
connections with it.

A worker learns from one environment variable what it inherits, and from its control line what to
do; signals other than SIGTERM (drain) are its parent's.  When the line ends, the parent has died,
and the worker drains and ends.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import count as count_up
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.error import ProcessExitedAlready, ProcessTerminated
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from regguard.ops.control import ControlLine, LineFactory
from regguard.ops.lifetime import FAILED, Serving, end_with

VARIABLE = "REGGUARD_WORKER"

PING = 5.0
"""Seconds between questions whether a worker is still there."""

SILENCE = 12
"""Unanswered ones in a row after which it is killed: a minute in which the parent itself runs, so
that one stop of the whole machine counts once."""

ANSWER_WITHIN = 5.0
"""Seconds for an answer; one that is busy with a large push record or a slow disk has them."""

RELOAD_WITHIN = 60.0
"""Seconds for a reload: files may be on a network."""

STEADY = 60.0
"""Seconds after which a worker counts as one that runs, and its death as the first one."""

LONGEST_DELAY = 30.0
"""Seconds between two tries at most: 0, 1, 2, 4 ... 30."""

DRAIN_GRACE = 10.0
"""Seconds beyond the limit of the draining that workers have to end by themselves."""

_CONTROL = 3
"""The control line's descriptor in a worker; the listening sockets follow it."""

_LOG = Logger(namespace="regguard.ops")


@dataclass(frozen=True, slots=True)
class Inheritance:
    """What a worker has from its parent: its line, and listening sockets by their ``--listen``.

    ``workers``: how many there are.  ``is_first``: whether it is the one that says what need be
    said once.
    """

    control: int
    listen: tuple[tuple[str, int], ...]
    workers: int
    is_first: bool

    @classmethod
    def taken_from(cls, environment: MutableMapping[str, str]) -> Inheritance | None:
        """What the environment says, taken out of it; None for a process that is no worker."""
        text = environment.pop(VARIABLE, None)
        if text is None:
            return None
        words = json.loads(text)
        listen = tuple((description, descriptor) for description, descriptor in words["listen"])
        return cls(words["control"], listen, words["workers"], words["is_first"])

    def __str__(self) -> str:
        return json.dumps(asdict(self))


class WorkersFailed(Exception):
    """The first workers did not start; the text is the operator's."""


class Worker(Service):
    """A process that serves for a parent; see ``Lifetime`` for one that has none.

    ``line`` is where answers for the parent's other questions are added.
    """

    def __init__(self, serving: Serving, inheritance: Inheritance, reactor: Any) -> None:
        self._serving = serving
        self._reactor = reactor
        self._control = inheritance.control
        self._ending = False
        self.line = ControlLine(lambda name, value: None, self._end)
        self.line.answer("reload", self._reload)
        self.line.answer("drain", self._end)
        self.line.answer("cut", self._cut)

    def startService(self) -> None:
        """Before the reactor runs."""
        super().startService()  # type: ignore[no-untyped-call]
        self._take_signals()
        self._serving.startService()
        self._reactor.callWhenRunning(self._running)

    def _take_signals(self) -> None:
        # A terminal's Ctrl-C and hang-up are for the parent.  SIGTERM may come to all (systemd's
        # KillMode) or to one; and twice, which cuts nothing: only the parent says that.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, lambda *_: self._reactor.callFromThread(self._end))

    def _running(self) -> None:
        self._take_signals()
        os.set_blocking(self._control, False)
        self._reactor.adoptStreamConnection(self._control, socket.AF_UNIX, LineFactory(self.line))
        os.close(self._control)
        self._serving.when_ready().addCallback(self._ready).addErrback(
            lambda failure: _LOG.failure("fault at the start", failure)
        )

    def _ready(self, status: str) -> None:
        self.line.tell("ready", status)

    def _reload(self) -> Deferred[None]:
        return self._serving.reload().addCallback(lambda _: None)

    def _end(self) -> None:
        if not self._ending:
            self._ending = True
            self._reactor.stop()

    def _cut(self) -> None:
        self._serving.cut()
        self._end()

    def stopService(self) -> Deferred[Any]:
        """Fires when the process may end."""
        self._ending = True
        return self._serving.stopService().addCallback(self._stopped)

    def _stopped(self, _: Any) -> Any:
        if self._serving.was_cut:
            end_with(FAILED, self._reactor)
        super().stopService()  # type: ignore[no-untyped-call]
        # A push may have ended in this same turn.
        return self.line.end()


class Supervisor(Service):
    """Keeps ``count`` workers running, and is the one who speaks with them.

    ``listen`` are the sockets by their ``--listen``; ``environment`` is what workers get besides.
    ``command`` starts one: by default what started this process, with the same words.
    """

    def __init__(
        self,
        reactor: Any,
        count: int,
        listen: Sequence[tuple[str, int]],
        environment: Mapping[str, str],
        drain_timeout: float,
        command: Sequence[str] | None = None,
    ) -> None:
        self._reactor = reactor
        self._listen = tuple(listen)
        # The interpreter's own options (-I), too, which are not in sys.argv.
        self._command = command or (sys.executable, *sys.orig_argv[1:])
        self._environment = environment
        self._drain_timeout = drain_timeout
        self._hears: dict[str, Callable[[Any], object]] = {}
        self._numbers = count_up(1)
        self._places = [_Place(self) for _ in range(count)]
        self._began = False
        self._ready: Deferred[None] = Deferred()
        self._stopping: Deferred[None] | None = None
        self._limit: Any = None
        self._pings = LoopingCall(self._ping)
        self._pings.clock = reactor
        self.was_cut = False

    def hear(self, name: str, function: Callable[[Any], object]) -> None:
        """Call the function with every value that a worker tells by this name."""
        self._hears[name] = function

    def ask(self, name: str, seconds: float = ANSWER_WITHIN) -> Deferred[dict[int, Any]]:
        """Ask every worker that serves and is not silent; the answers of those that answered in
        time, by their ``numbers``."""
        return self._ask([each for each in self._workers() if each.is_responsive], name, seconds)

    def _workers(self) -> list[_Worker]:
        return [place.worker for place in self._places if place.worker is not None]

    def numbers(self) -> set[int]:
        """The workers that there are; no two ever have the same number."""
        return {worker.number for worker in self._workers()}

    def _ask(self, workers: list[_Worker], name: str, seconds: float) -> Deferred[dict[int, Any]]:
        asked = [each.line.ask(name).addTimeout(seconds, self._reactor) for each in workers]

        def gathered(outcomes: Any) -> dict[int, Any]:
            return {
                worker.number: answer
                for worker, (is_answer, answer) in zip(workers, outcomes, strict=True)
                if is_answer
            }

        return DeferredList(asked, consumeErrors=True).addCallback(gathered)

    def startService(self) -> None:
        """Start all; before the reactor runs, or later."""
        super().startService()  # type: ignore[no-untyped-call]
        for place in self._places:
            place.start()
        self._pings.start(PING, now=False).addErrback(
            lambda failure: _LOG.failure("the watch over the workers stopped", failure)
        )

    def when_ready(self) -> Deferred[None]:
        """Fires when all serve for the first time; fails with WorkersFailed.  For one caller."""
        return self._ready

    def reload(self) -> Deferred[dict[int, Any]]:
        """Let every worker read everything anew; fires when they have.

        One that starts just now may have read what is old by now.
        """
        return self._ask(self._workers(), "reload", RELOAD_WITHIN)

    def cut(self) -> None:
        """End what is under way in the workers now."""
        self._order("cut")

    def _order(self, name: str) -> None:
        for worker in self._workers():
            worker.line.ask(name).addErrback(lambda failure: None)

    def stopService(self) -> Deferred[Any]:
        """Let the workers drain; fires when there is none any more."""
        stopping: Deferred[None] = Deferred()
        self._stopping = stopping
        for place in self._places:
            place.stop()
        self._order("drain")
        self._limit = self._reactor.callLater(self._drain_timeout + DRAIN_GRACE, self._kill)
        self._look_whether_over()
        super().stopService()  # type: ignore[no-untyped-call]
        return stopping

    def _kill(self) -> None:
        for worker in self._workers():
            _LOG.warn("worker {pid} does not end after its draining: killed", pid=worker.pid)
            worker.kill()

    def _look_whether_over(self) -> None:
        stopping = self._stopping
        if stopping is None or stopping.called or self._workers():
            return
        if self._limit is not None and self._limit.active():
            self._limit.cancel()
        if self._pings.running:
            self._pings.stop()
        stopping.callback(None)

    def _ping(self) -> None:
        for worker in self._workers():
            worker.ping()

    # -- what workers are heard of ---------------------------------------------------------------

    def told(self, worker: _Worker, name: str, value: Any) -> None:
        """A worker tells something."""
        if name == "ready":
            worker.is_ready = True
            _LOG.info("worker {pid} serves", pid=worker.pid)
            if not self._began and all(p.worker and p.worker.is_ready for p in self._places):
                self._began = True
                self._ready.callback(None)
        elif name in self._hears:
            self._hears[name](value)

    def ended(self, place: _Place, worker: _Worker, how: str) -> None:
        """A worker's process is gone."""
        if self._stopping is not None:
            if worker.is_ready and not worker.ended_well:
                self.was_cut = True
                _LOG.warn("worker {pid} ended {how}", pid=worker.pid, how=how)
            self._look_whether_over()
        elif not self._began and not worker.is_ready:
            if not self._ready.called:
                complaint = f"--workers {len(self._places)}: a worker ended {how} at its start"
                self._ready.errback(WorkersFailed(complaint))
        else:
            delay = place.start_again(self._reactor.seconds() - worker.began)
            _LOG.warn(
                "worker {pid} ended {how}; another one starts {when}",
                pid=worker.pid,
                how=how,
                when=f"in {delay:g} s" if delay else "at once",
            )

    # -- how one is started ----------------------------------------------------------------------

    def spawn(self, place: _Place, worker: _Worker) -> None:
        """Start the process of a worker, with its line; raises OSError."""
        is_first = place is self._places[0]
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.setblocking(False)
            descriptors = {0: 0, 1: 1, 2: 2, _CONTROL: theirs.fileno()}
            for n, (_, descriptor) in enumerate(self._listen, _CONTROL + 1):
                descriptors[n] = descriptor
            self._reactor.adoptStreamConnection(
                ours.fileno(), socket.AF_UNIX, LineFactory(worker.line)
            )
            self._reactor.spawnProcess(
                worker,
                self._command[0],
                self._command,
                {**self._environment, VARIABLE: str(self._inheritance(is_first))},
                childFDs=descriptors,
            )

    def _inheritance(self, is_first: bool) -> Inheritance:
        listen = tuple(
            (description, number)
            for number, (description, _) in enumerate(self._listen, _CONTROL + 1)
        )
        return Inheritance(_CONTROL, listen, len(self._places), is_first)


class _Place:
    """Where one worker after the other stands, and how long the next one has to wait."""

    def __init__(self, supervisor: Supervisor) -> None:
        self.worker: _Worker | None = None
        self._supervisor = supervisor
        self._delay = 0.0
        self._next: Any = None

    def start(self) -> None:
        """Start a worker; if that is not possible, it counts as one that died."""
        self._next = None
        self.worker = worker = _Worker(self._supervisor, self)
        try:
            self._supervisor.spawn(self, worker)
        except OSError as error:
            self.ended(f"before it began: {error.strerror}")

    def start_again(self, lived: float) -> float:
        """Start another one, later if the last one died soon; seconds until then."""
        delay = 0.0 if lived >= STEADY else self._delay
        self._delay = min(max(1.0, 2 * delay), LONGEST_DELAY)
        self._next = self._supervisor._reactor.callLater(delay, self.start)
        return delay

    def ended(self, how: str) -> None:
        """The worker is gone."""
        worker, self.worker = self.worker, None
        assert worker is not None
        self._supervisor.ended(self, worker, how)

    def stop(self) -> None:
        """Start no other one."""
        if self._next is not None and self._next.active():
            self._next.cancel()


class _Worker(ProcessProtocol):
    """One child process, as its parent sees it."""

    transport: Any
    pid = 0

    def __init__(self, supervisor: Supervisor, place: _Place) -> None:
        self.line = ControlLine(
            lambda name, value: supervisor.told(self, name, value), self._said_all
        )
        self.number = next(supervisor._numbers)
        self.began: float = supervisor._reactor.seconds()
        self.is_ready = False
        self.ended_well = False
        self._silent = 0
        self._has_said_all = False
        self._how: str | None = None
        self._place = place

    def connectionMade(self) -> None:
        """The process is there.  Its ``pid`` is not any more when it has ended."""
        self.pid = self.transport.pid

    @property
    def is_responsive(self) -> bool:
        """Whether it serves, and has answered one of the last two pings."""
        return self.is_ready and self._silent < 2

    def ping(self) -> None:
        """Ask whether it is there; kill it when it has not answered for long."""
        if self._silent >= SILENCE:
            _LOG.error(
                "worker {pid} has not answered for {seconds:g} s: killed",
                pid=self.pid,
                seconds=SILENCE * PING,
            )
            self.kill()
            return
        self._silent += 1
        self.line.ask("ping").addCallbacks(self._heard, lambda failure: None)

    def _heard(self, _: Any) -> None:
        self._silent = 0

    def kill(self) -> None:
        """End it, whatever it does."""
        with suppress(ProcessExitedAlready):
            self.transport.signalProcess("KILL")

    def processEnded(self, reason: Failure) -> None:
        """It is gone, and was waited for."""
        how = "with status 0"
        self.ended_well = True
        end: Any = reason.value
        if isinstance(end, ProcessTerminated):
            self.ended_well = False
            number = end.signal
            if number is None:
                how = f"with status {end.exitCode}"
            else:
                how = f"by signal {number} ({signal.strsignal(number)})"
        self._how = how
        self._look_whether_over()

    def _said_all(self) -> None:
        self._has_said_all = True
        self._look_whether_over()

    def _look_whether_over(self) -> None:
        # Its last words may be read after its end is known.
        if self._has_said_all and self._how is not None:
            self._place.ended(self._how)
