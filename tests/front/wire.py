"""A door in memory: real octets in, real octets out, a clock that stands until it is moved."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import h11
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from regguard import answers
from regguard.front import Channel, Request, Site

SEGMENT = 64 * 1024
"""Octets that a Twisted transport reads in one turn."""


class Wire(StringTransport):
    """Both ends of a connection, with the rules of ``twisted.internet.abstract.FileDescriptor``.

    A write goes out at once while the client reads, and is queued and pauses the producer while
    it does not.  Everything that Twisted does in a later turn of the reactor happens in
    ``turn``.
    """

    def __init__(self, host: str = "192.0.2.7") -> None:
        super().__init__(  # type: ignore[no-untyped-call]
            peerAddress=IPv4Address("TCP", host, 50000)
        )
        self.protocol: Any = None
        self.client_reads = True
        self.received = bytearray()
        self.queue = b""
        self.reading = True
        self.half_closed = False
        self.aborted = False
        self.written_after_abort = b""
        self.faults: list[Failure] = []
        self.outbox = b""
        self.finished_sending = False
        self._writing = False
        self._write_closing = False
        self._producer_paused = False

    # -- the server's side -----------------------------------------------------------------

    def write(self, data: bytes) -> None:
        if self.aborted:
            self.written_after_abort += data
        if not self.connected or self.half_closed or self.aborted or not data:
            return
        if self.client_reads and not self.queue:
            self.received += data
            return
        self.queue += data
        self._writing = True
        if self.producer is not None and not self._producer_paused:
            self._producer_paused = True
            self.producer.pauseProducing()

    def writeSequence(self, data: Iterable[bytes]) -> None:
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        if not self.connected or self.disconnecting:
            return
        self.reading = False
        if self.half_closed:
            self._lose(ConnectionDone())
        else:
            self.disconnecting = True
            self._writing = True

    def loseWriteConnection(self) -> None:
        self._write_closing = True
        self._writing = True

    def abortConnection(self) -> None:
        if self.connected:
            self.aborted = True
            self.reading = False

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        if self.producer is not None:
            raise RuntimeError("there is a producer already")
        if not self.connected:
            producer.stopProducing()
        else:
            self.producer = producer
            self._producer_paused = False
            assert streaming

    def unregisterProducer(self) -> None:
        self.producer = None
        if self.connected and self.disconnecting:
            self._writing = True

    def pauseProducing(self) -> None:
        self.reading = False

    def resumeProducing(self) -> None:
        if self.connected and not self.disconnecting and not self.aborted:
            self.reading = True

    @property
    def unsent(self) -> int:
        return len(self.queue)

    # -- the reactor -----------------------------------------------------------------------

    def turn(self) -> None:
        """Let the reactor turn until nothing more happens."""
        while self.connected and (self._turn_writing() or self._turn_reading()):
            pass

    def _turn_writing(self) -> bool:
        if self.aborted:
            self._lose(ConnectionAborted())
            return True
        if not self._writing or (self.queue and not self.client_reads):
            return False
        self.received += self.queue
        self.queue = b""
        self._writing = False
        if self.producer is not None and self._producer_paused:
            self._producer_paused = False
            self._guarded(self.producer.resumeProducing)
        elif self.disconnecting:
            self._lose(ConnectionDone())
        elif self._write_closing and not self.half_closed:
            self.half_closed = True
            self._guarded(self.protocol.writeConnectionLost)
        return True

    def _turn_reading(self) -> bool:
        if not self.reading:
            return False
        if self.outbox:
            data, self.outbox = self.outbox[:SEGMENT], self.outbox[SEGMENT:]
            self._guarded(self.protocol.dataReceived, data)
            return True
        if self.finished_sending:
            self.reading = False
            self._guarded(self.protocol.readConnectionLost)
            return True
        return False

    def _guarded(self, call: Callable[..., None], *arguments: Any) -> None:
        try:
            call(*arguments)
        except Exception:
            fault = Failure()
            self.faults.append(fault)
            self._lose(fault)

    def _lose(self, reason: BaseException | Failure) -> None:
        if self.connected:
            self.connected = False
            self.disconnected = True
            self.reading = False
            if self.producer is not None:
                producer, self.producer = self.producer, None
                producer.stopProducing()
            self.protocol.connectionLost(reason if isinstance(reason, Failure) else Failure(reason))

    # -- the client's side -----------------------------------------------------------------

    def send(self, *data: bytes) -> None:
        """Send, each piece in a segment of its own."""
        for piece in data:
            self.outbox += piece
            self.turn()

    def finish_sending(self) -> None:
        """Close the client's side of the connection."""
        self.finished_sending = True
        self.turn()

    def vanish(self) -> None:
        """Reset the connection."""
        self._lose(ConnectionLost())

    def read(self) -> None:
        """Take everything that is queued, and read on."""
        self.client_reads = True
        self.turn()

    @property
    def state(self) -> str:
        """What the client sees of the connection."""
        if self.aborted:
            return "aborted"
        if not self.connected:
            return "closed"
        return "half-closed" if self.half_closed else "open"


@dataclass
class Reply:
    """A response as h11 understood it."""

    status: int
    fields: list[tuple[bytes, bytes]]
    body: bytes
    interim: list[int]

    def __getitem__(self, name: str) -> list[bytes]:
        return [value for key, value in self.fields if key == name.lower().encode()]


def replies(octets: bytes | bytearray, *methods: str) -> list[Reply]:
    """The responses to requests of ``methods`` (default: as many GETs as there are answers).

    Fails where the octets are anything but whole responses.
    """
    rest, found = bytes(octets), []
    for method in methods or iter(lambda: "GET", None):
        if not rest and not methods:
            break
        oracle = h11.Connection(h11.CLIENT)
        oracle.send(h11.Request(method=method, target="/", headers=[("Host", "a")]))
        oracle.send(h11.EndOfMessage())
        oracle.receive_data(rest)
        reply, body, interim = None, b"", []
        while not isinstance(event := oracle.next_event(), h11.EndOfMessage):
            if event is h11.NEED_DATA:
                oracle.receive_data(b"")
            elif isinstance(event, h11.InformationalResponse):
                interim.append(event.status_code)
            elif isinstance(event, h11.Response):
                fields = [(bytes(n), bytes(v)) for n, v in event.headers]
                reply = Reply(event.status_code, fields, b"", interim)
            elif isinstance(event, h11.Data):
                body += event.data
        assert reply is not None
        reply.body = body
        found.append(reply)
        rest = bytes(oracle.trailing_data[0])
    assert not rest
    return found


@dataclass(eq=False)
class Seen:
    """A request that reached the resource, and what became of it; a BodySink for it."""

    request: Request
    gone: list[str] = field(default_factory=list)
    body: bytearray = field(default_factory=bytearray)
    ended: int = 0
    on_end: Callable[[Seen], None] | None = None

    def body_data(self, data: bytes) -> None:
        assert data
        assert not self.ended
        self.body += data

    def body_end(self) -> None:
        self.ended += 1
        if self.on_end is not None:
            self.on_end(self)

    def answer(self, text: str = "") -> None:
        """A whole small response; by default it names the target and repeats the body."""
        head = self.request.head
        assert head is not None
        body = text.encode() if text else head.target + b" " + bytes(self.body)
        self.request.answer(answers.Answer(200, body, (b"Content-Type: text/plain",)))


def at_once(seen: Seen) -> None:
    """Answer before the body, if any, was asked for."""
    seen.answer()


def later(seen: Seen) -> None:
    """Leave the request to the test."""


def take(seen: Seen) -> None:
    """Take the body; leave the answer to the test."""
    seen.request.receive_body(seen)


def echo(seen: Seen) -> None:
    """Take the body and answer with it."""
    seen.on_end = Seen.answer
    seen.request.send_continue()
    seen.request.receive_body(seen)


class Script:
    """A resource that does for each path what the test says."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.paths: dict[bytes, Callable[[Seen], None]] = {
            b"/now": at_once,
            b"/later": later,
            b"/take": take,
            b"/echo": echo,
        }

    def render(self, request: Request) -> None:
        seen = Seen(request)
        self.seen.append(seen)
        request.when_gone = seen.gone.append
        assert request.head is not None
        self.paths[request.head.target](seen)


class Door:
    """A site with a scripted resource, its log and its clock."""

    def __init__(self, half_closes: bool = True, watched: bool = True, **words: Any) -> None:
        self.clock = Clock()
        self.script = Script()
        self.logged: list[Request] = []
        self.site = Site(
            self.script,
            self.clock,
            lambda: 784111777.0,
            self.logged.append,
            secure=False,
            half_closes=half_closes,
            **words,
        )
        if watched:  # else a listening port does it
            self.site.startFactory()
        self.wires: list[Wire] = []

    def connect(self, host: str = "192.0.2.7") -> Wire:
        """A client's connection."""
        wire = self.knock(host)
        assert wire is not None
        return wire

    def knock(self, host: str) -> Wire | None:
        """The same, where it may be closed at once: None."""
        wire = Wire(host)
        wire.protocol = self.site.buildProtocol(wire.getPeer())
        if wire.protocol is None:
            return None
        wire.protocol.makeConnection(wire)
        self.wires.append(wire)
        return wire

    def channel(self, wire: Wire) -> Channel:
        """The server's end of a connection."""
        channel = wire.protocol
        assert isinstance(channel, Channel)
        return channel

    @property
    def seen(self) -> list[Seen]:
        """The requests that reached the resource."""
        return self.script.seen

    def wait(self, seconds: int) -> None:
        """Let time pass, a second at a time."""
        for _ in range(seconds):
            self.clock.advance(1)
            for wire in self.wires:
                wire.turn()

    def check_and_close(self) -> None:
        """Whatever happened: nothing is left, nothing was forgotten or done twice."""
        self.site.stop()
        for wire in self.wires:
            wire.turn()
            assert not wire.connected
            assert not wire.written_after_abort
            assert not wire.faults
        assert not self.site.channels
        assert not self.site.admission.count
        assert not self.clock.getDelayedCalls()
        for seen in self.seen:
            assert self.logged.count(seen.request) == 1
            assert len(seen.gone) <= 1
            assert seen.ended <= 1
            assert not seen.request.live
