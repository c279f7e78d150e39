"""A crowd that asked once and keeps its TLS connections."""

from __future__ import annotations

import contextlib
import socket
import ssl
from types import TracebackType

from tests.bench.ground import authorization, trusting
from tests.bench.stub import TARGET, TARGET_BYTES

# Sources of their own: one network may have a quarter of regguard's connections.
_NETWORKS = 16
# Seconds for connection and answer.  Who has no place for more connections does not answer.
_PATIENCE = 5.0
_REQUEST = f"GET {TARGET} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {authorization()}\r\n\r\n"


class Crowd:
    """Clients of one server; they leave at the end of ``with``."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._members: list[ssl.SSLSocket] = []

    def __enter__(self) -> Crowd:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        for member in self._members:
            member.close()

    def grow(self, count: int) -> None:
        """Let more come, until there are ``count`` in all, or somebody has no place."""
        with contextlib.suppress(OSError):
            while len(self._members) < count:
                self._members.append(self._come(len(self._members)))
                if len(self._members) % 500 == 0 and self.there() < len(self._members):
                    return

    def there(self) -> int:
        """How many are still connected."""
        return sum(map(_stays, self._members))

    def _come(self, number: int) -> ssl.SSLSocket:
        source = (f"127.0.{number % _NETWORKS}.1", 0)
        plain = socket.create_connection(("127.0.0.1", self._port), _PATIENCE, source)
        # Else the request would wait for the acknowledgement of the handshake's last piece.
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            member = trusting().wrap_socket(plain)
        except BaseException:
            plain.close()
            raise
        member.sendall(_REQUEST.encode())
        received = member.recv(65536)
        while received and len(received.partition(b"\r\n\r\n")[2]) < TARGET_BYTES:
            more = member.recv(65536)
            received = received + more if more else b""
        if not received.startswith(b"HTTP/1.1 200 "):
            member.close()
            raise ConnectionError(f"answered with {received[:200]!r}")
        member.setblocking(False)
        return member


def _stays(member: ssl.SSLSocket) -> bool:
    try:
        return bool(member.recv(1))
    except ssl.SSLWantReadError:
        return True
    except OSError:
        return False
