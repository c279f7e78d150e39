"""Transfers that stand in the middle until they are told to go on, and clients that keep coming."""

from __future__ import annotations

import contextlib
import hashlib
import socket
import ssl
import threading
import time
from base64 import b64encode
from collections.abc import Iterator
from http.client import HTTPResponse
from pathlib import Path

from tests.e2e.programs import PATIENCE, Guard

# Clients' buffers are small, so that what the kernel holds is no transfer.
BUFFER = 16 * 1024


def connect(guard: Guard) -> ssl.SSLSocket:
    """A connection that takes little at a time."""
    context = ssl.create_default_context(cafile=guard.ground.ca)
    plain = socket.socket()
    plain.settimeout(PATIENCE)
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
    try:
        plain.connect(("127.0.0.1", guard.port))
        return context.wrap_socket(plain, server_hostname="localhost")
    except BaseException:
        plain.close()
        raise


def head(guard: Guard, method: str, target: str, *lines: str) -> bytes:
    """A request's head, of the pusher's."""
    token = b64encode(guard.ground.as_pusher.encode()).decode()
    words = [f"{method} {target} HTTP/1.1", "Host: localhost", f"Authorization: Basic {token}"]
    return "\r\n".join([*words, *lines, "", ""]).encode()


class Transfer:
    """Half of it is done."""

    def __init__(self, guard: Guard) -> None:
        self.connection = connect(guard)

    def answer(self, method: str) -> HTTPResponse:
        answer = HTTPResponse(self.connection, method=method)
        answer.begin()
        return answer

    def finish(self) -> bool:
        """Do the rest; whether all went well, and the connection ended with it."""
        raise NotImplementedError

    def ended(self) -> bool:
        with self.connection:
            return self.connection.recv(1) == b""


class Download(Transfer):
    """A blob on its way out."""

    def __init__(self, guard: Guard, target: str) -> None:
        super().__init__(guard)
        self.digest = target.rpartition(":")[2]
        self.connection.sendall(head(guard, "GET", target))
        self._answer = self.answer("GET")
        assert self._answer.status == 200
        self._hash = hashlib.sha256(self._answer.read(1000))

    def finish(self) -> bool:
        while octets := self._answer.read(1 << 20):
            self._hash.update(octets)
        return self._hash.hexdigest() == self.digest and self.ended()


class Upload(Transfer):
    """A layer on its way in; ``target`` is where an upload was started."""

    CONTENT = b"half of it and the other half "

    def __init__(self, guard: Guard, target: str) -> None:
        super().__init__(guard)
        lines = (f"Content-Length: {len(self.CONTENT)}", "Content-Type: application/octet-stream")
        self.connection.sendall(head(guard, "PATCH", target, *lines) + self.CONTENT[:15])

    def finish(self) -> bool:
        self.connection.sendall(self.CONTENT[15:])
        answer = self.answer("PATCH")
        answer.read()
        return (answer.status, answer.getheader("Connection")) == (202, "close") and self.ended()


class Crowd:
    """Clients that come one after the other, each with a connection of its own, and one that stays.

    ``failures`` says what went wrong.
    """

    def __init__(self, guard: Guard, clients: int = 4, *, stays: bool = True) -> None:
        self.failures: list[str] = []
        self.served = 0
        self._guard = guard
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._come) for _ in range(clients)]
        if stays:
            self._threads.append(threading.Thread(target=self._stay))
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, connection: ssl.SSLSocket, *lines: str) -> None:
        connection.sendall(head(self._guard, "GET", "/v2/", *lines))
        answer = HTTPResponse(connection)
        answer.begin()
        answer.read()
        assert answer.status == 200, answer.status
        self.served += 1

    def _come(self) -> None:
        while not self._over.is_set():
            try:
                with connect(self._guard) as connection:
                    self._ask(connection, "Connection: close")
            except Exception as error:
                self.failures.append(f"{type(error).__name__}: {error}")
            # An open loop leaves the processors to those that are tested.
            time.sleep(0.005)

    def _stay(self) -> None:
        try:
            with connect(self._guard) as connection:
                while not self._over.is_set():
                    self._ask(connection)
                    time.sleep(0.005)
        except Exception as error:
            self.failures.append(f"{type(error).__name__}: {error}")


@contextlib.contextmanager
def crowding(guard: Guard, clients: int = 4, *, stays: bool = True) -> Iterator[Crowd]:
    """They come until the end."""
    crowd = Crowd(guard, clients, stays=stays)
    try:
        yield crowd
    finally:
        crowd.stop()


def children(pid: int) -> list[int]:
    """The processes that this one has started."""
    return [
        int(child)
        for task in Path(f"/proc/{pid}/task").iterdir()
        for child in (task / "children").read_text().split()
    ]


def held_by(pid: int) -> tuple[int, int, int]:
    """File descriptors, threads and KiB of memory of a process."""
    process = Path(f"/proc/{pid}")
    status = dict(
        line.split(":", 1) for line in (process / "status").read_text().splitlines() if ":" in line
    )
    return (
        len(list((process / "fd").iterdir())),
        int(status["Threads"]),
        int(status["VmRSS"].split()[0]),
    )
