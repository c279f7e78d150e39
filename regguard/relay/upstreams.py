"""The registries of one guard: which one is asked, and which one an upload belongs to.

The registries share their storage, and are asked in the order in which they stand: the first one
serves while it takes connections, then the next one.  What a registry knows of an upload that is
under way, the others may not know, so the upload stays where it began.  For that its URL carries
the registry's mark, as the last word of its query::

    /v2/team/app/blobs/uploads/ID?_state=SIGNED&_upstream=1f2e3d4c

That needs no memory: any process of any machine with the same registries reads it, after a
restart, too, and clients send it back, as the distribution specification obliges them to (the
Location is used as it is, with ``digest`` added).  The registry never sees it, so what it signed
is unchanged.  It is no word of the policy's either: it is looked at when everything is decided,
and all it can do is to choose among registries that the caller may use anyway.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from regguard.relay.upstream import Upstream

_MARK = re.compile(rb"[?&]_upstream=([0-9a-f]{8})(?=&|\Z)")
_UPLOADS = b"/blobs/uploads/"


class Upstreams:
    """The registries in the order in which they are asked."""

    def __init__(self, members: Sequence[Upstream]) -> None:
        self.members = tuple(members)
        # With one registry there is nothing to mark, and what stands there is somebody else's:
        # a guard's in front of this one.
        self._marked = {each.mark: each for each in members} if len(members) > 1 else {}

    def first(self) -> Upstream:
        """Which one to ask now.

        Those that are down come last: what is known of them may be out of date.
        """
        for each in self.members:
            if each.is_up:
                return each
        return self.members[0]

    def next(self, tried: Collection[Upstream]) -> Upstream | None:
        """Which one to ask after some; None when all of them were tried."""
        left = [each for each in self.members if each not in tried]
        return min(left, key=lambda each: not each.is_up, default=None)

    def of_upload(self, target: bytes) -> tuple[Upstream, bytes]:
        """The registry to ask for an upload, and the target as that one knows it."""
        if self._marked:
            # Clients sort the words by name, and keep the order of those that are alike.  So
            # the last one is ours, wherever it stands; others are of guards behind this one.
            for found in reversed(list(_MARK.finditer(target))):
                if found[1] in self._marked:
                    # Even if it was not there a moment ago: nobody else may know the upload.
                    return self._marked[found[1]], _without(target, found)
                break
        return self.first(), target

    def marked(self, location: bytes, upstream: Upstream) -> bytes:
        """The Location of an upload, so that its next request finds the same registry."""
        path, _, fragment = location.partition(b"#")
        if not self._marked or _UPLOADS not in path.partition(b"?")[0]:
            return location
        separator = b"&" if b"?" in path else b"?"
        marked = path + separator + b"_upstream=" + upstream.mark
        return marked + b"#" + fragment if fragment else marked

    def look(self, now: float) -> None:
        """Watch over the connections; called about once a second."""
        for each in self.members:
            each.look(now)

    def stop(self) -> None:
        """Cut every connection, and keep none from now on."""
        for each in self.members:
            each.stop()


def _without(target: bytes, word: re.Match[bytes]) -> bytes:
    before, after = target[: word.start()], target[word.end() :]
    return before + b"?" + after[1:] if after and word[0][:1] == b"?" else before + after
