"""regguard.transport.turns and direct: the quick ways beside Twisted's plain ones."""

from __future__ import annotations

import contextlib
import random
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from twisted.internet.abstract import FileDescriptor
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.selectreactor import SelectReactor
from twisted.internet.tcp import Server
from twisted.logger import capturedLogs
from twisted.python.failure import Failure

from regguard.transport import quicken, read_directly
from regguard.transport.turns import PART
from tests.e2e.wire import reset

MOST = 1000


@pytest.fixture(scope="module")
def reactors() -> tuple[EPollReactor, EPollReactor]:
    """A plain and a quick one; not the global one, and they turn when the test says so."""
    plain, quick = EPollReactor(), EPollReactor()
    quicken(quick)
    return plain, quick


@pytest.fixture
def reactor(reactors: tuple[EPollReactor, EPollReactor]) -> Iterator[EPollReactor]:
    """The quick one."""
    ours = reactors[1]
    ours.running = True
    yield ours
    ours._justStopped = False
    ours.threadCallQueue.clear()
    for call in ours.getDelayedCalls():
        call.cancel()
    ours.runUntilCurrent()


def turn(reactor: EPollReactor) -> None:
    """One turn that does not wait."""
    # Something is due at once, so that the quick turn comes back.
    reactor.callLater(0, lambda: None)
    reactor.timeout()
    reactor.doIteration(0)
    reactor.runUntilCurrent()


class Descriptor(FileDescriptor):
    """One end of a socket pair that does what its script says at each event."""

    def __init__(self, reactor: EPollReactor, steps: list[str], told: list[str]) -> None:
        super().__init__(reactor)
        self.ours, self.theirs = socket.socketpair()
        self.ours.setblocking(False)
        self.steps, self.told = steps, told
        self.victim: Descriptor | None = None
        self.connected = True

    def fileno(self) -> int:
        return self.ours.fileno()

    def _do(self, event: str) -> Any:
        step = self.steps.pop(0) if self.steps else "go on"
        self.told.append(f"{event}: {step}")
        if step == "fail":
            raise RuntimeError("on purpose")
        if step == "lose":
            return ConnectionLost()
        if step == "end":
            return ConnectionDone()
        if step == "kill" and self.victim is not None:
            self.victim.connectionLost(Failure(ConnectionDone()))
        return None

    def doRead(self) -> Any:
        with contextlib.suppress(BlockingIOError):
            self.ours.recv(1)
        return self._do("read")

    def doWrite(self) -> Any:
        self.stopWriting()
        return self._do("write")

    def readConnectionLost(self, reason: Failure) -> None:
        self.told.append(f"read lost: {reason.type}")
        self.connectionLost(reason)

    def connectionLost(self, reason: Failure) -> None:
        super().connectionLost(reason)
        self.told.append(f"lost: {reason.type}")
        self.ours.close()


def play(reactor: EPollReactor, seed: int) -> tuple[list[str], int]:
    """What happens to some descriptors under a random script, and how many failures are logged."""
    chance = random.Random(seed)
    reactor.running = True
    told: list[str] = []
    steps = ("go on", "go on", "go on", "fail", "lose", "end", "kill")
    all_of_them = [
        Descriptor(reactor, [chance.choice(steps) for _ in range(6)], told) for _ in range(3)
    ]
    for each, other in zip(all_of_them, [*all_of_them[1:], all_of_them[0]], strict=True):
        each.victim = other if chance.random() < 0.5 else None
        each.startReading()
    with capturedLogs() as events:
        for _ in range(8):
            each = chance.choice(all_of_them)
            act = chance.choice(("send", "send", "write", "hang up", "pause", "go on"))
            if act == "hang up":
                each.theirs.close()
            elif each.ours.fileno() >= 0:
                if act == "send":
                    with contextlib.suppress(OSError):
                        each.theirs.send(b"x")
                elif act == "write":
                    each.startWriting()
                elif act == "pause":
                    each.stopReading()
                else:
                    each.startReading()
            told.append(act)
            turn(reactor)
    failures = sum("log_failure" in event or event.get("isError") == 1 for event in events)
    for each in all_of_them:
        each.theirs.close()
        if each.ours.fileno() >= 0:
            each.connectionLost(connectionDone)
    return told, failures


@pytest.mark.parametrize("seed", range(200))
def test_a_quick_turn_does_what_a_plain_one_does(
    reactors: tuple[EPollReactor, EPollReactor], seed: int
) -> None:
    """Reads, writes, ends, hang-ups, failures, and who is gone when its turn comes."""
    plain, quick = reactors
    assert play(quick, seed) == play(plain, seed)


@pytest.mark.parametrize("way", ["timed", "thread", "stop", "crash"])
def test_the_quick_turn_comes_back_for_the_main_loop(reactor: EPollReactor, way: str) -> None:
    """It turns on by itself only while the main loop would have nothing else to do."""
    told: list[str] = []
    first = Descriptor(reactor, ["go on"], told)
    first.startReading()
    acts: dict[str, Callable[[], Any]] = {
        "timed": lambda: reactor.callLater(60, lambda: None),
        "thread": lambda: reactor.threadCallQueue.append((lambda: None, (), {})),
        "stop": lambda: setattr(reactor, "_justStopped", True),
        "crash": lambda: setattr(reactor, "running", False),
    }
    read = first.doRead
    first.doRead = lambda: [read(), acts[way]()][0]  # type: ignore[method-assign]
    first.theirs.send(b"x")
    reactor.doIteration(None)

    assert told == ["read: go on"]
    first.connectionLost(connectionDone)
    first.theirs.close()


def test_the_quick_turn_waits_no_longer_than_the_next_timed_call(reactor: EPollReactor) -> None:
    """Also in the turns that it takes by itself."""
    reactor.callLater(0.01, lambda: None)
    reactor.doIteration(reactor.timeout())

    assert reactor.timeout() == 0


def test_a_timer_far_away_is_no_fault(reactor: EPollReactor) -> None:
    """epoll refuses to wait for as long as --drain-timeout may be."""
    reactor.callLater(1e9, lambda: None)
    reactor.timeout()
    reactor.doIteration(0)


def test_another_reactor_keeps_its_own_turn() -> None:
    """The plain path."""
    reactor = SelectReactor()
    quicken(reactor)

    assert "doIteration" not in vars(reactor)


class Listener(Protocol):
    """Notes what it gets."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.lost: list[Any] = []

    def dataReceived(self, data: bytes) -> None:
        self.pieces.append(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost.append(reason.type)


class Wrapper(Listener):
    """Between the transport and its protocol; it must hear nothing any more."""


def connected(reactor: Any, directly: bool) -> tuple[Server, Listener, Wrapper, socket.socket]:
    """A connection that reads, and its other end."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        theirs = socket.create_connection(listening.getsockname())
        ours, _ = listening.accept()
    ours.setblocking(False)
    wrapper, protocol = Wrapper(), Listener()
    port: Any = type("Port", (), {"_realPortNumber": 1, "_buildAddr": lambda self, address: None})()
    transport = Server(ours, wrapper, ("127.0.0.1", 1), port, 1, reactor)
    transport.connected = True
    if directly:
        read_directly(transport, protocol, MOST)
    return transport, protocol, wrapper, theirs


def read_all(transport: Server) -> Any:
    """Read until nothing is there; what the last read said."""
    while (outcome := transport.doRead()) is None:
        try:
            transport.socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return None
        except OSError:
            continue
    return outcome


@pytest.mark.parametrize("ending", ["none", "end", "reset"])
def test_direct_reads_deliver_what_plain_ones_do(reactor: EPollReactor, ending: str) -> None:
    """The same octets, and the same end."""
    outcomes = []
    for directly in (True, False):
        transport, protocol, wrapper, theirs = connected(reactor, directly)
        theirs.sendall(b"some octets")
        first = read_all(transport)
        if ending == "end":
            theirs.close()
        elif ending == "reset":
            reset(theirs)
        last = None if ending == "none" else read_all(transport)
        heard = protocol if directly else wrapper
        outcomes.append((first, type(last), b"".join(heard.pieces)))
        transport.connectionLost(connectionDone)
        assert heard.lost == [ConnectionDone]
        theirs.close()

    assert outcomes[0] == outcomes[1]


def test_what_fills_a_read_is_bulk(reactor: EPollReactor) -> None:
    """And is none any more after one that did not."""
    transport, protocol, _, theirs = connected(reactor, True)
    theirs.sendall(bytes(MOST + 1))
    transport.doRead()
    assert len(protocol.pieces[0]) == MOST
    assert transport.is_bulk  # type: ignore[attr-defined]
    transport.doRead()
    assert not transport.is_bulk  # type: ignore[attr-defined]
    transport.connectionLost(connectionDone)
    theirs.close()


def test_requests_come_before_bulk(reactor: EPollReactor) -> None:
    """Also the one that epoll reports last; and of the bulk only a part."""
    told: list[str] = []
    transfers = [Descriptor(reactor, [], told) for _ in range(2 * PART)]
    request = Descriptor(reactor, ["request"], told)
    for each in (*transfers, request):
        each.theirs.send(b"x" * 10)
        each.startReading()
    for each in transfers:
        each.is_bulk = True  # type: ignore[attr-defined]
    turn(reactor)

    assert told == ["read: request", "read: go on", "read: go on"]
    for each in (*transfers, request):
        each.connectionLost(connectionDone)
        each.theirs.close()


@pytest.mark.parametrize("count", [1, 2, PART, 3 * PART + 1])
def test_no_transfer_waits_for_ever(reactor: EPollReactor, count: int) -> None:
    """They take turns, in whatever order epoll reports them."""
    transfers = [Descriptor(reactor, [], []) for _ in range(count)]
    for each in transfers:
        each.is_bulk = True  # type: ignore[attr-defined]
        each.theirs.send(b"x" * 100)
        each.startReading()
    part = -(-count // PART)
    for _ in range(-(-10 * count // part)):
        turn(reactor)

    served = [len(each.told) for each in transfers]
    assert min(served) >= 9
    for each in transfers:
        each.connectionLost(connectionDone)
        each.theirs.close()
