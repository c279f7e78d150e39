"""One request asked in two places, octet by octet, and what differs between the two answers.

Only what two identical registries cannot say alike is put into one form before the comparison:
the ids and signed states of uploads, the boundaries of multipart bodies, and the time.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from types import TracebackType
from typing import BinaryIO

from tests.e2e.programs import PATIENCE

CHUNK = 16 * 1024
"""Octets in each chunk of a body that is sent chunked."""


@dataclass(frozen=True)
class Ask:
    """A request, and the status by which the registry itself answers it.

    ``target`` and ``lines`` may name, in braces, what was kept from an earlier answer: ``keep`` is
    the name for the path and query of this answer's Location. ``chunked`` sends the body so.
    """

    method: str
    target: str
    status: int
    lines: tuple[str, ...] = ()
    body: bytes = b""
    chunked: bool = False
    keep: str = ""

    def __str__(self) -> str:
        target = self.target if len(self.target) < 120 else f"{self.target[:117]}..."
        lines = [line if len(line) < 60 else f"{line[:57]}..." for line in self.lines[:6]]
        return " | ".join((f"{self.method} {target}", *lines))

    def octets(self, kept: Mapping[str, str], *more: str) -> bytes:
        """The request on the wire; ``more`` are further field lines."""
        head = [f"{self.method} {self.target} HTTP/1.1", "Host: localhost", *more, *self.lines]
        body = self.body
        if self.chunked:
            head.append("Transfer-Encoding: chunked")
            body = b"".join(
                b"%x\r\n%s\r\n" % (len(piece), piece)
                for at in range(0, len(body), CHUNK)
                if (piece := body[at : at + CHUNK])
            )
            body += b"0\r\n\r\n"
        elif body or self.method in ("POST", "PUT", "PATCH"):
            head.append(f"Content-Length: {len(body)}")
        return "\r\n".join([*head, "\r\n"]).format_map(kept).encode("latin-1") + body


@dataclass(frozen=True)
class Answer:
    """An answer as it came.

    ``framing`` is what ends its body: ``none`` (there is none), ``length``, ``chunked``, ``close``,
    or ``cut`` where less came than the length says. ``closes`` tells whether the connection ended
    with it, ``interim`` the statuses before it.
    """

    status: int
    reason: str
    fields: tuple[tuple[str, str], ...]
    body: bytes
    framing: str
    closes: bool
    interim: tuple[int, ...]
    trailers: tuple[str, ...] = ()

    def values(self, name: str) -> list[str]:
        """The values of a field, in order."""
        return [value for found, value in self.fields if found.lower() == name.lower()]

    def value(self, name: str) -> str:
        """The value of a field; empty where there is none."""
        return next(iter(self.values(name)), "")

    @property
    def code(self) -> str:
        """The code of the error that the body tells of in JSON; empty where it is none."""
        said = json.loads(self.body) if self.value("content-type") == "application/json" else {}
        errors: list[dict[str, str]] = said.get("errors", [{}])
        return errors[0].get("code", "")


class Closed(Exception):
    """The connection was closed before the first octet of an answer."""


class Wire:
    """One connection, and the answers that come over it."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._received = bytearray()

    def send(self, octets: bytes) -> None:
        # Who refuses a body may close while it is sent; the answer tells.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self._connection.sendall(octets)

    def read_answer(self, method: str, body: bytes = b"") -> Answer:
        """Read one answer as far as it comes, and the connection's end where that is due.

        ``body`` is sent when ``100 Continue`` asks for it.

        :raises Closed: where nothing came.
        """
        if not self._received and not self._receive():
            raise Closed
        interim = []
        while True:
            version, status, reason, fields = self._head()
            if status >= 200:
                break
            interim.append(status)
            if status == 100 and body:
                self.send(body)
        named = {name.lower(): value for name, value in fields}
        closes = named.get("connection", "").lower() == "close" or version == "HTTP/1.0"
        trailers: list[str] = []
        if method == "HEAD" or status in (204, 304):
            framing, body = "none", b""
        elif "transfer-encoding" in named:
            framing, body = "chunked", b"".join(self._chunks())
            trailers += iter(self._line, "")
        elif "content-length" in named:
            length = int(named["content-length"])
            framing, body = "length", self._take(length)
            if len(body) < length:
                framing, closes = "cut", True
        else:
            framing, body, closes = "close", self._rest(), True
        if closes:
            left = self._rest()
            assert left == b"", f"octets behind the last answer: {left!r}"
        return Answer(
            status, reason, tuple(fields), body, framing, closes, tuple(interim), tuple(trailers)
        )

    def _receive(self) -> bool:
        """Receive something; False where the connection has ended, in whatever way."""
        # Without close_notify, or by a reset: so ends what is not whole.
        with contextlib.suppress(ssl.SSLEOFError, ConnectionResetError):
            received = self._connection.recv(1 << 16)
            self._received += received
            return bool(received)
        return False

    def _take(self, count: int) -> bytes:
        while len(self._received) < count and self._receive():
            pass
        taken = bytes(self._received[:count])
        del self._received[:count]
        return taken

    def _rest(self) -> bytes:
        while self._receive():
            pass
        return self._take(len(self._received))

    def _line(self) -> str:
        while (end := self._received.find(b"\r\n")) < 0:
            assert self._receive(), f"cut in a line: {bytes(self._received)!r}"
        line = self._take(end + 2)
        return line[:-2].decode("latin-1")

    def _head(self) -> tuple[str, int, str, list[tuple[str, str]]]:
        version, _, rest = self._line().partition(" ")
        assert version in ("HTTP/1.1", "HTTP/1.0"), version
        status, _, reason = rest.partition(" ")
        fields = []
        while line := self._line():
            name, _, value = line.partition(":")
            fields.append((name, value.strip(" \t")))
        return version, int(status), reason, fields

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self._line(), 16):
            yield self._take(size)
            assert self._line() == ""


Connect = Callable[[], AbstractContextManager[socket.socket]]


class Side:
    """One of the two places: how to get there, and what it has said."""

    def __init__(self, connect: Connect, *lines: str, variables: Mapping[str, str]) -> None:
        self._connect = connect
        self._lines = lines
        self.kept = dict(variables)
        self._ids: dict[str, str] = {}
        self._open = contextlib.ExitStack()
        self._wire: Wire | None = None
        self.connections = 0

    def ask(self, ask: Ask, *, keep_alive: bool = True) -> Answer:
        """Ask over the kept connection, while there is one, or over one for this alone."""
        more = () if keep_alive else ("Connection: close",)
        octets = ask.octets(self.kept, *self._lines, *more)
        body = b""
        if "Expect: 100-continue" in ask.lines:
            head, _, body = octets.partition(b"\r\n\r\n")
            octets = head + b"\r\n\r\n"
        try:
            answer = self._send(octets).read_answer(ask.method, body)
        except Closed:
            # As every client does. The registry closes without a word after some answers.
            self.leave()
            answer = self._send(octets).read_answer(ask.method, body)
        if answer.closes:
            self.leave()
        if ask.keep:
            _, slash, path = answer.value("location").partition("/v2/")
            self.kept[ask.keep] = slash + path
        return answer

    def ask_all(self, asks: list[Ask]) -> list[Answer]:
        """Ask all at once over one connection, not waiting for any answer."""
        self.leave()
        wire = self._connected()
        octets = b"".join(ask.octets(self.kept, *self._lines) for ask in asks)
        sender = threading.Thread(target=wire.send, args=(octets,))
        sender.start()
        answers = [wire.read_answer(ask.method) for ask in asks]
        sender.join()
        self.leave()
        return answers

    def _send(self, octets: bytes) -> Wire:
        wire = self._wire or self._connected()
        wire.send(octets)
        return wire

    def _connected(self) -> Wire:
        self.connections += 1
        connection = self._open.enter_context(self._connect())
        connection.settimeout(PATIENCE)
        self._wire = Wire(connection)
        return self._wire

    def leave(self) -> None:
        """Close the connection."""
        self._wire = None
        self._open.close()

    def in_one_form(self, text: str) -> str:
        """Put ids, states and boundaries into the form that both sides share."""
        text = _UPLOAD_ID.sub(self._numbered, text)
        return _STATE.sub("_state=STATE", text)

    def _numbered(self, found: re.Match[str]) -> str:
        return self._ids.setdefault(found[0], f"UPLOAD-{len(self._ids) + 1}")


_UPLOAD_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_STATE = re.compile(r"_state=[A-Za-z0-9_=%-]+")
_BOUNDARY = re.compile(r"boundary=([0-9a-f]{60})")
_DATE = re.compile(r"[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT")

APART = {
    "date": "the time at which each of them answered; that it is one, and well formed, is checked",
    "docker-distribution-api-version": "once, at another place in the head; that is checked",
    "content-length": "compared as framing, and by its value where the registry sends it",
    "transfer-encoding": "compared as framing",
    "connection": "compared by what it says: whether the connection ends",
}
"""Fields that are not compared as they stand, and why."""

MAY_BECOME = {
    # What came whole, regguard can and does tell the length of.
    "chunked": ("chunked", "length"),
    # Its end cannot be told from a cut; chunks end honestly.
    "close": ("chunked", "length"),
}
"""Framings of the registry that regguard need not keep; ``length`` and ``none`` it must."""


def differences(
    direct: Answer, through: Answer, direct_side: Side, through_side: Side
) -> list[str]:
    """What a client could see to be different; empty where it is nothing."""
    found = []

    def compare(what: str, one: object, other: object) -> None:
        if one != other:
            found.append(f"{what}: {one!r} directly, {other!r} through regguard")

    compare("status", direct.status, through.status)
    compare("reason", direct.reason, through.reason)
    compare("interim", direct.interim, through.interim)
    secured = [
        # The one thing that is not the same to the registry: its client came by TLS.
        (name, value.replace("http://localhost/", "https://localhost/", 1))
        if name.lower() == "location"
        else (name, value)
        for name, value in _fields(direct, direct_side)
    ]
    compare("fields", secured, _fields(through, through_side))
    compare("trailers", direct.trailers, through.trailers)
    compare("body", _body(direct, direct_side), _body(through, through_side))
    allowed = MAY_BECOME.get(direct.framing, (direct.framing,))
    if through.framing not in allowed:
        compare("framing", direct.framing, through.framing)
    if direct.framing in ("none", "length"):
        lengths = direct.values("content-length"), through.values("content-length")
        compare("Content-Length", *lengths)
    if direct.framing != "close":
        compare("the connection's end", direct.closes, through.closes)
    compare("Date", _has_date(direct), _has_date(through))
    versions = through.values("docker-distribution-api-version")
    if versions != ["registry/2.0"]:
        found.append(f"Docker-Distribution-Api-Version: {versions}")
    return found


def _fields(answer: Answer, side: Side) -> list[tuple[str, str]]:
    """All that is compared as it stands: names in their own spelling, values, and their order."""
    found = []
    for name, value in answer.fields:
        if name.lower() not in APART:
            value = side.in_one_form(value)
            found.append((name, _BOUNDARY.sub("boundary=BOUNDARY", value)))
    return found


def _body(answer: Answer, side: Side) -> bytes:
    body = answer.body
    boundary = _BOUNDARY.search(answer.value("content-type"))
    if boundary:
        return body.replace(boundary[1].encode(), b"BOUNDARY")
    if answer.value("content-type").startswith("application/json"):
        return side.in_one_form(body.decode()).encode()
    return body


def _has_date(answer: Answer) -> bool:
    dates = answer.values("date")
    return len(dates) == 1 and _DATE.fullmatch(dates[0]) is not None


@dataclass(frozen=True)
class Script:
    """What a scripted registry says to a request: octets, cut as they are to be sent.

    ``ends`` closes the connection behind them.
    """

    pieces: tuple[bytes, ...]
    ends: bool = False

    @property
    def octets(self) -> bytes:
        return b"".join(self.pieces)


def _read_head(stream: BinaryIO) -> bytes:
    """The next head without its empty line; empty where nothing follows."""
    head = b""
    while (line := stream.readline()) not in (b"", b"\r\n"):
        head += line
    return head


_CASE = re.compile(rb"case=([a-z0-9.-]+)")
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


@dataclass
class ScriptedRegistry:
    """Answers a request whose query has ``case=NAME`` by the script of that name.

    ``heads`` are those that it was sent.
    """

    scripts: Mapping[str, Script]
    heads: list[bytes] = field(default_factory=list)

    def __enter__(self) -> ScriptedRegistry:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._connections: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for sock in (self._listener, *self._connections):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for sock in (self._listener, *self._connections):
            sock.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), PATIENCE)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._connections.append(connection)
                thread = threading.Thread(target=self._answer, args=(connection,), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _answer(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError), connection.makefile("rb") as stream:
            while head := _read_head(stream):
                length = _LENGTH.search(head)
                stream.read(int(length[1]) if length else 0)
                self.heads.append(head)
                case = _CASE.search(head)
                assert case, head
                script = self.scripts[case[1].decode()]
                for piece in script.pieces:
                    connection.sendall(piece)
                if script.ends or b"\r\nconnection: close" in head.lower():
                    connection.shutdown(socket.SHUT_WR)
                    return
