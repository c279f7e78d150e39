"""Push records: what one image's push took, told when its manifest is there.

A push is many requests over many connections: uploads of blobs (the layers and the image's
configuration), mounts, and at last a manifest.  They belong together by user and repository.
:func:`push_event` makes an event of a request, a plain dictionary that can travel between processes
as JSON; one :class:`PushLedger` counts them.  No clock, no I/O.

Members of an event: ``kind``, ``user``, ``repository``, ``bytes`` (octets of the request's body),
``began`` and ``at`` (when the request began and ended, in seconds of one clock that only goes
forward); of a manifest also ``tags``, ``digest`` and ``media_type``.  Kinds: ``received`` (an
upload began or went on), ``uploaded`` and ``mounted`` (a blob is there), ``manifest``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from regguard.ops.texts import MAX_WORD

LIFETIME = 3600.0
"""Seconds for which a push without a manifest is remembered after its last request: as long as a
layer of 20 GB takes at 50 Mbit/s, and what is forgotten is a count, no more."""

MOST_PUSHES = 10_000
"""Pushes under way that are counted at once; at 400 octets each no more than 4 MB."""

MOST_TAGS = 10
"""Tags of one manifest that are told: the OCI specification asks registries to take that many."""


def digest_of(request: Any) -> str | None:
    """The digest that the registry said, or else the one that was asked for.

    ``request`` is a ``front.Request``; its head may be answered or not.
    """
    answered = request.answered
    if answered is not None:
        for _, key, value in answered.fields:
            if key == b"docker-content-digest":
                digest: str = value.decode("ascii", "backslashreplace")
                return digest
    access = request.access
    return access.reference if access is not None and ":" in access.reference else None


def push_event(request: Any, now: Callable[[], float]) -> dict[str, Any] | None:
    """What a ``front.Request`` that came to an end did for a push; None for most of them."""
    access, status = request.access, request.status
    if access is None or access.action != "push" or (status != 201 and status != 202):
        return None
    is_manifest = access.endpoint == "manifests"
    if status == 202:
        if is_manifest:
            return None
        kind = "received"
    elif is_manifest:
        kind = "manifest"
    else:
        kind = "uploaded" if access.mount_source is None else "mounted"
    event = {
        "kind": kind,
        "user": request.user_name,
        "repository": access.repository,
        "bytes": request.body_bytes_in,
        "began": request.began,
        "at": now(),
    }
    if is_manifest:
        digest = digest_of(request)
        event["tags"] = list(access.tags[:MOST_TAGS])
        event["digest"] = None if digest is None else digest[:MAX_WORD]
        event["media_type"] = _media_type(request.head)
    return event


def _media_type(head: Any) -> str | None:
    for _, key, value in head.fields:
        if key == b"content-type":
            media_type: str = value[:MAX_WORD].decode("ascii", "backslashreplace")
            return media_type
    return None


class _Push:
    """What came for one push so far."""

    __slots__ = ("began", "bytes", "mounted", "seen", "uploaded")

    def __init__(self, began: float) -> None:
        self.began = began
        self.seen = 0.0
        self.bytes = 0
        self.uploaded = 0
        self.mounted = 0


class PushLedger:
    """Counts the events of pushes under way, by user and repository.

    Blobs count for the next manifest: of an image for many platforms each manifest is a push of its
    own, and who pushes two images into one repository at once has their blobs counted for the one
    that comes first.
    """

    def __init__(self) -> None:
        # The one without an event for the longest time stands first.
        self._pushes: dict[tuple[str, str], _Push] = {}

    def __len__(self) -> int:
        """How many are under way."""
        return len(self._pushes)

    def note(self, event: Mapping[str, Any]) -> dict[str, Any] | None:
        """Count an event of :func:`push_event`; for a manifest, the record of its push.

        Members of a record: ``user``, ``repository``, ``tags`` (empty for a manifest that is put
        by digest alone), ``digest``, ``media_type``, ``blobs_uploaded``, ``blobs_mounted``,
        ``bytes`` (octets of the uploads' bodies), ``seconds`` (from the first request's begin to
        the manifest's end).
        """
        key = event["user"], event["repository"]
        at: float = event["at"]
        push = self._pushes.pop(key, None)
        if push is None or at - push.seen > LIFETIME:
            push = _Push(event["began"])
        kind = event["kind"]
        if kind == "manifest":
            return {
                **{name: event[name] for name in ("user", "repository", "tags", "digest")},
                "media_type": event["media_type"],
                "blobs_uploaded": push.uploaded,
                "blobs_mounted": push.mounted,
                "bytes": push.bytes,
                "seconds": round(at - min(push.began, event["began"]), 3),
            }
        push.seen = at
        push.began = min(push.began, event["began"])
        push.bytes += event["bytes"]
        push.uploaded += kind == "uploaded"
        push.mounted += kind == "mounted"
        self._pushes[key] = push
        self._forget(at)
        return None

    def _forget(self, now: float) -> None:
        """Give up those that nothing came for, and the oldest one where there are too many."""
        pushes = self._pushes
        while pushes:
            oldest = next(iter(pushes))
            if len(pushes) <= MOST_PUSHES and now - pushes[oldest].seen <= LIFETIME:
                break
            del pushes[oldest]


def in_words(record: Mapping[str, Any]) -> str:
    """A record as one line for people."""
    tags = record["tags"]
    name = record["repository"] + (":" + ",".join(tags) if tags else "")
    uploaded = record["blobs_uploaded"]
    return (
        f"pushed {name} {record['digest'] or '-'} by {record['user']}: "
        f"{uploaded} blob{'' if uploaded == 1 else 's'} uploaded ({_size(record['bytes'])}), "
        f"{record['blobs_mounted']} mounted, {record['seconds']:.1f} s"
    )


def _size(octets: int) -> str:
    if octets < 1000:
        return f"{octets} B"
    size, units = octets / 1000, ["kB", "MB", "GB", "TB"]
    # What is more would be shown as 1000.0.
    while size >= 999.95 and len(units) > 1:
        size /= 1000
        del units[0]
    return f"{size:.1f} {units[0]}"
