"""Who is measured: regguard and its peers, each as its own users would run it.

A further peer is one more class here, with its configuration in ``peers/``.
"""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import bcrypt
from passlib.hash import apr_md5_crypt

from tests.certificates import Authority, rsa_key
from tests.e2e.programs import Program, accepts, binary, free_port, twist

PEERS = Path(__file__).parent / "peers"
USER, PASSWORD = "testuser", "testpassword"
TARGET = "/v2/team/app/manifests/v1"
# An image's manifest with five layers is about this long.
TARGET_BYTES = 1_000


class Contender(Protocol):
    """Something that guards an upstream on a port of its own."""

    name: str
    port: int

    def stop(self) -> None:
        """End it."""

    @staticmethod
    def version() -> str:
        """What is measured, for the table's foot."""


@dataclass(frozen=True)
class Ground:
    """What every contender is given: the same certificate and the same upstream."""

    folder: Path
    certificate: Path
    upstream_port: int

    def room(self, name: str) -> Path:
        """A folder of this contender's own."""
        room = self.folder / name
        room.mkdir()
        return room


class Regguard:
    """regguard with its defaults: one process, access log on, bcrypt at cost 12."""

    name = "regguard"

    def __init__(self, ground: Ground) -> None:
        room = ground.room(self.name)
        self.port = free_port()
        htpasswd = room / "htpasswd"
        hashed = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(12)).decode()
        htpasswd.write_text(f"{USER}:{hashed}\n")
        htpasswd.chmod(0o600)
        self._program = Program(
            twist(
                *("--listen", f"tcp:{self.port}:interface=127.0.0.1"),
                *("--tls-cert", str(ground.certificate)),
                *("--htpasswd", str(htpasswd)),
                *("--upstream", f"http://127.0.0.1:{ground.upstream_port}"),
                # Who may push is not measured, and the default names a group.
                *("--push", "nobody", "--delete", "nobody"),
            ),
            room / "log",
            room,
        )
        self._program.wait_until("regguard to listen", lambda: accepts(self.port))

    def stop(self) -> None:
        self._program.stop()

    @staticmethod
    def version() -> str:
        import httptools
        import OpenSSL
        import twisted

        from regguard import __version__

        return (
            f"regguard {__version__} (Twisted {twisted.__version__}, httptools"
            f" {httptools.__version__}, pyOpenSSL {OpenSSL.__version__})"
        )


class Nginx:
    """The recipe in ``peers/nginx.conf``, one worker per core, with the hash that it makes."""

    name = "nginx recipe"

    def __init__(self, ground: Ground) -> None:
        room = ground.room("nginx")
        self.port = free_port()
        htpasswd = room / "htpasswd"
        htpasswd.write_text(f"{USER}:{apr_md5_crypt.hash(PASSWORD)}\n")
        self._program = _start_nginx(
            room,
            "nginx.conf",
            PORT=self.port,
            UPSTREAM=ground.upstream_port,
            CORES=os.cpu_count() or 1,
            CERTIFICATE=ground.certificate,
            KEY=ground.certificate.with_suffix(".key"),
            HTPASSWD=htpasswd,
        )

    def stop(self) -> None:
        self._program.stop()

    @staticmethod
    def version() -> str:
        done = subprocess.run([binary("nginx"), "-v"], capture_output=True, text=True, check=True)
        return f"{done.stderr.strip().removeprefix('nginx version: ')} (recipe, apr1 hash)"


CONTENDERS: tuple[type[Regguard] | type[Nginx], ...] = (Regguard, Nginx)


class Upstream:
    """nginx with one static file, in the registry's place."""

    def __init__(self, folder: Path) -> None:
        room = folder / "upstream"
        file = room / "root" / TARGET.lstrip("/")
        file.parent.mkdir(parents=True)
        file.write_bytes(b"x" * TARGET_BYTES)
        self.port = free_port()
        self._program = _start_nginx(room, "upstream.conf", PORT=self.port, ROOT=room / "root")

    def stop(self) -> None:
        self._program.stop()


def _start_nginx(room: Path, template: str, *, PORT: int, **places: object) -> Program:
    text = (PEERS / template).read_text()
    for name, value in {"FOLDER": room, "PORT": PORT, **places}.items():
        text = text.replace(f"@{name}@", str(value))
    if os.geteuid() == 0:
        # Its workers would become www-data, which may not look into a temporary folder.
        text = "user root;\n" + text
    configuration = room / template
    configuration.write_text(text)
    program = Program(
        [binary("nginx"), "-p", str(room), "-c", str(configuration)], room / "log", room
    )
    program.wait_until("nginx to listen", lambda: accepts(PORT))
    return program


def make_ground(folder: Path, upstream: Upstream) -> Ground:
    """An RSA-2048 certificate, as the recipes' readers have."""
    certificate = Authority().issue(key=rsa_key()).write(folder)
    return Ground(folder, certificate, upstream.port)
