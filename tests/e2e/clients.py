"""curl and skopeo, as a person would call them."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.canary import is_searched_for
from tests.e2e.programs import Guard, binary

# The longest call here moves 200 MB.
CALL_SECONDS = 120


@dataclass(frozen=True)
class Answer:
    """What curl saw: the status, the header lines and the body of the last response."""

    status: int
    header_lines: tuple[str, ...]
    body: str

    def headers(self, name: str) -> list[str]:
        """The values of all header lines of this name."""
        pairs = (line.partition(":") for line in self.header_lines)
        return [value.strip() for key, _, value in pairs if key.lower() == name.lower()]


def curl(guard: Guard, target: str, *words: str, credentials: str | None = None) -> Answer:
    """One request through the guard; the body must be text."""
    login = _login("--user", credentials)
    done = subprocess.run(
        [
            *(binary("curl"), "--silent", "--show-error", "--include", "--http1.1"),
            *("--cacert", str(guard.ground.ca), *login, *words, guard.url + target),
        ],
        capture_output=True,
        timeout=CALL_SECONDS,
        check=True,
    )
    head, _, body = done.stdout.decode().partition("\r\n\r\n")
    while re.match(r"HTTP/1\.1 1\d\d ", head):
        head, _, body = body.partition("\r\n\r\n")
    status_line, *lines = head.split("\r\n")
    return Answer(int(status_line.split()[1]), tuple(lines), body)


def _login(option: str, credentials: str | None) -> tuple[str, ...]:
    if credentials is None:
        return ()
    password = credentials.rpartition(":")[2]
    assert not password or is_searched_for(password), "make passwords with tests.canary.secret"
    return option, credentials


@dataclass(frozen=True)
class Skopeo:
    """skopeo with the test CA, and a home of its own."""

    guard: Guard
    home: Path

    def push(self, layout: Path, tag: str, name: str, credentials: str | None, *more: str) -> str:
        """Copy an OCI layout to the guard; "" or what skopeo complained about.

        Without credentials it has what is in the folder of the CA: a client's certificate.
        """
        trust = str(self.guard.ground.trust)
        return self._copy(
            *(*more, "--dest-cert-dir", trust, *_login("--dest-creds", credentials)),
            *(f"oci:{layout}:{tag}", f"docker://{self.guard.host}/{name}"),
        )

    def pull(self, name: str, layout: Path, tag: str, credentials: str | None) -> str:
        """Copy from the guard to an OCI layout; "" or what skopeo complained about."""
        trust = str(self.guard.ground.trust)
        return self._copy(
            *("--src-cert-dir", trust, *_login("--src-creds", credentials)),
            *(f"docker://{self.guard.host}/{name}", f"oci:{layout}:{tag}"),
        )

    def _copy(self, *words: str) -> str:
        done = subprocess.run(
            [binary("skopeo"), "--insecure-policy", "copy", "--quiet", *words],
            capture_output=True,
            timeout=CALL_SECONDS,
            text=True,
            check=False,
            env={**os.environ, "HOME": str(self.home), "XDG_RUNTIME_DIR": str(self.home)},
        )
        assert (done.returncode == 0) == (not done.stderr), done.stderr
        return done.stderr
