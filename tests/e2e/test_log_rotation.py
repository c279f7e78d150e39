"""Group F of the cases: the access log is rotated while requests go on."""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.programs import Ground
from tests.e2e.stage import Stage, basic, staging
from tests.front.wire import replies
from tests.malformed import AUTHORIZATION, head

CLIENTS = 4
ROTATIONS = 12


class Load:
    """Clients that ask for ever new targets, one request after the other on kept connections."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._stop = threading.Event()
        self.asked = [0] * CLIENTS
        self.faults: list[BaseException] = []
        self._threads = [
            threading.Thread(target=self._run, args=(number,)) for number in range(CLIENTS)
        ]

    def _run(self, number: int) -> None:
        credential = basic(self._stage.guard.ground.pusher)
        try:
            with self._stage.connect() as connection:
                connection.settimeout(8)
                while not self._stop.is_set():
                    target = self.target(number, self.asked[number])
                    octets = head(method=b"GET", target=target).replace(AUTHORIZATION, credential)
                    connection.sendall(octets)
                    received = connection.recv(65536)
                    while not received.endswith(b"{}"):
                        more = connection.recv(65536)
                        assert more, "the guard has cut the connection"
                        received += more
                    (answer,) = replies(received)
                    assert answer.status == 200
                    self.asked[number] += 1
        except BaseException as fault:
            self.faults.append(fault)

    @staticmethod
    def target(client: int, request: int) -> bytes:
        """What nobody else asks for."""
        return f"/v2/a/manifests/c{client}-{request}".encode()

    @property
    def targets(self) -> Counter[str]:
        """Everything that was answered, each once."""
        return Counter(
            self.target(client, request).decode()
            for client in range(CLIENTS)
            for request in range(self.asked[client])
        )

    def wait_for_more(self) -> None:
        """Return when every client was answered a few times more."""
        wanted = [asked + 20 for asked in self.asked]
        self._stage.guard.program.wait_until(
            "answers", lambda: bool(self.faults) or all(map(int.__ge__, self.asked, wanted))
        )

    @contextmanager
    def running(self) -> Iterator[Load]:
        for thread in self._threads:
            thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            for thread in self._threads:
                thread.join()
        assert self.faults == []


def targets_in(*files: Path) -> Counter[str]:
    """The targets in some logs of whole lines."""
    lines = [line for file in files for line in file.read_text().splitlines(keepends=True)]
    for line in lines:
        # No line is another's end.
        assert line.count('" 200 ') == line.count(" - ") == 1
        assert line.endswith('"\n')
    return Counter(line.split('"')[1].split()[1] for line in lines)


@pytest.mark.parametrize("how", ["rotated", "only-hup"])
def test_f06_no_line_is_lost_or_torn_by_rotations_under_load(
    ground: Ground, tmp_path: Path, how: str
) -> None:
    """As logrotate does it: rename, then SIGHUP; and SIGHUP by itself. Each line stands once."""
    log = tmp_path / "access.log"
    words = ("--access-log", str(log), "--read-timeout", "60")
    with staging(ground, tmp_path / "guard", *words, secure=False) as stage:
        with Load(stage).running() as load:
            rotated = []
            for number in range(ROTATIONS):
                load.wait_for_more()
                if how == "rotated":
                    rotated.append(log.rename(tmp_path / f"access.log.{number}"))
                os.kill(stage.guard.program.pid, signal.SIGHUP)
                stage.guard.program.wait_until("the new file", log.exists)
            load.wait_for_more()
        stage.guard.stop()

    assert targets_in(*rotated, log) == load.targets
    assert all(file.stat().st_size for file in rotated)
    assert log.stat().st_size


def test_f06_a_log_that_cannot_be_opened_anew_goes_on_where_it_is(
    ground: Ground, tmp_path: Path
) -> None:
    """The operator reads why, requests go on, and the next SIGHUP is a new try."""
    log, rotated = tmp_path / "access.log", tmp_path / "access.log.1"
    ask = head(b"Connection: close", method=b"GET", target=b"/v2/?first")
    with staging(ground, tmp_path / "guard", "--access-log", str(log), secure=False) as stage:
        log.rename(rotated)
        log.mkdir()
        os.kill(stage.guard.program.pid, signal.SIGHUP)
        line = stage.guard.wait_for_line(f"--access-log {log}: cannot be opened anew")
        (answer,) = stage.ask(ask)
        assert answer.status == 200
        stage.guard.program.wait_until("a line", lambda: "?first" in rotated.read_text())
        log.rmdir()
        os.kill(stage.guard.program.pid, signal.SIGHUP)
        stage.guard.program.wait_until("the new file", log.exists)
        (answer,) = stage.ask(ask.replace(b"first", b"second"))
        assert answer.status == 200
        stage.guard.program.wait_until("a line", lambda: "?second" in log.read_text())

    assert "(Is a directory)" in line
    assert "?second" not in rotated.read_text()


def test_f06_copytruncate_leaves_no_hole(ground: Ground, tmp_path: Path) -> None:
    """The file goes on at its new end, without a signal."""
    log = tmp_path / "access.log"
    with staging(ground, tmp_path / "guard", "--access-log", str(log), secure=False) as stage:
        for word in ("first", "second"):
            os.truncate(log, 0)
            octets = head(b"Connection: close", method=b"GET", target=f"/v2/?{word}".encode())
            (answer,) = stage.ask(octets)
            assert answer.status == 200
            stage.guard.program.wait_until("a line", lambda: b"?" in log.read_bytes())

    (line,) = log.read_bytes().splitlines()
    assert line.startswith(b"127.0.0.1 ")
    assert b"?second" in line
