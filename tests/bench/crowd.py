"""``python -m tests.bench.crowd``: what a crowd of idle or slow clients costs everybody else.

One crowd after the other comes to a regguard of its own, and meanwhile another user's kept-alive
requests, nearly 100 a second, are timed: 10,000 clients that asked once and keep their TLS
connection; then clients that send their request head by one octet in five seconds, clients that
send a body in this way, and clients that ask for 64 MB and read nothing. Prints the user's p99
at rest and in the crowd, when the last of the crowd was cut off, and for the idle ones the
memory of each.

Everything runs on 127.0.0.1; the crowd has the lowest priority, since real ones have machines of
their own. It needs ``ulimit -n`` of 20,000 or more.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import multiprocessing
import os
import platform
import re
import resource
import select
import selectors
import socket
import ssl
import sys
import tempfile
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from tests.bench.attack import Client, Latency
from tests.bench.contenders import PASSWORD, TARGET, USER, VICTIMS, Ground, Regguard, make_ground
from tests.bench.contenders import Upstream as StaticUpstream
from tests.e2e.programs import Registry

LARGE = "/v2/team/app/blobs/sha256:" + "0" * 64
LARGE_OCTETS = 64 * 1024 * 1024
# Seconds from one octet of a slow client to its next one.
DRIP = 5.0
# Longer than any deadline that a slow client has.
PATIENCE = 150.0
PROCESSES = 4


class Crowded(Regguard):
    """regguard that takes the whole crowd from one network, and pushes from everybody."""

    def more_words(self, room: Path) -> tuple[str, ...]:
        return ("--max-connections", "18000/18000", "--push", "valid-user")

    def proportional_memory(self) -> int:
        """PSS, KiB."""
        rollup = Path(f"/proc/{self._program.pid}/smaps_rollup").read_text()
        return int(re.search(r"Pss:\s+(\d+) kB", rollup)[1])  # type: ignore[index]


def main() -> int:
    """Let each crowd come; print the table."""
    words = _words()
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    print(f"{'':34}{'p99 at rest':>14}{'p99 in crowd':>14}{'refused':>9}{'last cut':>10}  memory")
    with contextlib.ExitStack() as leaving:
        folder = Path(leaving.enter_context(tempfile.TemporaryDirectory(prefix="regguard-crowd-")))
        static = StaticUpstream(folder)
        leaving.callback(static.stop)
        large = folder / "upstream" / "root" / LARGE.lstrip("/")
        large.parent.mkdir(parents=True)
        with large.open("wb") as file:
            file.truncate(LARGE_OCTETS)
        registry = Registry(folder / "registry")
        registry.start()
        leaving.callback(registry.stop)
        ground = make_ground(folder, static)
        pushing = Ground(ground.folder, ground.certificate, registry.port)
        for name, count, where in (
            ("idle", words.idle, ground),
            ("slow head", words.head, ground),
            ("slow body", words.body, pushing),
            ("slow reading", words.read, ground),
        ):
            if count:
                _print_row(name, count, where, words.seconds)
    print(f"{os.cpu_count()} cores, {platform.platform()}, {Regguard.version()}")
    return 0


def _words() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.crowd", description=__doc__)
    parser.add_argument("--idle", type=int, default=10_000, help="idle clients (default: 10,000)")
    for name in ("head", "body", "read"):
        parser.add_argument(
            f"--{name}", type=int, default=1_667, help="slow ones of this kind (default: 1,667)"
        )
    parser.add_argument("--seconds", type=int, default=10, help="to measure for (default: 10)")
    return parser.parse_args()


def _print_row(kind: str, count: int, ground: Ground, seconds: int) -> None:
    guard = Crowded(ground)
    pipes: list[Connection] = []
    crowd = []
    try:
        target = TARGET if kind != "slow body" else "/v2/"
        with Client(guard.port) as user:
            rest = _measure(user, target, seconds)
            before = guard.proportional_memory()
            for _ in range(PROCESSES):
                ours, theirs = multiprocessing.Pipe()
                share = count // PROCESSES
                process = multiprocessing.Process(
                    target=_crowd, args=(kind, share, guard.port, theirs), daemon=True
                )
                process.start()
                crowd.append(process)
                pipes.append(ours)
            there = [pipe.recv() for pipe in pipes]
            memory = guard.proportional_memory() - before
            crowded = _measure(user, target, seconds)
            last = [pipe.recv() for pipe in pipes]
        each = f"{memory / sum(there):.1f} kB PSS each" if sum(there) else ""
        print(
            f"{sum(there):>6,} of {count:>6,} {kind:<17}{rest.p99 * 1000:>11.1f} ms"
            f"{crowded.p99 * 1000:>11.1f} ms{crowded.refused:>9}{max(last):>8.0f} s  {each}",
            flush=True,
        )
    finally:
        for process in crowd:
            process.kill()
            process.join()
        guard.stop()


@dataclass(frozen=True)
class Seen(Latency):
    """A user's latencies, and how many requests were not answered with 200."""

    refused: int


def _measure(user: Client, target: str, seconds: float) -> Seen:
    took: list[float] = []
    refused = 0
    end = time.monotonic() + seconds
    while (start := time.monotonic()) < end:
        refused += user.ask(VICTIMS[0], PASSWORD, target) != 200
        took.append(time.monotonic() - start)
        time.sleep(0.01)
    return Seen(took, refused)


def _crowd(kind: str, count: int, port: int, pipe: Connection) -> None:
    """Come, tell how many are there, drip, and tell when the last one was cut off."""
    os.nice(19)
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    members: dict[ssl.SSLSocket, float] = {}
    for _ in range(count):
        with contextlib.suppress(OSError):
            members[_come(kind, port, context)] = time.monotonic()
    pipe.send(len(members))
    selector = selectors.DefaultSelector()
    if kind != "slow reading":
        for member in members:
            selector.register(member, selectors.EVENT_READ)
    longest, end, drip = 0.0, time.monotonic() + PATIENCE, time.monotonic() + DRIP
    while members and time.monotonic() < end:
        gone: set[ssl.SSLSocket] = set()
        for key, _ in selector.select(0.2):
            assert isinstance(key.fileobj, ssl.SSLSocket)
            if not _stays(key.fileobj):
                gone.add(key.fileobj)
        now = time.monotonic()
        if now >= drip:
            drip = now + DRIP
            for member in members:
                if kind == "slow reading":
                    # Its reset shows in sending; it never reads.
                    if member.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) or _is_cut(member):
                        gone.add(member)
                elif kind != "idle":
                    try:
                        member.send(b"x")
                    except OSError:
                        gone.add(member)
        for member in gone:
            longest = max(longest, now - members.pop(member))
            if kind != "slow reading":
                selector.unregister(member)
            member.close()
    pipe.send(longest if not members else PATIENCE)


def _come(kind: str, port: int, context: ssl.SSLContext) -> ssl.SSLSocket:
    plain = socket.socket()
    if kind == "slow reading":
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    plain.settimeout(30)
    plain.connect(("127.0.0.1", port))
    member = context.wrap_socket(plain)
    token = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    host = f"Host: localhost\r\nAuthorization: Basic {token}\r\n"
    if kind == "idle":
        member.sendall(f"GET {TARGET} HTTP/1.1\r\n{host}\r\n".encode())
        member.recv(65536)
    elif kind == "slow head":
        member.sendall(f"GET {TARGET} HTTP/1.1\r\n{host}X: ".encode())
    elif kind == "slow body":
        member.sendall(
            f"POST /v2/team/app/blobs/uploads/ HTTP/1.1\r\n{host}Content-Length: 0\r\n\r\n".encode()
        )
        location = re.search(rb"\r\nlocation: *(\S+)", member.recv(65536), re.IGNORECASE)
        if location is None:
            raise ConnectionError("no upload")
        path = re.sub(r"^https?://[^/]*", "", location[1].decode())
        member.sendall(f"PATCH {path} HTTP/1.1\r\n{host}Content-Length: 9999999\r\n\r\n".encode())
    else:
        member.sendall(f"GET {LARGE} HTTP/1.1\r\n{host}\r\n".encode())
    member.setblocking(False)
    return member


def _stays(member: ssl.SSLSocket) -> bool:
    try:
        return bool(member.recv(65536))
    except ssl.SSLWantReadError:
        return True
    except OSError:
        return False


def _is_cut(member: ssl.SSLSocket) -> bool:
    poll = select.poll()
    poll.register(member, select.POLLHUP | select.POLLERR)
    return bool(poll.poll(0))


if __name__ == "__main__":
    sys.exit(main())
