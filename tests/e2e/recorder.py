"""An upstream that remembers every byte that it was sent, and reads it as strictly as h11 does."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

import h11

from tests.canary import SEARCH

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"

HEAD_LIMIT = 1 << 20
"""Octets of a head that h11 may collect: it shall judge the grammar, not the size."""


@dataclass(frozen=True)
class Asked:
    """A whole request as h11 understood it; names of fields are in small letters.

    ``connection`` is the number of the connection on which it came.
    """

    connection: int
    method: bytes
    target: bytes
    fields: tuple[tuple[bytes, bytes], ...]
    body: bytes

    def all(self, name: str) -> list[bytes]:
        """The values of all fields of this name."""
        return [value for key, value in self.fields if key == name.lower().encode()]


class Cut(Exception):
    """Raised by an ``answer``: to be sent are these octets, and then the connection is closed."""

    def __init__(self, octets: bytes) -> None:
        super().__init__()
        self.octets = octets


def ok(asked: Asked) -> bytes:
    """A small 200."""
    return ANSWER.removesuffix(b"{}") if asked.method == b"HEAD" else ANSWER


class Recorder:
    """Listens on a port of its own and answers every whole request as ``answer`` says.

    ``received`` is all that came, over all connections; ``connections`` how many there were;
    ``requests`` what h11 understood; ``malformed`` why it did not understand the rest.
    """

    def __init__(self, answer: Callable[[Asked], bytes] = ok) -> None:
        self.answer = answer
        self.received = bytearray()
        self.connections = 0
        self.requests: list[Asked] = []
        self.malformed: list[str] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]

    def __enter__(self) -> Recorder:
        self._threads[0].start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for sock in (self._listener, *self._open):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for sock in (self._listener, *self._open):
            sock.close()
        self._search()

    def forget(self) -> None:
        """Begin anew; connections stay."""
        self._search()
        self.received.clear()
        self.requests.clear()
        self.malformed.clear()

    def _search(self) -> None:
        SEARCH.look("octets sent upstream", bytes(self.received))

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.connections += 1
                self._open.append(connection)
                reading = _Reading(self.connections)
                thread = threading.Thread(
                    target=self._record, args=(connection, reading), daemon=True
                )
                self._threads.append(thread)
                thread.start()

    def _record(self, connection: socket.socket, reading: _Reading) -> None:
        try:
            while octets := connection.recv(65536):
                self.received += octets
                for asked in reading.feed(octets):
                    self.requests.append(asked)
                    connection.sendall(self.answer(asked))
        except Cut as cut:
            with contextlib.suppress(OSError):
                connection.sendall(cut.octets)
        except h11.RemoteProtocolError as error:
            self.malformed.append(str(error))
        except OSError:
            return  # the guard has cut it
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)


class _Reading:
    """The requests of one connection, one after the other."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._start()

    def _start(self, rest: bytes = b"") -> None:
        self._oracle = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_LIMIT)
        self._head: h11.Request | None = None
        self._body = bytearray()
        if rest:
            self._oracle.receive_data(rest)

    def feed(self, octets: bytes) -> list[Asked]:
        """The requests that became whole; raises RemoteProtocolError for what is none."""
        self._oracle.receive_data(octets)
        whole = []
        while (event := self._oracle.next_event()) not in (h11.NEED_DATA, h11.PAUSED):
            if isinstance(event, h11.Request):
                self._head = event
            elif isinstance(event, h11.Data):
                self._body += event.data
            elif isinstance(event, h11.EndOfMessage):
                head = self._head
                assert head is not None
                fields = tuple((bytes(n), bytes(v)) for n, v in head.headers)
                body = bytes(self._body)
                whole.append(Asked(self._number, head.method, head.target, fields, body))
                self._start(bytes(self._oracle.trailing_data[0]))
        return whole
