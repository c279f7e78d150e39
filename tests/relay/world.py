"""A world in memory: clients, the guard's door, a relay and a registry under the test's hands.

Only the sockets are made up.  Above them stands Twisted's own ``tcp.Connection``, so queues,
producers, half-closes and aborts behave as in production, and the eager writes are in play.
"""

from __future__ import annotations

import errno
import socket as real_socket
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import h11
from twisted.internet import error, main, tcp
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import (
    IHalfCloseableDescriptor,
    IProtocolFactory,
    IStreamClientEndpoint,
)
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

from regguard import answers
from regguard.front import Site
from regguard.relay import Address, Origin, Relay, Upstream, UpstreamFailure, Upstreams

NOW = 1_790_000_000.0
_numbers = count(1000)
_LINGER_CUT = struct.pack("ii", 1, 0)


# An answer for whoever does not care which.
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Reactor(Clock):
    """A clock that also watches the made-up sockets."""

    def __init__(self) -> None:
        super().__init__()
        self.readers: dict[Any, None] = {}
        self.writers: dict[Any, None] = {}
        self.peers: list[Peer] = []
        self._turning = False

    def addReader(self, reader: Any) -> None:
        self.readers[reader] = None

    def addWriter(self, writer: Any) -> None:
        self.writers[writer] = None

    def removeReader(self, reader: Any) -> None:
        self.readers.pop(reader, None)

    def removeWriter(self, writer: Any) -> None:
        self.writers.pop(writer, None)

    def turn(self) -> None:
        """Go round until nothing moves any more, without letting time pass."""
        assert not self._turning
        self._turning = True
        for _ in range(200_000):
            if not self._once():
                break
        else:
            raise AssertionError("the reactor spins")
        self._turning = False

    def pass_time(self, seconds: float) -> None:
        """Let time pass in steps of a second, as the watches see it."""
        while seconds > 0:
            step = min(1.0, seconds)
            self.advance(step)
            self.turn()
            seconds -= step

    def _once(self) -> bool:
        moved = False
        if self.calls and self.calls[0].getTime() <= self.seconds():
            self.advance(0)
            moved = True
        for reader in list(self.readers):
            if reader in self.readers and reader.socket.readable():
                moved = True
                self._handle(reader, reader.doRead(), is_read=True)
        for writer in list(self.writers):
            if writer in self.writers and writer.socket.writable():
                moved = True
                self._handle(writer, writer.doWrite(), is_read=False)
        for peer in self.peers:
            if peer.reading and peer.pull():
                moved = True
        return moved

    def _handle(self, descriptor: Any, why: Any, *, is_read: bool) -> None:
        """As ``posixbase`` ends a descriptor."""
        if why is None:
            return
        self.removeReader(descriptor)
        if (
            is_read
            and why is main.CONNECTION_DONE
            and IHalfCloseableDescriptor.providedBy(descriptor)
        ):
            descriptor.readConnectionLost(Failure(why))
        else:
            self.removeWriter(descriptor)
            descriptor.connectionLost(Failure(why))


@dataclass
class Pipe:
    """One direction of a connection."""

    capacity: int
    octets: bytearray = field(default_factory=bytearray)
    ended: bool = False
    reset: bool = False


class Socket:
    """What Twisted needs of a socket."""

    family = real_socket.AF_INET

    def __init__(self, incoming: Pipe, outgoing: Pipe) -> None:
        self._incoming = incoming
        self._outgoing = outgoing
        self._number = next(_numbers)
        self._cut = False
        self.open = True

    def readable(self) -> bool:
        pipe = self._incoming
        return bool(pipe.octets) or pipe.ended or pipe.reset

    def writable(self) -> bool:
        pipe = self._outgoing
        return self._incoming.reset or len(pipe.octets) < pipe.capacity

    def fileno(self) -> int:
        return self._number

    def setblocking(self, flag: bool) -> None:
        assert not flag

    def setsockopt(self, level: int, option: int, value: Any) -> None:
        if option == real_socket.SO_LINGER and value == _LINGER_CUT:
            self._cut = True

    def recv(self, size: int) -> bytes:
        pipe = self._incoming
        if pipe.octets:
            data = bytes(pipe.octets[:size])
            del pipe.octets[:size]
            return data
        if pipe.reset:
            raise ConnectionResetError(errno.ECONNRESET, "reset")
        if pipe.ended:
            return b""
        raise BlockingIOError(errno.EWOULDBLOCK, "would block")

    def send(self, data: Any) -> int:
        if self._incoming.reset:
            raise BrokenPipeError(errno.EPIPE, "broken pipe")
        pipe = self._outgoing
        room = pipe.capacity - len(pipe.octets)
        if room <= 0:
            raise BlockingIOError(errno.EWOULDBLOCK, "would block")
        taken = bytes(data[:room])
        pipe.octets += taken
        return len(taken)

    def shutdown(self, how: int) -> None:
        if how != real_socket.SHUT_RD:
            self._outgoing.ended = True

    def close(self) -> None:
        self.open = False
        if self._cut:
            self._outgoing.octets.clear()
            self._outgoing.reset = True
        else:
            self._outgoing.ended = True


class Peer:
    """The test's end of a connection."""

    def __init__(self, reactor: Reactor, capacity: int = 128 * 1024) -> None:
        self._reactor = reactor
        self._to_us = Pipe(capacity)
        self._to_them = Pipe(2**62)
        self.socket = Socket(self._to_them, self._to_us)
        self.transport: Any = None
        self.received = bytearray()
        self.reading = True
        reactor.peers.append(self)

    def pull(self, size: int = 2**62) -> int:
        """Take what is in the pipe; the number of octets."""
        data = self._to_us.octets[:size]
        del self._to_us.octets[:size]
        self.received += data
        return len(data)

    def send(self, *pieces: bytes) -> None:
        """Send each piece as a segment of its own."""
        for piece in pieces:
            self._to_them.octets += piece
            self._reactor.turn()

    def read(self, size: int) -> int:
        """Read some octets, while not ``reading`` by itself."""
        taken = self.pull(size)
        self._reactor.turn()
        return taken

    def take(self) -> bytes:
        """What was received since the last call."""
        data = bytes(self.received)
        self.received.clear()
        return data

    def end(self) -> None:
        """Send a FIN and go on reading."""
        self._to_them.ended = True
        self._reactor.turn()

    def reset(self) -> None:
        """Send an RST."""
        self._to_them.reset = True
        self._reactor.turn()

    @property
    def unread(self) -> int:
        """Octets that we sent and that nobody read yet."""
        return len(self._to_them.octets)

    @property
    def was_ended(self) -> bool:
        """Whether the other side sent a FIN."""
        return self._to_us.ended

    @property
    def was_reset(self) -> bool:
        """Whether the other side sent an RST."""
        return self._to_us.reset

    @property
    def is_open(self) -> bool:
        """Whether the other side did neither."""
        return not (self.was_ended or self.was_reset)


class _Outgoing(tcp.Connection):
    """A connected ``tcp.Client``."""

    def __init__(self, socket: Any, protocol: Any, reactor: Any) -> None:
        super().__init__(socket, protocol, reactor)
        self.connected = 1
        self.startReading()  # type: ignore[no-untyped-call]


@implementer(IStreamClientEndpoint)
class Registry:
    """The registry's address; the test answers by hand over ``connections``."""

    def __init__(self, reactor: Reactor) -> None:
        self._reactor = reactor
        self.accepting = True
        self.failure: Exception | None = None
        self.connections: list[Peer] = []
        self.cancelled = 0
        self.capacity = 128 * 1024
        self._waiting: list[tuple[IProtocolFactory, Deferred[Any]]] = []

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
        """A connection in the next turn, if the registry accepts."""
        if self.failure is not None:
            return fail(self.failure)
        connecting: Deferred[Any] = Deferred(self._cancel)
        self._waiting.append((protocolFactory, connecting))
        if self.accepting:
            self._reactor.callLater(0, self._accept)
        return connecting

    def accept(self) -> None:
        """Accept everybody who waits."""
        self._accept()
        self._reactor.turn()

    def _accept(self) -> None:
        waiting, self._waiting = self._waiting, []
        for factory, connecting in waiting:
            peer = Peer(self._reactor, self.capacity)
            protocol: Any = factory.buildProtocol(IPv4Address("TCP", "127.0.0.1", 5000))
            peer.transport = _Outgoing(peer.socket, protocol, self._reactor)
            self.connections.append(peer)
            protocol.makeConnection(peer.transport)
            connecting.callback(protocol)

    def refuse(self, why: Exception) -> None:
        """Fail everybody who waits."""
        waiting, self._waiting = self._waiting, []
        for _, connecting in waiting:
            connecting.errback(why)
        self._reactor.turn()

    def _cancel(self, connecting: Deferred[Any]) -> None:
        self.cancelled += 1
        self._waiting = [each for each in self._waiting if each[1] is not connecting]
        connecting.errback(error.ConnectingCancelledError(None))

    @property
    def last(self) -> Peer:
        """The latest connection."""
        return self.connections[-1]

    @property
    def open(self) -> list[Peer]:
        """Connections that neither side has ended."""
        return [each for each in self.connections if each.is_open and each.socket.open]


class Through:
    """A resource that grants everything to one user."""

    def __init__(self) -> None:
        self.relay: Relay | None = None
        self.user_name = "alice"

    def render(self, request: Any) -> None:
        assert self.relay is not None
        request.user_name = self.user_name
        target = request.head.target
        self.relay.send(request, target, self.user_name, b"/blobs/uploads/" in target)


@dataclass
class Ended:
    """What the log was told of one request."""

    status: int
    user_name: str | None
    body_bytes_in: int
    body_bytes_out: int


class World:
    """Everything, connected.

    ``failures`` collects what the relay told ``on_failure``; ``ended`` the requests that came to
    an end.  ``registry`` and ``upstream`` are the first of ``registries`` and ``upstreams``.
    """

    def __init__(
        self,
        resource: Any = None,
        *,
        urls: Sequence[str] = ("http://127.0.0.1:5000",),
        read_timeout: float = 100,
        origin: Origin | None = None,
        on_failure: Callable[[Any, UpstreamFailure], None] | None = None,
    ) -> None:
        self.reactor = Reactor()
        self.registries = [Registry(self.reactor) for _ in urls]
        self.upstreams = [
            Upstream(Address.parse(url), registry, self.reactor)
            for url, registry in zip(urls, self.registries, strict=True)
        ]
        self.registry, self.upstream = self.registries[0], self.upstreams[0]
        self.failures: list[UpstreamFailure] = []
        self.ended: list[Ended] = []
        self.relay = Relay(
            Upstreams(self.upstreams),
            self.reactor,
            read_timeout,
            origin,
            on_failure or self._failed,
        )
        if resource is None:
            resource = Through()
            resource.relay = self.relay
        self.resource = resource
        self.site = Site(resource, self.reactor, lambda: NOW, self._log, secure=True)
        self.site.startFactory()
        self.relay.start()

    def client(self, *, capacity: int = 128 * 1024) -> Peer:
        """A new client, connected."""
        peer = Peer(self.reactor, capacity)
        protocol = self.site.buildProtocol(None)
        peer.transport = tcp.Server(
            peer.socket,  # type: ignore[arg-type]
            protocol,
            ("192.0.2.7", 40000),
            None,  # type: ignore[arg-type]
            0,
            self.reactor,  # type: ignore[arg-type]
        )
        protocol.makeConnection(peer.transport)
        return peer

    def close(self) -> None:
        """Stop everything; nothing may be left."""
        self.site.stop()
        self.relay.stop()
        self.reactor.turn()

        assert self.relay.exchanges == set()
        assert self.relay._held == {}
        assert self.reactor.getDelayedCalls() == []
        assert not self.reactor.readers
        assert not self.reactor.writers
        assert [each for each in self.reactor.peers if each.socket.open] == []

    def _failed(self, request: Any, failure: UpstreamFailure) -> None:
        self.failures.append(failure)
        if request.live:
            request.answer(answers.error(failure.status, "UNAVAILABLE", failure.message))

    def _log(self, request: Any) -> None:
        self.ended.append(
            Ended(request.status, request.user_name, request.body_bytes_in, request.body_bytes_out)
        )


@dataclass
class Answer:
    """A response as h11, which is nobody's cousin here, understands it."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes
    whole: bool

    def all(self, name: bytes) -> list[bytes]:
        """Every value of a field."""
        return [value for key, value in self.headers if key == name.lower()]

    def __getitem__(self, name: bytes) -> bytes:
        values = self.all(name)
        assert len(values) == 1, (name, values)
        return values[0]


def read_answers(octets: bytes, *methods: bytes, ended: bool = False) -> Iterator[Answer]:
    """The final responses in ``octets`` to requests of these methods.

    ``ended`` tells that a FIN stands behind the octets.  A response that breaks off is not
    ``whole``.
    """
    rest = octets
    for method in methods or (b"GET",):
        connection = h11.Connection(h11.CLIENT)
        connection.send(h11.Request(method=method, target="/", headers=[("Host", "x")]))
        connection.send(h11.EndOfMessage())
        if rest:
            connection.receive_data(rest)
        if ended:
            connection.receive_data(b"")
        answer: Answer | None = None
        while answer is None or not answer.whole:
            try:
                event = connection.next_event()
            except h11.RemoteProtocolError:
                break
            if isinstance(event, h11.Response):
                answer = Answer(event.status_code, list(event.headers), b"", False)
            elif isinstance(event, h11.Data):
                assert answer is not None
                answer.body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                assert answer is not None
                answer.whole = True
            elif not isinstance(event, h11.InformationalResponse):
                break
        assert answer is not None, rest[:200]
        yield answer
        rest, _ = connection.trailing_data


def read_answer(octets: bytes, method: bytes = b"GET", *, ended: bool = False) -> Answer:
    """The one response in ``octets``, with nothing behind it."""
    [answer] = read_answers(octets, method, ended=ended)
    return answer


@dataclass
class Received:
    """A request as h11 understands it, at the registry."""

    method: bytes
    target: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes
    whole: bool
    rest: bytes

    def all(self, name: bytes) -> list[bytes]:
        """Every value of a field."""
        return [value for key, value in self.headers if key == name.lower()]

    def __getitem__(self, name: bytes) -> bytes:
        values = self.all(name)
        assert len(values) == 1, (name, values)
        return values[0]


def read_request(octets: bytes) -> Received:
    """The request at the beginning of ``octets``."""
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(octets)
    event = connection.next_event()
    assert isinstance(event, h11.Request), event
    request = Received(event.method, event.target, list(event.headers), b"", False, b"")
    while not request.whole:
        event = connection.next_event()
        if isinstance(event, h11.Data):
            request.body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            request.whole = True
            request.rest, _ = connection.trailing_data
        else:
            break
    return request


def refused() -> ConnectError:
    """What an endpoint says when nobody listens."""
    return error.ConnectionRefusedError()


def get(target: bytes = b"/v2/a/manifests/1", method: bytes = b"GET", *lines: bytes) -> bytes:
    """What a client sends to ask for something."""
    return b"\r\n".join(
        [method + b" " + target + b" HTTP/1.1", b"Host: r.example", *lines, b"", b""]
    )
