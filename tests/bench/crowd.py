"""``python -m tests.bench.crowd``: what a crowd of idle or slow clients costs everybody else.

The crowds: 10,000 clients that asked once and keep their TLS connection; clients that send their
request head by one octet in five seconds, clients that push a body in this way, and clients that
pull a megabyte and read nothing, 1,667 of each.  One crowd after the other comes to a regguard of
its own, and then all of them at once to one.  Meanwhile another user asks nearly 100 times a
second, by turns over a kept-alive connection and over a new one.  Prints the user's p99 at rest and
in the crowd, when the last of a slow crowd was cut off, and the memory for each of the crowd.

The registry is a real one.  Everything runs on 127.0.0.1; the crowd has the lowest priority, since
real ones have machines of their own.  It needs ``ulimit -n`` of 20,000 or more.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import hashlib
import http.client
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
from urllib.parse import urlsplit

from tests.bench.attack import Client, Latency
from tests.bench.contenders import Regguard
from tests.bench.family import memory
from tests.bench.ground import PASSWORD, USER, VICTIMS, Ground, issue
from tests.e2e.programs import Registry

KINDS = ("idle", "slow head", "slow body", "slow read")
# More than is queued for a client that reads nothing.  Of larger ones the registry's side, which
# is on this machine, too, would queue megabytes each, and fill what the kernel has for TCP.
LARGE_OCTETS = 1024 * 1024
# Seconds from one octet of a slow client to its next one.
DRIP = 5.0
# Longer than any deadline that a slow client has.
PATIENCE = 150.0
# For each kind.
PROCESSES = 2


class Crowded(Regguard):
    """regguard that takes the whole crowd from one network, and pushes from everybody."""

    def more_words(self, room: Path) -> tuple[str, ...]:
        return ("--max-connections", "18000/18000", "--push", "valid-user")

    def proportional_memory(self) -> int:
        """PSS, KiB."""
        return memory(self.pid) // 1024


def main() -> int:
    """Let each crowd come; print the table."""
    words = _words()
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    counts = {kind: getattr(words, kind.rpartition(" ")[2]) for kind in KINDS}
    crowds = [{kind: count} for kind, count in counts.items() if count]
    if len(crowds) > 1:
        crowds.append({kind: count for crowd in crowds for kind, count in crowd.items()})
    print(
        f"{'':28}{'p99 at rest, ms':>20}{'p99 in crowd, ms':>20}\n"
        f"{'':28}{'kept':>11}{'new':>9}{'kept':>11}{'new':>9}  refused  last cut  memory"
    )
    with contextlib.ExitStack() as leaving:
        folder = Path(leaving.enter_context(tempfile.TemporaryDirectory(prefix="regguard-crowd-")))
        registry = Registry(folder / "registry")
        registry.start()
        leaving.callback(registry.stop)
        blob = _large_blob(registry.port)
        ground = Ground(folder, issue(folder), registry.port)
        for crowd in crowds:
            _print_row(crowd, ground, blob, words.seconds)
    print(f"{os.cpu_count()} cores, {platform.platform()}, {Regguard.version()}")
    return 0


def _large_blob(port: int) -> str:
    """Push a large blob straight to the registry; its target."""
    body = bytes(LARGE_OCTETS)
    digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("POST", "/v2/team/app/blobs/uploads/")
    answer = connection.getresponse()
    answer.read()
    location = urlsplit(answer.headers["Location"])
    connection.request("PUT", f"{location.path}?{location.query}&digest={digest}", body)
    if connection.getresponse().status != 201:
        raise SystemExit("the registry did not take a blob")
    connection.close()
    return f"/v2/team/app/blobs/{digest}"


def _words() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.crowd", description=__doc__)
    parser.add_argument("--idle", type=int, default=10_000, help="idle clients (default: 10,000)")
    for name in ("head", "body", "read"):
        parser.add_argument(
            f"--{name}", type=int, default=1_667, help="slow ones of this kind (default: 1,667)"
        )
    parser.add_argument("--seconds", type=int, default=10, help="to measure for (default: 10)")
    return parser.parse_args()


def _print_row(kinds: dict[str, int], ground: Ground, blob: str, seconds: int) -> None:
    guard = Crowded(ground)
    pipes: dict[Connection, str] = {}
    crowd = []
    try:
        with Client(guard.port) as kept, Client(guard.port) as new:
            rest = _measure(kept, new, seconds)
            before = guard.proportional_memory()
            for kind, count in kinds.items():
                for part in range(PROCESSES):
                    ours, theirs = multiprocessing.Pipe()
                    share = count // PROCESSES + (part < count % PROCESSES)
                    process = multiprocessing.Process(
                        target=_crowd, args=(kind, share, guard.port, blob, theirs), daemon=True
                    )
                    process.start()
                    crowd.append(process)
                    pipes[ours] = kind
            there = sum(pipe.recv() for pipe in pipes)
            grown = guard.proportional_memory() - before
            crowded = _measure(kept, new, seconds)
            last = max(
                pipe.recv() for pipe, kind in pipes.items() if kind != "idle" or len(kinds) == 1
            )
        each = f"{grown / there:.1f} kB PSS each" if there else ""
        kind = next(iter(kinds)) if len(kinds) == 1 else "all at once"
        print(
            f"{there:>6,} of {sum(kinds.values()):>6,} {kind:<11}"
            f"{rest.kept.p99 * 1000:>11.1f}{rest.new.p99 * 1000:>9.1f}"
            f"{crowded.kept.p99 * 1000:>11.1f}{crowded.new.p99 * 1000:>9.1f}"
            f"{crowded.refused:>9}{last:>8.0f} s  {each}",
            flush=True,
        )
    finally:
        for process in crowd:
            process.kill()
            process.join()
        guard.stop()


@dataclass(frozen=True)
class Seen:
    """A user's latencies over one connection and over new ones, and what was not answered 200."""

    kept: Latency
    new: Latency
    refused: int


def _measure(kept: Client, new: Client, seconds: float) -> Seen:
    took: tuple[list[float], list[float]] = ([], [])
    refused = 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        new.close()
        for client, times in zip((kept, new), took, strict=True):
            start = time.monotonic()
            refused += client.ask(VICTIMS[0], PASSWORD, "/v2/") != 200
            times.append(time.monotonic() - start)
            time.sleep(0.01)
    return Seen(Latency(took[0]), Latency(took[1]), refused)


def _crowd(kind: str, count: int, port: int, blob: str, pipe: Connection) -> None:
    """Come, tell how many are there, drip, and tell when the last one was cut off."""
    os.nice(19)
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    members: dict[ssl.SSLSocket, float] = {}
    for _ in range(count):
        with contextlib.suppress(OSError):
            members[_come(kind, port, blob, context)] = time.monotonic()
    pipe.send(len(members))
    selector = selectors.DefaultSelector()
    if kind != "slow read":
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
                if kind == "slow read":
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
            if kind != "slow read":
                selector.unregister(member)
            member.close()
    pipe.send(longest if not members else PATIENCE)


def _come(kind: str, port: int, blob: str, context: ssl.SSLContext) -> ssl.SSLSocket:
    plain = socket.socket()
    if kind == "slow read":
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    plain.settimeout(30)
    plain.connect(("127.0.0.1", port))
    member = context.wrap_socket(plain)
    # Nobody gets more than three quarters of all places for requests that are under way.
    user = VICTIMS[1] if kind == "slow read" else USER
    token = base64.b64encode(f"{user}:{PASSWORD}".encode()).decode()
    host = f"Host: localhost\r\nAuthorization: Basic {token}\r\n"
    if kind == "idle":
        member.sendall(f"GET /v2/ HTTP/1.1\r\n{host}\r\n".encode())
        member.recv(65536)
    elif kind == "slow head":
        member.sendall(f"GET /v2/ HTTP/1.1\r\n{host}X: ".encode())
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
        member.sendall(f"GET {blob} HTTP/1.1\r\n{host}\r\n".encode())
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
