"""Connections that go wrong on purpose: a proxy that damages them, and a server made by hand.

``FaultProxy`` stands between a client and the guard or between the guard and the registry; it
passes TCP octets, and takes TLS off and puts it on again where it is given the contexts for that.
"""

from __future__ import annotations

import contextlib
import errno
import random
import select
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from math import inf
from types import TracebackType

from tests.canary import SEARCH
from tests.e2e.wire import PATIENCE, Broken, Message, Octets, read_request, reset

# Octets that wait in one direction: a proxy that held more would hide back-pressure.
MAX_QUEUED = 64 * 1024

# Seconds until a connection that was cut by FIN is given up.
LINGER = 2.0


class Cut(Enum):
    """What happens at the octet where a direction is cut."""

    RST = "RST"
    FIN = "FIN"
    """Both directions end by FIN, on both sides; what still comes is read and forgotten."""
    HALF_CLOSE = "half-close"
    """This direction ends by FIN, the other one goes on."""
    SILENCE = "silence"
    """Nothing more is read or passed, in either direction."""


@dataclass(frozen=True)
class Way:
    """What happens to the octets of one direction; seconds and octets."""

    latency: float = 0.0
    jitter: float = 0.0
    """Up to so much is added to ``latency``, differently for each piece."""
    piece: int = 64 * 1024
    """The most that leaves in one segment."""
    rate: float = inf
    before: bytes = b""
    """Sent ahead of the first octet: garbage, or a thousand interim responses."""
    cut_after: int | None = None
    cut: Cut = Cut.RST


@dataclass(frozen=True)
class Faults:
    """What happens to one connection: ``up`` leads to the target, ``down`` away from it."""

    up: Way = field(default_factory=Way)
    down: Way = field(default_factory=Way)
    holds: bool = False
    """Accept the connection, and that is all."""


class _Stop(Exception):
    """The proxy is to end."""


class Armed:
    """Faults from a moment on, and what they did.

    ``cut_at`` is when they cut a connection, by ``time.monotonic``, 0 before that.
    ``passages`` are the connections over which something has passed since.
    """

    def __init__(self, faults: Faults | None) -> None:
        self.faults = faults
        self.cut_at = 0.0
        self.passages: list[Passage] = []


class _Flow:
    """One direction of a passage."""

    def __init__(self, source: socket.socket, sink: socket.socket) -> None:
        self.source = source
        self.sink = sink
        self.way = Way()
        self.octets = bytearray()
        self.passed = 0
        self.is_over = False
        self.ended = False
        self._queue: deque[tuple[float, bytes]] = deque()
        self._queued = 0
        self._not_before = 0.0
        self.is_blocked = False
        self._random = random.Random(0)

    def follow(self, way: Way) -> None:
        self.way = way
        self.passed = 0
        self._not_before = 0.0
        self.octets = bytearray()
        if way.before:
            self._queue.append((0.0, way.before))
            self._queued += len(way.before)

    @property
    def takes(self) -> bool:
        return not self.ended and self._queued < MAX_QUEUED

    @property
    def due(self) -> float:
        """When the next octets are to leave."""
        if self.is_blocked or not self._queue:
            return inf
        return max(self._queue[0][0], self._not_before)

    def take(self, data: bytes, now: float) -> None:
        way = self.way
        self.octets += data
        self._queued += len(data)
        self._queue.append((now + way.latency + way.jitter * self._random.random(), data))

    def give(self, now: float) -> bool:
        """Send what is due; whether the place of the cut was reached."""
        way = self.way
        self.is_blocked = False
        while self._queue and self.due <= now:
            size = way.piece
            if way.cut_after is not None:
                size = min(size, way.cut_after - self.passed)
                if size <= 0:
                    return True
            due, data = self._queue[0]
            try:
                sent = self.sink.send(data[:size])
            except (BlockingIOError, ssl.SSLWantWriteError):
                self.is_blocked = True
                return False
            self.passed += sent
            self._queued -= sent
            if sent < len(data):
                self._queue[0] = (due, data[sent:])
            else:
                self._queue.popleft()
            if way.rate < inf:
                self._not_before = now + sent / way.rate
        if way.cut_after is not None and 0 < way.cut_after <= self.passed:
            return True
        if self.ended and not self._queue and not self.is_over:
            self.is_over = True
            _send_end(self.sink)
        return False

    def discard(self) -> None:
        self._queue.clear()
        self._queued = 0
        self.is_blocked = False


def _send_end(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        if isinstance(sock, ssl.SSLSocket):
            sock.unwrap()
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_WR)


class Passage:
    """One connection through the proxy.

    ``ends`` says how each side ended it by itself, and when: FIN or RST of "client" or "target".
    """

    def __init__(self, proxy: FaultProxy, number: int, client: socket.socket) -> None:
        self.number = number
        self.ends: dict[str, tuple[str, float]] = {}
        self._proxy = proxy
        self._client = client
        self._target: socket.socket | None = None
        self._armed: Armed | None = None
        self._silent = False
        self._over_at = inf
        self.thread = threading.Thread(target=self._run, daemon=True)

    @property
    def up(self) -> bytes:
        """What came from the client since the faults were armed."""
        return bytes(self._up.octets)

    @property
    def down(self) -> bytes:
        """What came from the target since the faults were armed."""
        return bytes(self._down.octets)

    def close(self) -> None:
        """Wake the thread up; it ends."""
        for sock in (self._client, self._target):
            if sock is not None:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

    def _run(self) -> None:
        with contextlib.suppress(_Stop):
            if self._connect():
                self._pass_on()
        for sock in (self._client, self._target):
            if sock is not None:
                sock.close()
        self._proxy.ended(self)

    def _connect(self) -> bool:
        proxy = self._proxy
        faults = proxy.armed.faults or proxy.script(self.number)
        if faults.holds:
            while not proxy.stopping and self._client.recv(1, socket.MSG_PEEK):
                time.sleep(0.01)
            return False
        try:
            if proxy.accept_tls:
                self._client.settimeout(PATIENCE)
                self._client = proxy.accept_tls.wrap_socket(self._client, server_side=True)
            target = socket.socket()
            self._target = target
            if proxy.window is not None:
                target.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, proxy.window)
            target.settimeout(PATIENCE)
            target.connect(("127.0.0.1", proxy.target))
            if proxy.connect_tls:
                target = proxy.connect_tls.wrap_socket(target, server_hostname="localhost")
        except OSError:
            reset(self._client)
            return False
        self._target = target
        for sock in (self._client, target):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setblocking(False)
        self._up = _Flow(self._client, target)
        self._down = _Flow(target, self._client)
        return True

    def _adopt(self) -> None:
        proxy = self._proxy
        if self._armed is not proxy.armed:
            self._armed = proxy.armed
            self._armed.passages.append(self)
            faults = self._armed.faults or proxy.script(self.number)
            self._up.follow(faults.up)
            self._down.follow(faults.down)

    def _pass_on(self) -> None:
        flows = (self._up, self._down)
        self._silent = False
        while not (self._up.is_over and self._down.is_over):
            now = time.monotonic()
            if self._proxy.stopping or now >= self._over_at:
                return
            due = min(self._over_at, *(flow.due for flow in flows)) - now
            ready = self._poll(max(0.0, due))
            now = time.monotonic()
            for flow in flows:
                events = ready.get(flow.source.fileno(), 0)
                if events and not self._read(flow, events, now):
                    return
                if ready.get(flow.sink.fileno(), 0) & select.POLLOUT:
                    flow.is_blocked = False
            if self._silent:
                continue
            for flow in flows:
                try:
                    reached = flow.give(now)
                except OSError:
                    self._ended(flow.sink, "RST")
                    self._reset_all()
                    return
                if reached and self._cut(flow):
                    return

    def _poll(self, seconds: float) -> dict[int, int]:
        poll = select.poll()
        for flow, other in ((self._up, self._down), (self._down, self._up)):
            events = select.POLLIN if flow.takes and not self._silent else 0
            if other.is_blocked and not self._silent:
                events |= select.POLLOUT
            # 0 still tells of errors; of a connection that has ended both ways it tells for ever.
            if events or not flow.ended:
                poll.register(flow.source, events)
        pending = [
            flow.source.fileno()
            for flow in (self._up, self._down)
            if isinstance(flow.source, ssl.SSLSocket) and flow.takes and flow.source.pending()
        ]
        # Looks for ``stopping``, too.
        found = dict(poll.poll(0 if pending else min(seconds, 0.5) * 1000 + 0.5))
        return {**found, **dict.fromkeys(pending, select.POLLIN)}

    def _read(self, flow: _Flow, events: int, now: float) -> bool:
        """Take what came; False if the passage is over."""
        source = flow.source
        if events & select.POLLERR:
            self._adopt()
            with contextlib.suppress(OSError):
                # What came before the RST.
                while data := source.recv(MAX_QUEUED):
                    flow.octets += data
            self._ended(source, "RST")
            self._reset_all()
            return False
        if not events & (select.POLLIN | select.POLLHUP) or not flow.takes:
            return True
        self._adopt()
        try:
            data = source.recv(MAX_QUEUED)
        except (BlockingIOError, ssl.SSLWantReadError):
            return True
        except OSError as error:
            self._ended(source, "RST" if error.errno == errno.ECONNRESET else "cut")
            self._reset_all()
            return False
        if not data:
            self._ended(source, "FIN")
            flow.ended = True
            if self._over_at < inf:
                flow.is_over = True
        elif self._over_at == inf:
            flow.take(data, now)
        return True

    def _cut(self, flow: _Flow) -> bool:
        """Do it; whether the passage is over."""
        assert self._armed is not None
        cut = flow.way.cut
        flow.way = Way()
        self._armed.cut_at = time.monotonic()
        if cut is Cut.RST:
            self._reset_all()
            return True
        if cut is Cut.SILENCE:
            self._silent = True
        elif cut is Cut.HALF_CLOSE:
            flow.ended = True
            flow.discard()
        else:
            for each in (self._up, self._down):
                each.discard()
                _end_plainly(each.sink)
            self._over_at = time.monotonic() + LINGER
        return False

    def _reset_all(self) -> None:
        for sock in (self._client, self._target):
            if sock is not None and sock.fileno() >= 0:
                reset(sock)

    def _ended(self, sock: socket.socket, how: str) -> None:
        side = "client" if sock is self._client else "target"
        self.ends.setdefault(side, (how, time.monotonic()))


def _end_plainly(sock: socket.socket) -> None:
    """FIN, without a close_notify before it."""
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_WR)


class _Listening:
    """Accepts in a thread of its own, on a free port, until the ``with`` block ends."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.stopping = False

    def _start(self) -> None:
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _stop(self) -> None:
        self.stopping = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop()
        self._end()

    def _accept(self) -> None:
        number = 0
        with contextlib.suppress(OSError):
            while not self.stopping:
                connection, _ = self._listener.accept()
                self._serve(number, connection)
                number += 1

    def _serve(self, number: int, connection: socket.socket) -> None:
        raise NotImplementedError

    def _end(self) -> None:
        raise NotImplementedError


class FaultProxy(_Listening):
    """Passes connections on to ``target`` (a port of 127.0.0.1) and damages them.

    ``script`` gives the faults of the connection of a number, the first being 0; ``arm`` sets
    others for all connections, also those that are open.  ``accept_tls`` and ``connect_tls`` let
    the faults count octets inside of TLS.  ``window`` is the size of its receive buffers, where
    the kernel should not take much from a sender.
    """

    def __init__(
        self,
        target: int,
        script: Callable[[int], Faults] = lambda number: Faults(),
        accept_tls: ssl.SSLContext | None = None,
        connect_tls: ssl.SSLContext | None = None,
        window: int | None = None,
    ) -> None:
        super().__init__()
        if window is not None:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
        self.window = window
        self.target = target
        self.script = script
        self.accept_tls = accept_tls
        self.connect_tls = connect_tls
        self.armed = Armed(None)
        self.open: set[Passage] = set()

    def __enter__(self) -> FaultProxy:
        self._start()
        return self

    def arm(self, faults: Faults | None = None) -> Armed:
        """From now on these faults, octets counted anew; None is back to the script."""
        self.armed = Armed(faults)
        return self.armed

    @contextlib.contextmanager
    def refusing(self) -> Iterator[None]:
        """Meanwhile connections are refused, as where nobody listens."""
        self._stop()
        yield
        self.stopping = False
        self._listener = socket.create_server(("127.0.0.1", self.port), backlog=256)
        self._start()

    def ended(self, passage: Passage) -> None:
        """A connection is over."""
        self.open.discard(passage)

    def _serve(self, number: int, connection: socket.socket) -> None:
        passage = Passage(self, number, connection)
        self.open.add(passage)
        passage.thread.start()

    def _end(self) -> None:
        for passage in list(self.open):
            passage.close()
            passage.thread.join()


class Peer:
    """One connection to a ``Scripted`` server; ``seen`` is what came over it, request by request.

    ``end`` is how the other side ended it, as ``Octets.end``, "" where it did not; ``ended_at``
    when that was seen.
    """

    def __init__(self, sock: socket.socket, number: int) -> None:
        self.sock = sock
        self.number = number
        self.seen: list[Message] = []
        self.end = ""
        self.ended_at = 0.0
        self.octets = Octets(sock, patience=None)

    def request(self) -> Message:
        """The next request, whole; raises Broken."""
        message = read_request(self.octets)
        self.seen.append(message)
        return message

    def head(self) -> str:
        """The head of the next request as it stands; raises Broken."""
        return self.octets.until(b"\r\n\r\n").decode("latin-1")

    def send(self, octets: bytes) -> None:
        """Send all of it, however slowly it is taken."""
        self.sock.settimeout(None)
        self.sock.sendall(octets)

    def wait_for_end(self) -> str:
        """Read on until the other side ends the connection."""
        while self.octets.wait():
            pass
        self.end, self.ended_at = self.octets.end, time.monotonic()
        return self.end

    def reset(self) -> None:
        """End the connection by RST."""
        reset(self.sock)

    def close(self) -> None:
        """End it by FIN, read what still comes."""
        _end_plainly(self.sock)
        with contextlib.suppress(OSError):
            self.wait_for_end()


class Scripted(_Listening):
    """A server whose connections are each served by ``serve`` in a thread of its own.

    What it does not read or write any more is closed when it returns; Broken, and a connection
    that was lost, may leave it.
    """

    def __init__(self, serve: Callable[[Peer], None], tls: ssl.SSLContext | None = None) -> None:
        super().__init__()
        self._do = serve
        self._tls = tls
        self.peers: list[Peer] = []
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Scripted:
        self._start()
        return self

    @property
    def seen(self) -> list[Message]:
        """All whole requests, connection by connection."""
        return [message for peer in self.peers for message in peer.seen]

    def _serve(self, number: int, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        thread = threading.Thread(target=self._run, args=(number, connection), daemon=True)
        self._threads.append(thread)
        thread.start()

    def _run(self, number: int, connection: socket.socket) -> None:
        try:
            if self._tls is not None:
                connection = self._tls.wrap_socket(connection, server_side=True)
            peer = Peer(connection, number)
            self.peers.append(peer)
            self._do(peer)
        except (Broken, OSError):
            pass
        finally:
            connection.close()

    def _end(self) -> None:
        for peer in self.peers:
            SEARCH.look("heads sent upstream", repr(peer.seen[:2])[:10_000].encode())
            with contextlib.suppress(OSError):
                peer.sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
