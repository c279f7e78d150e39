"""regguard.ops.workers: who is started when, who is asked, who is killed."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.error import ProcessDone, ProcessExitedAlready, ProcessTerminated
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import capturedLogs, formatEvent
from twisted.python.failure import Failure

from regguard.ops.control import ControlLine
from regguard.ops.workers import Inheritance, Supervisor, Worker

LISTEN = (("tcp:5043", 9), ("haproxy:tcp:1", 8))


class Process:
    """A child, and its end of the line."""

    def __init__(self, reactor: Reactor, worker: Any, transport: StringTransport) -> None:
        self.worker = worker
        self.transport = transport
        self.number = 1000 + len(reactor.processes)
        self.pid: int | None = self.number
        self.signals: list[str] = []
        self.is_gone = False

    def asked(self) -> list[str]:
        """What the parent has asked since the last look."""
        lines = self.transport.value().splitlines()
        self.transport.clear()
        self.ids = [json.loads(line)["id"] for line in lines]
        return [json.loads(line)["ask"] for line in lines]

    def says(self, **message: Any) -> None:
        self.worker.line.dataReceived(json.dumps(message).encode() + b"\n")

    def is_ready(self) -> None:
        self.says(tell="ready", value="serving")

    def answers(self, answer: Any = True) -> None:
        """All that it was asked."""
        self.asked()
        self.answers_those(answer)

    def answers_those(self, answer: Any) -> None:
        """What it was asked at the last look."""
        for number in self.ids:
            self.says(id=number, answer=answer)

    def signalProcess(self, name: str) -> None:
        if self.is_gone:
            raise ProcessExitedAlready
        self.signals.append(name)

    def ends(self, status: int = 0, by: int | None = None, last_words: Any = None) -> None:
        """The end of a process is often heard of before its last words are read."""
        self.is_gone = True
        self.pid = None  # as Twisted's
        self._ended(status, by)
        if last_words is not None:
            self.says(**last_words)
        self.worker.line.connectionLost()

    def _ended(self, status: int, by: int | None) -> None:
        well = status == 0 and by is None
        reason = ProcessDone(0) if well else ProcessTerminated(status, by)
        self.worker.processEnded(Failure(reason))


class Reactor(Clock):
    """Starts no processes."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.processes: list[Process] = []
        self.spawned: list[tuple[Any, ...]] = []
        self.fault: OSError | None = None

    def adoptStreamConnection(self, descriptor: int, family: int, factory: Any) -> None:
        self.transport = StringTransport()
        factory.buildProtocol(None).makeConnection(self.transport)

    def spawnProcess(
        self, worker: Any, executable: str, argv: Any, environment: Any, childFDs: Any
    ) -> Process:
        if self.fault is not None:
            raise self.fault
        self.spawned.append((executable, argv, environment, childFDs))
        self.processes.append(Process(self, worker, self.transport))
        worker.makeConnection(self.processes[-1])
        return self.processes[-1]


def result_of(deferred: Deferred[Any]) -> Any:
    """What it has fired with."""
    found: list[Any] = []
    deferred.addBoth(found.append)
    return found[0]


class World:
    """A parent of two."""

    def __init__(self) -> None:
        self.reactor = Reactor()
        self.supervisor = Supervisor(self.reactor, 2, LISTEN, {"LANG": "C"}, 900)
        self.ready: list[Any] = []
        self.supervisor.when_ready().addBoth(self.ready.append)
        self.supervisor.startService()

    def serve(self) -> World:
        for process in self.reactor.processes:
            process.is_ready()
        return self

    @property
    def processes(self) -> list[Process]:
        return self.reactor.processes


@pytest.fixture
def world() -> World:
    """Two are started, and not ready."""
    return World()


def test_a_worker_is_this_program_with_the_same_words(world: World) -> None:
    """It inherits the sockets in their order, and learns their numbers from the environment."""
    executable, argv, environment, descriptors = world.reactor.spawned[0]

    assert [executable, *argv] == [sys.executable, sys.executable, *sys.orig_argv[1:]]
    assert environment.pop("LANG") == "C"
    assert {number: descriptors[number] for number in (0, 1, 2, 4, 5)} == {
        0: 0, 1: 1, 2: 2, 4: 9, 5: 8,
    }  # fmt: skip
    assert sorted(descriptors) == list(range(6))
    assert Inheritance.taken_from(environment) == Inheritance(
        3, (("tcp:5043", 4), ("haproxy:tcp:1", 5)), 2, is_first=True
    )
    second = Inheritance.taken_from(world.reactor.spawned[1][2])
    assert second is not None
    assert not second.is_first
    assert environment == {}
    assert Inheritance.taken_from(environment) is None


def test_it_is_ready_when_all_are(world: World) -> None:
    """Once."""
    world.processes[0].is_ready()
    assert world.ready == []
    world.processes[1].is_ready()

    assert world.ready == [None]


def test_when_one_cannot_start_at_first_none_can(world: World) -> None:
    """The operator hears of one, with its status."""
    world.processes[0].ends(64)
    world.processes[1].ends(64)

    (failure,) = world.ready
    assert str(failure.value) == "--workers 2: a worker ended with status 64 at its start"
    world.reactor.advance(0)
    assert len(world.processes) == 2


def test_where_no_process_can_be_started_the_start_fails() -> None:
    """The system says why."""
    reactor = Reactor()
    reactor.fault = OSError(11, "Resource temporarily unavailable")
    supervisor = Supervisor(reactor, 2, LISTEN, {}, 900)
    supervisor.startService()
    failed: list[Any] = []
    supervisor.when_ready().addErrback(failed.append)

    assert "ended before it began: Resource temporarily unavailable" in str(failed[0].value)


def test_i19_a_dead_worker_is_replaced_at_once_and_later_when_it_dies_again(world: World) -> None:
    """0, 1, 2, 4 ... 30 seconds, each told in a line; who has lived long starts anew."""
    world.serve()
    waited = []
    for _ in range(9):
        count = len(world.processes)
        with capturedLogs() as logs:
            world.processes[-1].ends(by=9)
        began = world.reactor.seconds()
        world.reactor.advance(0)
        while len(world.processes) == count:
            world.reactor.advance(0.5)
        waited.append(world.reactor.seconds() - began)
        when = f"in {waited[-1]:g} s" if waited[-1] else "at once"
        pid = world.processes[-2].number
        assert [formatEvent(event) for event in logs] == [
            f"worker {pid} ended by signal 9 (Killed); another one starts {when}"
        ]
    assert waited == [0, 1, 2, 4, 8, 16, 30, 30, 30]

    last = world.processes[-1]
    last.is_ready()
    for _ in range(12):
        world.reactor.advance(5)
        for process in world.processes:
            process.answers()
    last.ends(1)
    world.reactor.advance(0)
    assert len(world.processes) == 12


def test_i19_a_replacement_that_cannot_be_started_is_tried_again(world: World) -> None:
    """Memory may be short for a moment."""
    world.serve()
    world.reactor.fault = OSError(12, "Cannot allocate memory")
    world.processes[0].ends(1)
    with capturedLogs() as logs:
        world.reactor.advance(0)
    assert "ended before it began: Cannot allocate memory; another" in formatEvent(logs[0])
    world.reactor.fault = None
    world.reactor.advance(1)

    assert len(world.processes) == 3


def test_all_who_serve_are_asked(world: World) -> None:
    """Who is not ready, not alive, late or at a loss is left out."""
    world.processes[0].is_ready()
    answers: list[Any] = []
    world.supervisor.ask("metrics").addCallback(answers.append)
    assert world.processes[1].asked() == []
    world.processes[0].answers({"n": 1})
    world.processes[1].is_ready()
    world.supervisor.ask("metrics").addCallback(answers.append)
    world.processes[0].ends(by=9)
    world.processes[1].answers({"n": 2})
    world.supervisor.ask("metrics").addCallback(answers.append)
    world.reactor.advance(5)

    assert answers == [{1: {"n": 1}}, {2: {"n": 2}}, {}]
    assert world.supervisor.numbers() == {2, 3}


def test_who_has_not_answered_for_a_while_is_not_asked(world: World) -> None:
    """Probes have a second or two: one hung worker must not take the others out of service."""
    healthy, hung = world.serve().processes
    for _ in range(2):
        world.reactor.advance(5)
        healthy.answers()
    answers: list[Any] = []
    world.supervisor.ask("ready").addCallback(answers.append)
    healthy.answers([])
    assert answers == [{1: []}]

    hung.answers()  # it stood still, and goes on
    world.supervisor.ask("ready").addCallback(answers.append)
    assert hung.asked() == ["ready"]


def test_i16_a_reload_reaches_those_that_start_as_well(world: World) -> None:
    """They may have read what has changed since, and opened a log that was moved."""
    first, second = world.processes
    first.is_ready()
    reloaded = world.supervisor.reload()
    assert (first.asked(), second.asked()) == (["reload"], ["reload"])
    first.answers_those(None)
    assert not reloaded.called
    second.answers_those(None)

    assert reloaded.called


def test_what_workers_tell_is_heard(world: World) -> None:
    """By whoever wants it; what nobody wants is dropped."""
    pushes: list[Any] = []
    world.supervisor.hear("pushed", pushes.append)
    world.processes[1].says(tell="pushed", value={"tag": "v1"})
    world.processes[1].says(tell="other", value=1)

    assert pushes == [{"tag": "v1"}]


def test_i20_a_worker_that_is_silent_for_a_minute_is_killed(world: World) -> None:
    """By the parent's own ticks, of which a standstill of all is one."""
    healthy, hung = world.serve().processes
    world.reactor.advance(3600)
    assert (healthy.signals, hung.signals) == ([], [])
    for _ in range(11):
        world.reactor.advance(5)
        healthy.answers()
    assert hung.signals == []
    with capturedLogs() as logs:
        world.reactor.advance(5)

    assert (healthy.signals, hung.signals) == ([], ["KILL"])
    assert formatEvent(logs[0]) == f"worker {hung.pid} has not answered for 60 s: killed"


def test_i14_all_are_told_to_drain_and_waited_for(world: World) -> None:
    """Who is gone is not replaced."""
    first, second = world.serve().processes
    ended = world.supervisor.stopService()
    assert (first.asked(), second.asked()) == (["drain"], ["drain"])
    first.ends()
    assert not ended.called
    second.ends()

    assert ended.called
    assert not world.supervisor.was_cut
    world.reactor.advance(100)
    assert len(world.processes) == 2
    assert world.reactor.getDelayedCalls() == []


def test_i14_what_a_worker_says_at_its_end_is_heard(world: World) -> None:
    """The record of the last push would be lost: nobody is waited for after that."""
    heard: list[Any] = []
    world.supervisor.hear("push", heard.append)
    first, second = world.serve().processes
    ended = world.supervisor.stopService().addCallback(lambda _: list(heard))
    first.ends()
    second.ends(last_words={"tell": "push", "value": 1})

    assert result_of(ended) == [1]


def test_a_worker_that_waits_to_be_started_is_not(world: World) -> None:
    """It ends, and nothing begins."""
    first, second = world.serve().processes
    first.ends(by=9)
    ended = world.supervisor.stopService()
    second.ends()
    world.reactor.advance(100)

    assert ended.called
    assert len(world.processes) == 2


def test_i14_what_is_cut_in_one_is_cut_in_all(world: World) -> None:
    """The status of one is that of the whole."""
    first, second = world.serve().processes
    world.supervisor.stopService()
    world.supervisor.cut()
    assert first.asked() == ["drain", "cut"]
    first.ends(1)
    second.ends()

    assert world.supervisor.was_cut


def test_who_does_not_end_after_the_limit_is_killed(world: World) -> None:
    """Nothing holds the port for ever."""
    first, second = world.serve().processes
    world.supervisor.stopService()
    second.ends()
    for _ in range(182):
        world.reactor.advance(5)
        first.answers()

    assert first.signals == ["KILL"]
    first.ends(by=9)
    assert world.supervisor.was_cut


def test_a_worker_that_never_served_cut_nothing(world: World) -> None:
    """systemd's SIGTERM may find it before its handlers are there."""
    world.supervisor.stopService()
    for process in world.processes:
        process.ends(by=15)

    assert not world.supervisor.was_cut


# -- the worker's side -----------------------------------------------------------------------


class Served:
    """What a worker lives for."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.was_cut = False

    def __getattr__(self, name: str) -> Any:
        def act() -> Any:
            self.done.append(name)
            return Deferred() if name == "when_ready" else DeferredList([])

        return act


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> tuple[Worker, Served, list[str]]:
    """Running; and what its reactor was told."""
    served, stopped = Served(), []

    class Stops(Reactor):
        def callWhenRunning(self, function: Any) -> None:
            function()

        def stop(self) -> None:
            stopped.append("stop")

    monkeypatch.setattr("signal.signal", lambda number, handler: None)
    monkeypatch.setattr("os.close", lambda descriptor: None)
    monkeypatch.setattr("os.set_blocking", lambda descriptor, blocking: None)
    worker = Worker(served, Inheritance(3, (), 2, is_first=True), Stops())
    worker.startService()
    return worker, served, stopped


def ask(line: ControlLine, name: str) -> None:
    line.dataReceived(json.dumps({"ask": name, "id": 1}).encode() + b"\n")


def test_a_worker_does_what_its_parent_says(worker: tuple[Worker, Served, list[str]]) -> None:
    """Draining is stopping; who is told twice stops once."""
    life, served, stopped = worker
    ask(life.line, "reload")
    assert served.done[-1] == "reload"
    assert json.loads(life.line.transport.value()) == {"id": 1, "answer": None}
    ask(life.line, "drain")
    ask(life.line, "cut")

    assert stopped == ["stop"]
    assert served.done[-1] == "cut"


def test_a_worker_ends_with_its_parent(worker: tuple[Worker, Served, list[str]]) -> None:
    """No orphan holds the port."""
    life, _, stopped = worker
    life.line.connectionLost()

    assert stopped == ["stop"]


def test_i14_a_worker_ends_when_its_parent_has_what_it_was_told(
    worker: tuple[Worker, Served, list[str]],
) -> None:
    """The last push may have ended in the same turn as the process."""
    life, _, _ = worker
    life.line.tell("push", 1)
    over: list[Any] = []
    life.stopService().addCallback(over.append)
    assert life.line.transport.disconnecting
    assert life.line.transport.producer is None
    assert over == []
    life.line.connectionLost()

    assert over == [None]


def test_a_worker_whose_parent_is_gone_ends_at_once(
    worker: tuple[Worker, Served, list[str]],
) -> None:
    """There is nobody to tell."""
    life, _, _ = worker
    life.line.connectionLost()

    assert result_of(life.stopService()) is None
