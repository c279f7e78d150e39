"""Immutable tags: a write goes on only if none of them changes by it.

What the registry has is asked for, compared, and then written, so two writes to one repository
must not come between each other: they take turns. That holds for this process. Two processes in
front of one registry can still let two first pushes of a tag through in the same moment.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import deque

from twisted.internet.defer import Deferred, succeed

from regguard.access import Access, Denial, Unchanged
from regguard.relay import Relay, Reply, UpstreamFailure

LARGEST_MANIFEST = 4 * 1024 * 1024
"""Octets of a manifest that are taken: distribution's and OCI's limit."""

MOST_OCTETS = 64 * 1024 * 1024
"""Octets of manifests that are held at once while the registry is asked: sixteen of the largest,
thousands of usual ones. On its way to the registry each may stand in memory twice."""

MOST_OCTETS_OF_ONE = MOST_OCTETS // 4
"""The same for one user, who may send them as slowly as anybody may."""

MOST_WAITING = 100
"""Writes that wait for their turn at one repository; nobody pushes so many images at once."""

MOST_TAGS = 1000
"""Immutable tags that are looked up before a manifest is deleted, one round trip for each."""

MOST_PAGES = 100
"""Pages of tags that are read for that, of 1000 tags or what the registry takes for a page."""

_TAG_LIST_OCTETS = 4 * 1024 * 1024
"""One page. Registry 2.8 makes none: this is for 30,000 of the longest tags, 200,000 short ones."""

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
_is_tag = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}").fullmatch
_escapes = re.compile(rb"\\u00([0-9A-Fa-f]{2})")
# The query of the one link that a list of tags may have (distribution, docs/spec/api.md,
# "Listing Image Tags"); RFC 3986's characters, so nothing in it can end the request line.
_next_query = re.compile(
    rb"<[^<>?]*\?([A-Za-z0-9._~!$&'()*+,;=:@/?%-]+)>\s*;\s*rel=\"?next\"?", re.IGNORECASE
).fullmatch


class Turns:
    """One write at a time for each repository."""

    def __init__(self) -> None:
        self._queues: dict[str, _Queue] = {}

    def take(self, repository: str) -> Deferred[Turn]:
        """Wait for the turn, which is to be ended; cancelling gives up the place.

        :raises UpstreamFailure: 503 where too many wait.
        """
        queue = self._queues.get(repository)
        if queue is None:
            self._queues[repository] = _Queue()
            return succeed(Turn(self, repository))
        if len(queue.waiting) >= MOST_WAITING:
            raise UpstreamFailure(
                503, "too many writes to this repository wait for their turn", "busy"
            )
        waiting: Deferred[Turn] = Deferred(queue.waiting.remove)
        queue.waiting.append(waiting)
        return waiting

    def hand_on(self, repository: str) -> None:
        """A turn has ended: the next one begins."""
        queue = self._queues[repository]
        queue.free = True
        if queue.handing_on:
            return  # a turn that was over at once: the loop below goes on, further up the stack
        queue.handing_on = True
        while queue.free and queue.waiting:
            queue.free = False
            queue.waiting.popleft().callback(Turn(self, repository))
        queue.handing_on = False
        if queue.free:
            del self._queues[repository]


class Turn:
    """Nobody else writes to the repository until this has ended."""

    __slots__ = ("_repository", "_turns")

    def __init__(self, turns: Turns, repository: str) -> None:
        self._turns: Turns | None = turns
        self._repository = repository

    def end(self) -> None:
        """It is over; said twice, it is the same."""
        turns, self._turns = self._turns, None
        if turns is not None:
            turns.hand_on(self._repository)


class _Queue:
    """Somebody has the turn unless it is ``free``; who waits for it."""

    __slots__ = ("free", "handing_on", "waiting")

    def __init__(self) -> None:
        self.free = False
        self.handing_on = False
        self.waiting: deque[Deferred[Turn]] = deque()


async def check_tags(
    relay: Relay, user_name: str, access: Access, unchanged: Unchanged, body: bytes
) -> Denial | None:
    """Say no if the manifest in ``body`` would take one of the tags from another one.

    :raises UpstreamFailure: when the registry does not tell.
    """
    ours: dict[str, str] = {}
    for tag in unchanged.tags:
        reply = await _look_up(relay, b"HEAD", user_name, access.repository, tag, limit=0)
        if reply is None:
            continue
        there = _digest_in(reply)
        algorithm = there.partition(":")[0]
        if algorithm not in ours:
            # Once: there may be thousands of tags, and megabytes to hash.
            ours[algorithm] = f"{algorithm}:{hashlib.new(algorithm, body).hexdigest()}"
        if there != ours[algorithm]:
            message = (
                f"user {user_name} may not push {access.repository}:{tag}: the tag is immutable "
                f"and stands for {there if unchanged.may_pull else 'another manifest'}"
            )
            return Denial(message, unchanged.rule)
    return None


async def check_deletion(
    relay: Relay, user_name: str, access: Access, unchanged: Unchanged
) -> Denial | None:
    """Say no if an immutable tag stands for the manifest that would be deleted, or for an index
    that lists it: such a tag would be there and could not be pulled.

    An index that is listed in another index is not looked into; no builder makes such.

    :raises UpstreamFailure: when the registry does not tell.
    """
    whose = f"user {user_name} may not delete {access.repository}@{access.reference}: "
    tags = await _immutable_tags(relay, user_name, access.repository, unchanged)
    if len(tags) > MOST_TAGS:
        return Denial(f"{whose}too many immutable tags to look through", unchanged.rule)
    algorithm = access.reference.partition(":")[0]
    for tag in tags:
        reply = await _look_up(
            relay, b"GET", user_name, access.repository, tag, limit=LARGEST_MANIFEST
        )
        if reply is None:
            continue
        there = _digest_in(reply)
        which = f"the immutable tag {tag}" if unchanged.may_pull else "an immutable tag"
        # Another algorithm's digest may name the same manifest.
        if there == access.reference or there.partition(":")[0] != algorithm:
            return Denial(f"{whose}{which} stands for it", unchanged.rule)
        if access.reference.encode("ascii") in _unescaped(reply.body):
            return Denial(f"{whose}{which} needs it", unchanged.rule)
    return None


def _unescaped(manifest: bytes) -> bytes:
    """JSON in which no digest has another spelling than its own."""
    return _escapes.sub(lambda escape: bytes.fromhex(escape[1].decode("ascii")), manifest)


async def _look_up(
    relay: Relay, method: bytes, user_name: str, repository: str, tag: str, *, limit: int
) -> Reply | None:
    """Ask for the manifest that a tag stands for; None while there is no such tag."""
    target = f"/v2/{repository}/manifests/{tag}".encode("ascii")
    reply = await relay.ask(method, target, ACCEPT, user_name=user_name, limit=limit)
    if reply.status == 404:
        return None
    if reply.status != 200 or not _is_digest(_digest_in(reply)):
        raise UpstreamFailure(502, f"the registry does not tell what {repository}:{tag} stands for")
    return reply


def _digest_in(reply: Reply) -> str:
    return (reply.field(b"docker-content-digest") or b"").decode("ascii", "replace")


async def _immutable_tags(
    relay: Relay, user_name: str, repository: str, unchanged: Unchanged
) -> list[str]:
    """The immutable tags that there are; when they are too many, not all of them."""
    tags: list[str] = []
    query = b"n=1000"
    path = f"/v2/{repository}/tags/list?".encode("ascii")
    for _ in range(MOST_PAGES):
        reply = await relay.ask(b"GET", path + query, user_name=user_name, limit=_TAG_LIST_OCTETS)
        if reply.status == 404:
            return tags
        page = _listed(reply.body) if reply.status == 200 else None
        link = reply.field(b"link")
        more = link and _next_query(link)
        # A link that is not understood may lead to the very tag.
        if page is None or (link and not more):
            break
        tags += filter(unchanged.is_immutable, page)
        if not more or len(tags) > MOST_TAGS:
            return tags
        query = more[1]
    raise UpstreamFailure(502, f"the registry does not tell the tags of {repository}")


def _listed(body: bytes) -> list[str] | None:
    """The tags in an answer; None for what is no list of tags."""
    try:
        tags = json.loads(body)["tags"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    # Go's encoder writes null for none.
    if tags is None:
        return []
    if isinstance(tags, list) and all(isinstance(tag, str) and _is_tag(tag) for tag in tags):
        return tags
    return None
