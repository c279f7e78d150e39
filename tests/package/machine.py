"""A Debian of its own, booted by systemd-nspawn with no network but its own loopback."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

BOOT = 90.0
"""Seconds; 5 here."""
NEVER_START = "#!/bin/sh\nexit 101\n"


def run(
    *words: str | Path, stdin: str = "", seconds: float = 600.0
) -> subprocess.CompletedProcess[str]:
    """Run a program; what it wrote, both streams in one."""
    return subprocess.run(
        [str(word) for word in words],
        input=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=seconds,
        check=False,
    )


def must(*words: str | Path, stdin: str = "", seconds: float = 600.0) -> str:
    """Run a program that has to end with status 0; what it wrote."""
    done = run(*words, stdin=stdin, seconds=seconds)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, words))}: status {done.returncode}\n{done.stdout}")
    return done.stdout


def prepare(base: Path, packages: str) -> None:
    """Make a Debian as the one that this runs on, unless it is there; what ``packages`` asks for.

    :param packages: as ``apt-get satisfy`` takes them.
    """
    if not (base / "usr" / "bin" / "dpkg").exists():
        release = dict(
            line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if line
        )
        include = "--include=systemd,systemd-sysv,dbus,ca-certificates,curl"
        must("debootstrap", "--variant=minbase", include, release["VERSION_CODENAME"], base)
    shutil.copy("/etc/resolv.conf", base / "etc" / "resolv.conf")
    # Nothing starts here: the processes would be this machine's.
    policy = base / "usr" / "sbin" / "policy-rc.d"
    policy.write_text(NEVER_START)
    policy.chmod(0o755)
    words = ("apt-get", "-q", "-y", "--no-install-recommends")
    environment = ("env", "DEBIAN_FRONTEND=noninteractive")
    must("chroot", base, *environment, "apt-get", "-q", "update")
    must("chroot", base, *environment, *words, "satisfy", packages)
    policy.unlink()


class Machine:
    """The booted system in a folder."""

    def __init__(self, root: Path, leader: int) -> None:
        self.root = root
        self._into = ("nsenter", "--target", str(leader), "-m", "-u", "-i", "-n", "-p", "-C", "--")

    def run(self, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """As :func:`run`, inside."""
        return run(*self._into, *words, stdin=stdin)

    def must(self, *words: str, stdin: str = "") -> str:
        """As :func:`must`, inside."""
        return must(*self._into, *words, stdin=stdin)


@contextlib.contextmanager
def booted(root: Path) -> Iterator[Machine]:
    """Boot the system in this folder, and power it off in the end."""
    words = ("--quiet", "--register=no", "--keep-unit", "--boot", "--private-network")
    output = ("--link-journal=no", "--console=pipe")
    with subprocess.Popen(
        ["systemd-nspawn", *words, *output, "-D", root],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as nspawn:
        try:
            machine = Machine(root, _leader(nspawn))
            _wait_until_up(machine)
            yield machine
            machine.run("systemctl", "poweroff")
            nspawn.wait(BOOT)
        finally:
            if nspawn.poll() is None:
                # The first powers off, the second ends it at once.
                nspawn.terminate()
                nspawn.send_signal(signal.SIGTERM)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    nspawn.wait(BOOT)
                nspawn.kill()


def _leader(nspawn: subprocess.Popen[bytes]) -> int:
    children = Path(f"/proc/{nspawn.pid}/task/{nspawn.pid}/children")
    until = time.monotonic() + BOOT
    while time.monotonic() < until and nspawn.poll() is None:
        for child in children.read_text().split():
            # nspawn's child becomes the system's first process.
            with contextlib.suppress(OSError):
                if Path(f"/proc/{child}/exe").readlink().name == "systemd":
                    return int(child)
        time.sleep(0.1)
    raise SystemExit("systemd-nspawn did not boot")


def _wait_until_up(machine: Machine) -> None:
    until = time.monotonic() + BOOT
    while time.monotonic() < until:
        state = machine.run("systemctl", "is-system-running").stdout.strip()
        if state in ("running", "degraded"):
            return
        time.sleep(0.2)
    raise SystemExit(f"the system did not come up: {state}")
