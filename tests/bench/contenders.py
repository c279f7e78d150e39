"""Who is measured: regguard and its peers, each as its own users would run it.

A further peer is one more class here, with its configuration in ``peers/``.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

import bcrypt
from passlib.hash import apr_md5_crypt

from tests.certificates import Authority, rsa_key
from tests.e2e.programs import Program, accepts, binary, free_port, twist

PEERS = Path(__file__).parent / "peers"
USER, PASSWORD = "testuser", "testpassword"
TARGET = "/v2/team/app/manifests/v1"
# Whose passwords are guessed, where that is measured.
VICTIMS = tuple(f"user{number:03}" for number in range(200))
BCRYPT_COST = 12
# An image's manifest with five layers is about this long.
TARGET_BYTES = 1_000


class Contender(Protocol):
    """Something that guards an upstream on a port of its own."""

    name: ClassVar[str]
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
        """A new folder for one contender."""
        return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.folder))


def _write_htpasswd(room: Path, hashed: str) -> Path:
    """The user of the measurements, and the victims, who have one password."""
    htpasswd = room / "htpasswd"
    htpasswd.write_text("".join(f"{name}:{hashed}\n" for name in (USER, *VICTIMS)))
    htpasswd.chmod(0o600)
    return htpasswd


def _bcrypt() -> str:
    # $2y$ is what htpasswd writes, and the only one that Apache's own library reads.
    hashed = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(BCRYPT_COST)).decode()
    return hashed.replace("$2b$", "$2y$", 1)


class Regguard:
    """regguard with its defaults: one process, access log on, bcrypt at cost 12."""

    name: ClassVar[str] = "regguard"

    def more_words(self, room: Path) -> tuple[str, ...]:
        """Further options of a variant, whose files stand in ``room``."""
        return ()

    def __init__(self, ground: Ground) -> None:
        room = ground.room("regguard")
        self.port = free_port()
        htpasswd = _write_htpasswd(room, _bcrypt())
        self._program = Program(
            twist(
                *("--listen", f"tcp:{self.port}:interface=127.0.0.1"),
                *("--tls-cert", str(ground.certificate)),
                *("--htpasswd", str(htpasswd)),
                *("--upstream", f"http://127.0.0.1:{ground.upstream_port}"),
                # Who may push is not measured, and the default names a group.
                *("--push", "nobody", "--delete", "nobody"),
                *self.more_words(room),
            ),
            room / "log",
            room,
        )
        self._program.wait_until("regguard to listen", lambda: accepts(self.port))

    def memory(self) -> int:
        """Resident memory, KiB."""
        status = Path(f"/proc/{self._program.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1])  # type: ignore[index]

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


class Unthrottled(Regguard):
    """regguard that hashes whatever comes."""

    name = "regguard, --throttle off"

    def more_words(self, room: Path) -> tuple[str, ...]:
        return ("--throttle", "off")


class Ruled(Regguard):
    """regguard with a thousand rules for repositories, of which a late one decides."""

    name = "regguard, 1,000 rules"

    def more_words(self, room: Path) -> tuple[str, ...]:
        names = [f"team-{number}" for number in range(999)]
        names.insert(900, TARGET.split("/")[2])
        config = room / "regguard.toml"
        config.write_text(
            "".join(
                f'[[repository]]\nmatch = "{name}/**"\npull = "user:{USER}"\n' for name in names
            )
        )
        return ("--config", str(config))


class Nginx:
    """The recipe in ``peers/nginx.conf``, one worker per core, with the hash that it makes."""

    name: ClassVar[str] = "nginx recipe"
    scheme: ClassVar[str] = "apr1"

    def __init__(self, ground: Ground) -> None:
        room = ground.room("nginx")
        self.port = free_port()
        self._program = _start_nginx(
            room,
            "nginx.conf",
            PORT=self.port,
            UPSTREAM=ground.upstream_port,
            CORES=os.cpu_count() or 1,
            CERTIFICATE=ground.certificate,
            KEY=ground.certificate.with_suffix(".key"),
            HTPASSWD=_write_htpasswd(room, self._hash()),
        )

    def _hash(self) -> str:
        return str(apr_md5_crypt.hash(PASSWORD))

    def stop(self) -> None:
        self._program.stop()

    @classmethod
    def version(cls) -> str:
        done = subprocess.run([binary("nginx"), "-v"], capture_output=True, text=True, check=True)
        return f"{done.stderr.strip().removeprefix('nginx version: ')} (recipe, {cls.scheme} hash)"


class NginxBcrypt(Nginx):
    """The same with regguard's password file."""

    name = "nginx recipe, bcrypt"
    scheme = f"bcrypt-{BCRYPT_COST}"

    def _hash(self) -> str:
        return _bcrypt()


class Apache:
    """The recipe in ``peers/httpd.conf`` with regguard's password file."""

    name: ClassVar[str] = "Apache recipe, bcrypt"

    def __init__(self, ground: Ground) -> None:
        room = ground.room("apache")
        self.port = free_port()
        groups = room / "groups"
        groups.write_text("pusher:\n")
        configuration = _fill_in(
            room,
            "httpd.conf",
            MODULES=_apache_modules(),
            PORT=self.port,
            UPSTREAM=ground.upstream_port,
            CERTIFICATE=ground.certificate,
            KEY=ground.certificate.with_suffix(".key"),
            HTPASSWD=_write_htpasswd(room, _bcrypt()),
            GROUPS=groups,
        )
        self._program = Program(
            [binary("apache2"), "-d", str(room), "-f", str(configuration), "-DFOREGROUND"],
            room / "log",
            room,
        )
        self._program.wait_until("Apache to listen", lambda: accepts(self.port))

    def stop(self) -> None:
        self._program.stop()

    @staticmethod
    def version() -> str:
        done = subprocess.run([binary("apache2"), "-v"], capture_output=True, text=True, check=True)
        return done.stdout.splitlines()[0].removeprefix("Server version: ")


def _apache_modules() -> Path:
    """Where the modules stand: Debian's place, or that of httpd's own build."""
    places = (Path("/usr/lib/apache2/modules"), Path("/usr/lib64/httpd/modules"))
    return next(place for place in places if place.is_dir())


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


def _fill_in(room: Path, template: str, **places: object) -> Path:
    """Write a peer's configuration with its ports and paths."""
    text = (PEERS / template).read_text()
    for name, value in {"FOLDER": room, **places}.items():
        text = text.replace(f"@{name}@", str(value))
    configuration = room / template
    configuration.write_text(text)
    return configuration


def _start_nginx(room: Path, template: str, *, PORT: int, **places: object) -> Program:
    configuration = _fill_in(room, template, PORT=PORT, **places)
    if os.geteuid() == 0:
        # Its workers would become www-data, which may not look into a temporary folder.
        configuration.write_text("user root;\n" + configuration.read_text())
    program = Program(
        [binary("nginx"), "-p", str(room), "-c", str(configuration)], room / "log", room
    )
    program.wait_until("nginx to listen", lambda: accepts(PORT))
    return program


def make_ground(folder: Path, upstream: Upstream) -> Ground:
    """An RSA-2048 certificate, as the recipes' readers have."""
    certificate = Authority().issue(key=rsa_key()).write(folder)
    return Ground(folder, certificate, upstream.port)
