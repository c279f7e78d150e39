"""The admin port of a real guard: health, readiness, and who hears nothing of them."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.e2e.clients import curl
from tests.e2e.programs import (
    Ground,
    Guard,
    Registry,
    StartGuard,
    free_port,
    run,
    twist,
)
from tests.e2e.recorder import Recorder
from tests.e2e.stage import basic

# Far above the 50 ms of the case: a busy machine is no fault.
SOON = 2.0


def admin() -> tuple[str, str]:
    """Words that open an admin port."""
    return "--admin", f"tcp:127.0.0.1:{free_port()}"


def becomes(guard: Guard, status: int) -> float:
    """Wait for a status of /readyz; how many seconds it took."""
    began = time.monotonic()
    guard.program.wait_until(
        f"/readyz to be {status}", lambda: guard.ask_admin("/readyz")[0] == status
    )
    return time.monotonic() - began


def test_i13_without_a_registry_it_starts_and_is_not_ready(
    start_guard: StartGuard, ground: Ground, tmp_path: Path
) -> None:
    """Alive, not ready and saying why, and 502; ready as soon as the registry is there."""
    registry = Registry(tmp_path / "registry")
    guard = start_guard(registry.url, *admin())
    for _ in range(2):
        assert guard.ask_admin("/healthz") == (200, "alive\n")
        status, text = guard.ask_admin("/readyz")
        assert status == 503
        assert text.startswith(f"not ready\nthe registry {registry.url} cannot be reached: ")
        assert curl(guard, "/v2/", credentials=ground.as_reader).status == 502

        with registry.running():
            assert becomes(guard, 200) < 1 + SOON
            assert guard.ask_admin("/readyz")[1].startswith("ready\n")
            assert curl(guard, "/v2/", credentials=ground.as_reader).status == 200
        becomes(guard, 503)


def test_h11_health_answers_while_the_registry_hangs(
    start_guard: StartGuard, ground: Ground, tmp_path: Path
) -> None:
    """So do the pages, and so does 401, with fifty requests that wait for it."""
    with (
        Registry(tmp_path / "registry").running() as registry,
        ThreadPoolExecutor(50) as elsewhere,
    ):
        guard = start_guard(registry.url, *admin())
        assert curl(guard, "/v2/", credentials=ground.as_reader).status == 200
        os.kill(registry.pid, signal.SIGSTOP)
        try:
            waiting = [
                elsewhere.submit(curl, guard, "/v2/", credentials=ground.as_reader)
                for _ in range(50)
            ]
            guard.program.wait_until(
                "them to wait",
                lambda: "\nregguard_requests_in_flight 50.0\n" in guard.ask_admin("/metrics")[1],
            )
            for path in ("/healthz", "/metrics", "/healthz"):
                began = time.monotonic()
                assert guard.ask_admin(path)[0] == 200
                assert time.monotonic() - began < SOON
            began = time.monotonic()
            assert curl(guard, "/v2/").status == 401
            assert time.monotonic() - began < SOON
            assert not any(each.done() for each in waiting)
        finally:
            os.kill(registry.pid, signal.SIGCONT)
        assert {each.result().status for each in waiting} == {200}


def test_a_flood_of_probes_is_no_flood_of_connections(start_guard: StartGuard) -> None:
    """The registry is looked at twice a second at most."""
    with Recorder() as recorder:
        guard = start_guard(recorder.url, *admin())
        began = time.monotonic()
        for _ in range(200):
            assert guard.ask_admin("/readyz")[0] == 200
        took = time.monotonic() - began

        assert 1 <= recorder.connections <= 2 * took + 2


def refuses(guard: Guard, count: int) -> None:
    """Wait until so many files are refused."""
    line = f"\nregguard_files_refused {count}.0\n"
    guard.program.wait_until(line.strip(), lambda: line in guard.ask_admin("/metrics")[1])


def test_a_refused_file_is_counted_until_it_is_mended(
    ground: Ground, registry: Registry, tmp_path: Path
) -> None:
    """The version before it stays in force, so nobody is sent elsewhere."""
    htpasswd = tmp_path / "htpasswd"
    shutil.copy(ground.htpasswd, htpasswd)
    words = ("--auth", f"htpasswd:{htpasswd}", *admin())
    guard = Guard(ground, tmp_path / "guard", registry.url, *words)
    try:
        assert guard.ask_admin("/readyz")[0] == 200
        good = htpasswd.read_text()
        htpasswd.write_text(good + "no colon\n")
        refuses(guard, 1)
        assert guard.ask_admin("/readyz")[0] == 200
        assert guard.ask_admin("/healthz")[0] == 200
        assert curl(guard, "/v2/", credentials=ground.as_reader).status == 200

        htpasswd.write_text(good)
        refuses(guard, 0)
    finally:
        guard.stop()


def test_while_it_drains_it_is_alive_and_not_ready(start_guard: StartGuard, ground: Ground) -> None:
    """The pages answer until the last transfer is over, and it ends in time then."""
    with Recorder() as recorder:
        guard = start_guard(recorder.url, *admin())
        digest = "0123456789abcdef" * 4
        head = (
            f"PUT /v2/x/blobs/uploads/1?digest=sha256:{digest} HTTP/1.1\r\nHost: localhost\r\n"
            f"Authorization: {basic(ground.pusher).decode()}\r\nContent-Length: 2\r\n\r\n"
        )
        with guard.connection() as connection:
            connection.sendall(head.encode() + b"x")
            guard.program.wait_until("the upload", lambda: b"PUT " in recorder.received)
            os.kill(guard.program.pid, signal.SIGTERM)
            becomes(guard, 503)
            assert guard.ask_admin("/readyz")[1].startswith("not ready\ndraining: ")
            assert guard.ask_admin("/healthz") == (200, "alive\n")
            assert "\nregguard_requests_in_flight 1.0\n" in guard.ask_admin("/metrics")[1]
            connection.sendall(b"x")
            assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
        guard.program.ended()


@pytest.mark.parametrize("path", ["/metrics", "/healthz", "/readyz"])
def test_c06_the_public_port_has_none_of_it(
    start_guard: StartGuard, registry: Registry, ground: Ground, path: str
) -> None:
    """Not for users either; and the admin port has nothing of the registry."""
    guard = start_guard(registry.url, *admin())

    assert curl(guard, path).status == 404
    assert curl(guard, path, credentials=ground.as_pusher).status == 404
    assert guard.ask_admin("/v2/")[0] == 404
    assert guard.ask_admin(path, "POST")[0] == 405


def test_a_taken_port_ends_the_start_with_a_line(ground: Ground, tmp_path: Path) -> None:
    """As for --listen."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run(
            twist(
                *("--listen", f"tcp:{free_port()}:interface=127.0.0.1", "--no-tls"),
                *("--htpasswd", str(ground.htpasswd), "--groups", str(ground.groups)),
                *("--admin", f"tcp:127.0.0.1:{port}"),
            ),
            tmp_path,
        )

    assert done.returncode == 1
    assert (
        f"regguard: --admin tcp:{port}:interface=127.0.0.1: cannot listen (Address already in use)"
        in done.stderr
    )


def test_all_interfaces_are_warned_of(start_guard: StartGuard, registry: Registry) -> None:
    """Whoever reaches the port may read what is there; 127.0.0.1 needs no warning."""
    port = free_port()
    everywhere = start_guard(registry.url, "--admin", f"tcp:{port}")
    everywhere.wait_for_line("warn", f"--admin tcp:{port}: listens on all interfaces")
    assert everywhere.ask_admin("/healthz")[0] == 200
    inside = start_guard(registry.url, *admin())

    assert "all interfaces" not in inside.program.output()


def test_it_may_be_a_unix_socket(start_guard: StartGuard, registry: Registry) -> None:
    """For a scraper on the same machine, by the mode of its folder."""
    # tmp_path may be too long: a socket's path has at most 107 octets.
    with TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as client:
        path = f"{folder}/admin.sock"
        start_guard(registry.url, "--admin", f"unix:{path}")
        client.connect(path)
        client.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
