"""``sink.py PORT OCTETS``: reads each request's body to its end, and then answers 201.

The kernel throws the octets away (``MSG_TRUNC``, see tcp(7)), so that this program takes next to no
CPU from who is measured.  A body of another length than OCTETS is answered with 400.
"""

from __future__ import annotations

import contextlib
import re
import socket
import sys
import threading

LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
# Nothing is written here; the kernel only wants to know how much it may throw away.
SPARE = bytearray(1024 * 1024)


def main() -> None:
    """Serve until a signal comes."""
    port, octets = map(int, sys.argv[1:])
    listening = socket.create_server(("127.0.0.1", port), backlog=1024)
    while True:
        connection, _ = listening.accept()
        threading.Thread(target=_serve, args=(connection, octets), daemon=True).start()


def _serve(connection: socket.socket, octets: int) -> None:
    with connection, contextlib.suppress(ConnectionError):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while (taken := _take(connection)) is not None:
            status = b"201 Created" if taken == octets else b"400 Bad Request"
            connection.sendall(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\n\r\n")


def _take(connection: socket.socket) -> int | None:
    """Read one request; its body's length (0: none was named), or None where the client left."""
    head = b""
    while b"\r\n\r\n" not in head:
        received = connection.recv(65536)
        if not received:
            return None
        head += received
    head, _, body = head.partition(b"\r\n\r\n")
    # Chunked bodies are not understood: curl names the length, and every contender passes it on.
    named = LENGTH.search(head)
    length = int(named[1]) if named is not None else 0
    left = length - len(body)
    while left > 0:
        count = connection.recv_into(SPARE, min(left, len(SPARE)), socket.MSG_TRUNC)
        if not count:
            return None
        left -= count
    return length


if __name__ == "__main__":
    main()
