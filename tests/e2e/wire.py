"""HTTP/1.1 as it stands on a connection: read strictly, and by how the connection ended.

A message counts as whole only if its framing says so (RFC 9112 section 8).  A body that the end
of the connection delimits is whole only if that end was a clean one: over TLS a close_notify, not
the bare end of the TCP stream.
"""

from __future__ import annotations

import base64
import contextlib
import re
import select
import socket
import ssl
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

# Longer than whatever is waited for here; what takes longer hangs.
PATIENCE = 15.0

RECEIVE = 256 * 1024


class Broken(Exception):
    """The message is not whole, or none; the text says what was missing."""


class Hung(Exception):
    """Nothing came, and the connection did not end either."""


def reset(sock: socket.socket) -> None:
    """End a connection by RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


class Octets:
    """What comes from somewhere; ``end`` is "" or how it ended: clean, cut, reset.

    ``patience`` is how long, in seconds, nothing may come; None is for ever.  ``on_limit`` is
    called once ``limit`` octets have come, when more is waited for.
    """

    def __init__(
        self,
        sock: socket.socket | None = None,
        octets: bytes = b"",
        patience: float | None = PATIENCE,
    ) -> None:
        self._sock = sock
        self._patience = patience
        self._buffer = bytearray(octets)
        self.limit: int | None = None
        self.on_limit: Callable[[], None] | None = None
        self.end = "" if sock else "cut"
        self.received = len(octets)

    def wait(self, at_once: bool = False) -> bool:
        """Take what comes next; False if nothing more will.  Raises Hung."""
        if self.end or self._sock is None:
            return False
        size = RECEIVE if self.limit is None else min(RECEIVE, self.limit - self.received)
        if size <= 0 and self.on_limit is not None:
            self.on_limit()
            return False
        try:
            self._sock.settimeout(0 if at_once else self._patience)
            data = self._sock.recv(size)
        except ssl.SSLEOFError:
            self.end = "cut"
        except (ConnectionResetError, BrokenPipeError):
            self.end = "reset"
        except (ssl.SSLWantReadError, BlockingIOError, TimeoutError):
            raise Hung("nothing came, and no end") from None
        except (ssl.SSLError, OSError) as error:
            self.end = f"cut ({error})"
        else:
            if data:
                self._buffer += data
                self.received += len(data)
                return True
            self.end = "clean"
        return False

    def more(self) -> None:
        """As ``wait``, for what has to come."""
        if not self.wait():
            raise Broken(f"{self.end} after {self.received} octets")

    def until(self, mark: bytes) -> bytes:
        """All up to ``mark``, which is taken, too."""
        while (at := self._buffer.find(mark)) < 0:
            self.more()
        found = bytes(self._buffer[:at])
        del self._buffer[: at + len(mark)]
        return found

    def exactly(self, length: int) -> bytes:
        """So many octets."""
        while len(self._buffer) < length:
            self.more()
        found = bytes(self._buffer[:length])
        del self._buffer[:length]
        return found

    def to_the_end(self) -> bytes:
        """All up to a clean end."""
        while self.wait():
            pass
        if self.end != "clean":
            raise Broken(f"{self.end} after {self.received} octets of a body without a length")
        return bytes(self._buffer)

    def __bool__(self) -> bool:
        return bool(self._buffer)


@dataclass(frozen=True)
class Message:
    """A whole request or response; ``fields`` has lower-case names."""

    start: str
    fields: tuple[tuple[str, str], ...]
    body: bytes

    def values(self, name: str) -> list[str]:
        """All values of this name."""
        return [value for key, value in self.fields if key == name]

    @property
    def status(self) -> int:
        """The status code of a response."""
        return int(self.start.split()[1])

    @property
    def method(self) -> str:
        """The method of a request."""
        return self.start.split()[0]

    @property
    def target(self) -> str:
        """The target of a request."""
        return self.start.split()[1]

    @property
    def is_last(self) -> bool:
        """Whether the connection ends with it."""
        close = "close" in self.values("connection")
        return close or not ({"content-length", "transfer-encoding"} & dict(self.fields).keys())


_STATUS_LINE = re.compile(r"HTTP/1\.[01] [1-9]\d\d [^\r\n]*")
_REQUEST_LINE = re.compile(r"[A-Z]+ \S+ HTTP/1\.1")
_FIELD = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\r\n]*?)[ \t]*")


def _head(octets: Octets, start_line: re.Pattern[str]) -> Message:
    start, *lines = octets.until(b"\r\n\r\n").decode("latin-1").split("\r\n")
    matches = [_FIELD.fullmatch(line) for line in lines]
    if not start_line.fullmatch(start) or not all(matches):
        raise Broken(f"no head: {start!r} {lines!r}")
    return Message(start, tuple((m[1].lower(), m[2]) for m in matches if m), b"")


def _body(octets: Octets, head: Message, if_no_length: bytes | None) -> Message:
    lengths, codings = head.values("content-length"), head.values("transfer-encoding")
    if len(lengths) + len(codings) > 1 or codings not in ([], ["chunked"]):
        raise Broken(f"framing: {head.fields}")
    if codings:
        pieces = []
        while size := int(octets.until(b"\r\n"), 16):
            pieces.append(octets.exactly(size))
            if octets.exactly(2) != b"\r\n":
                raise Broken("chunk longer than its size")
        if octets.exactly(2) != b"\r\n":
            raise Broken("trailers")
        body = b"".join(pieces)
    elif lengths:
        body = octets.exactly(int(lengths[0]))
    else:
        body = octets.to_the_end() if if_no_length is None else if_no_length
    return Message(head.start, head.fields, body)


def read_request(octets: Octets) -> Message:
    """One request; raises Broken."""
    return _body(octets, _head(octets, _REQUEST_LINE), b"")


def read_response(octets: Octets, method: str) -> Message:
    """The final response to a request of this method; raises Broken."""
    head = _head(octets, _STATUS_LINE)
    while head.status < 200:
        head = _head(octets, _STATUS_LINE)
    if method == "HEAD" or head.status in (204, 304):
        return head
    return _body(octets, head, None)


class Client:
    """A TLS connection to a guard, and nothing between the test and its octets.

    ``leave_after_sent`` and ``leave_after_received`` let the client itself go when so many octets
    more of requests or of responses have passed, and ``hesitates`` seconds later: ``how`` is RST,
    FIN (without a close_notify before it) or close_notify.  ``left_at`` is when, by
    ``time.monotonic``, 0 before that.  ``window`` is the size of the receive buffer: what the
    client has not read stays with the guard, then.
    """

    def __init__(
        self,
        port: int,
        ca: Path | ssl.SSLContext,
        pair: tuple[str, str],
        window: int | None = None,
    ) -> None:
        context = ca if isinstance(ca, ssl.SSLContext) else ssl.create_default_context(cafile=ca)
        token = base64.b64encode(":".join(pair).encode()).decode()
        self._authorization = f"Authorization: Basic {token}"
        self._leaves_at: int | None = None
        self.how = "RST"
        self.hesitates = 0.0
        self.left_at = 0.0
        plain = socket.socket()
        if window is not None:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
        plain.settimeout(PATIENCE)
        plain.connect(("127.0.0.1", port))
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            self.sock = context.wrap_socket(
                plain, server_hostname="localhost", suppress_ragged_eofs=False
            )
        except OSError as error:  # ssl.SSLError is one
            plain.close()
            raise Broken(f"handshake: {error}") from None
        self.octets = Octets(self.sock)
        self.sent = 0

    def leave_after_sent(self, octets: int) -> None:
        """Go when so many octets more were sent."""
        self._leaves_at = self.sent + octets

    def leave_after_received(self, octets: int) -> None:
        """Go when so many octets more have come, and more are waited for."""
        self.octets.limit = self.octets.received + octets
        self.octets.on_limit = self.leave

    def head(self, method: str, target: str, *lines: str, minor: int = 1) -> bytes:
        """The head of a request."""
        first = (f"{method} {target} HTTP/1.{minor}", "Host: localhost", self._authorization)
        return "\r\n".join((*first, *lines, "\r\n")).encode()

    def ask(self, method: str, octets: bytes) -> Message:
        """Send a request and read the answer, which may begin before all is sent."""
        self.send(octets)
        return read_response(self.octets, method)

    def send(self, data: bytes) -> None:
        """Send until all is sent, an answer comes, or the connection ends."""
        limit = self._leaves_at
        leaves = limit is not None and limit <= self.sent + len(data)
        view = memoryview(data)[: limit - self.sent] if leaves and limit is not None else data
        at = 0
        self.sock.setblocking(False)
        try:
            while at < len(view):
                try:
                    at += self.sock.send(view[at : at + 65536])
                except ssl.SSLWantWriteError:
                    ready, _, _ = select.select([self.sock], [self.sock], [], PATIENCE)
                else:
                    ready, _, _ = select.select([self.sock], [], [], 0)
                if ready and self._answer_begins():
                    break
        except OSError:
            pass  # reading tells how it ended
        self.sent += at
        if leaves and not self.octets.end:
            self.leave()

    def _answer_begins(self) -> bool:
        try:
            return self.octets.wait(at_once=True) or bool(self.octets.end)
        except Hung:  # part of a record, or a session ticket
            return False

    def leave(self) -> None:
        """Go, as ``how`` says."""
        time.sleep(self.hesitates)
        self.octets.end = "left"
        self.left_at = time.monotonic()
        if self.how == "RST":
            reset(self.sock)
            return
        if self.how == "close_notify":
            self.sock.setblocking(False)
            with contextlib.suppress(OSError):  # it would like to wait for the other side's
                self.sock.unwrap()
        self.sock.close()

    def close(self) -> None:
        """Done with it."""
        self.sock.close()
