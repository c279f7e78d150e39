"""``/v2/_catalog`` for callers who may not pull everything.

The registry's pages are read on until the caller's page is full. ``last`` in our ``Link`` is the
last name that was told, never one that was left out (distribution, docs/spec/api.md, "Catalog").

Distribution lists ``a`` behind ``a/0``, for it meets the folder ``a/0`` before ``a/_layers``, and
so with every segment that begins with a digit; but its ``last`` counts ``a`` before ``a/0``. Where
one of its pages ends between the two, 2.8 loses ``a``, or repeats ``a/0``, or sends no ``Link``
though there is more. Our pages are in the order of its ``last``, ``a`` first; nothing is told from
where such an ``a`` may be missing before another page was read, and a full page is not taken for
the last one. Only an ``a`` behind a thousand such names stays lost.
"""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import parse_qs, quote

from regguard import answers
from regguard.access import Access, Policy
from regguard.access.target import is_repository
from regguard.auth.realm import User
from regguard.relay import Relay, Reply, UpstreamFailure

DEFAULT_SIZE = 100
"""Names in a page when nobody says how many: distribution's default."""

LARGEST_PAGE = 1000
"""What distribution gives at most, unless its ``catalog.maxentries`` says otherwise."""

MOST_PAGES = 100
"""Pages that are read from the registry for one of ours: 100,000 names. Registry 2.8 walks through
its folders for each of them."""

_PAGE_OCTETS = 1024 * 1024
"""A thousand names of 255 characters, four times over."""

_links = re.compile(rb"<([^<>]*)>([^<,]*)").findall
_is_next = re.compile(rb';\s*rel\s*=\s*"?next"?\s*(?:;|\Z)', re.IGNORECASE).search


async def catalog_page(relay: Relay, user: User, policy: Policy, access: Access) -> answers.Answer:
    """The page that ``access`` asks for, of the repositories that the user may pull.

    By the ``policy`` that was in force when the request came.

    :raises UpstreamFailure: when the registry fails, or has too much that the user may not see.
    """
    wanted = parse_qs(access.target.partition(b"?")[2].decode("ascii"))
    size = int(wanted.get("n", [str(DEFAULT_SIZE)])[0])
    if size == 0 or policy.visible(user.name, user.groups) == "none":
        return _page([], None)
    reading = _Reading(wanted.get("last", [""])[0], size)
    # Each once, in this order.
    told: dict[str, None] = {}
    for _ in range(MOST_PAGES):
        reply = await relay.ask(b"GET", reading.target, user_name=user.name, limit=_PAGE_OCTETS)
        if reply.status in (404, 405):
            return answers.error(404, "UNSUPPORTED", "the registry has no catalog")
        for name in reading.take(reply):
            if policy.may_pull(user.name, user.groups, name):
                told[name] = None
        if len(told) > size or reading.is_over:
            return _page([*told][:size], size if len(told) > size else None)
    if not told:
        # Not 503: who comes again finds it as long.
        raise UpstreamFailure(502, "the registry's catalog is too long to look through")
    return _page([*told], size)


class _Reading:
    """The registry's catalog behind a name, page by page."""

    def __init__(self, last: str, size: int) -> None:
        self._last = last
        self._cursor = last
        self._cursors = {last}
        # More than wanted, for some will be hidden: a hundred more names cost the registry little,
        # another look all of the way to them once more.
        self._size: int | None = min(size + DEFAULT_SIZE, LARGEST_PAGE)
        self._largest: int | None = LARGEST_PAGE
        # Whether the registry itself said that there is a page behind the cursor.
        self._has_link = True
        self.is_over = False

    @property
    def target(self) -> bytes:
        """What to ask for next."""
        words = [] if self._size is None else [f"n={self._size}"]
        if self._cursor:
            words.append(f"last={quote(self._cursor, safe='')}")
        return ("/v2/_catalog?" + "&".join(words)).encode("ascii")

    def take(self, reply: Reply) -> list[str]:
        """The names in a reply that are good to be told, in their order.

        :raises UpstreamFailure: for what is no page, or would never come to an end.
        """
        if reply.status == 400 and self._size is not None:
            # More than its catalog.maxentries; without n that is what comes.
            self._size = self._largest = None
            return []
        if reply.status != 200:
            raise UpstreamFailure(502, f"the registry's catalog answers {reply.status}")
        page = _names(reply.body)
        if self._cursor in page[1:]:
            if self._has_link:
                # And again, for ever, for a client that follows our links.
                raise _no_way_on()
            page = []
        cursor = _cursor(reply.field(b"link"), page)
        self._has_link = cursor is not None
        if cursor is None and page and self._size in (len(page), None):
            cursor = page[-1]
        if cursor is None:
            self.is_over = True
        elif page and cursor == page[-1]:
            page = page[: self._end_of_trust(page)]
            # Nothing to trust: the same again, in the largest size.
            if page:
                self._go_on(page[-1])
        else:
            self._go_on(cursor)
        self._size = self._largest
        return [name for name in _parents_first(page) if self._is_new(name)]

    def _go_on(self, cursor: str) -> None:
        if cursor in self._cursors:
            raise _no_way_on()
        self._cursors.add(cursor)
        self._cursor = cursor

    def _is_new(self, name: str) -> bool:
        """Whether it is a repository that no client was told of in a page before.

        Registries after 3.1 go on behind ``a/0`` with ``a``, which stood before it.
        """
        last = self._last
        return is_repository(name) and name != last and not last.startswith(name + "/")

    def _end_of_trust(self, page: list[str]) -> int:
        """How many names of a page that is not the last are sure to have none missing between."""
        segments = page[-1].split("/")
        for number in range(1, len(segments)):
            parent = "/".join(segments[:number])
            if (
                segments[number] < "_layers"
                and parent not in page
                and _by_segment(parent) > _by_segment(self._cursor)
            ):
                end = next(i for i, name in enumerate(page) if name.startswith(parent + "/"))
                if end or self._size != self._largest:
                    return end
        return len(page)


def _by_segment(name: str) -> str:
    """A key for the order of distribution's ``last`` (registry/storage/catalog.go, lessPath)."""
    return name.replace("/", "\0")


def _parents_first(page: list[str]) -> list[str]:
    ordered: list[str] = []
    for name in page:
        place = len(ordered)
        while place and ordered[place - 1].startswith(name + "/"):
            place -= 1
        ordered.insert(place, name)
    return ordered


def _names(body: bytes) -> list[str]:
    try:
        names: Any = json.loads(body)["repositories"]
    except (ValueError, KeyError, TypeError, RecursionError):
        names = 0
    # Go's encoder writes null for no names at all.
    if names is None:
        return []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UpstreamFailure(502, "the registry's catalog is not understood")
    return names


def _cursor(link: bytes | None, page: list[str]) -> str | None:
    """Where the registry's next page begins; None behind the last one."""
    for where, parameters in _links(link or b""):
        if _is_next(parameters):
            values = parse_qs(where.partition(b"?")[2].decode("ascii", "replace"))
            cursor = values["last"][0] if "last" in values else page[-1] if page else ""
            if not cursor:
                raise _no_way_on()
            return cursor
    return None


def _no_way_on() -> UpstreamFailure:
    return UpstreamFailure(502, "the registry's catalog does not go on behind a name")


def _page(names: list[str], more: int | None) -> answers.Answer:
    fields: tuple[bytes, ...] = ()
    if more is not None:
        where = f"/v2/_catalog?last={quote(names[-1], safe='')}&n={more}"
        fields = (f'Link: <{where}>; rel="next"'.encode("ascii"),)
    return answers.document({"repositories": names}, *fields)
