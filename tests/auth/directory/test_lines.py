"""regguard.auth.directory.lines: how many lines there are, and which are used again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.task import Clock

from regguard.auth.directory import lines as module
from regguard.auth.directory.lines import IDLE, LINES, WAITING, Lines
from regguard.auth.directory.session import DirectoryError, Refused
from regguard.auth.directory.settings import Server, parse_settings
from regguard.auth.interfaces import Overloaded

SECONDS = 8.0


class Wire:
    """A connection; ``inner`` says which one."""

    def __init__(self, number: int) -> None:
        self.inner = number
        self.up = True

    def cut(self) -> None:
        self.up = False


class Session:
    """What is said on a wire; it ends as ``says`` tells."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.bound: list[str] = []
        self.closed = False

    def bind(self, dn: str, password: bytes, seconds: float) -> None:
        if password != b"right":
            raise Refused
        self.bound.append(dn)

    def close(self) -> None:
        self.closed = True


class World:
    """Servers that are silent until a test says otherwise, and threads that are done at once."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clock = Clock()
        self.wires: list[Wire] = []
        self.connecting: list[tuple[Server, Deferred[Wire]]] = []
        self.silent_servers: set[str] = set()
        # Wires on which no answer comes, and work that waits there.
        self.silent_wires: set[int] = set()
        self.monkeypatch = monkeypatch
        monkeypatch.setattr(module, "open_wire", self.open_wire)
        monkeypatch.setattr(module, "Session", Session)

    def lines(self, argument: str = "ldaps://one,two/dc=x") -> Lines:
        lines = Lines(self.clock, parse_settings(argument), None)
        self.monkeypatch.setattr(lines._threads, "startService", lambda: None)
        self.monkeypatch.setattr(lines._threads, "run", self.run)
        lines.startService()
        return lines

    def open_wire(self, reactor: Any, server: Server, *_: Any, **__: Any) -> Deferred[Wire]:
        if server.host in self.silent_servers:
            waiting: Deferred[Wire] = Deferred()
            self.connecting.append((server, waiting))
            return waiting
        self.wires.append(Wire(len(self.wires)))
        return succeed(self.wires[-1])

    def run(self, work: Any) -> Deferred[Any]:
        (session,) = work.args
        if session.number in self.silent_wires:
            return Deferred()
        return Deferred.fromCoroutine(_called(work))


async def _called(work: Callable[[], Any]) -> Any:
    return work()


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


ONE, TWO = parse_settings("ldaps://one,two/dc=x").servers


def number(session: Any) -> int:
    """The work of these tests: on which wire is it done?"""
    assert isinstance(session.number, int)
    return session.number


def shared(lines: Lines, server: Server = ONE) -> list[Any]:
    return outcome(lines.shared(server, number, SECONDS))


def outcome(coroutine: Any) -> list[Any]:
    """Gets what comes of it as soon as it comes."""
    outcomes: list[Any] = []
    Deferred.fromCoroutine(coroutine).addCallbacks(
        outcomes.append, lambda failure: outcomes.append(failure.value)
    )
    return outcomes


def test_e20_a_flood_of_log_ins_is_no_flood_of_connections(world: World) -> None:
    """Lines at work are counted from the connection on; so many others wait, and no more."""
    world.silent_servers = {"one"}
    lines = world.lines()

    asked = [outcome(lines.alone(ONE, number)) for _ in range(LINES + WAITING + 1)]

    assert len(world.connecting) == LINES
    (refused,) = filter(None, asked)
    assert refused is asked[-1]
    assert isinstance(refused[0], Overloaded)
    # Whoever is done makes room.
    world.connecting[0][1].errback(DirectoryError("gone"))
    world.clock.advance(0)
    assert len(world.connecting) == LINES + 1


def test_a_queue_of_lines_that_fail_at_once_is_no_deep_stack(world: World) -> None:
    """Each one is told what befell it."""
    world.silent_servers = {"one"}
    lines = world.lines()
    asked = [outcome(lines.alone(ONE, number)) for _ in range(LINES + WAITING)]
    error = DirectoryError("gone")
    world.monkeypatch.setattr(module, "open_wire", lambda *_, **__: fail(error))

    for _, connecting in world.connecting:
        connecting.errback(error)
    world.clock.pump([0.0] * WAITING)

    assert asked == [[error]] * (LINES + WAITING)


def test_a_silent_server_keeps_nobody_from_the_next(world: World) -> None:
    """Each one has lines of its own."""
    world.silent_servers = {"one"}
    lines = world.lines()
    for _ in range(2 * LINES):
        outcome(lines.alone(ONE, number))

    assert outcome(lines.alone(TWO, number)) == [0]


def test_who_gives_up_makes_room(world: World) -> None:
    """While he waits, and while a line is opened for him."""
    world.silent_servers = {"one"}
    lines = world.lines()
    asked = [Deferred.fromCoroutine(lines.alone(ONE, number)) for _ in range(LINES + 2)]
    for each in (asked[LINES], asked[0]):
        each.addErrback(lambda failure: failure.trap(CancelledError))
        each.cancel()
    world.clock.advance(0)

    assert len(world.connecting) == LINES + 1
    assert not lines._turns[ONE].waiting


def test_a_line_is_used_again_while_it_is_fresh(world: World) -> None:
    """The one used last; a line that was closed or idle for long is not."""
    lines = world.lines()
    assert shared(lines) == [0]
    assert shared(lines) == [0]
    assert shared(lines, TWO) == [1]

    world.clock.advance(IDLE)
    assert shared(lines) == [0]
    world.clock.advance(IDLE + 1)
    assert shared(lines) == [2]
    assert not any(wire.up for wire in world.wires[:2])
    world.wires[2].up = False
    assert shared(lines) == [3]


def test_a_line_of_a_log_in_is_used_once(world: World) -> None:
    """It is somebody's."""
    lines = world.lines()
    sessions: list[Any] = []

    for _ in range(2):
        outcome(lines.alone(ONE, sessions.append))

    assert [(session.number, session.closed) for session in sessions] == [(0, True), (1, True)]


def test_half_open_lines_cost_half_of_the_time_of_one_log_in(world: World) -> None:
    """A server that was gone without a word and is there again is asked on a new line."""
    lines = world.lines()
    # Three that were at work at once are idle now, and one to the other server.
    together = [_Held() for _ in range(3)]
    for each in together:
        world.monkeypatch.setattr(lines._threads, "run", each)
        outcome(lines.shared(ONE, number, SECONDS))
    world.monkeypatch.setattr(lines._threads, "run", world.run)
    for each in together:
        each.result.callback(None)
    assert shared(lines, TWO) == [3]

    world.silent_wires = {0, 1, 2}
    answer = shared(lines)
    world.clock.advance(SECONDS / 2 - 0.1)
    assert not answer
    world.clock.advance(0.1)

    assert answer == [4]
    assert [wire.up for wire in world.wires] == [False, False, False, True, True]
    assert shared(lines, TWO) == [3]


class _Held:
    """A thread that is at work until a test says otherwise."""

    def __init__(self) -> None:
        self.result: Deferred[Any] = Deferred()

    def __call__(self, work: Any) -> Deferred[Any]:
        return self.result


def test_the_end_cuts_all_lines(world: World) -> None:
    """Idle or at work."""
    lines = world.lines()
    shared(lines)
    world.silent_wires = {1}
    outcome(lines.alone(ONE, number))
    world.monkeypatch.setattr(lines._threads, "stopService", lambda: None)

    lines.stopService()

    assert [wire.up for wire in world.wires] == [False, False]
