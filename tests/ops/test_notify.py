"""regguard.ops.notify: datagrams as sd_notify(3) has them."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from regguard.ops.notify import Notify


@pytest.fixture
def systemd() -> Iterator[socket.socket]:
    """systemd's end, without an address yet."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.setblocking(False)
        yield end


def heard(end: socket.socket) -> list[str]:
    """Everything that was said."""
    said = []
    while True:
        try:
            said.append(end.recv(4096).decode())
        except BlockingIOError:
            return said


def test_states_go_to_a_path(systemd: socket.socket, tmp_path: Path) -> None:
    """One datagram each, with the assignments that belong together."""
    path = str(tmp_path / "notify")
    systemd.bind(path)
    notify = Notify(path)

    notify.ready("serving on 127.0.0.1:1")
    notify.reloading()
    notify.stopping()
    notify.alive()

    ready, reloading, stopping, alive = heard(systemd)
    assert ready == "READY=1\nSTATUS=serving on 127.0.0.1:1"
    assert reloading.startswith("RELOADING=1\nMONOTONIC_USEC=")
    assert stopping == "STOPPING=1\nSTATUS=draining"
    assert alive == "WATCHDOG=1"


def test_an_abstract_name_begins_with_an_at_sign(systemd: socket.socket) -> None:
    """As containers have it."""
    name = f"regguard-test-{os.getpid()}"
    systemd.bind(f"\0{name}")
    Notify(f"@{name}").alive()

    assert heard(systemd) == ["WATCHDOG=1"]


def test_nobody_there_or_nobody_who_reads_costs_nothing(
    systemd: socket.socket, tmp_path: Path
) -> None:
    """It neither waits nor fails."""
    Notify(None).alive()
    Notify("elsewhere").alive()
    Notify(str(tmp_path / "nowhere")).alive()
    path = str(tmp_path / "notify")
    systemd.bind(path)
    for _ in range(2_000):  # more than any queue of datagrams
        Notify(path).alive()

    assert len(heard(systemd)) < 2_000


def test_the_environment_is_for_one_process() -> None:
    """Children must not speak for their parent."""
    environment = {
        "NOTIFY_SOCKET": "/run/notify",
        "WATCHDOG_USEC": "3000000",
        "WATCHDOG_PID": str(os.getpid()),
        "LANG": "C",
    }
    notify = Notify.taken_from(environment)

    assert notify.watchdog == 3
    assert environment == {"LANG": "C"}


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"NOTIFY_SOCKET": "/run/notify"},
        {"NOTIFY_SOCKET": "/run/notify", "WATCHDOG_USEC": "0"},
        {"NOTIFY_SOCKET": "/run/notify", "WATCHDOG_USEC": "soon"},
        {"NOTIFY_SOCKET": "/run/notify", "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"},
        {"WATCHDOG_USEC": "3000000"},
    ],
)
def test_no_watchdog_waits_for_us(environment: dict[str, str]) -> None:
    """Nor for another process of ours."""
    assert Notify.taken_from(environment).watchdog is None
