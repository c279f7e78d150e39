"""A guard before a recorder, and raw octets to and from it."""

from __future__ import annotations

import contextlib
import socket
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.programs import PATIENCE, Ground, Guard, accepts
from tests.e2e.recorder import Recorder
from tests.front.wire import Reply, replies
from tests.malformed import AUTHORIZATION


@dataclass
class Stage:
    """``secure``: whether clients speak TLS to the guard."""

    guard: Guard
    recorder: Recorder
    secure: bool

    def as_pusher(self, octets: bytes) -> bytes:
        """With the credential of who may do everything."""
        return octets.replace(AUTHORIZATION, basic(self.guard.ground.pusher))

    def connect(self) -> contextlib.AbstractContextManager[socket.socket]:
        """A connection to the guard."""
        if self.secure:
            return self.guard.connection()
        return socket.create_connection(("127.0.0.1", self.guard.port), PATIENCE)

    def talk(self, *segments: bytes, end: bool = False) -> bytes:
        """Send each piece by itself (``end``: and then a FIN), and read until the guard closes."""
        with self.connect() as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            # Below every deadline of a connection that the guard keeps.
            connection.settimeout(8)
            with contextlib.suppress(ConnectionError):  # it need not hear us to the end
                for segment in segments:
                    connection.sendall(segment)
                if end:
                    connection.shutdown(socket.SHUT_WR)
            return read_to_end(connection)

    def ask(self, octets: bytes, *methods: str) -> list[Reply]:
        """The answers to requests of the pusher's, the last of which closes the connection."""
        return replies(self.talk(self.as_pusher(octets)), *methods)

    def check(self) -> None:
        """Whatever came: the guard lives, has logged no fault, and sent nothing but good HTTP."""
        assert accepts(self.guard.port)
        self.guard.check_log()
        assert self.recorder.malformed == []


def read_to_end(connection: socket.socket) -> bytes:
    """Everything up to a FIN; fails on a reset and where the guard keeps the connection."""
    received = bytearray()
    while octets := connection.recv(65536):
        received += octets
    return bytes(received)


def basic(pair: tuple[str, str]) -> bytes:
    """The value of Authorization for a user and password."""
    return b"Basic " + b64encode(":".join(pair).encode())


@contextlib.contextmanager
def staging(
    ground: Ground, folder: Path, *words: str, secure: bool = True, log_format: str = "text"
) -> Iterator[Stage]:
    """A guard with TLS or without."""
    with Recorder() as recorder:
        guard = Guard(
            ground,
            folder,
            recorder.url,
            *words,
            *(() if secure else ("--no-tls",)),
            log_format=log_format,
        )
        try:
            yield Stage(guard, recorder, secure)
        finally:
            guard.stop()
