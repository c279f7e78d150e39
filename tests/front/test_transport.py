"""regguard.transport: sockets with fewer turns, and with OpenSSL on them.

Both ends of a socket pair: the server's under a reactor that turns when the test says so.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from OpenSSL import SSL
from twisted.internet.address import IPv4Address
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer, ITCPTransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.selectreactor import SelectReactor
from twisted.internet.tcp import Server
from twisted.internet.testing import StringTransport
from twisted.logger import LogLevel, capturedLogs
from twisted.python.failure import Failure
from zope.interface import implementer
from zope.interface.verify import verifyObject

from regguard.transport import TLSServer, records, tls_transport, unsent_by, writer_for
from regguard.transport.tls import BATCH, CROWD, RECORD, SINGLES
from regguard.transport.tls import BULK as LARGE
from tests.front.tls import client_context, context_of, subjects

PEER = ("192.0.2.7", 50000)


@pytest.fixture(scope="session")
def reactor() -> SelectReactor:
    """Not the global one, and it never runs by itself."""
    return SelectReactor()


@pytest.fixture(scope="session")
def context(tmp_path_factory: pytest.TempPathFactory) -> SSL.Context:
    """As the door serves it."""
    folder: Path = tmp_path_factory.mktemp("tls")
    return context_of(folder, "registry.example")


@implementer(IHalfCloseableProtocol, IPushProducer)
class Recorder(Protocol):
    """Notes what the transport does to its protocol and to its producer."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.events: list[str] = []
        self.lost: list[type[BaseException] | None] = []
        self.on_data: Callable[[], None] | None = None

    @property
    def data(self) -> bytes:
        return b"".join(self.pieces)

    def dataReceived(self, data: bytes) -> None:
        self.pieces.append(data)
        if self.on_data is not None:
            self.on_data()

    def readConnectionLost(self) -> None:
        self.events.append("read lost")

    def writeConnectionLost(self) -> None:
        self.events.append("write lost")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost.append(reason.type)

    def pauseProducing(self) -> None:
        self.events.append("pause")

    def resumeProducing(self) -> None:
        self.events.append("resume")

    def stopProducing(self) -> None:
        self.events.append("stop")


class Pair:
    """A server's transport and, at the other end, a client's socket."""

    def __init__(
        self,
        reactor: SelectReactor | EPollReactor,
        accept: Callable[..., Any],
        protocol: type[Recorder] = Recorder,
    ) -> None:
        self.reactor = reactor
        ours, self.socket = socket.socketpair()
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
        self.socket.setblocking(False)
        self.protocol = protocol()
        port = SimpleNamespace(
            _realPortNumber=5043, _buildAddr=lambda address: IPv4Address("TCP", *address)
        )
        self.transport = accept(ours, self.protocol, PEER, port, 1, reactor)
        self.protocol.makeConnection(self.transport)  # type: ignore[no-untyped-call]

    def turn(self, times: int = 20) -> None:
        """Let the reactor turn."""
        with capturedLogs() as events:
            for _ in range(times):
                self.reactor.runUntilCurrent()
                self.reactor.doIteration(0)
        assert not [event for event in events if event["log_level"] >= LogLevel.error]

    def receive(self) -> bytes:
        """One read of the client; empty where there is nothing."""
        try:
            return self.socket.recv(65536)
        except BlockingIOError:
            return b""

    def receive_all(self) -> bytes:
        """Everything that comes while the server turns."""
        received = bytearray()
        idle = 0
        while idle < 3:
            self.turn(2)
            data = self.receive()
            received += data
            idle = 0 if data else idle + 1
        return bytes(received)

    def close(self) -> None:
        """Leave nothing in the reactor."""
        self.transport.abortConnection()
        self.turn(3)
        self.socket.close()
        assert len(self.protocol.lost) == 1
        assert self.transport not in self.reactor.getReaders()
        assert self.transport not in self.reactor.getWriters()


class TLSPair(Pair):
    """The same with a TLS client."""

    def __init__(
        self,
        reactor: SelectReactor | EPollReactor,
        accept: Callable[..., Any],
        version: int | None = None,
        protocol: type[Recorder] = Recorder,
    ) -> None:
        super().__init__(reactor, accept, protocol)
        self.client = SSL.Connection(client_context(version), self.socket)
        self.client.set_connect_state()

    def shake_hands(self) -> None:
        for _ in range(20):
            try:
                self.client.do_handshake()
            except SSL.WantReadError:
                self.turn(1)
            else:
                self.turn(2)
                return
        raise AssertionError("no end of the handshake")

    def receive(self) -> bytes:
        try:
            return self.client.recv(65536)
        except SSL.WantReadError:
            return b""

    def send(self, data: bytes) -> None:
        """Send everything while the server turns."""
        while data:
            try:
                data = data[self.client.send(data[:RECORD]) :]
            except SSL.WantWriteError:
                self.turn(1)

    def check_clean_end(self) -> None:
        """The server said that nothing more comes."""
        with pytest.raises(SSL.ZeroReturnError):
            self.client.recv(1)

    def check_cut(self) -> None:
        """The connection broke: no close_notify."""
        with pytest.raises(SSL.Error) as caught:
            self.client.recv(1)
        assert not isinstance(caught.value, (SSL.ZeroReturnError, SSL.WantReadError))


@pytest.fixture
def tls(reactor: SelectReactor, context: SSL.Context) -> Iterator[TLSPair]:
    """A TLS connection after its handshake."""
    pair = TLSPair(reactor, tls_transport(lambda: context))
    pair.shake_hands()
    yield pair
    pair.close()


@pytest.fixture
def plain(reactor: SelectReactor) -> Iterator[Pair]:
    """A plain connection."""
    pair = Pair(reactor, Server)
    yield pair
    pair.close()


@pytest.fixture(params=["plain", "tls"])
def pair(request: pytest.FixtureRequest) -> Pair:
    """Either; they have one contract."""
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Pair)
    return found


BULK = bytes(range(256)) * 4096  # 1 MiB, no two neighbouring records alike in their offsets


# -- what both have in common -------------------------------------------------------------------


def test_the_transport_keeps_twisteds_contract(pair: Pair) -> None:
    """Everything above works with either."""
    verifyObject(ITCPTransport, pair.transport)


def test_a_write_reaches_the_client_in_the_same_turn(pair: Pair) -> None:
    """Without a turn of the reactor."""
    write = writer_for(pair.transport)
    write(b"hello")

    assert pair.receive() == b"hello"
    assert pair.transport not in pair.reactor.getWriters()


def test_an_empty_write_is_nothing(pair: Pair) -> None:
    """No record, no wake-up."""
    writer_for(pair.transport)(b"")
    pair.turn(2)

    assert pair.receive() == b""


@pytest.mark.parametrize("size", [1, 100, RECORD - 1, RECORD, RECORD + 1, 50_000, 2**20])
def test_i24_octets_keep_their_order_when_the_client_is_slow(pair: Pair, size: int) -> None:
    """Written in pieces of any size, while the queue is empty and while it is not."""
    write = writer_for(pair.transport)
    for start in range(0, min(len(BULK), 300 * size), size):
        write(BULK[start : start + size])
    sent = BULK[: min(len(BULK), 300 * size)]

    assert pair.receive_all() == sent


def test_i24_small_writes_behind_a_full_queue_join_it(pair: Pair) -> None:
    """OpenSSL wants a refused record again from its first octet on."""
    write = writer_for(pair.transport)
    write(BULK)
    for number in range(1000):
        write(b"%d," % number)

    assert pair.receive_all() == BULK + b"".join(b"%d," % number for number in range(1000))


def test_h03_what_the_client_has_not_taken_can_be_told(pair: Pair) -> None:
    """More while nothing is read, less when something is, nothing in the end."""
    pair.receive()  # the end of a handshake
    assert unsent_by(pair.transport) == 0
    writer_for(pair.transport)(BULK)
    before = unsent_by(pair.transport)
    assert before > len(BULK) // 2
    received = pair.receive()
    pair.turn(2)
    assert unsent_by(pair.transport) < before
    assert received + pair.receive_all() == BULK

    assert unsent_by(pair.transport) == 0


def test_h03_of_a_connection_that_is_gone_nothing_is_unsent(pair: Pair) -> None:
    """To ask is no fault."""
    pair.transport.abortConnection()
    pair.turn(2)

    assert unsent_by(pair.transport) == 0


def test_a_sequence_is_written_whole(pair: Pair) -> None:
    """As ITransport.writeSequence."""
    pair.transport.writeSequence([b"a", b"", b"bc"])

    assert pair.receive_all() == b"abc"


def test_h03_the_producer_waits_while_anything_is_queued(pair: Pair) -> None:
    """Paused with the first octet that is queued, resumed when none is."""
    pair.transport.registerProducer(pair.protocol, True)
    write = writer_for(pair.transport)
    write(b"hello")
    assert pair.protocol.events == []
    write(BULK)
    assert pair.protocol.events[:1] == ["pause"]
    assert set(pair.protocol.events) == {"pause"}
    pair.turn()
    assert "resume" not in pair.protocol.events
    assert pair.receive_all() == b"hello" + BULK
    assert pair.protocol.events[-1] == "resume"
    pair.transport.unregisterProducer()


def test_h03_a_single_octet_in_the_queue_pauses_the_producer(pair: Pair) -> None:
    """What a stalled client holds of our memory is what was read in one turn, not 64 KiB more."""
    pair.transport.registerProducer(pair.protocol, True)
    write = writer_for(pair.transport)
    written = 0
    while not pair.protocol.events:
        write(BULK[written : written + 100])
        written += 100
    assert pair.protocol.events == ["pause"]
    assert len(pair.transport.dataBuffer) + pair.transport._tempDataLen <= 100
    assert pair.transport in pair.reactor.getWriters()
    assert pair.receive_all() == BULK[:written]
    assert pair.protocol.events == ["pause", "resume"]
    pair.transport.unregisterProducer()


def test_closing_waits_for_the_queue(pair: Pair) -> None:
    """Then it is a clean end."""
    writer_for(pair.transport)(BULK)
    pair.transport.loseConnection()
    received = bytearray()
    for _ in range(2000):
        pair.turn(1)
        if len(received) == len(BULK):
            break
        received += pair.receive()

    assert bytes(received) == BULK
    pair.turn()
    if isinstance(pair, TLSPair):
        pair.check_clean_end()
    else:
        assert pair.socket.recv(1) == b""
    assert pair.protocol.lost == [ConnectionDone]


def test_g11_i06_an_abort_drops_the_queue_and_writes_nothing_more(pair: Pair) -> None:
    """Not even what somebody writes in the same turn; and without close_notify."""
    write = writer_for(pair.transport)
    write(b"some")
    pair.transport.abortConnection()
    write(b"more")
    pair.transport.write(b"and more")
    assert pair.receive() == b"some"
    assert pair.receive() == b""
    pair.turn()

    assert pair.protocol.lost == [ConnectionAborted]
    if isinstance(pair, TLSPair):
        pair.check_cut()


@pytest.mark.parametrize("queued", [False, True])
def test_i06_a_clean_end_waits_for_room(tls: TLSPair, queued: bool) -> None:
    """The last octets have left, and the socket takes not even the close_notify behind them."""
    full = Scripted()
    full.ends = [SSL.WantWriteError()] * 3
    tls.transport._tls = full
    if queued:
        tls.transport._tempDataBuffer.append(b"last")
    tls.transport.loseConnection()
    assert tls.transport in tls.reactor.getWriters()
    assert tls.transport not in tls.reactor.getReaders()
    tls.turn(3 + queued)

    assert full.ends == []
    assert tls.protocol.lost == [ConnectionDone]


def test_i06_an_abort_stays_one_when_somebody_closes_after_it(pair: Pair) -> None:
    """In the same turn: what was cut must not look whole."""
    pair.transport.abortConnection()
    pair.transport.loseConnection()
    pair.turn()

    assert pair.protocol.lost == [ConnectionAborted]
    if isinstance(pair, TLSPair):
        pair.check_cut()


def test_writing_to_a_lost_connection_is_nothing(pair: Pair) -> None:
    """The protocol hears of the loss in its own time, once."""
    write = writer_for(pair.transport)
    pair.socket.close()
    write(b"x" * 100)
    write(BULK)
    pair.turn()
    write(b"late")

    assert len(pair.protocol.lost) == 1
    pair.socket = socket.socket()


def test_reading_stops_and_goes_on(pair: Pair) -> None:
    """While paused nothing is read; afterwards nothing is missing."""
    pair.transport.pauseProducing()
    if isinstance(pair, TLSPair):
        pair.send(b"hello")
        pair.send(b"again" * 1000)
    else:
        pair.socket.send(b"hello" + b"again" * 1000)
    pair.turn()
    assert pair.protocol.data == b""
    pair.transport.resumeProducing()
    pair.turn()

    assert pair.protocol.data == b"hello" + b"again" * 1000


def test_a_transport_that_is_no_tcp_connection_keeps_its_write() -> None:
    """Twisted's own TLS, or a test's transport."""
    transport: Any = StringTransport()
    writer_for(transport)(b"hello")

    assert transport.value() == b"hello"


# -- TLS on the socket --------------------------------------------------------------------------


@pytest.mark.parametrize("version", [SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION])
def test_g_octets_go_both_ways(reactor: SelectReactor, context: SSL.Context, version: int) -> None:
    """In both protocol versions."""
    pair = TLSPair(reactor, tls_transport(lambda: context), version)
    pair.shake_hands()
    pair.send(b"question")
    pair.turn()
    pair.transport.write(b"answer")

    assert pair.protocol.data == b"question"
    assert pair.receive() == b"answer"
    assert pair.transport.getPeer().host == "192.0.2.7"
    pair.close()


def test_a_handshake_may_come_in_drops(reactor: SelectReactor, context: SSL.Context) -> None:
    """G10: one octet at a time."""
    pair = Pair(reactor, tls_transport(lambda: context))
    client = SSL.Connection(client_context(), None)
    client.set_connect_state()
    for _ in range(5):
        with contextlib.suppress(SSL.WantReadError):
            client.do_handshake()
        try:
            for octet in client.bio_read(65536):
                pair.socket.send(bytes([octet]))
                pair.turn(1)
        except SSL.WantReadError:
            pass
        if data := pair.receive():
            client.bio_write(data)
    client.send(b"hello")
    pair.socket.send(client.bio_read(65536))
    pair.turn()

    assert pair.protocol.data == b"hello"
    pair.close()


def test_h07_small_records_that_wait_go_on_together(tls: TLSPair) -> None:
    """After the first few: nobody waits for one that is not there."""
    for number in range(200):
        tls.client.send(b"%d," % number)
    tls.turn(SINGLES + 20)

    assert tls.protocol.data == b"".join(b"%d," % number for number in range(200))
    assert len(tls.protocol.pieces) <= SINGLES + 1 + 200 // CROWD + 1
    tls.protocol.pieces.clear()
    for _ in range(100):
        tls.client.send(b"x")
        tls.turn(1)
    assert tls.protocol.pieces == [b"x"] * 100


def test_h07_a_client_that_goes_after_small_records_is_heard_whole(tls: TLSPair) -> None:
    """The end of the connection in the middle of a batch."""
    for _ in range(100):
        tls.client.send(b"x")
    tls.client.shutdown()
    tls.turn(SINGLES + 20)

    assert tls.protocol.data == b"x" * 100
    assert tls.protocol.events == ["read lost"]


def test_records_are_delivered_in_batches(tls: TLSPair) -> None:
    """Of at most 128 KiB, so that others get their turn."""
    tls.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**20)
    tls.send(BULK)
    tls.turn(200)

    assert tls.protocol.data == BULK
    sizes = [len(piece) for piece in tls.protocol.pieces]
    assert max(sizes) <= BATCH * RECORD
    assert max(sizes) > RECORD


@pytest.mark.parametrize("size", [1, 1023, 1024, 1025, RECORD])
def test_nothing_stays_inside_openssl(tls: TLSPair, size: int) -> None:
    """Every record that arrived is delivered, although epoll sees only the socket."""
    for _ in range(20):
        tls.client.send(b"x" * size)
        if size == RECORD:
            tls.turn(1)
    tls.turn()

    assert len(tls.protocol.data) == 20 * size


def test_a_paused_protocol_gets_at_most_what_was_being_read(tls: TLSPair) -> None:
    """It pauses in the middle of an upload."""
    tls.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**20)
    tls.protocol.on_data = tls.transport.pauseProducing
    for start in range(0, 10 * RECORD, RECORD):
        try:
            tls.client.send(BULK[start : start + RECORD])
        except SSL.WantWriteError:
            break
    tls.turn()

    assert len(tls.protocol.pieces) == 1


def test_a_large_record_behind_as_many_small_ones_as_a_turn_takes(tls: TLSPair) -> None:
    """What one turn reads never goes beyond its place."""
    assert BATCH * RECORD <= records.ROOM
    tls.turn()
    tls.transport._singles = SINGLES
    small, large = [b"s" * (LARGE - 1)] * (CROWD - 1), b"l" * RECORD
    tls.transport._tls = Scripted(*small, large, b"next")
    tls.transport.doRead()

    assert tls.protocol.pieces == [b"".join(small) + large]
    with pytest.raises(ValueError, match="no room"):
        records.Records.read(tls.transport._tls, records.ROOM - RECORD + 1)


class Scripted:
    """An SSL.Connection that does what the test says."""

    def __init__(self, *steps: bytes | Exception) -> None:
        self.steps = list(steps)
        self.ends: list[Exception] = []

    def read(self, at: int) -> int:
        step = self.steps.pop(0) if self.steps else b""
        if isinstance(step, Exception):
            raise step
        records._PLACE[at : at + len(step)] = step
        return len(step)

    def send_some(self, data: bytes) -> int:
        return len(data)

    def shutdown(self) -> bool:
        if self.ends:
            raise self.ends.pop()
        return True


@pytest.mark.parametrize("times", [1, 2, 3])
def test_a_read_that_must_write_first_loses_nothing(tls: TLSPair, times: int) -> None:
    """A key update in the middle of a batch (RFC 8446 section 4.6.3)."""
    record = b"x" * RECORD
    tls.transport._tls = Scripted(record, *[SSL.WantWriteError()] * times, b"rest")
    tls.transport.doRead()
    assert tls.protocol.data == record
    assert tls.transport in tls.reactor.getWriters()
    tls.turn()

    assert tls.protocol.data == record + b"rest"
    assert tls.transport not in tls.reactor.getWriters()


def test_a_read_that_must_write_first_may_be_the_last(context: SSL.Context) -> None:
    """The socket can be read and written, and the protocol closes at what was read."""
    pair = TLSPair(EPollReactor(), tls_transport(lambda: context))
    pair.shake_hands()
    pair.transport._tls = Scripted(SSL.WantWriteError(), b"x")
    pair.transport.doRead()
    pair.protocol.on_data = pair.transport.loseConnection
    pair.socket.send(b"x")
    pair.turn()

    assert pair.protocol.lost == [ConnectionDone]
    pair.close()


@pytest.mark.parametrize(
    ("error", "lost"), [(SSL.ZeroReturnError(), None), (SSL.SysCallError(104, "x"), ConnectionLost)]
)
def test_what_came_before_the_end_is_delivered(
    tls: TLSPair, error: Exception, lost: type[Exception] | None
) -> None:
    """A clean end or a broken one."""
    record = b"x" * RECORD
    tls.transport._tls = Scripted(record, error)
    ending = tls.transport.doRead()

    assert tls.protocol.data == record
    assert isinstance(ending, lost or ConnectionDone)


@pytest.mark.parametrize("act", ["abortConnection", "loseConnection"])
def test_a_protocol_may_close_in_its_last_octets(tls: TLSPair, act: str) -> None:
    """Data and close_notify in one batch, and the protocol ends the connection at the data."""
    tls.transport.loseWriteConnection()
    tls.turn(2)
    tls.protocol.on_data = getattr(tls.transport, act)
    tls.transport._tls = Scripted(b"x" * RECORD, SSL.ZeroReturnError())
    tls.socket.send(b"x")  # so that the reactor reads
    tls.turn()

    assert len(tls.protocol.lost) == 1


def test_h09_a_client_may_close_its_side_and_read_on(tls: TLSPair) -> None:
    """close_notify ends one direction (RFC 8446 section 6.1)."""
    tls.client.send(b"question")
    tls.client.shutdown()
    tls.turn()
    assert tls.protocol.data == b"question"
    assert tls.protocol.events == ["read lost"]
    tls.transport.write(BULK)

    assert tls.protocol.lost == []
    assert tls.receive_all() == BULK


def test_e19_the_server_may_close_its_side_and_read_on(tls: TLSPair) -> None:
    """The client sees a clean end and what it still sends is read."""
    tls.transport.write(b"answer")
    tls.transport.loseWriteConnection()
    tls.turn(3)
    assert tls.receive() == b"answer"
    tls.check_clean_end()
    tls.client.send(b"x" * 5000)
    tls.turn()
    assert len(tls.protocol.data) == 5000
    tls.transport.write(b"never")
    tls.client.shutdown()
    tls.turn()
    assert tls.protocol.events == ["read lost"]
    tls.transport.loseConnection()
    assert tls.protocol.lost == [ConnectionDone]


def test_i06_a_client_that_is_cut_off_is_no_clean_end(tls: TLSPair) -> None:
    """Without close_notify what came may be truncated."""
    tls.client.send(b"half")
    tls.socket.close()
    tls.turn()

    assert tls.protocol.data == b"half"
    assert tls.protocol.events == []
    assert tls.protocol.lost == [ConnectionLost]
    tls.socket = socket.socket()


@pytest.mark.parametrize(
    "octets",
    [b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"SSH-2.0-x\r\n", b"\0" * 65536, b"\x16\x03\x01"],
)
def test_g04_what_is_no_tls_is_closed_at_once(
    reactor: SelectReactor, context: SSL.Context, octets: bytes
) -> None:
    """The protocol never sees it, and nothing is logged as a fault."""
    pair = Pair(reactor, tls_transport(lambda: context))
    pair.socket.send(octets)
    pair.socket.shutdown(socket.SHUT_WR)
    pair.turn()

    assert pair.protocol.lost == [ConnectionLost]
    assert pair.protocol.pieces == []
    pair.close()


@pytest.mark.parametrize("act", ["loseConnection", "abortConnection", "loseWriteConnection"])
def test_g03_a_connection_may_end_before_its_handshake(
    reactor: SelectReactor, context: SSL.Context, act: str
) -> None:
    """The client said nothing for too long."""
    pair = Pair(reactor, tls_transport(lambda: context))
    pair.socket.send(b"\x16\x03\x01")
    pair.turn()
    getattr(pair.transport, act)()
    pair.turn()
    if act == "loseWriteConnection":
        pair.transport.loseConnection()

    assert len(pair.protocol.lost) == 1
    pair.close()


def test_i17_each_connection_takes_the_context_of_its_moment(
    reactor: SelectReactor, context: SSL.Context, tmp_path: Path
) -> None:
    """A reload concerns the next handshake only."""
    contexts = [context, context_of(tmp_path, "second.example")]
    accept = tls_transport(lambda: contexts[0])
    shown = []
    for _ in range(2):
        pair = TLSPair(reactor, accept)
        assert isinstance(pair.transport, TLSServer)
        contexts.reverse()
        pair.shake_hands()
        shown += subjects(pair.client)
        pair.close()

    assert shown == ["registry.example", "second.example"]
