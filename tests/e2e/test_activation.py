"""Socket activation: systemd holds the socket, and the daemon may come and go."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.programs import PATIENCE, Ground, Guard, Registry, binary
from tests.e2e.raw import Door
from tests.e2e.transfers import Transfer, Upload, crowding


@pytest.fixture
def inherited() -> Iterator[socket.socket]:
    """As a .socket unit has it open."""
    with socket.create_server(("127.0.0.1", 0), backlog=512) as held:
        yield held


@pytest.mark.parametrize("workers", ["1", "2"])
def test_i18_a_restart_refuses_nobody(
    ground: Ground, registry: Registry, tmp_path: Path, inherited: socket.socket, workers: str
) -> None:
    """Who comes meanwhile waits; who is under way ends well."""

    def start(number: int) -> Guard:
        words = ("--workers", workers)
        folder = tmp_path / f"guard-{number}"
        return Guard(ground, folder, registry.url, *words, inherited=inherited)

    guard = start(0)
    guard.wait_for_line("127.0.0.1:")
    with crowding(guard, stays=False) as crowd:
        for number in (1, 2, 3):
            served = crowd.served
            guard.program.wait_until("the load", lambda n=served: crowd.served > n + 20)  # type: ignore[misc]
            door = Door(guard, ground.pusher)
            transfers: list[Transfer] = [
                Upload(guard, door.start_upload("activated/uploads")) for _ in range(20)
            ]
            os.kill(guard.program.pid, signal.SIGTERM)
            guard.wait_for_line("draining: ")
            assert all(transfer.finish() for transfer in transfers)
            assert guard.program.ended() == 0
            guard.check_log()
            guard = start(number)
        served = crowd.served
        guard.program.wait_until("the load", lambda: crowd.served > served + 20)
    assert crowd.failures == []
    assert guard.program.stop() == 0
    guard.check_log()


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize(
    ("family", "address"),
    [(socket.AF_INET6, ("::1", 0)), (socket.AF_UNIX, "door")],
    ids=["inet6", "unix"],
)
def test_i18_other_families_are_inherited_as_well(
    ground: Ground,
    registry: Registry,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    family: socket.AddressFamily,
    address: Any,
    workers: str,
) -> None:
    """They stay open, and a socket's path keeps its mode, when the daemon goes."""
    monkeypatch.chdir(tmp_path)
    with socket.socket(family) as held:
        held.bind(address)
        held.listen()
        if family == socket.AF_UNIX:
            (tmp_path / "door").chmod(0o660)
            where = ["--unix-socket", "door", "https://localhost/v2/"]
        else:
            where = ["--connect-to", f"::[::1]:{held.getsockname()[1]}", "https://localhost/v2/"]
        for turn in range(2):
            folder = tmp_path / f"guard-{turn}"
            guard = Guard(ground, folder, registry.url, "--workers", workers, inherited=held)
            done = subprocess.run(
                [binary("curl"), "--silent", "--output", os.devnull, "--write-out", "%{http_code}",
                 "--cacert", str(ground.ca), *where],
                capture_output=True, text=True, timeout=PATIENCE, check=False,
            )  # fmt: skip
            guard.program.stop()
            guard.check_log()
            assert done.stdout == "401", guard.program.output()
            if family == socket.AF_UNIX:
                assert (tmp_path / "door").stat().st_mode & 0o777 == 0o660
