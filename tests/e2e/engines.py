"""What moves images, each with folders of its own: dockerd, podman, buildah, skopeo, containerd."""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import ClassVar, Protocol

from regguard.demo.image import random_image
from tests.e2e.programs import Guard, Program, binary

CALL_SECONDS = 60


class Refused(Exception):
    """A command failed; the message is all that it printed."""


def _call(*words: str, stdin: str = "", environment: dict[str, str] | None = None) -> str:
    """Run a command to its end; return what it printed."""
    done = subprocess.run(
        words,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=CALL_SECONDS,
        check=False,
        env={**os.environ, **(environment or {})},
    )
    said = done.stdout + done.stderr
    if done.returncode:
        raise Refused(said)
    return said


class Engine(Protocol):
    """What these tests do with each of them; a failure raises :exc:`Refused`."""

    unauthorized: str
    """What it prints for a wrong password."""
    denied: str
    """What it prints before our own words for a push that is not allowed."""
    looks_before_it_mounts: bool
    """Whether it asks for the blob's head first, and mounts nothing from where it may not look."""

    def new_image(self) -> None:
        """From now on push another image, whose layer nobody has seen."""

    def login(self, user: str, password: str) -> None:
        """Make these the credentials from now on."""

    def push(self, name: str) -> None:
        """Push an image under this name."""

    def pull(self, name: str) -> None:
        """Pull it, after its name was removed here, if it was known."""

    def stop(self) -> None:
        """Leave nothing behind."""


class Docker:
    """dockerd and the docker command."""

    unauthorized = "401 Unauthorized"
    denied = "denied: user"
    looks_before_it_mounts = False

    def __init__(self, guard: Guard, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self._host = guard.host
        self._state = folder / "exec"
        socket = f"unix://{folder / 'docker.sock'}"
        self._environment = {"DOCKER_HOST": socket, "DOCKER_CONFIG": str(folder)}
        self._program = Program(
            [
                *(binary("dockerd"), "--host", socket),
                *("--data-root", str(folder / "data"), "--exec-root", str(self._state)),
                *("--pidfile", str(folder / "docker.pid")),
                # No part of the machine's network is touched.
                *("--iptables=false", "--ip6tables=false", "--bridge=none"),
                *("--storage-driver", "vfs"),
            ],
            folder / "dockerd.log",
            folder,
            # Instead of a file in /etc/docker/certs.d.
            {**os.environ, "SSL_CERT_FILE": str(guard.ground.ca)},
        )
        self._program.wait_until(
            "dockerd answers; it needs root, cgroups and the right to mount "
            "(docker run --privileged)",
            self._answers,
        )
        self.new_image()

    def _answers(self) -> bool:
        try:
            self._docker("version")
        except Refused:
            return False
        return True

    def _docker(self, *words: str, stdin: str = "") -> str:
        return _call(binary("docker"), *words, stdin=stdin, environment=self._environment)

    def new_image(self) -> None:
        self._docker("import", str(_root_file_system(self._folder)), "tiny")

    def login(self, user: str, password: str) -> None:
        self._docker("login", "--username", user, "--password-stdin", self._host, stdin=password)

    def push(self, name: str) -> None:
        self._docker("tag", "tiny", f"{self._host}/{name}")
        self._docker("push", f"{self._host}/{name}")

    def pull(self, name: str) -> None:
        self._docker("rmi", "--force", f"{self._host}/{name}")
        self._docker("pull", f"{self._host}/{name}")

    def stop(self) -> None:
        self._program.stop()
        mounted = self._state / "netns" / "default"
        if mounted.exists():
            _call("umount", "--lazy", str(mounted))


class _WithoutDaemon:
    """podman and buildah: two commands over the same libraries and storage."""

    unauthorized = "invalid username/password"
    denied = "denied: user"
    looks_before_it_mounts = True
    _name: ClassVar[str]
    _options: ClassVar[tuple[str, ...]] = ()

    def __init__(self, guard: Guard, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self._host = guard.host
        credentials = folder / "auth.json"
        # It has to exist before the first log-in.
        credentials.write_text("{}")
        self._known = ("--cert-dir", str(guard.ground.trust), "--authfile", str(credentials))
        self._command = (
            *(binary(self._name), "--root", str(folder / "root"), "--runroot", str(folder / "run")),
            *("--storage-driver", "vfs", "--log-level", "error", *self._options),
        )
        self.new_image()

    def new_image(self) -> None:
        raise NotImplementedError

    def _call(self, *words: str, stdin: str = "") -> None:
        _call(*self._command, *words, stdin=stdin)

    def login(self, user: str, password: str) -> None:
        words = ("--username", user, "--password-stdin", self._host)
        self._call("login", *self._known, *words, stdin=password)

    def push(self, name: str) -> None:
        self._call("push", *self._known, "tiny", f"docker://{self._host}/{name}")

    def pull(self, name: str) -> None:
        self._call("pull", *self._known, f"{self._host}/{name}")
        self._call("rmi", f"{self._host}/{name}")

    def stop(self) -> None:
        """It has stopped already."""


class Podman(_WithoutDaemon):
    """podman, which needs no daemon."""

    _name = "podman"
    _options = ("--cgroup-manager", "cgroupfs", "--events-backend", "file")

    def new_image(self) -> None:
        self._call("import", str(_root_file_system(self._folder)), "tiny")


class Buildah(_WithoutDaemon):
    """buildah, which makes images."""

    _name = "buildah"

    def new_image(self) -> None:
        self._call("from", "--name", "work", "scratch")
        self._call("add", "work", str(_root_file_system(self._folder)))
        self._call("commit", "--rm", "work", "tiny")


class Skopeo:
    """skopeo, which copies images: here between the guard and a folder."""

    unauthorized = "invalid username/password"
    denied = "denied: user"
    looks_before_it_mounts = True

    def __init__(self, guard: Guard, folder: Path) -> None:
        folder.mkdir()
        self._host = guard.host
        self._trust = str(guard.ground.trust)
        self._credentials = str(folder / "auth.json")
        self._image = folder / "image"
        self._pulled = folder / "pulled"
        # Where it remembers which blob is where, unless it runs as root: that has one place.
        self._environment = {"HOME": str(folder), "XDG_DATA_HOME": str(folder / "share")}
        self.new_image()

    def _call(self, *words: str, stdin: str = "") -> None:
        _call(
            binary("skopeo"),
            "--insecure-policy",
            *words,
            stdin=stdin,
            environment=self._environment,
        )

    def new_image(self) -> None:
        shutil.rmtree(self._image, ignore_errors=True)
        random_image((1_000, 20_000)).write_layout(self._image, "v1")

    def login(self, user: str, password: str) -> None:
        self._call(
            *("login", "--cert-dir", self._trust, "--authfile", self._credentials),
            *("--username", user, "--password-stdin", self._host),
            stdin=password,
        )

    def push(self, name: str) -> None:
        self._copy("--dest-cert-dir", f"oci:{self._image}:v1", f"docker://{self._host}/{name}")

    def pull(self, name: str) -> None:
        shutil.rmtree(self._pulled, ignore_errors=True)
        self._copy("--src-cert-dir", f"docker://{self._host}/{name}", f"oci:{self._pulled}:v1")

    def _copy(self, trusting: str, *names: str) -> None:
        known = (trusting, self._trust, "--authfile", self._credentials)
        self._call("copy", *known, *names)

    def stop(self) -> None:
        """It has stopped already."""


class Containerd:
    """containerd and its ctr command, which names the user in each call."""

    unauthorized = "401 Unauthorized"
    # No more than the status is printed by containerd 1.6.
    denied = "403 Forbidden"
    looks_before_it_mounts = False

    def __init__(self, guard: Guard, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self._host = guard.host
        hosts = folder / "hosts" / guard.host
        hosts.mkdir(parents=True)
        # It asks the server itself, too, when the one host's answer is 404.
        (hosts / "hosts.toml").write_text(
            f'server = "{guard.url}"\nca = "{guard.ground.ca}"\n[host."{guard.url}"]\n'
            f'capabilities = ["pull", "resolve", "push"]\nca = "{guard.ground.ca}"\n'
        )
        # These two would make folders in /opt and /etc.
        configuration = folder / "config.toml"
        configuration.write_text(
            "version = 2\ndisabled_plugins = "
            '["io.containerd.internal.v1.opt", "io.containerd.grpc.v1.cri"]\n'
        )
        socket = str(folder / "containerd.sock")
        self._program = Program(
            [
                *(binary("containerd"), "--config", str(configuration), "--address", socket),
                *("--root", str(folder / "root"), "--state", str(folder / "state")),
            ],
            folder / "containerd.log",
            folder,
        )
        self._ctr = (binary("ctr"), "--address", socket, "--namespace", "tests")
        self._hosts = str(folder / "hosts")
        self._user = ""
        self._program.wait_until("containerd answers; it needs root", self._answers)
        self.new_image()

    def _answers(self) -> bool:
        try:
            _call(*self._ctr, "version")
        except Refused:
            return False
        return True

    def new_image(self) -> None:
        layout = self._folder / "layout"
        shutil.rmtree(layout, ignore_errors=True)
        random_image((1_000, 20_000)).write_layout(layout, "v1")
        self._layout = str(self._folder / "layout.tar")
        with tarfile.open(self._layout, "w") as tar:
            tar.add(layout, ".")

    def login(self, user: str, password: str) -> None:
        self._user = f"{user}:{password}"

    def push(self, name: str) -> None:
        repository = name.partition(":")[0]
        base = ("--base-name", f"{self._host}/{repository}")
        _call(*self._ctr, "images", "import", "--no-unpack", *base, self._layout)
        self._call("push", f"{self._host}/{name}")

    def pull(self, name: str) -> None:
        _call(*self._ctr, "images", "rm", "--sync", f"{self._host}/{name}")
        self._call("pull", "--snapshotter", "native", f"{self._host}/{name}")

    def _call(self, command: str, *words: str) -> None:
        known = ("--hosts-dir", self._hosts, "--user", self._user)
        _call(*self._ctr, "images", command, *known, *words)

    def stop(self) -> None:
        self._program.stop()


def _root_file_system(folder: Path) -> Path:
    """A file system of one file."""
    (folder / "a-file").write_bytes(os.urandom(50_000))
    path = folder / "tiny.tar"
    with tarfile.open(path, "w") as tar:
        tar.add(folder / "a-file", "a-file")
    return path
