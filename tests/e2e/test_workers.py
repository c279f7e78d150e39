"""Several workers: one daemon to clients and operators, whoever of them dies."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from regguard.demo.image import random_image
from tests.canary import SEARCH
from tests.e2e.clients import Skopeo, curl
from tests.e2e.programs import (
    FAULTS,
    PATIENCE,
    Ground,
    Guard,
    Registry,
    StartGuard,
    accepts,
    free_port,
    run,
)
from tests.e2e.transfers import children, crowding


@pytest.fixture
def guard(ground: Ground, registry: Registry, tmp_path: Path) -> Iterator[Guard]:
    """One with two workers, which serve."""
    guard = Guard(ground, tmp_path / "guard", registry.url, "--workers", "2")
    serving(guard, 2)
    yield guard
    guard.stop()


def serving(guard: Guard, count: int) -> list[int]:
    """The workers, as soon as so many have served in all."""

    def lines() -> list[str]:
        return [line for line in guard.program.output().splitlines() if line.endswith(" serves")]

    guard.program.wait_until(f"{count} workers", lambda: len(lines()) >= count)
    return [int(line.split()[-2]) for line in lines()]


def is_gone(pid: int) -> bool:
    """Whether a process has ended, waited for or not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_two_workers_serve_a_push_and_a_pull(guard: Guard, ground: Ground, tmp_path: Path) -> None:
    """What is pushed through one is pulled through the other."""
    skopeo = Skopeo(guard, tmp_path)
    random_image((500, 20_000, 3_000_000)).write_layout(tmp_path / "image", "v1")
    for turn in range(3):
        name = f"workers/image-{turn}:v1"
        assert not skopeo.push(tmp_path / "image", "v1", name, ground.as_pusher)
        assert not skopeo.pull(name, tmp_path / f"pulled-{turn}", "v1", ground.as_reader)
    assert "denied" in skopeo.push(tmp_path / "image", "v1", "workers/no:v1", ground.as_reader)


def test_logs_and_metrics_stay_one(
    ground: Ground, registry: Registry, tmp_path: Path, start_guard: StartGuard
) -> None:
    """One record for each push, whoever saw its parts; one sum of all requests; both files anew."""
    log = tmp_path / "access"
    guard = start_guard(
        registry.url,
        *("--workers", "2", "--access-log", str(log), "--access-log-format", "json"),
        *("--admin", f"tcp:127.0.0.1:{free_port()}"),
    )
    serving(guard, 2)
    guard.program.wait_until("readiness", lambda: guard.ask_admin("/readyz")[0] == 200)
    skopeo = Skopeo(guard, tmp_path)
    random_image((500, 20_000, 300_000, 7_000, 9_000)).write_layout(tmp_path / "image", "v1")
    for turn in range(4):
        if turn == 2:
            log.rename(tmp_path / "rotated")
            os.kill(guard.program.pid, signal.SIGHUP)
            guard.program.wait_until("a new file", log.exists)
        assert not skopeo.push(tmp_path / "image", "v1", f"one/{turn}:v1", ground.as_pusher)

    def lines() -> list[dict[str, Any]]:
        text = (tmp_path / "rotated").read_text() + log.read_text()
        return [json.loads(line) for line in text.splitlines()]

    def pushes() -> list[dict[str, Any]]:
        return [line for line in lines() if line.get("event") == "push"]

    guard.program.wait_until("four records", lambda: len(pushes()) == 4)
    for turn, record in enumerate(pushes()):
        assert record["repository"] == f"one/{turn}"
        # The layers and the image's configuration; later repositories may have them mounted.
        assert record["blobs_uploaded"] + record["blobs_mounted"] == 6
    text = guard.program.output()
    assert sum("pushed one/" in line for line in text.splitlines()) == 4

    def counted() -> int:
        text = guard.ask_admin("/metrics")[1]
        found = re.findall(r"^regguard_requests_total\{.*\} ([0-9.]+)$", text, re.MULTILINE)
        return sum(int(float(each)) for each in found)

    def logged() -> int:
        return sum(line["event"] == "request" for line in lines())

    guard.program.wait_until("the sum of all requests", lambda: 40 < counted() == logged())
    assert "regguard_workers 2.0" in guard.ask_admin("/metrics")[1]


def test_a_worker_shows_no_password(guard: Guard) -> None:
    """Its words are its parent's, and its environment says only what it inherits."""
    for pid in children(guard.program.pid):
        for place in ("cmdline", "environ"):
            SEARCH.look(f"{place} of a worker", Path(f"/proc/{pid}/{place}").read_bytes())
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        assert words[1:] == Path(f"/proc/{guard.program.pid}/cmdline").read_bytes().split(b"\0")[1:]


def test_i19_a_killed_worker_costs_no_new_connection(guard: Guard, ground: Ground) -> None:
    """The other one takes whoever comes, at once; the parent says what it was, and replaces it."""
    for count in (2, 3):
        victim = serving(guard, count)[-1]
        with crowding(guard):  # what it serves just then is lost
            os.kill(victim, signal.SIGKILL)
            guard.program.wait_until("its end", lambda pid=victim: is_gone(pid))  # type: ignore[misc]
            for _ in range(20):
                assert curl(guard, "/v2/", credentials=ground.as_reader).status == 200
        guard.wait_for_line(f"worker {victim} ended by signal 9 (Killed); another one starts ")
    serving(guard, 4)
    assert len(children(guard.program.pid)) == 2


def test_a_worker_that_gets_sigterm_drains_and_is_replaced(guard: Guard) -> None:
    """An operator may renew one after the other, and nobody notices."""
    with crowding(guard, stays=False) as crowd:
        guard.program.wait_until("the load", lambda: crowd.served > 20)
        for count in (2, 3, 4):
            os.kill(serving(guard, count)[-1], signal.SIGTERM)
            serving(guard, count + 1)
    assert crowd.failures == []
    guard.wait_for_line("ended with status 0; another one starts at once")


def test_i19_workers_end_with_their_parent(
    ground: Ground, registry: Registry, tmp_path: Path
) -> None:
    """kill -9 of it leaves nobody who holds the port."""
    guard = Guard(ground, tmp_path / "guard", registry.url, "--workers", "2")
    workers = serving(guard, 2)
    assert guard.program.stop(signal.SIGKILL) == -signal.SIGKILL

    again = Guard(ground, tmp_path / "again", registry.url)  # may take long to see it go
    try:
        again.program.wait_until("the workers' end", lambda: all(map(is_gone, workers)))
    finally:
        again.stop()
    assert not accepts(guard.port)
    guard.check_log()


def test_workers_on_a_unix_socket_keep_it(
    ground: Ground, registry: Registry, tmp_path: Path, start_guard: StartGuard
) -> None:
    """One that ends does not take the path with it; the parent does."""
    path = tmp_path / "door"
    guard = start_guard(
        registry.url, "--listen", f"unix:{path}:mode=600", "--no-tls", "--workers", "2"
    )

    def status() -> str:
        done = subprocess.run(
            ["curl", "--silent", "--output", os.devnull, "--write-out", "%{http_code}",
             "--unix-socket", str(path), "http://localhost/v2/"],
            capture_output=True, text=True, timeout=PATIENCE, check=False,
        )  # fmt: skip
        return done.stdout

    victim = serving(guard, 2)[-1]
    assert status() == "401"
    os.kill(victim, signal.SIGTERM)
    serving(guard, 3)
    assert [status() for _ in range(4)] == ["401"] * 4
    assert path.stat().st_mode & 0o777 == 0o600
    guard.stop()
    assert not path.exists()


def refused(ground: Ground, folder: Path, *argv: str) -> tuple[int, list[str]]:
    """Start with two workers, which must fail; the status, and what was said."""
    (folder / "r.toml").write_text('push = "nobody"\ndelete = "nobody"\n')
    words = ("--no-tls", "--htpasswd", str(ground.htpasswd), "--workers", "2")
    listen = ("--listen", f"tcp:{free_port()}:interface=127.0.0.1")
    done = run([*argv, "--log-level=error", "regguard", *words, *listen], folder)
    said = done.stderr + done.stdout
    assert not FAULTS.search(said), said
    return done.returncode, said.splitlines()


# A program that cannot be a worker.
NO_WORKER = """\
import os, sys
if "REGGUARD_WORKER" in os.environ:
    sys.exit(7)
from twisted.application.twist._twist import Twist
Twist.main()
"""


def test_workers_that_cannot_start_end_the_start(ground: Ground, tmp_path: Path) -> None:
    """Status 1, and one line of the parent's behind what the worker said."""
    text = "--log-format=text"
    status, (line,) = refused(ground, tmp_path, sys.executable, "-c", NO_WORKER, text)

    assert status == 1
    assert line.endswith(" --workers 2: a worker ended with status 7 at its start")


def test_a_configuration_that_can_be_read_once_is_refused(ground: Ground, tmp_path: Path) -> None:
    """Each worker would have to read it."""
    shell = (
        "bash",
        "-c",
        'exec "$@" --config <(cat r.toml)',
        "bash",
        sys.executable,
        "-m",
        "twisted",
    )
    status, said = refused(ground, tmp_path, *shell)

    assert status == 64
    (line,) = said
    assert "is no file, and every one of --workers reads it" in line
