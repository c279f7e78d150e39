"""Immutable tags: a write goes on only if none of them changes by it.

What the registry has is asked for, compared, and then written, so two writes to one repository
must not come between each other: they take turns. That holds for this process. Two processes in
front of one registry can still let two first pushes of a tag through in the same moment.
"""

from __future__ import annotations

import hashlib
import json
import re
from urllib.parse import quote

from twisted.internet.defer import Deferred, DeferredLock

from regguard.access import Access, Denial, Unchanged
from regguard.relay import Relay, UpstreamFailure

LARGEST_MANIFEST = 4 * 1024 * 1024
"""Octets of a manifest that are taken: distribution's and OCI's limit."""

MOST_WAITING = 100
"""Writes that wait for their turn at one repository; nobody pushes so many images at once."""

MOST_TAGS = 1000
"""Immutable tags that are looked up before a manifest is deleted, one round trip for each."""

# In front of everything that a registry may have: without them registry 2.8 says 404 for a tag
# that is there, or answers with another manifest that it makes up for old clients.
ACCEPT = b"Accept: " + b", ".join(
    (
        b"application/vnd.oci.image.index.v1+json",
        b"application/vnd.oci.image.manifest.v1+json",
        b"application/vnd.docker.distribution.manifest.list.v2+json",
        b"application/vnd.docker.distribution.manifest.v2+json",
        b"application/vnd.docker.distribution.manifest.v1+prettyjws",
        b"*/*",
    )
)

_is_digest = re.compile(r"(sha256|sha384|sha512):[0-9a-f]{64,128}").fullmatch
_TAG_LIST_OCTETS = 4 * 1024 * 1024


class Turns:
    """One write at a time for each repository."""

    def __init__(self) -> None:
        self._locks: dict[str, DeferredLock] = {}

    def take(self, repository: str) -> Deferred[DeferredLock]:
        """Wait for the turn; fails with UpstreamFailure (503) where too many wait."""
        lock = self._locks.setdefault(repository, DeferredLock())
        if len(lock.waiting) >= MOST_WAITING:
            raise UpstreamFailure(503, "too many writes to this repository wait for their turn")
        return lock.acquire()

    def give_back(self, repository: str) -> None:
        """The turn is over."""
        lock = self._locks[repository]
        lock.release()
        if not lock.locked:
            del self._locks[repository]


async def check_tags(
    relay: Relay, user_name: str, access: Access, unchanged: Unchanged, body: bytes
) -> Denial | None:
    """Say no if the manifest in ``body`` would take one of the tags from another one.

    :raises UpstreamFailure: when the registry does not tell.
    """
    for tag in unchanged.tags:
        there = await _digest_at(relay, user_name, access.repository, tag)
        if there is not None and there != _digest_of(body, there):
            message = (
                f"user {user_name} may not push {access.repository}:{tag}: "
                f"the tag is immutable and stands for {there}"
            )
            return Denial(message, unchanged.rule)
    return None


async def check_deletion(
    relay: Relay, user_name: str, access: Access, unchanged: Unchanged
) -> Denial | None:
    """Say no if an immutable tag stands for the manifest that would be deleted.

    :raises UpstreamFailure: when the registry does not tell.
    """
    whose = f"user {user_name} may not delete {access.repository}@{access.reference}: "
    tags = await _tags_of(relay, user_name, access.repository)
    tags = [tag for tag in tags if unchanged.is_immutable(tag)]
    if len(tags) > MOST_TAGS:
        return Denial(f"{whose}too many immutable tags to look through", unchanged.rule)
    algorithm = access.reference.partition(":")[0]
    for tag in tags:
        there = await _digest_at(relay, user_name, access.repository, tag)
        # Another algorithm's digest may name the same manifest.
        if there is not None and (
            there == access.reference or there.partition(":")[0] != algorithm
        ):
            return Denial(f"{whose}the immutable tag {tag} stands for it", unchanged.rule)
    return None


def _digest_of(body: bytes, like: str) -> str:
    algorithm = like.partition(":")[0]
    return f"{algorithm}:{hashlib.new(algorithm, body).hexdigest()}"


async def _digest_at(relay: Relay, user_name: str, repository: str, tag: str) -> str | None:
    """What a tag stands for; None while there is no such tag."""
    target = f"/v2/{repository}/manifests/{tag}".encode("ascii")
    reply = await relay.ask(b"HEAD", target, ACCEPT, user_name=user_name, limit=0)
    if reply.status == 404:
        return None
    digest = (reply.field(b"docker-content-digest") or b"").decode("ascii", "replace")
    if reply.status != 200 or not _is_digest(digest):
        raise UpstreamFailure(502, f"the registry does not tell what {repository}:{tag} stands for")
    return digest


async def _tags_of(relay: Relay, user_name: str, repository: str) -> list[str]:
    """All tags of a repository, page by page where the registry has pages."""
    tags: list[str] = []
    last = ""
    while True:
        target = f"/v2/{repository}/tags/list?n=1000" + (f"&last={quote(last)}" if last else "")
        reply = await relay.ask(
            b"GET", target.encode("ascii"), user_name=user_name, limit=_TAG_LIST_OCTETS
        )
        if reply.status == 404:
            return tags
        page = _listed(reply.body) if reply.status == 200 else None
        if page is None:
            raise UpstreamFailure(502, f"the registry does not tell the tags of {repository}")
        tags += page
        if reply.field(b"link") is None or not page or page[-1] <= last:
            return tags
        last = page[-1]


def _listed(body: bytes) -> list[str] | None:
    try:
        tags = json.loads(body)["tags"]
    except (ValueError, KeyError, TypeError):
        return None
    if tags is None:
        return []
    return tags if isinstance(tags, list) and all(isinstance(tag, str) for tag in tags) else None
