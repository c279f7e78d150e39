"""Budgets of the door, with real sockets: connections, file descriptors, slow peers."""

from __future__ import annotations

import base64
import contextlib
import os
import re
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType

import pytest

from tests.e2e.clients import curl
from tests.e2e.programs import PATIENCE, Ground, Guard, Registry, StartGuard

FILES = 256
# As front.admission has it: 64 for itself, 64 idle ones to the registry, two for each client.
ROOM = (FILES - 64 - 64) // 2
MEBIBYTE = 1 << 20


def connect(port: int, source: str = "127.0.0.1") -> socket.socket:
    """A connection that says nothing."""
    return socket.create_connection(("127.0.0.1", port), PATIENCE, (source, 0))


def is_closed(client: socket.socket) -> bool:
    """Whether the guard has closed it without a word; waits a moment for that."""
    client.settimeout(0.5)
    try:
        return not client.recv(1)
    except ConnectionError:
        return True
    except TimeoutError:
        return False


def processor_seconds(pid: int) -> float:
    """User and system time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident(pid: int) -> int:
    """Octets of memory that a process has."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


# -- connections and file descriptors ------------------------------------------------------------


def test_h06_file_descriptors_never_run_out(
    ground: Ground, registry: Registry, tmp_path: Path
) -> None:
    """A thousand connections: no spin, files can still be read, and all is well after them."""
    htpasswd = tmp_path / "htpasswd"
    shutil.copy(ground.htpasswd, htpasswd)
    guard = Guard(
        ground,
        tmp_path / "guard",
        registry.url,
        *("--max-connections", "20000/20000", "--auth", f"htpasswd:{htpasswd}"),
        files=FILES,
    )
    pid = guard.program.pid
    with contextlib.ExitStack() as clients:
        for _ in range(1000):
            client = clients.enter_context(socket.socket())
            client.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                client.connect(("127.0.0.1", guard.port))
        guard.wait_for_line(f"{ROOM} connections are there: more wait until one leaves")
        before, started = processor_seconds(pid), time.monotonic()
        # It would read a new password file at once.
        line = ground.htpasswd.read_text().splitlines()[0]
        htpasswd.write_text(ground.htpasswd.read_text() + f"third:{line.partition(':')[2]}\n")
        guard.wait_for_line(str(htpasswd), "3 users")
        time.sleep(max(0.0, 2 - (time.monotonic() - started)))
        assert processor_seconds(pid) - before < 0.5
        assert len(list(Path(f"/proc/{pid}/fd").iterdir())) < FILES - 64
    answer = curl(guard, "/v2/", credentials=guard.ground.as_reader)

    assert answer.status == 200
    output = guard.program.output()
    assert "EMFILE" not in output
    assert f"--max-connections 20000: {FILES} file descriptors are enough for {ROOM}" in output
    guard.stop()


def test_h05_a_network_has_its_share_and_a_trusted_proxy_more(
    start_guard: StartGuard, registry: Registry
) -> None:
    """One more from there is closed; others come in, and everybody who comes by a balancer."""
    guard = start_guard(
        registry.url, "--max-connections", "100/3", "--trusted-proxy", "127.0.5.0/24"
    )
    with contextlib.ExitStack() as leaving:

        def enter(source: str) -> bool:
            return not is_closed(leaving.enter_context(connect(guard.port, source)))

        first = [enter(f"127.0.3.{number}") for number in range(1, 6)]
        assert first == [True, True, True, False, False]
        assert enter("127.0.4.1")
        assert all(enter("127.0.5.1") for _ in range(6))
    guard.wait_for_line("127.0.3.0/24 has 3 connections already: more are closed")
    with connect(guard.port, "127.0.3.9") as client:
        assert not is_closed(client)


# -- slow peers ----------------------------------------------------------------------------------


class Upstream:
    """A registry for one connection at a time; ``serve`` has it."""

    def __init__(self, serve: Callable[[socket.socket], None]) -> None:
        self._serve = serve
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.ends: list[type[BaseException] | None] = []
        self._connections: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]

    def __enter__(self) -> Upstream:
        self._threads[0].start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for each in (self._listener, *self._connections):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for each in (self._listener, *self._connections):
            each.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self._connections.append(connection)
                thread = threading.Thread(target=self._run, args=(connection,), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _run(self, connection: socket.socket) -> None:
        try:
            self._serve(connection)
        except OSError as error:
            self.ends.append(type(error))
        else:
            self.ends.append(None)


def serve_a_gibibyte(connection: socket.socket) -> None:
    """Answer GET with as much, and take the body of anything else."""
    head = b""
    while b"\r\n\r\n" not in head:
        head += connection.recv(65536)
    if head.startswith(b"GET"):
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (1 << 30))
        for _ in range(1 << 10):
            connection.sendall(bytes(MEBIBYTE))
    else:
        while connection.recv(65536):
            pass


def request(guard: Guard, method: str, *lines: str) -> bytes:
    """A head with the pusher's credentials."""
    token = base64.b64encode(guard.ground.as_pusher.encode()).decode()
    path = "/v2/a/blobs/sha256:" + "0" * 64
    if method == "PATCH":
        path = "/v2/a/blobs/uploads/0f0e0d0c-1111-2222-3333-444455556666"
    words = (f"{method} {path} HTTP/1.1", "Host: a", f"Authorization: Basic {token}", *lines)
    return ("\r\n".join(words) + "\r\n\r\n").encode()


def small_window(guard: Guard) -> socket.socket:
    """A connection whose client buffers little."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.settimeout(PATIENCE)
    client.connect(("127.0.0.1", guard.port))
    return client


def read_to_end(client: socket.socket) -> None:
    """Until the guard closes."""
    while client.recv(65536):
        pass


@pytest.fixture
def slow(start_guard: StartGuard) -> Iterator[Guard]:
    """A guard without TLS in front of a registry that has a gibibyte."""
    with Upstream(serve_a_gibibyte) as upstream:
        yield start_guard(upstream.url, "--no-tls")


def test_h02_h03_slow_clients_are_cut_and_those_that_go_on_are_not(slow: Guard) -> None:
    """All for more than a minute, at once: that is how long one may stand still."""
    guard = slow
    with contextlib.ExitStack() as leaving:
        stalled = leaving.enter_context(small_window(guard))
        stalled.sendall(request(guard, "GET"))
        steady = leaving.enter_context(small_window(guard))
        steady.sendall(request(guard, "GET"))
        trickle = leaving.enter_context(connect(guard.port))
        trickle.sendall(request(guard, "PATCH", "Content-Length: 100000000"))
        enough = leaving.enter_context(connect(guard.port))
        enough.sendall(request(guard, "PATCH", "Content-Length: 100000000"))
        before = resident(guard.program.pid)
        trickled_until = 0.0
        trickle.setblocking(False)
        started = time.monotonic()
        taken = 0
        while (now := time.monotonic() - started) < 68:
            # Far less than the 2 MB and more that the kernel holds for it in a minute.
            taken += len(steady.recv(2000))
            enough.sendall(bytes(200))
            if not trickled_until:
                try:
                    trickle.sendall(b"x")
                    answer = trickle.recv(4096)
                except BlockingIOError:
                    pass
                else:
                    trickled_until = now
                    assert answer.startswith(b"HTTP/1.1 408 ")
                    assert b"client sends its body too slowly" in answer
            time.sleep(0.2)

        assert 15 < trickled_until < 30
        assert resident(guard.program.pid) - before < 8 * MEBIBYTE
        with pytest.raises(ConnectionError):
            read_to_end(stalled)
        assert steady.recv(65536)
        enough.setblocking(False)
        with pytest.raises(BlockingIOError):
            enough.recv(1)
    assert guard.wait_for_line('"PATCH ', '" 408 ')


# -- tiny pieces -----------------------------------------------------------------------------------


def test_h07_chunks_of_one_octet_go_on_together(start_guard: StartGuard) -> None:
    """In large records and in one for each; memory stays, and the body is what it was."""
    received = bytearray()

    def take(connection: socket.socket) -> None:
        while not received.endswith(b"\r\n0\r\n\r\n"):
            received.extend(connection.recv(MEBIBYTE))
        connection.sendall(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")

    body = os.urandom(200_000)
    with Upstream(take) as upstream:
        guard = start_guard(upstream.url)
        assert curl(guard, "/v2/").status == 401  # warm
        before = resident(guard.program.pid)
        with guard.connection() as client:
            client.sendall(request(guard, "PATCH", "Transfer-Encoding: chunked"))
            chunks = [b"1\r\n%c\r\n" % octet for octet in body]
            for start in range(0, 180_000, 3000):
                client.sendall(b"".join(chunks[start : start + 3000]))
            for piece in chunks[180_000:]:
                client.sendall(piece)
            client.sendall(b"0\r\n\r\n")
            answer = client.recv(4096)
        assert answer.startswith(b"HTTP/1.1 202 ")
        assert resident(guard.program.pid) - before < 8 * MEBIBYTE

    rest = bytes(received).partition(b"\r\n\r\n")[2]
    pieces = []
    while rest != b"0\r\n\r\n":
        size, _, rest = rest.partition(b"\r\n")
        pieces.append(rest[: int(size, 16)])
        rest = rest[int(size, 16) + 2 :]
    assert b"".join(pieces) == body
    assert len(pieces) < len(body) // 10
