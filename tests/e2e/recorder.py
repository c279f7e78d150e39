"""An upstream that remembers every byte that it was sent."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from types import TracebackType

from tests.canary import SEARCH

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
CONTENT_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class Recorder:
    """Listens on a port of its own and answers every whole request with 200.

    ``received`` is all that came, over all connections; ``connections`` how many there were.
    """

    def __init__(self) -> None:
        self.received = bytearray()
        self.connections = 0
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
        SEARCH.look("octets sent upstream", bytes(self.received))

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.connections += 1
                self._open.append(connection)
                thread = threading.Thread(target=self._record, args=(connection,), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _record(self, connection: socket.socket) -> None:
        waiting = b""
        with contextlib.suppress(OSError):
            while chunk := connection.recv(65536):
                self.received += chunk
                waiting += chunk
                head, end, rest = waiting.partition(b"\r\n\r\n")
                length = CONTENT_LENGTH.search(head)
                if end and len(rest) >= int(length[1] if length else 0):
                    connection.sendall(ANSWER)
                    waiting = b""
