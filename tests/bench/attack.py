"""``python -m tests.bench.attack``: does a flood of wrong passwords slow anybody else down?

First, on each contender: a user's kept-alive requests, nearly 100 a second, for some seconds at
rest, and for as many while 200 clients send one wrong password after the other, each another one.
Then, on regguard: does the time of a refusal tell a known user from an unknown one?

Everything runs on 127.0.0.1. The attackers run at the lowest priority, since real ones have
machines of their own, and are started and ended here.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import math
import os
import platform
import re
import shutil
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.bench.contenders import (
    ApacheBcrypt,
    Contender,
    Nginx,
    NginxBcrypt,
    Regguard,
    Unthrottled,
)
from tests.bench.ground import BCRYPT_COST, PASSWORD, USER, VICTIMS, Ground, issue
from tests.bench.stub import TARGET, Upstream
from tests.e2e.programs import binary

CONTENDERS = (Regguard, Unthrottled, Nginx, NginxBcrypt, ApacheBcrypt)
GUESSES = Path(__file__).parent / "guesses.lua"
CLIENTS = 200
# Seconds from an answer to the user's next request.
PAUSE = 0.01
# Longest wait for one answer; the attack is over long before.
PATIENCE = 60.0


class Client:
    """One kept-alive TLS connection, and how long its answers take."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._context = ssl.create_default_context()
        self._context.check_hostname = False
        self._context.verify_mode = ssl.CERT_NONE
        self._connection: ssl.SSLSocket | None = None

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def connect(self) -> None:
        if self._connection is None:
            plain = socket.create_connection(("127.0.0.1", self._port), PATIENCE)
            self._connection = self._context.wrap_socket(plain)

    def ask(self, user: str, password: str, target: str = TARGET) -> int:
        """One GET; its status."""
        self.connect()
        assert self._connection is not None
        token = base64.b64encode(f"{user}:{password}".encode()).decode()
        lines = (f"GET {target} HTTP/1.1", "Host: localhost", f"Authorization: Basic {token}")
        self._connection.sendall("\r\n".join((*lines, "\r\n")).encode())
        received = b""
        while True:
            chunk = self._connection.recv(65536)
            if not chunk:
                raise ConnectionError(f"closed after {received!r}")
            received += chunk
            head, end, body = received.partition(b"\r\n\r\n")
            length = re.search(rb"\r\ncontent-length: *(\d+)", head, re.IGNORECASE)
            if end and length is not None and len(body) >= int(length[1]):
                break
        if re.search(rb"\r\nconnection: *close", head, re.IGNORECASE):
            self.close()
        return int(head.split(None, 2)[1])


@dataclass(frozen=True)
class Latency:
    """How long a user's requests took, in seconds."""

    seen: list[float]

    @property
    def median(self) -> float:
        return statistics.median(self.seen)

    @property
    def p99(self) -> float:
        return sorted(self.seen)[math.ceil(0.99 * len(self.seen)) - 1]

    @property
    def worst(self) -> float:
        return max(self.seen)


def watch(client: Client, seconds: float) -> Latency:
    """Ask again and again, each time a little after the answer before."""
    seen: list[float] = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        client.connect()
        time.sleep(PAUSE)
        start = time.monotonic()
        try:
            status = client.ask(USER, PASSWORD)
        except ConnectionError:
            # nginx closes a connection that it kept for too long; a client would ask anew.
            client.close()
            status = client.ask(USER, PASSWORD)
        if status != 200:
            raise RuntimeError(f"the user got {status}")
        seen.append(time.monotonic() - start)
    return Latency(seen)


@contextlib.contextmanager
def attack(port: int, seconds: int) -> Iterator[dict[str, int]]:
    """200 clients guess; gives what they were answered, filled in at the end."""
    answers: dict[str, int] = {}
    process = subprocess.Popen(
        [
            *("nice", "-n", "19", binary("wrk"), "-t1", f"-c{CLIENTS}", f"-d{seconds}s"),
            *("--timeout", f"{PATIENCE:.0f}s", "-s", str(GUESSES)),
            f"https://127.0.0.1:{port}{TARGET}",
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        # Its 200 handshakes are no password attack.
        time.sleep(1)
        yield answers
        said, _ = process.communicate(timeout=PATIENCE)
        for status, count in re.findall(r"answers (\d+) (\d+)", said):
            answers[status] = answers.get(status, 0) + int(count)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


@dataclass(frozen=True)
class Outcome:
    """One line of the table; ``memory`` (KiB) in the middle and at the end of the attack."""

    name: str
    rest: Latency
    attacked: Latency
    answers: dict[str, int]
    memory: tuple[int, int] | None

    def line(self, seconds: int) -> str:
        rest, attacked = self.rest, self.attacked
        figures = (rest.median, rest.p99, attacked.median, attacked.p99, attacked.worst)
        cells = [
            *(f"{1000 * figure:.2f}" for figure in figures),
            f"{attacked.p99 / rest.p99:.2f}",
            f"{len(attacked.seen)}",
        ]
        answers = [f"{n / seconds:.1f} x {status}" for status, n in sorted(self.answers.items())]
        if self.memory is not None:
            answers.append("memory {} to {} KiB".format(*self.memory))
        return (
            f"{self.name:<26}" + "".join(f"{it:>11}" for it in cells) + "   " + ", ".join(answers)
        )


HEADING = (
    f"{'':<26}"
    + "".join(
        f"{word:>11}"
        for word in ("rest p50", "rest p99", "attack p50", "p99", "worst", "p99 ratio", "requests")
    )
    + "   answers to the attackers per second"
)


def measure(contender: Contender, seconds: int) -> Outcome:
    """Watch one user at rest and under attack."""
    with Client(contender.port) as client:
        # Fills caches and connection pools; the verified credential among them.
        watch(client, 1)
        rest = watch(client, seconds)
        with attack(contender.port, seconds + 2) as answers:
            # The memory of 200 connections is there within the first half.
            attacked = watch(client, seconds / 2)
            before = _memory(contender)
            attacked.seen.extend(watch(client, seconds / 2).seen)
            after = _memory(contender)
    memory = None if before is None or after is None else (before, after)
    return Outcome(contender.name, rest, attacked, answers, memory)


def _memory(contender: Contender) -> int | None:
    return contender.memory() if isinstance(contender, Regguard) else None


def compare_refusals(contender: Contender, tries: int) -> tuple[float, float]:
    """Median seconds of a refusal for known users and for unknown ones, one after the other."""
    known: list[float] = []
    unknown: list[float] = []
    with Client(contender.port) as client:
        for number in range(tries):
            for user, seen in ((VICTIMS[number % 200], known), (f"nobody{number:03}", unknown)):
                client.connect()
                start = time.monotonic()
                if client.ask(user, f"wrong{number:04}") != 401:
                    raise RuntimeError("a wrong password was not refused")
                seen.append(time.monotonic() - start)
    return statistics.median(known), statistics.median(unknown)


@contextlib.contextmanager
def running(kind: type[Contender], ground: Ground) -> Iterator[Contender]:
    """A contender, for as long as it is measured."""
    contender = kind(ground)
    try:
        yield contender
    finally:
        contender.stop()


def main() -> int:
    """Measure and print."""
    words = _words()
    wanted = ("nginx", "apache2", "wrk")
    missing = [name for name in wanted if shutil.which(name) is None]
    if missing:
        print(f"Missing: {', '.join(missing)}. On Debian or Ubuntu:")
        print(f"apt-get install {' '.join(wanted)}")
        return 1
    with contextlib.ExitStack() as leaving:
        folder = Path(leaving.enter_context(tempfile.TemporaryDirectory(prefix="regguard-bench-")))
        upstream = Upstream(folder)
        leaving.callback(upstream.stop)
        ground = Ground(folder, issue(folder), upstream.port)
        print(HEADING, flush=True)
        kinds = [kind for kind in CONTENDERS if words.only in kind.name]
        for kind in kinds:
            with running(kind, ground) as contender:
                print(measure(contender, words.seconds).line(words.seconds), flush=True)
        if words.tries:
            with running(Unthrottled, ground) as contender:
                known, unknown = compare_refusals(contender, words.tries)
            print(
                f"\nA refusal at bcrypt {BCRYPT_COST}, medians of {words.tries}: known user"
                f" {1000 * known:.1f} ms, unknown user {1000 * unknown:.1f} ms,"
                f" {100 * (unknown / known - 1):+.1f} %"
            )
    print(f"\nMilliseconds; {words.seconds} s each at rest and under attack by {CLIENTS} clients.")
    print(f"{os.cpu_count()} cores, {platform.platform()}, Python {platform.python_version()}")
    for kind in kinds:
        print(f"{kind.name}: {kind.version()}")
    return 0


def _words() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.attack", description=__doc__)
    parser.add_argument("--seconds", type=int, default=20, help="of attack (default: 20)")
    parser.add_argument("--tries", type=int, default=200, help="per median (default: 200; 0: none)")
    parser.add_argument("--only", default="", help="contenders with this in their name")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
