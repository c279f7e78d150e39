"""What clients say to a registry, as messages that can still be bent in all their parts."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

from tests.guard.world import D, credential

USERS = ("reader", "writer", "late")
REPOSITORIES = (b"a", b"team/app", b"kept/app", b"secret/app", b"x/blobs/uploads")
TAGS = (b"v1", b"latest", b"1.2-rc")
HOST = b"Host: r.example:5043"

# What a smuggler would put into a body.
_INNER = b"GET /v2/secret/app/tags/list HTTP/1.1\r\n%s\r\nAuthorization: %s\r\n\r\n" % (
    HOST,
    credential("writer"),
)
_MANIFEST = b'{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json"}'
_ACCEPT = tuple(
    b"Accept: application/vnd." + kind
    for kind in (
        b"oci.image.manifest.v1+json",
        b"docker.distribution.manifest.v2+json",
        b"docker.distribution.manifest.v1+prettyjws",
        b"docker.distribution.manifest.v1+json",
        b"docker.distribution.manifest.list.v2+json",
        b"oci.image.index.v1+json",
    )
)


@dataclass
class Message:
    """One request in parts: three words, field lines, and the body's pieces as they are framed."""

    method: bytes
    target: bytes
    lines: list[bytes] = field(default_factory=list)
    body: list[bytes] = field(default_factory=list)
    version: bytes = b"HTTP/1.1"
    space: bytes = b" "
    line_end: bytes = b"\r\n"

    def octets(self) -> bytes:
        """As it goes over the wire."""
        start = self.method + self.space + self.target + self.space + self.version
        return self.line_end.join((start, *self.lines, b"", b"")) + b"".join(self.body)


class Client:
    """Says what a client of one user says about one repository."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._user: str | None = rng.choice(USERS)
        self._repository = rng.choice(REPOSITORIES)

    def exchange(self) -> list[Message]:
        """One to four requests that follow each other in what some client does."""
        rng = self._rng
        known = rng.choice(_EXCHANGES)(self)
        first = rng.randrange(len(known))
        return known[first : first + rng.randint(1, 4)]

    # -- the parts -------------------------------------------------------------------------

    def _ask(self, method: bytes, path: bytes, *lines: bytes, anonymous: bool = False) -> Message:
        target = b"/v2/" + self._repository + path if path else b"/v2/"
        message = Message(method, target, [HOST, *lines])
        if not anonymous:
            at = self._rng.randint(0, len(message.lines))
            message.lines.insert(at, b"Authorization: " + credential(self._user or "reader"))
        return message

    def _data(self) -> bytes:
        rng = self._rng
        kind = rng.random()
        if kind < 0.3:
            return _INNER
        if kind < 0.98:
            return rng.randbytes(rng.randint(1, 80))
        return b"layer" * rng.randint(1, 20_000)

    def _with_length(self, message: Message, data: bytes) -> Message:
        message.lines.append(b"Content-Length: %d" % len(data))
        message.body.append(data)
        return message

    def _chunked(self, message: Message, *trailers: bytes) -> Message:
        message.lines.append(b"Transfer-Encoding: chunked")
        for _ in range(self._rng.randint(1, 3)):
            data = self._data()
            message.body += [b"%x" % len(data), b"\r\n", data, b"\r\n"]
        message.body += [b"0", b"\r\n", *(line + b"\r\n" for line in trailers), b"\r\n"]
        return message

    def _upload(self) -> bytes:
        return b"/blobs/uploads/" + self._rng.choice((b"6b3c", b"a-b_c=.1")) + b"?_state=Ab-_%3D"

    # -- what clients do -------------------------------------------------------------------

    def _skopeo_push(self) -> list[Message]:
        digest = b"&digest=" + D.replace(b":", b"%3A")
        version = b"Docker-Distribution-Api-Version: registry/2.0"
        octets = b"Content-Type: application/octet-stream"
        return [
            self._ask(b"GET", b"", version, anonymous=True),
            self._ask(b"HEAD", b"/blobs/" + D, version),
            self._with_length(self._ask(b"POST", b"/blobs/uploads/", version), b""),
            self._with_length(self._ask(b"PATCH", self._upload(), octets), self._data()),
            self._with_length(self._ask(b"PUT", self._upload() + digest, octets), b""),
            self._put_manifest(),
            self._ask(b"DELETE", self._upload()),
        ]

    def _docker_push(self) -> list[Message]:
        agent = (
            b"User-Agent: docker/20.10.24 go/go1.19.8 UpstreamClient(Docker-Client/28 \\(linux\\))"
        )
        source = self._rng.choice((b"team%2Fapp", b"secret%2Fapp", b"secret/app"))
        mount = b"/blobs/uploads/?from=" + source + b"&mount=" + D
        return [
            self._with_length(self._ask(b"POST", mount, agent), b""),
            self._chunked(self._ask(b"PATCH", self._upload(), agent, b"Accept-Encoding: gzip")),
            self._with_length(self._ask(b"PUT", self._upload() + b"&digest=" + D, agent), b""),
            self._ask(b"HEAD", b"/blobs/" + D, agent),
            self._put_manifest(),
        ]

    def _containerd_push(self) -> list[Message]:
        return [
            self._ask(b"HEAD", b"/blobs/" + D, anonymous=True),
            self._ask(b"HEAD", b"/blobs/" + D),
            self._ask(b"POST", b"/blobs/uploads/"),
            self._with_length(self._ask(b"PUT", self._upload() + b"&digest=" + D), self._data()),
            self._ask(b"HEAD", b"/manifests/" + self._tag()),
            self._put_manifest(),
        ]

    def _pull(self) -> list[Message]:
        return [
            self._ask(b"GET", b"/manifests/" + self._tag(), *_ACCEPT),
            self._ask(b"GET", b"/blobs/" + D, b"Accept-Encoding: gzip", b"Range: bytes=5-"),
            self._ask(b"GET", b"/blobs/" + D, b'If-None-Match: "x"', b"Referer: https://o/"),
            self._ask(b"HEAD", b"/manifests/" + D),
            self._ask(b"GET", b"/tags/list?n=10&last=v1"),
            self._ask(b"GET", b"/referrers/" + D + b"?artifactType=a%2Fb"),
        ]

    def _careful(self) -> list[Message]:
        expect = b"Expect: 100-continue"
        return [
            self._with_length(self._ask(b"PATCH", self._upload(), expect), self._data()),
            self._chunked(self._ask(b"PATCH", self._upload(), expect)),
            self._with_length(self._ask(b"PUT", b"/manifests/v1", expect), _MANIFEST),
            self._ask(b"GET", b"/blobs/" + D, expect),
        ]

    def _with_trailers(self) -> list[Message]:
        patch = self._ask(b"PATCH", self._upload(), b"TE: trailers", b"Trailer: Digest")
        put = self._ask(b"PUT", b"/manifests/" + self._tag())
        return [
            self._chunked(patch, b"Digest: sha-256=abc"),
            self._chunked(put, b"Authorization: Basic eDp5", b"Content-Length: 5"),
            self._ask(b"GET", b""),
        ]

    def _old(self) -> list[Message]:
        messages = [
            self._ask(b"GET", b"", b"Connection: keep-alive"),
            self._with_length(self._ask(b"PUT", b"/manifests/v1", b"Connection: Keep-Alive"), b"m"),
            self._ask(b"GET", b"/tags/list"),
        ]
        for message in messages:
            message.version = b"HTTP/1.0"
        messages[-1].lines.remove(HOST)
        return messages

    def _manage(self) -> list[Message]:
        catalog = self._ask(b"GET", b"")
        catalog.target = b"/v2/_catalog?n=5"
        return [
            catalog,
            self._ask(b"DELETE", b"/manifests/" + D),
            self._ask(b"DELETE", b"/manifests/" + self._tag()),
            self._with_length(self._ask(b"DELETE", b"/blobs/" + D), self._data()),
            self._with_length(self._ask(b"GET", b"/tags/list"), _INNER),
            self._ask(b"OPTIONS", b""),
        ]

    def _tag(self) -> bytes:
        return self._rng.choice(TAGS)

    def _put_manifest(self) -> Message:
        kind = b"Content-Type: application/vnd.oci.image.manifest.v1+json"
        put = self._ask(b"PUT", b"/manifests/" + self._tag(), kind)
        return self._with_length(put, _MANIFEST) if self._rng.random() < 0.8 else self._chunked(put)


_EXCHANGES = (
    Client._skopeo_push,
    Client._docker_push,
    Client._containerd_push,
    Client._pull,
    Client._careful,
    Client._with_trailers,
    Client._old,
    Client._manage,
)
