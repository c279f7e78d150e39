"""``regguard demo`` as a person runs it."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.canary import spellings
from tests.e2e.programs import FAULTS, Program, accepts, free_port

DEMO = [sys.executable, "-m", "regguard.cli", "demo"]
SMOKE_SECONDS = 60


def test_smoke_passes_every_step(tmp_path: Path) -> None:
    """A push, a pull, refusals: a row for each, status 0, and nothing left behind."""
    done = subprocess.run(
        [*DEMO, "--smoke"],
        env={"PATH": _path(), "TMPDIR": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=SMOKE_SECONDS,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "FAILED" not in done.stdout
    assert "DENIED: " in done.stdout
    assert re.search(r"^(\d+) of \1 steps passed", done.stdout, re.MULTILINE)
    assert done.stderr == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_runs_until_told_to_stop(tmp_path: Path, number: int) -> None:
    """It serves, its printed lines work, and the signal ends all of it with status 0."""
    port = free_port()
    stage = tmp_path / "tmp"
    stage.mkdir()
    demo = _start(tmp_path, stage, port)
    try:
        demo.wait_until("the page", lambda: "Ctrl-C ends it" in demo.output())
        page = demo.output()
        # The first and the third curl line, as they stand: a list, and a refusal.
        lines = re.findall(r"^  (curl .*)$", page, re.MULTILINE)
        listed, refused = (_shell(lines[index]) for index in (0, 2))
        assert listed == '{"repositories":["demo/hello"]}\n'
        assert "DENIED" in refused
        demo.wait_until(
            "the guard's log", lambda: "/v2/_catalog" in demo.output().removeprefix(page)
        )
        children = _children(demo.pid)
        assert len(children) == 2
        passwords = re.findall(r"\b[0-9a-f]{16}\b", page)
        assert passwords
        for password in passwords:
            assert not any(password in command for command in children.values())
    finally:
        status = demo.stop(number)

    assert status == 0
    assert not FAULTS.search(demo.output())
    log = demo.output().removeprefix(page).encode()
    assert [each for each in passwords if any(part in log for part in spellings(each))] == []
    assert not accepts(port)
    assert list(stage.iterdir()) == []
    for pid in children:
        assert not Path(f"/proc/{pid}").exists()


@pytest.mark.parametrize(("victim", "name"), [("twisted", "guard"), ("registry.yml", "registry")])
def test_says_which_program_died(tmp_path: Path, victim: str, name: str) -> None:
    """When the guard or the registry ends by itself, so does the demo, and it says which."""
    stage = tmp_path / "tmp"
    stage.mkdir()
    demo = _start(tmp_path, stage, free_port())
    try:
        demo.wait_until("the page", lambda: "Ctrl-C ends it" in demo.output())
        (pid,) = (pid for pid, command in _children(demo.pid).items() if victim in command)
        os.kill(pid, signal.SIGKILL)
        assert demo.ended() == 1
    finally:
        demo.stop()

    assert f"the {name} ended (signal SIGKILL)" in demo.output()
    assert list(stage.iterdir()) == []


def test_busy_port_is_one_line(tmp_path: Path) -> None:
    """It names the port and the option that chooses another."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        done = subprocess.run(
            [*DEMO, "--port", str(port)],
            capture_output=True,
            text=True,
            timeout=SMOKE_SECONDS,
            check=False,
            cwd=tmp_path,
        )

    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert f"port {port} " in line
    assert "--port" in line


def test_missing_registry_says_what_to_install(tmp_path: Path) -> None:
    """Without a registry on PATH there is nothing to guard."""
    done = subprocess.run(
        DEMO,
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=SMOKE_SECONDS,
        check=False,
        cwd=tmp_path,
    )

    assert done.returncode == 1
    assert "apt-get install docker-registry" in done.stderr
    assert "Traceback" not in done.stderr


def _start(folder: Path, stage: Path, port: int) -> Program:
    return Program(
        [*DEMO, "--port", str(port)],
        folder / "log",
        folder,
        environment={"PATH": _path(), "TMPDIR": str(stage)},
    )


def _path() -> str:
    return os.environ["PATH"]


def _shell(line: str) -> str:
    """What a line of the page prints when it is pasted into a shell."""
    return subprocess.run(
        line, shell=True, capture_output=True, text=True, timeout=SMOKE_SECONDS, check=True
    ).stdout


def _children(pid: int) -> dict[int, str]:
    """The processes that this one started, with their command lines."""
    numbers = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return {
        int(number): Path(f"/proc/{number}/cmdline").read_text().replace("\0", " ")
        for number in numbers
    }
