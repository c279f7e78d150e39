"""``python -m tests.package PACKAGE.deb``: an operator's days with the package, on a real Debian.

Installs it in a booted system, edits two files, enables it, pushes and pulls with skopeo, reloads,
restarts and upgrades it under load, and purges it. Takes root, debootstrap and systemd-nspawn; the
network only to make the system. Ends with status 0 if nothing failed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from regguard.demo.image import random_image
from tests.canary import secret
from tests.package.load import TRANSFERS, Task
from tests.package.machine import Machine, booted, must, prepare

HOST = "registry.test"
USERS = {"ci": secret("package-ci"), "reader": secret("package-reader")}
OTHERS = "docker-registry, skopeo, openssl, python3, logrotate"
REGISTRY = """\
version: 0.1
storage: {filesystem: {rootdirectory: /var/lib/docker-registry}}
http: {addr: "127.0.0.1:5000", secret: for-tests-only}
"""
UNIX_REGISTRY = REGISTRY.replace(
    'addr: "127.0.0.1:5000"', "net: unix, addr: /run/docker-registry/http"
)
CONFIG = "/etc/regguard/regguard.toml"
EXAMPLES = "/usr/share/doc/regguard/examples"
OTHERS_TRACES = (
    "var/log/journal",
    "var/log/apt",
    "var/lib/apt",
    "var/cache",
    "var/lib/containers",
    "var/lib/docker-registry",
    "var/lib/logrotate",
    "var/lib/systemd/timers",
    "var/tmp",
)
"""Where the system, apt, logrotate, skopeo and the registry write while this runs."""


def step(words: str) -> None:
    """Say what comes."""
    print(f"== {words}", flush=True)


def demand(right: bool, words: str) -> None:
    """End where something is wrong."""
    if not right:
        raise SystemExit(f"FAILED: {words}")


def files(root: Path) -> Iterator[str]:
    """Every file and folder of the system that lasts."""
    for top in ("etc", "opt", "usr", "var"):
        for folder, folders, names in os.walk(root / top):
            place = Path(folder).relative_to(root)
            found = ((place / name).as_posix() for name in (*folders, *names))
            yield from (path for path in found if not path.startswith(OTHERS_TRACES))


def edit(machine: Machine, path: str, before: str, after: str) -> None:
    """Change one line of a file."""
    file = machine.root / path.lstrip("/")
    text = file.read_text()
    demand(text.count(before) == 1, f"{path} has one line {before!r}")
    file.write_text(text.replace(before, after))


def stage(machine: Machine, package: Path) -> None:
    """What is there before regguard: a registry, a certificate, an image, the package."""
    (machine.root / "etc/docker/registry/config.yml").write_text(REGISTRY)
    machine.must("systemctl", "restart", "docker-registry")
    (machine.root / "srv" / "ca").mkdir(parents=True)
    machine.must(
        *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-noenc", "-days", "365"),
        *("-subj", f"/CN={HOST}", "-addext", f"subjectAltName=DNS:{HOST}"),
        *("-keyout", "/srv/domain.key", "-out", "/srv/ca/ca.crt"),
    )
    with (machine.root / "etc/hosts").open("a") as hosts:
        hosts.write(f"127.0.0.1 localhost {HOST}\n")
    random_image().write_layout(machine.root / "srv" / "image", "v1")
    shutil.copy(package, machine.root / "srv" / "regguard.deb")
    shutil.copy(Path(__file__).with_name("load.py"), machine.root / "srv" / "load.py")


def install(machine: Machine) -> None:
    """Install; nothing runs, and what was installed is as it should be."""
    machine.must("apt-get", "-q", "-y", "install", "/srv/regguard.deb")
    for unit in ("regguard.socket", "regguard.service"):
        state = machine.run("systemctl", "is-active", unit).stdout.strip()
        demand(state == "inactive", f"{unit} waits to be configured: {state}")
        state = machine.run("systemctl", "is-enabled", unit).stdout.strip()
        demand(state == "disabled", f"{unit} waits to be enabled: {state}")
    for path, wanted in {"/etc/regguard": "2750", CONFIG: "640"}.items():
        found = machine.must("stat", "-c", "%a %U %G", path).strip()
        demand(found == f"{wanted} root _regguard", f"{path} is {wanted} root:_regguard: {found}")
    machine.must("systemd-analyze", "verify", "--man=no", "regguard.service", "regguard.socket")
    demand(bool(machine.run("systemctl", "start", "regguard").returncode), "it has no certificate")
    shown = machine.must("journalctl", "--unit", "regguard", "--output", "cat", "--no-pager")
    demand("tls-cert /etc/regguard/domain.crt: " in shown, f"it says so: {shown}")


def configure(machine: Machine) -> None:
    """The operator's part: the certificate from the authority, and two files edited."""
    for name, source in {"domain.crt": "/srv/ca/ca.crt", "domain.key": "/srv/domain.key"}.items():
        machine.must("install", "-m", "640", source, f"/etc/regguard/{name}")
    for user, password in USERS.items():
        machine.must(
            "regguard", "passwd", "--stdin", "/etc/regguard/htpasswd", user, stdin=f"{password}\n"
        )
    edit(machine, CONFIG, '# push = "group:pusher"\n', 'push = "user:ci"\n')
    print(machine.must("regguard", "check", "--config", CONFIG), end="")
    machine.must("systemctl", "enable", "--now", "regguard.socket", "regguard")


def copy(machine: Machine, user: str, source: str, target: str) -> str:
    """``skopeo copy``, as this user; what it said where it was refused, else nothing."""
    side = "dest" if target.startswith("docker:") else "src"
    credentials = (f"--{side}-creds", f"{user}:{USERS[user]}", f"--{side}-cert-dir", "/srv/ca")
    done = machine.run(
        "skopeo", "--insecure-policy", "copy", "--quiet", *credentials, source, target
    )
    return done.stdout if done.returncode else ""


def push_and_pull(machine: Machine, repository: str) -> None:
    """An image goes in and comes out the same; a reader's push is refused in words."""
    there = f"docker://{HOST}/{repository}:v1"
    refused = copy(machine, "reader", "oci:/srv/image:v1", there)
    demand("denied" in refused, f"a reader's push is denied: {refused}")
    refused = copy(machine, "ci", "oci:/srv/image:v1", there)
    demand(not refused, f"a push: {refused}")
    shutil.rmtree(machine.root / "srv" / "back", ignore_errors=True)
    refused = copy(machine, "reader", there, "oci:/srv/back:v1")
    demand(not refused, f"a pull: {refused}")
    sent, back = (
        sorted(path.name for path in (machine.root / "srv" / name / "blobs/sha256").iterdir())
        for name in ("image", "back")
    )
    demand(sent == back, "the image came back as it was")


def load(machine: Machine) -> None:
    """Transfers and new connections, while the daemon is reloaded, restarted and upgraded."""
    commands = [
        ["systemctl", "reload", "regguard"],
        ["systemctl", "restart", "regguard"],
        ["systemctl", "reload", "regguard"],
        ["systemctl", "restart", "regguard"],
        ["apt-get", "-q", "-y", "--reinstall", "install", "/srv/regguard.deb"],
    ]
    task = Task(HOST, 443, "/srv/ca/ca.crt", "ci", USERS["ci"], commands)
    said = machine.must("python3", "/srv/load.py", stdin=json.dumps(asdict(task)))
    outcome = json.loads(said)
    print(*outcome["commands"], sep="\n")
    failures = outcome["failures"]
    print(
        f"{TRANSFERS} transfers at a time, {outcome['transfers']} in all; "
        f"{outcome['connections']} connections beside them, the longest took "
        f"{outcome['longest_wait']:.1f} s; {len(failures)} failed requests"
    )
    demand(not failures, "\n".join(failures[:20]))


def rotate(machine: Machine) -> None:
    """The access log in a file, by the package's own snippet for logrotate."""
    edit(machine, CONFIG, '# access-log = "-"\n', 'access-log = "/var/log/regguard/access.log"\n')
    machine.must("systemctl", "restart", "regguard")
    push_and_pull(machine, "team/before")
    machine.must("logrotate", "--force", "/etc/logrotate.d/regguard")
    push_and_pull(machine, "team/after")
    # Which writes what is in its buffers.
    machine.must("systemctl", "restart", "regguard")
    logs = machine.root / "var/log/regguard"
    held = {name: (logs / name).read_text() for name in ("access.log", "access.log.1")}
    demand("PUT /v2/team/before/" in held["access.log.1"], "the old file has what was before")
    demand("PUT /v2/team/after/" in held["access.log"], "the new file has what was after")


def unix_upstream(machine: Machine) -> None:
    """The drop-ins for a registry on a UNIX socket, by which regguard has no network at all."""
    (machine.root / "etc/docker/registry/config.yml").write_text(UNIX_REGISTRY)
    for unit, example in {"docker-registry": "unix-registry", "regguard": "unix-upstream"}.items():
        folder = f"/etc/systemd/system/{unit}.service.d"
        machine.must("mkdir", "-p", folder)
        machine.must("cp", f"{EXAMPLES}/{example}.conf", folder)
    edit(machine, CONFIG, "http://127.0.0.1:5000", "http+unix:///run/docker-registry/http")
    machine.must("systemctl", "daemon-reload")
    machine.must("systemctl", "restart", "docker-registry", "regguard")
    push_and_pull(machine, "team/unix")
    for unit in ("docker-registry", "regguard"):
        shutil.rmtree(machine.root / f"etc/systemd/system/{unit}.service.d")


def purge(machine: Machine, before: set[str]) -> None:
    """Nothing is left that the package, or regguard, has brought."""
    machine.must("apt-get", "-q", "-y", "purge", "regguard")
    left = sorted(path for path in set(files(machine.root)) - before)
    demand(not left, f"left behind: {left}")
    known = machine.run("getent", "passwd", "_regguard").stdout
    known += machine.run("getent", "group", "_regguard").stdout
    demand(not known, f"the user is gone: {known}")
    units = machine.run("systemctl", "list-units", "--all", "--no-legend", "regguard*").stdout
    demand("active" not in units.replace("inactive", ""), f"no unit runs: {units}")


def test(machine: Machine, package: Path) -> None:
    """Everything, in the order of an operator's days."""
    stage(machine, package)
    before = set(files(machine.root))
    step("apt install ./regguard.deb")
    install(machine)
    step("a certificate, two files, systemctl enable --now")
    configure(machine)
    step("skopeo pushes and pulls")
    push_and_pull(machine, "team/app")
    step("reload, restart and upgrade under load")
    load(machine)
    step("logrotate")
    rotate(machine)
    step("a registry on a UNIX socket")
    unix_upstream(machine)
    step("logs")
    shown = machine.must("journalctl", "--unit", "regguard", "--output", "cat", "--no-pager")
    demand("Traceback" not in shown, shown)
    demand(not any(password in shown for password in USERS.values()), "no password in the journal")
    step("apt purge")
    purge(machine, before)


def main() -> None:
    """Make the system, run the test in a copy of it, leave nothing."""
    parser = argparse.ArgumentParser(prog="python -m tests.package", description=__doc__)
    parser.add_argument("package", type=Path, help="the .deb")
    parser.add_argument("--base", type=Path, help="keep the Debian system here for the next time")
    words = parser.parse_args()
    if os.geteuid():
        raise SystemExit("boots a system in a container: run this as root")
    needs = must("dpkg-deb", "--field", words.package, "Depends").strip()
    with tempfile.TemporaryDirectory(prefix="regguard-package-") as scratch:
        base = words.base or Path(scratch, "base")
        step("a Debian system")
        prepare(base, f"{OTHERS}, {needs}")
        root = Path(scratch, "root")
        must("cp", "--archive", "--reflink=auto", base, root)
        with booted(root) as machine:
            try:
                test(machine, words.package)
            except SystemExit:
                shown = machine.run(
                    "journalctl", "-u", "regguard*", "-n", "60", "-o", "short", "--no-pager"
                )
                print(shown.stdout, file=sys.stderr)
                raise
    step("nothing failed")


if __name__ == "__main__":
    main()
