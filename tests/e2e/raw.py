"""Requests octet by octet, and guards with users and rules of a test's own."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import socket
from base64 import b64encode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.client import HTTPResponse
from pathlib import Path

import bcrypt

from regguard.demo.image import digest
from tests.e2e.conftest import BCRYPT_COST
from tests.e2e.programs import PATIENCE, Ground, Guard, Registry


@contextlib.contextmanager
def guarding(
    ground: Ground,
    folder: Path,
    upstream: str,
    *,
    passwords: Mapping[str, str],
    groups: str,
    policy: str,
) -> Iterator[Guard]:
    """A guard for these users, with a groups file and a TOML file of this content."""
    own = dataclasses.replace(ground, htpasswd=folder / "htpasswd", groups=folder / "groups")
    own.htpasswd.write_text(
        "".join(
            f"{name}:{bcrypt.hashpw(password.encode(), bcrypt.gensalt(BCRYPT_COST)).decode()}\n"
            for name, password in passwords.items()
        )
    )
    own.htpasswd.chmod(0o600)
    own.groups.write_text(groups)
    (folder / "policy.toml").write_text(policy)
    guard = Guard(own, folder / "guard", upstream, "--config", str(folder / "policy.toml"))
    yield guard
    guard.stop()


@dataclass(frozen=True)
class Reply:
    """What came back; the names of headers are in small letters."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def error(self) -> str:
        """The code of an answer in the registry's JSON."""
        code: str = json.loads(self.body)["errors"][0]["code"]
        return code


@dataclass(frozen=True)
class Door:
    """Where requests go: the guard, as a user, or past it to the registry itself."""

    place: Guard | Registry
    credentials: tuple[str, str] | None = None

    def send(self, method: str, target: str, *lines: str, body: bytes = b"") -> Reply:
        """One request on a connection of its own; ``lines`` may frame the body in another way."""
        head = [f"{method} {target} HTTP/1.1", "Host: localhost", "Connection: close", *lines]
        if self.credentials:
            token = b64encode(":".join(self.credentials).encode()).decode()
            head.append(f"Authorization: Basic {token}")
        if not any(line.startswith(("Content-Length:", "Transfer-Encoding:")) for line in lines):
            head.append(f"Content-Length: {len(body)}")
        with self._connection() as connection:
            connection.sendall("\r\n".join([*head, "\r\n"]).encode("ascii") + body)
            # It has to know that the answer to HEAD has no body.
            answer = HTTPResponse(connection, method=method)
            answer.begin()
            headers = {name.lower(): value for name, value in answer.getheaders()}
            return Reply(answer.status, headers, answer.read())

    def _connection(self) -> contextlib.AbstractContextManager[socket.socket]:
        if isinstance(self.place, Guard):
            return self.place.connection()
        return socket.create_connection(("127.0.0.1", self.place.port), PATIENCE)

    def start_upload(self, repository: str) -> str:
        """Start an upload (OCI end-4a); return its target, with the query."""
        started = self.send("POST", f"/v2/{repository}/blobs/uploads/")
        assert started.status == 202, started
        _, slash, path = started.headers["location"].partition("/v2/")
        return slash + path

    def upload(self, repository: str, content: bytes) -> None:
        """Put a blob there."""
        target = f"{self.start_upload(repository)}&digest={digest(content)}"
        assert self.send("PUT", target, body=content).status == 201
