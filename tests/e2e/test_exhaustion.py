"""Group H of the cases over real sockets: what a crowd takes comes back, and has its bounds.

``REGGUARD_CHURN`` sets another number of connections that come to nothing (default 5,000; the
case has 50,000); ``pytest -rP`` shows what was measured.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import os
import re
import selectors
import socket
import ssl
import statistics
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import bcrypt
import pytest

from regguard.demo.image import digest
from regguard.relay.exchange import MAX_OF_ONE
from tests.canary import secret
from tests.e2e.clients import curl
from tests.e2e.conftest import BCRYPT_COST
from tests.e2e.faults import Peer, Scripted
from tests.e2e.programs import PATIENCE, Ground, Guard, Registry, StartGuard
from tests.e2e.raw import Door
from tests.e2e.wire import Hung, Octets, read_response, reset

CHURN = int(os.environ.get("REGGUARD_CHURN", "5000"))

MEBIBYTE = 1 << 20
BLOB = "/v2/team/app/blobs/sha256:" + 64 * "a"
UPLOAD = "/v2/team/app/blobs/uploads/12345678-1234-1234-1234-123456789012"


def proportional_memory(pid: int) -> int:
    """PSS, octets: what memory the process has for itself, and its share of what it shares."""
    found = re.search(r"Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text())
    assert found is not None
    return int(found[1]) * 1024


def open_files(guard: Guard) -> int:
    """How many the daemon has."""
    return len(list(Path(f"/proc/{guard.program.pid}/fd").iterdir()))


def head(method: str, target: str, pair: tuple[str, str], *lines: str) -> bytes:
    """The head of a request of this user's."""
    token = base64.b64encode(":".join(pair).encode()).decode()
    first = (f"{method} {target} HTTP/1.1", "Host: a", f"Authorization: Basic {token}")
    return "\r\n".join((*first, *lines, "\r\n")).encode()


# -- connections that come to nothing --------------------------------------------------------------

PER_NETWORK = 300
IN_ALL = 400


class Churn:
    """Connections from 127.0.3.0/24, one after the other, each left in one of several ways."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self._context = ssl.create_default_context(cafile=guard.ground.ca)
        self._context.set_ciphers("ECDHE+AESGCM")
        self.ways: tuple[Callable[[socket.socket], None], ...] = (
            reset,
            socket.socket.close,
            self._after_half_a_hello,
            self._after_half_a_hello,
            self._in_the_middle_of_a_head,
            reset,
            socket.socket.close,
            self._before_an_answer,
        )

    def run(self, number: int) -> None:
        """So many; who finds no room, or was closed already, has come and gone as well."""
        for count in range(number):
            with contextlib.suppress(OSError):
                source = f"127.0.3.{1 + count % 250}"
                sock = socket.create_connection(
                    ("127.0.0.1", self._guard.port), PATIENCE, (source, 0)
                )
                self.ways[count % len(self.ways)](sock)

    def _after_half_a_hello(self, sock: socket.socket) -> None:
        sock.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64))
        reset(sock)

    def _in_the_middle_of_a_head(self, sock: socket.socket) -> None:
        with self._context.wrap_socket(sock, server_hostname="localhost") as secured:
            secured.sendall(b"GET /v2/ HTTP/1.1\r\nHost: a\r\n")
            reset(secured)

    def _before_an_answer(self, sock: socket.socket) -> None:
        with self._context.wrap_socket(sock, server_hostname="localhost") as secured:
            secured.sendall(head("GET", BLOB, self._guard.ground.pusher))
            reset(secured)


def test_h08_connections_that_come_to_nothing_leave_nothing(
    start_guard: StartGuard, registry: Registry
) -> None:
    """No file descriptor, no memory, and no place among those that may be there at once."""
    guard = start_guard(registry.url, "--max-connections", f"{IN_ALL}/{PER_NETWORK}")
    pid = guard.program.pid
    churn = Churn(guard)

    def settled() -> bool:
        return open_files(guard) <= files

    files = 1 << 20
    churn.run(500)  # what is loaded and allocated once
    assert curl(guard, "/v2/", credentials=guard.ground.as_reader).status == 200
    files = open_files(guard) + 2  # the registry's connections: two more may be kept
    memory = proportional_memory(pid)
    began = time.monotonic()
    churn.run(CHURN // 2)
    # Faster than they are served: nobody waits for a word.
    churn.ways = (reset, socket.socket.close)
    churn.run(CHURN // 2)
    took = time.monotonic() - began
    guard.program.wait_until("the connections to be gone", settled)

    grown = proportional_memory(pid) - memory
    print(f"{CHURN} in {took:.1f} s: PSS {grown / 1024:+.0f} kB")  # noqa: T201
    # TLS of one connection takes some 27 kB: 68 MB of 2,500 that wait to be collected.
    assert grown < 8 * MEBIBYTE
    with contextlib.ExitStack() as leaving:

        def enter(source: str) -> socket.socket:
            sock = socket.create_connection(("127.0.0.1", guard.port), PATIENCE, (source, 0))
            leaving.callback(sock.close)
            return sock

        ours = [enter(f"127.0.3.{1 + count % 250}") for count in range(PER_NETWORK)]
        assert enter("127.0.3.200").recv(1) == b""
        others = [enter("127.0.4.1") for _ in range(IN_ALL - PER_NETWORK)]
        guard.wait_for_line(f"{IN_ALL} connections are there")
        for sock in (*ours, *others):
            sock.setblocking(False)
            with pytest.raises(BlockingIOError):
                sock.recv(1)
    assert curl(guard, "/v2/", credentials=guard.ground.as_reader).status == 200


# -- transfers that stand still --------------------------------------------------------------------

TRANSFERS = 200
GIBIBYTE = 1 << 30
LIMIT = 128 * MEBIBYTE
PER_TRANSFER = 256 * 1024


def serve_or_stall(peer: Peer, done: threading.Event) -> None:
    """As much as is asked for to GET; the head of PATCH is read, and nothing after it."""
    line = peer.head()
    if line.startswith("GET /v2/ "):
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
    elif line.startswith("GET"):
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % GIBIBYTE)
        piece = bytes(MEBIBYTE)
        for _ in range(GIBIBYTE // MEBIBYTE):
            peer.send(piece)
    else:
        done.wait()


@contextlib.contextmanager
def memory_limit(octets: int) -> Iterator[Path | None]:
    """A control group in which more memory than that ends in the kernel's hand.

    None where there can't be one: it takes root, and a memory controller that may be divided.
    """
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    group = None
    for _, place, kind, options, *_ in mounts:
        if kind == "cgroup2" or (kind == "cgroup" and "memory" in options.split(",")):
            parent = Path(place)
            if kind == "cgroup":
                own = re.search(r"^\d+:memory:/(.*)$", Path("/proc/self/cgroup").read_text(), re.M)
                parent /= own[1] if own else ""
            name = "memory.max" if kind == "cgroup2" else "memory.limit_in_bytes"
            candidate = parent / f"regguard-{os.getpid()}"
            with contextlib.suppress(OSError):
                candidate.mkdir()
                try:
                    (candidate / name).write_text(str(octets))
                except OSError:
                    candidate.rmdir()
                else:
                    group = candidate
                    break
    try:
        yield group
    finally:
        if group is not None:
            group.rmdir()


def test_h10_transfers_that_stand_still_fit_into_128_megabytes(
    ground: Ground, tmp_path: Path
) -> None:
    """Half of them pulls that nobody reads, half pushes that the registry does not read."""
    with contextlib.ExitStack() as leaving:
        done = threading.Event()
        upstream = leaving.enter_context(Scripted(lambda peer: serve_or_stall(peer, done)))
        leaving.callback(done.set)
        group = leaving.enter_context(memory_limit(LIMIT))
        through = ("sh", "-c", 'echo $$ > "$0"; exec "$@"', f"{group}/cgroup.procs")
        guard = Guard(ground, tmp_path, upstream.url, through=through if group else ())
        leaving.callback(guard.stop)
        assert curl(guard, "/v2/", credentials=ground.as_reader).status == 200
        before = proportional_memory(guard.program.pid)
        context = ssl.create_default_context(cafile=ground.ca)
        selector = leaving.enter_context(selectors.DefaultSelector())

        def enter() -> ssl.SSLSocket:
            sock = context.wrap_socket(
                socket.create_connection(("127.0.0.1", guard.port), PATIENCE),
                server_hostname="localhost",
            )
            leaving.callback(sock.close)
            return sock

        readers = [enter() for _ in range(TRANSFERS // 2)]
        for sock in readers:
            sock.sendall(head("GET", BLOB, ground.pusher))
        for _ in range(TRANSFERS - len(readers)):
            sock = enter()
            sock.sendall(head("PATCH", UPLOAD, ground.pusher, f"Content-Length: {GIBIBYTE}"))
            sock.setblocking(False)
            selector.register(sock, selectors.EVENT_WRITE)
        piece, quiet = bytes(65_536), time.monotonic()
        sent = 0
        while time.monotonic() - quiet < 2:
            for key, _ in selector.select(0.2):
                assert isinstance(key.fileobj, ssl.SSLSocket)
                with contextlib.suppress(ssl.SSLWantWriteError):
                    sent += key.fileobj.send(piece)
                    quiet = time.monotonic()
        for sock in readers:
            assert sock.recv(12) == b"HTTP/1.1 200"
        stalled = proportional_memory(guard.program.pid)
        each = (stalled - before) / TRANSFERS

        # And who reads gets it all.
        reader = enter()
        reader.sendall(head("GET", BLOB, ground.reader))
        received, buffer = 0, bytearray(MEBIBYTE)
        while received < GIBIBYTE:
            count = reader.recv_into(buffer)
            assert count
            received += count
        assert curl(guard, "/v2/", credentials=ground.as_reader).status == 200
        at_last = proportional_memory(guard.program.pid)
        print(  # noqa: T201
            f"{TRANSFERS} stalled, {sent / MEBIBYTE:.0f} MiB under way to nobody: "
            f"PSS {before / MEBIBYTE:.1f} MiB before, {stalled / MEBIBYTE:.1f} with them "
            f"({each / 1024:.0f} KiB each), {at_last / MEBIBYTE:.1f} after a gibibyte more; "
            f"{'in a control group of 128 MiB' if group else 'without a control group'}"
        )
        assert each <= PER_TRANSFER
        assert max(stalled, at_last) < LIMIT


# -- a registry that hangs -------------------------------------------------------------------------

USERS = 20
# Far below --read-timeout, which is when those who wait would be told.
SOON = 5.0


def test_h11_a_registry_that_hangs(ground: Ground, tmp_path: Path) -> None:
    """No more than MAX_OF_ONE wait; who has many of them hears 503, and refusals come as ever."""
    users = [(f"user{number}", secret(f"{number}")) for number in range(USERS)]
    own = dataclasses.replace(ground, htpasswd=tmp_path / "htpasswd")
    own.htpasswd.write_text(
        ground.htpasswd.read_text()
        + "".join(
            f"{name}:{bcrypt.hashpw(password.encode(), bcrypt.gensalt(BCRYPT_COST)).decode()}\n"
            for name, password in users
        )
    )
    own.htpasswd.chmod(0o600)
    with contextlib.ExitStack() as leaving:
        # It accepts, in the kernel, and that is all.
        registry = leaving.enter_context(socket.create_server(("127.0.0.1", 0), backlog=4096))
        url = f"http://127.0.0.1:{registry.getsockname()[1]}"
        guard = Guard(own, tmp_path / "guard", url, "--no-tls", "--max-connections", "4000/4000")
        leaving.callback(guard.stop)

        def enter() -> socket.socket:
            sock = socket.create_connection(("127.0.0.1", guard.port), PATIENCE)
            # After a FIN the guard would still wait for the answer, and deliver it.
            leaving.callback(reset, sock)
            return sock

        def ask(octets: bytes) -> tuple[int, dict[str, str]]:
            sock = enter()
            sock.sendall(octets)
            answer = read_response(Octets(sock), octets.split()[0].decode())
            return answer.status, dict(answer.fields)

        waiting = []
        for number in range(MAX_OF_ONE):
            waiting.append(enter())
            waiting[-1].sendall(head("GET", "/v2/a/tags/list", users[number % USERS]))

        # What came before them is with the registry, or refused, by the time this is answered.
        until = time.monotonic() + PATIENCE
        status, fields = 0, {}
        while status != 503 and time.monotonic() < until:
            with contextlib.suppress(Hung):
                sock = enter()
                waiting.append(sock)
                sock.sendall(head("GET", "/v2/", users[0]))
                answer = read_response(Octets(sock, patience=1), "GET")
                status, fields = answer.status, dict(answer.fields)
        assert status == 503
        assert int(fields["retry-after"]) > 0
        assert ask(head("GET", "/v2/a/tags/list", users[1]))[0] == 503

        wrong = ("nobody", secret("wrong"))
        refused: dict[str, tuple[int, bytes]] = {
            "no credentials": (401, b"GET /v2/ HTTP/1.1\r\nHost: a\r\n\r\n"),
            "a wrong password": (401, head("GET", "/v2/", wrong)),
            "may not push": (403, head("POST", "/v2/a/blobs/uploads/", ground.reader)),
            "no endpoint": (404, b"GET /elsewhere HTTP/1.1\r\nHost: a\r\n\r\n"),
            "a balancer's probe": (200, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        }
        lines = []
        for what, (expected, octets) in refused.items():
            took = []
            for _ in range(20):
                began = time.monotonic()
                assert ask(octets)[0] == expected
                took.append(time.monotonic() - began)
            lines.append(
                f"{what}: {1000 * statistics.median(took):.1f} ms, "
                f"at most {1000 * max(took):.1f} ms"
            )
            assert max(took) < SOON
        print("\n".join(lines))  # noqa: T201

        registry.setblocking(False)
        accepted = []
        with contextlib.suppress(BlockingIOError):
            while True:
                accepted.append(registry.accept()[0])
                leaving.callback(accepted[-1].close)
        assert len(accepted) == MAX_OF_ONE
        for sock in accepted:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


# -- a thousand ranges -----------------------------------------------------------------------------


def in_parts(answer_type: str, body: bytes) -> bytes:
    """A multipart body with a boundary of everybody's."""
    found = re.fullmatch(r"multipart/byteranges; boundary=(\w+)", answer_type)
    assert found is not None
    return body.replace(found[1].encode(), b"boundary")


def test_h12_a_thousand_ranges(guard: Guard, registry: Registry) -> None:
    """They are the registry's to answer; no more of them can be asked for than fit into a head."""
    content = os.urandom(100_000)
    door, direct = Door(guard, guard.ground.pusher), Door(registry)
    door.upload("ranges/app", content)
    blob = f"/v2/ranges/app/blobs/{digest(content)}"

    for count in (1000, 7500):
        line = "Range: bytes=" + ",".join(["0-0"] * count)
        theirs, ours = direct.send("GET", blob, line), door.send("GET", blob, line)
        assert ours.status == theirs.status == 206
        ours_in_parts = in_parts(ours.headers["content-type"], ours.body)
        assert ours_in_parts == in_parts(theirs.headers["content-type"], theirs.body)
        print(f"{count} ranges, {len(line)} octets: {len(ours.body)} octets")  # noqa: T201

    # More than the blob has: the registry sends it whole, as RFC 9110 section 14.2 wants it.
    line = "Range: bytes=" + ",".join(["0-"] * 1000)
    assert door.send("GET", blob, line).body == content
    line = "Range: bytes=" + ",".join(["0-0"] * 9000)
    assert door.send("GET", blob, line).status == 431
