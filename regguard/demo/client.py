"""The registry API over HTTPS, as far as a push and a pull need it."""

from __future__ import annotations

import base64
import http.client
import json
import ssl
import urllib.parse
import urllib.request
from dataclasses import dataclass
from email.message import Message
from pathlib import Path

from regguard.demo.image import MANIFEST_TYPE, Image, digest
from regguard.demo.stage import Stage, User

# Longer than any answer here takes, short enough for a person to wait.
ANSWER_SECONDS = 30.0


class UnexpectedAnswer(Exception):
    """The other side answered something else than it should; the message says what."""


@dataclass(frozen=True)
class Answer:
    """One response, read to its end."""

    status: int
    headers: Message
    body: bytes

    @property
    def error(self) -> str:
        """Code and message of the OCI error in the body, or "" where there is none."""
        try:
            first = json.loads(self.body)["errors"][0]
            return f"{first['code']}: {first['message']}"
        except (ValueError, LookupError, TypeError):
            return ""

    def __str__(self) -> str:
        return f"{self.status} {self.error}".rstrip()


class Client:
    """Speaks to the stage's guard as ``user`` (None: without credentials) on one connection."""

    def __init__(self, stage: Stage, user: User | None) -> None:
        self._base = stage.url
        self._connection = http.client.HTTPSConnection(
            "localhost",
            stage.port,
            timeout=ANSWER_SECONDS,
            context=ssl.create_default_context(cafile=stage.ca),
        )
        self._credentials: dict[str, str] = {}
        if user is not None:
            pair = base64.b64encode(f"{user.name}:{user.password}".encode()).decode()
            self._credentials = {"Authorization": f"Basic {pair}"}

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def ask(self, method: str, target: str, body: bytes | None = None, **headers: str) -> Answer:
        """Send one request and read its answer; ``_`` in a header's name stands for ``-``."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self._connection.request(method, target, body, {**self._credentials, **named})
        response = self._connection.getresponse()
        return Answer(response.status, response.headers, response.read())

    def expect(
        self, status: int, method: str, target: str, body: bytes | None = None, **headers: str
    ) -> Answer:
        """As ``ask``, and the answer must have ``status``."""
        answer = self.ask(method, target, body, **headers)
        if answer.status != status:
            path = target.partition("?")[0]
            raise UnexpectedAnswer(f"{method} {path}: {answer}, where {status} was due")
        return answer

    def push(self, repository: str, tag: str, image: Image) -> str:
        """Push every blob, then the manifest; return the manifest's digest."""
        for blob in image.blobs:
            started = self.expect(202, "POST", f"/v2/{repository}/blobs/uploads/")
            filled = self.expect(
                202,
                "PATCH",
                self._location(started),
                blob,
                Content_Type="application/octet-stream",
            )
            target = self._location(filled)
            separator = "&" if "?" in target else "?"
            self.expect(201, "PUT", f"{target}{separator}digest={digest(blob)}", b"")
        stored = self.expect(
            201,
            "PUT",
            f"/v2/{repository}/manifests/{tag}",
            image.manifest,
            Content_Type=MANIFEST_TYPE,
        )
        return self._named_digest(stored)

    def pull(self, repository: str, tag: str) -> list[bytes]:
        """The manifest and every blob that it names, each checked against its digest."""
        answer = self.expect(200, "GET", f"/v2/{repository}/manifests/{tag}", Accept=MANIFEST_TYPE)
        contents = [_checked(answer.body, self._named_digest(answer))]
        manifest = json.loads(answer.body)
        for part in (*manifest["layers"], manifest["config"]):
            blob = self.expect(200, "GET", f"/v2/{repository}/blobs/{part['digest']}")
            contents.append(_checked(blob.body, part["digest"]))
        return contents

    def _location(self, answer: Answer) -> str:
        """The target to go on with; a client follows it as it stands, so it must lead back here."""
        location = urllib.parse.urljoin(self._base, answer.headers["Location"] or "")
        if not location.startswith(self._base + "/v2/"):
            raise UnexpectedAnswer(f"the upload's Location leads to {location}")
        return str(location.removeprefix(self._base))

    @staticmethod
    def _named_digest(answer: Answer) -> str:
        named = answer.headers["Docker-Content-Digest"]
        if named is None:
            raise UnexpectedAnswer("an answer came without Docker-Content-Digest")
        return str(named)


def _checked(content: bytes, expected: str) -> bytes:
    if digest(content) != expected:
        raise UnexpectedAnswer(f"{len(content)} bytes came that do not have the digest {expected}")
    return content


def answers(url: str, ca: Path) -> bool:
    """Whether a registry, or a guard, answers at ``url`` now: 200 or 401 to ``GET /v2/``."""
    address = urllib.parse.urlsplit(url)
    host, port = address.hostname or "", address.port
    connection = (
        http.client.HTTPSConnection(
            host, port, timeout=1, context=ssl.create_default_context(cafile=ca)
        )
        if address.scheme == "https"
        else http.client.HTTPConnection(host, port, timeout=1)
    )
    try:
        connection.request("GET", "/v2/")
        return connection.getresponse().status in (200, 401)
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
