"""What the guard asks the registry before it decides; the test answers by hand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from hashlib import sha256

from tests.guard.world import Guarded
from tests.relay.world import Peer, Received, read_request

MISSING = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
CREATED = b"HTTP/1.1 201 Created\r\nX-Theirs: yes\r\nContent-Length: 0\r\n\r\n"
ACCEPTED = b"HTTP/1.1 202 Accepted\r\nX-Theirs: yes\r\nContent-Length: 0\r\n\r\n"


class Questions:
    """The registry's side of a guarded world."""

    def __init__(self, guarded: Guarded) -> None:
        self._guarded = guarded
        self._at: Peer | None = None

    @property
    def waiting(self) -> bool:
        """Whether anything is asked that was not looked at."""
        return any(peer.received for peer in self._guarded.registry.connections)

    def next(self) -> Received:
        """The one thing that the registry is asked now."""
        [peer] = [peer for peer in self._guarded.registry.connections if peer.received]
        self._at = peer
        return read_request(peer.take())

    @property
    def peer(self) -> Peer:
        """The connection of what was looked at last."""
        assert self._at is not None
        return self._at

    def answer(self, octets: bytes) -> Received:
        """Look at the next question and answer it."""
        question = self.next()
        self.peer.send(octets)
        return question


def digest(content: bytes) -> bytes:
    """The digest by which registries know some content."""
    return b"sha256:" + sha256(content).hexdigest().encode()


def stands_for(value: bytes, status: int = 200) -> bytes:
    """The answer to HEAD of a tag that stands for a digest."""
    return (
        b"HTTP/1.1 %d X\r\nContent-Length: 700\r\nDocker-Content-Digest: " % status
        + value
        + b"\r\n\r\n"
    )


def manifest(content: bytes) -> bytes:
    """The answer to GET of a manifest."""
    length = b"Content-Length: %d\r\n" % len(content)
    there = b"Docker-Content-Digest: " + digest(content) + b"\r\n"
    return b"HTTP/1.1 200 OK\r\n" + length + there + b"\r\n" + content


def tag_list(tags: Sequence[str] | None, *lines: bytes) -> bytes:
    """The answer to GET of the tags."""
    return text(json.dumps({"name": "team/app", "tags": tags}).encode(), *lines)


def text(body: bytes, *lines: bytes) -> bytes:
    """A 200 with a body."""
    head = [b"HTTP/1.1 200 OK", b"Content-Length: %d" % len(body), *lines]
    return b"\r\n".join([*head, b"", body])
