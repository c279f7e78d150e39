"""A registry in memory, with something in every repository, whose log tells what it did.

At level ``debug`` its log names, for each request, the router's repository (``vars.name``) and
every path of its storage that the request had read or written. The User-Agent, which the log
repeats, tells the requests apart.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.e2e.programs import PATIENCE, Registry

# Names that are made of the API's own words, and pairs that look like one another's paths.
REPOSITORIES = (
    "mine/b", "mine", "secret/repo", "secret", "blobs", "manifests", "tags/list", "uploads",
    "a", "a/blobs", "a/manifests", "a/blobs/uploads", "a/tags", "v2", "v2/secret/repo",
    "mine/b/manifests/secret", "mine/b/blobs/uploads/secret",
)  # fmt: skip
TAG = "latest"

CATALOG = "*"
"""Stands for all repositories: no name has this character."""

MANIFEST_TYPE = "application/vnd.docker.distribution.manifest.v2+json"

# With it the states of uploads are signed.
_SECRET = "a-secret-for-tests"

CONFIG = b"{}"
"""A blob that every repository has."""


@dataclass(frozen=True)
class Held:
    """What one repository has for its own, and an upload that is under way as far as it says."""

    repository: str
    blob: str
    manifest: str
    upload_id: str
    state: str


def connect(port: int) -> socket.socket:
    """A connection to a port of 127.0.0.1, for what no client would send."""
    return socket.create_connection(("127.0.0.1", port), PATIENCE)


def digest_of(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def _layer_of(repository: str) -> bytes:
    """The blob that only this repository has."""
    return f"the layer of {repository}".encode()


def manifest_of(*layers: bytes) -> bytes:
    """A manifest of these layers."""
    config = _descriptor(CONFIG, "application/vnd.docker.container.image.v1+json")
    kind = "application/vnd.docker.image.rootfs.diff.tar.gzip"
    return json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": config,
            "layers": [_descriptor(layer, kind) for layer in layers],
        }
    ).encode()


def _descriptor(content: bytes, kind: str) -> dict[str, object]:
    return {"mediaType": kind, "size": len(content), "digest": digest_of(content)}


def _state_of(repository: str, upload_id: str) -> str:
    """The state of an upload as the registry signs it (handlers/hmac.go)."""
    said = {
        "Name": repository,
        "UUID": upload_id,
        "Offset": 0,
        "StartedAt": "2026-11-22T00:00:00Z",
    }
    state = json.dumps(said).encode()
    signature = hmac.digest(_SECRET.encode(), state, "sha256")
    return base64.urlsafe_b64encode(signature + state).decode()


HELD = [
    Held(
        repository,
        digest_of(_layer_of(repository)),
        digest_of(manifest_of(_layer_of(repository))),
        upload_id := f"5eeded00-0000-4000-8000-{number:012}",
        _state_of(repository, upload_id),
    )
    for number, repository in enumerate(REPOSITORIES)
]
"""What the filled registry holds."""

PUSHED = manifest_of()
"""A manifest that the registry takes in each of the repositories."""


@dataclass
class Deed:
    """What the registry did for one request: whom its router named, what the storage was asked."""

    routed: set[str] = field(default_factory=set)
    paths: set[str] = field(default_factory=set)
    wrote: bool = False

    @property
    def touched(self) -> frozenset[str]:
        """The repositories whose storage was read or written."""
        names = set()
        for path in self.paths:
            if found := _repository_of.match(path):
                names.add(found[1])
            elif path == "/docker/registry/v2/repositories":
                names.add(CATALOG)
        # Blobs and links lie elsewhere; who reads one without a repository reads anybody's.
        return frozenset(names or (CATALOG for _ in self.paths))


_storage_call = re.compile(r'inmemory\.(?P<name>\w+)\("(?P<path>/[^"]*)"').match
_WRITING = ("PutContent", "Writer", "Move", "Delete")
# No component of a repository's name begins with "_", so this is the name's end.
_repository_of = re.compile(r"/docker/registry/v2/repositories/(.+?)/_(?:manifests|layers|uploads)")


class TracedRegistry(Registry):
    """A registry in memory that tells, after its end, what each request had done to its storage."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._log = folder / "registry.log"
        self._settings.write_text(
            f"""\
version: 0.1
log: {{level: debug, formatter: json, accesslog: {{disabled: true}}}}
storage:
  inmemory: {{}}
  delete: {{enabled: true}}
  # Else it looks for old uploads once, at random within its first hour, for nobody's request.
  maintenance: {{uploadpurging: {{enabled: false}}}}
http: {{addr: "127.0.0.1:{self.port}", secret: {_SECRET}}}
"""
        )

    def deeds(self) -> dict[str, Deed]:
        """What was done for each User-Agent."""
        deeds: dict[str, Deed] = {}
        with self._log.open("rb") as lines:
            for line in lines:
                if b'"vars.name"' not in line and b'"inmemory.' not in line:
                    continue
                event = json.loads(line)
                agent = event.get("http.request.useragent", "")
                if agent == "seed":
                    continue
                deed = deeds.setdefault(agent, Deed())
                if "vars.name" in event:
                    deed.routed.add(event["vars.name"])
                if call := _storage_call(event["msg"]):
                    deed.paths.add(call["path"])
                    deed.wrote |= call["name"] in _WRITING
        return deeds


@contextlib.contextmanager
def filled_registry(folder: Path) -> Iterator[TracedRegistry]:
    """A registry with something in all of the repositories."""
    registry = TracedRegistry(folder)
    registry.start()
    try:
        _fill(registry)
        yield registry
    finally:
        registry.stop()


def _fill(registry: TracedRegistry) -> None:
    """Put into each repository what :data:`HELD` says, but for the upload."""
    with connect(registry.port) as connection, connection.makefile("rb") as stream:

        def send(method: bytes, target: str, body: bytes = b"", kind: str = "") -> dict[str, str]:
            connection.sendall(
                b"%b %b HTTP/1.1\r\nHost: localhost\r\nUser-Agent: seed\r\n"
                b"Content-Type: %b\r\nContent-Length: %d\r\n\r\n%b"
                % (method, target.encode(), kind.encode(), len(body), body)
            )
            status, *lines = iter(lambda: stream.readline().rstrip().decode(), "")
            assert status.split()[1] in ("201", "202"), f"{status} answers {method!r} {target}"
            return dict(line.split(": ", 1) for line in lines)

        for repository in REPOSITORIES:
            layer = _layer_of(repository)
            for content in (CONFIG, layer):
                location = send(b"POST", f"/v2/{repository}/blobs/uploads/")["Location"]
                send(b"PUT", f"{location}&digest={digest_of(content)}", content, "application/x")
            manifest = manifest_of(layer)
            send(b"PUT", f"/v2/{repository}/manifests/{TAG}", manifest, MANIFEST_TYPE)
