"""Who is measured: regguard and its peers, each as its own users would run it.

A further peer is one more class here, with its configuration in ``peers/``.
"""

from __future__ import annotations

import abc
import base64
import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from tests.bench.ground import (
    PUSHER,
    SAME_HASH,
    USER,
    Ground,
    fill_in,
    hashed,
    write_users,
)
from tests.bench.stub import TARGET, nginx
from tests.e2e.programs import Program, Registry, accepts, binary, free_port, twist

CORES = os.cpu_count() or 1


class Contender(abc.ABC):
    """Something that guards an upstream on a port of its own."""

    name: ClassVar[str]
    #: How it has its passwords, where the ground says nothing.
    scheme: ClassVar[str]
    #: The program, and the Debian package that has it.
    program: ClassVar[tuple[str, str]]

    def __init__(self, ground: Ground) -> None:
        self.ground = ground
        self.port = free_port()
        self._room = ground.room(self.program[0])
        self._argv = self._prepare(self._room, ground.scheme or self.scheme)
        self.start()

    @abc.abstractmethod
    def _prepare(self, room: Path, scheme: str) -> list[str]:
        """Write its files; the words that start it in the foreground."""

    def _environment(self) -> Mapping[str, str] | None:
        return None

    @property
    def pid(self) -> int:
        return self._program.pid

    def launch(self) -> None:
        """Start it, and don't wait."""
        self._program = Program(
            self._argv, self._room / "log", self._room, environment=self._environment()
        )

    def start(self) -> None:
        """Start it, and return when it listens."""
        self.launch()
        self._program.wait_until(f"{self.name} to listen", lambda: accepts(self.port))

    def stop(self) -> None:
        """End it."""
        self._program.stop()

    @classmethod
    @abc.abstractmethod
    def version(cls) -> str:
        """What is measured, for the table's foot."""


class Regguard(Contender):
    """regguard with its defaults: one process, access log on, bcrypt at cost 12."""

    name = "regguard, 1 worker"
    scheme = SAME_HASH
    program = ("regguard", "")

    def more_words(self, room: Path) -> tuple[str, ...]:
        """Further options of a variant, whose files stand in ``room``."""
        return ()

    def _prepare(self, room: Path, scheme: str) -> list[str]:
        htpasswd, groups = write_users(room, scheme)
        return twist(
            *("--listen", f"tcp:{self.port}:interface=127.0.0.1"),
            *("--tls-cert", str(self.ground.certificate)),
            *("--htpasswd", str(htpasswd), "--groups", str(groups)),
            *("--upstream", f"http://127.0.0.1:{self.ground.upstream_port}"),
            *self.more_words(room),
        )

    def memory(self) -> int:
        """Resident memory, KiB."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1])  # type: ignore[index]

    @classmethod
    def version(cls) -> str:
        import httptools
        import OpenSSL
        import twisted

        from regguard import __version__

        return (
            f"regguard {__version__} (Twisted {twisted.__version__}, httptools"
            f" {httptools.__version__}, pyOpenSSL {OpenSSL.__version__},"
            f" {OpenSSL.SSL.SSLeay_version(OpenSSL.SSL.SSLEAY_VERSION).decode()})"
        )


class AllCores(Regguard):
    """The same with a process for each core, as the peers have."""

    name = "regguard"

    def more_words(self, room: Path) -> tuple[str, ...]:
        return ("--workers", str(CORES))


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


class Nginx(Contender):
    """The recipe in ``peers/nginx.conf``, one worker per core, with the hash that it makes."""

    name = "nginx recipe"
    scheme = "apr1"
    program = ("nginx", "nginx")

    def _prepare(self, room: Path, scheme: str) -> list[str]:
        return nginx(
            room,
            "nginx.conf",
            PORT=self.port,
            UPSTREAM=self.ground.upstream_port,
            CORES=CORES,
            CERTIFICATE=self.ground.certificate,
            KEY=self.ground.key,
            HTPASSWD=write_users(room, scheme)[0],
        )

    @classmethod
    def version(cls) -> str:
        done = subprocess.run([binary("nginx"), "-v"], capture_output=True, text=True, check=True)
        return done.stderr.strip().removeprefix("nginx version: ")


class NginxBcrypt(Nginx):
    """The same with regguard's password file."""

    name = "nginx recipe, bcrypt"
    scheme = SAME_HASH


class Apache(Contender):
    """The recipe in ``peers/httpd.conf`` with the hash of ``htpasswd -B``."""

    name = "Apache recipe"
    scheme = "bcrypt-5"
    program = ("apache2", "apache2")

    def _prepare(self, room: Path, scheme: str) -> list[str]:
        htpasswd, groups = write_users(room, scheme)
        configuration = fill_in(
            room,
            "httpd.conf",
            MODULES=_apache_modules(),
            PORT=self.port,
            UPSTREAM=self.ground.upstream_port,
            CERTIFICATE=self.ground.certificate,
            KEY=self.ground.key,
            HTPASSWD=htpasswd,
            GROUPS=groups,
        )
        return [binary("apache2"), "-d", str(room), "-f", str(configuration), "-DFOREGROUND"]

    @classmethod
    def version(cls) -> str:
        done = subprocess.run([binary("apache2"), "-v"], capture_output=True, text=True, check=True)
        return done.stdout.splitlines()[0].removeprefix("Server version: ")


class ApacheBcrypt(Apache):
    """The same with regguard's password file."""

    name = "Apache recipe, bcrypt"
    scheme = SAME_HASH


def _apache_modules() -> Path:
    """Where the modules stand: Debian's place, or that of httpd's own build."""
    places = (Path("/usr/lib/apache2/modules"), Path("/usr/lib64/httpd/modules"))
    return next(place for place in places if place.is_dir())


class HAProxy(Contender):
    """``peers/haproxy.cfg``: a userlist, which is hashed for each request."""

    name = "HAProxy"
    scheme = "sha512-crypt"
    program = ("haproxy", "haproxy")

    def _prepare(self, room: Path, scheme: str) -> list[str]:
        both = room / "domain.pem"
        both.write_bytes(self.ground.certificate.read_bytes() + self.ground.key.read_bytes())
        configuration = fill_in(
            room,
            "haproxy.cfg",
            PORT=self.port,
            UPSTREAM=self.ground.upstream_port,
            CORES=CORES,
            CERTIFICATE=both,
            USER=USER,
            PUSHER=PUSHER,
            HASH=hashed(scheme),
        )
        return [binary("haproxy"), "-db", "-f", str(configuration)]

    @classmethod
    def version(cls) -> str:
        done = subprocess.run([binary("haproxy"), "-v"], capture_output=True, text=True, check=True)
        return done.stdout.split(" - ")[0]


class Caddy(Contender):
    """``peers/Caddyfile``, with the hash of ``caddy hash-password``, which it remembers."""

    name = "Caddy"
    scheme = "bcrypt-14"
    program = ("caddy", "caddy")

    def _prepare(self, room: Path, scheme: str) -> list[str]:
        configuration = fill_in(
            room,
            "Caddyfile",
            PORT=self.port,
            UPSTREAM=self.ground.upstream_port,
            CERTIFICATE=self.ground.certificate,
            KEY=self.ground.key,
            USER=USER,
            PUSHER=PUSHER,
            HASH=base64.b64encode(hashed(scheme).encode()).decode(),
        )
        return [
            *(binary("caddy"), "run"),
            *("--config", str(configuration), "--adapter", "caddyfile"),
        ]

    def _environment(self) -> Mapping[str, str]:
        # Where it would keep certificates and its last configuration.
        home = str(self._room)
        return {**os.environ, "HOME": home, "XDG_CONFIG_HOME": home, "XDG_DATA_HOME": home}

    @classmethod
    def version(cls) -> str:
        done = subprocess.run(
            [binary("caddy"), "version"], capture_output=True, text=True, check=True
        )
        return f"Caddy {done.stdout.split()[0]}"


class Direct(Contender):
    """Nothing between the client and the registry."""

    name = "direct"
    scheme = "none"
    program = ("docker-registry", "docker-registry")

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self.port = registry.port

    def _prepare(self, room: Path, scheme: str) -> list[str]:
        raise NotImplementedError("the registry runs already")

    @property
    def pid(self) -> int:
        return self._registry.pid

    def stop(self) -> None:
        """Nothing: it stays for the others."""

    @classmethod
    def version(cls) -> str:
        done = subprocess.run(
            [binary("docker-registry"), "--version"], capture_output=True, text=True, check=True
        )
        return f"docker-registry {done.stdout.split()[-1]}"


class DirectTls(Direct):
    """The registry's own TLS, without passwords."""

    name = "direct, TLS"


#: The columns of the table; the first two are regguard's.
CONTENDERS: tuple[type[Contender], ...] = (AllCores, Regguard, Nginx, Apache, HAProxy, Caddy)
OWN = (AllCores.name, Regguard.name)
