"""What every contender stands on: the same certificate, users, passwords and upstream."""

from __future__ import annotations

import base64
import functools
import http.client
import ssl
import tempfile
from dataclasses import dataclass
from pathlib import Path

import bcrypt
from passlib.hash import apr_md5_crypt, sha512_crypt

from tests.certificates import Authority, ecdsa_key, rsa_key

PEERS = Path(__file__).parent / "peers"
USER, PUSHER, PASSWORD = "testuser", "testuserpush", "testpassword"
# Whose passwords are guessed, where that is measured.
VICTIMS = tuple(f"user{number:03}" for number in range(200))
# What ``regguard passwd`` makes.
BCRYPT_COST = 12
SAME_HASH = f"bcrypt-{BCRYPT_COST}"
# Seconds for one answer; ten times what the slowest hash takes.
PATIENCE = 20.0


@dataclass(frozen=True)
class Ground:
    """What every contender is given. ``scheme``: a hash for all, or None: each has its own."""

    folder: Path
    certificate: Path
    upstream_port: int
    scheme: str | None = None

    def room(self, name: str) -> Path:
        """A new folder for one contender."""
        return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.folder))

    @property
    def key(self) -> Path:
        return self.certificate.with_suffix(".key")


def issue(folder: Path, kind: str = "rsa") -> Path:
    """A certificate: "rsa", 2048 bits, as the recipes' readers have; or "ecdsa", P-256."""
    key = {"rsa": rsa_key, "ecdsa": ecdsa_key}[kind]()
    return Authority().issue(key=key).write(folder)


@functools.cache
def hashed(scheme: str) -> str:
    """The password under a scheme: "apr1", "sha512-crypt", "bcrypt-N"."""
    if scheme == "apr1":
        return str(apr_md5_crypt.hash(PASSWORD))
    if scheme == "sha512-crypt":
        # 5,000 rounds is what crypt(5) takes where a hash names none, as that of mkpasswd.
        return str(sha512_crypt.using(rounds=5000).hash(PASSWORD))
    cost = int(scheme.removeprefix("bcrypt-"))
    made = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(cost)).decode()
    # $2y$ is what htpasswd writes, and the only one that Apache's own library reads.
    return made.replace("$2b$", "$2y$", 1)


def write_users(room: Path, scheme: str) -> tuple[Path, Path]:
    """The password file, in which all have one password, and the file of the groups."""
    htpasswd, groups = room / "htpasswd", room / "groups"
    everybody = (USER, PUSHER, *VICTIMS)
    htpasswd.write_text("".join(f"{name}:{hashed(scheme)}\n" for name in everybody))
    htpasswd.chmod(0o600)
    groups.write_text(f"pusher: {PUSHER}\n")
    return htpasswd, groups


def fill_in(room: Path, template: str, **places: object) -> Path:
    """Write a configuration of ``peers/`` with its ports and paths."""
    text = (PEERS / template).read_text()
    for name, value in {"FOLDER": room, **places}.items():
        text = text.replace(f"@{name}@", str(value))
    configuration = room / template
    configuration.write_text(text)
    return configuration


def authorization(user: str = USER) -> str:
    """The header's value."""
    return "Basic " + base64.b64encode(f"{user}:{PASSWORD}".encode()).decode()


@functools.cache
def trusting() -> ssl.SSLContext:
    """For clients: they take any certificate, as wrk does."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def status_of(port: int, target: str) -> int:
    """The status of one GET without credentials, over a TLS connection of its own."""
    connection = http.client.HTTPSConnection(
        "127.0.0.1", port, timeout=PATIENCE, context=trusting()
    )
    try:
        connection.request("GET", target)
        return connection.getresponse().status
    finally:
        connection.close()
