"""regguard.ops.lifetime: signals, what systemd hears, and the exit status."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent

from regguard.ops import lifetime
from regguard.ops.lifetime import Lifetime
from regguard.ops.notify import Notify


class Reactor(Clock):
    """One that runs when it is told to, and stops as the real one does."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.when_running: list[Callable[[], None]] = []
        self.before_shutdown: list[Callable[[], Deferred[Any]]] = []
        self.exit_status: int | None = None
        self.stopped = 0

    def callWhenRunning(self, function: Callable[[], None]) -> None:
        self.when_running.append(function)

    def callFromThread(self, function: Callable[[], None]) -> None:
        function()

    def stop(self) -> None:
        self.stopped += 1

    def addSystemEventTrigger(self, phase: str, event: str, _: object, status: int) -> None:
        assert (phase, event) == ("after", "shutdown")
        self.exit_status = status


class Systemd(Notify):
    """Remembers what it hears."""

    def __init__(self, watchdog: float | None = None) -> None:
        super().__init__("@", watchdog)
        self.heard: list[str] = []

    def _send(self, state: str) -> None:
        self.heard.append(state.partition("\n")[0])


class Served:
    """What the process lives for."""

    def __init__(self) -> None:
        self.was_cut = False
        self.done: list[str] = []
        self.ready: Deferred[str] = Deferred()
        self.reloads: list[Deferred[None]] = []
        self.drained: Deferred[None] = Deferred()

    def startService(self) -> None:
        self.done.append("start")

    def when_ready(self) -> Deferred[str]:
        return self.ready

    def reload(self) -> Deferred[None]:
        self.reloads.append(Deferred())
        return self.reloads[-1]

    def stopService(self) -> Deferred[None]:
        self.done.append("drain")
        return self.drained

    def cut(self) -> None:
        self.done.append("cut")
        self.was_cut = True
        self.drained.callback(None)


class World:
    """A process and its signals."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, watchdog: float | None = None) -> None:
        self.handlers: dict[int, Callable[[int, None], None]] = {}
        monkeypatch.setattr(lifetime.signal, "signal", self.handlers.__setitem__)
        self.reactor = Reactor()
        self.served = Served()
        self.systemd = Systemd(watchdog)
        self.life = Lifetime(self.served, self.reactor, self.systemd)
        self.life.startService()

    def run(self) -> None:
        """As a reactor does, which has handlers of its own."""
        self.handlers[signal.SIGTERM] = self.handlers[signal.SIGINT] = pytest.fail
        for function in self.reactor.when_running:
            function()

    def send(self, number: int) -> None:
        self.handlers[number](number, None)

    def serve(self) -> World:
        self.run()
        self.served.ready.callback("serving")
        return self


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    """Not running yet."""
    return World(monkeypatch)


def test_ready_is_said_when_everybody_may_come(world: World) -> None:
    """Not when the reactor runs."""
    assert world.served.done == ["start"]
    world.run()
    assert world.systemd.heard == []
    world.served.ready.callback("serving")

    assert world.systemd.heard == ["READY=1"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_i14_the_first_signal_drains_and_ends_with_status_0(world: World, number: int) -> None:
    """And not by the signal."""
    world.serve().send(number)
    assert world.reactor.stopped == 1
    ended = world.life.stopService()
    assert world.systemd.heard == ["READY=1", "STOPPING=1"]
    assert not ended.called
    world.served.drained.callback(None)

    assert ended.called
    assert world.reactor.exit_status is None
    assert world.served.done == ["start", "drain"]


def test_i14_the_second_signal_cuts_and_the_status_tells(world: World) -> None:
    """Nobody waits for what is under way any more."""
    world.serve().send(signal.SIGTERM)
    ended = world.life.stopService()
    world.send(signal.SIGINT)

    assert ended.called
    assert world.served.done == ["start", "drain", "cut"]
    assert world.reactor.exit_status == 1
    assert world.reactor.stopped == 1


def test_a_signal_before_anything_runs_ends_it_too(world: World) -> None:
    """systemd hears nothing of ready after it."""
    world.send(signal.SIGTERM)
    world.run()
    assert world.reactor.stopped == 1
    world.life.stopService()
    world.served.ready.callback("serving")

    assert world.systemd.heard == ["STOPPING=1"]


def test_what_does_not_start_ends_with_one_line_and_status_1(world: World) -> None:
    """As a busy port does."""
    world.run()
    with capturedLogs() as logs:
        world.served.ready.errback(ValueError("a worker ended"))
    assert world.reactor.stopped == 1
    world.life.stopService()
    world.served.drained.callback(None)

    assert [formatEvent(event) for event in logs] == ["a worker ended"]
    assert world.reactor.exit_status == 1


def test_what_does_not_start_and_is_about_to_end_cuts_nobody(world: World) -> None:
    """The signal came first."""
    world.run()
    world.send(signal.SIGTERM)
    world.served.ready.errback(ValueError("a worker ended"))

    assert world.served.done == ["start"]
    assert world.reactor.stopped == 1


def test_i16_a_reload_is_told_from_its_begin_to_its_end(world: World) -> None:
    """However often it is asked for meanwhile, there is one more after it."""
    world.serve()
    world.systemd.heard.clear()
    for _ in range(100):
        world.send(signal.SIGHUP)
    assert (len(world.served.reloads), world.systemd.heard) == (1, ["RELOADING=1"])

    world.served.reloads[0].callback(None)
    assert (len(world.served.reloads), world.systemd.heard) == (2, ["RELOADING=1"] * 2)
    world.served.reloads[1].callback(None)
    assert (len(world.served.reloads), world.systemd.heard[2:]) == (2, ["READY=1"])
    world.send(signal.SIGHUP)
    assert len(world.served.reloads) == 3


def test_a_reload_that_fails_is_over_too(world: World) -> None:
    """systemd must not wait for ever."""
    world.serve().send(signal.SIGHUP)
    world.served.reloads[0].addErrback(lambda failure: failure.trap(ValueError))
    world.served.reloads[0].errback(ValueError())

    assert world.systemd.heard == ["READY=1", "RELOADING=1", "READY=1"]


def test_a_reload_before_everybody_may_come_is_not_told(world: World) -> None:
    """The first READY means ready."""
    world.send(signal.SIGHUP)
    world.served.reloads[0].callback(None)

    assert world.systemd.heard == []


@pytest.mark.parametrize("again", [True, False])
def test_nothing_is_reloaded_while_it_ends(world: World, again: bool) -> None:
    """STOPPING is the last word."""
    world.serve().send(signal.SIGHUP)
    world.send(signal.SIGTERM)
    world.life.stopService()
    if again:
        world.send(signal.SIGHUP)
    world.served.reloads[0].callback(None)

    assert len(world.served.reloads) == 1
    assert world.systemd.heard == ["READY=1", "RELOADING=1", "STOPPING=1"]


def test_i20_the_watchdog_hears_of_us_twice_in_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """While it drains, too, and not after that."""
    world = World(monkeypatch, watchdog=10)
    world.run()
    world.reactor.advance(5)
    world.reactor.advance(5)
    assert world.systemd.heard == ["WATCHDOG=1"] * 3
    world.life.stopService()
    world.reactor.advance(5)
    assert world.systemd.heard[3:] == ["STOPPING=1", "WATCHDOG=1"]
    world.served.drained.callback(None)

    assert world.reactor.getDelayedCalls() == []
