"""``/v2/_catalog`` for callers who may not pull everything.

The registry's pages are read on until the caller's page is full. ``last`` in our ``Link`` is the
last name that was told, never one that was left out (distribution, docs/spec/api.md, "Catalog").
"""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import parse_qs, quote

from regguard import answers
from regguard.access import Access, Policy
from regguard.auth.realm import User
from regguard.relay import Relay, UpstreamFailure

DEFAULT_SIZE = 100
"""Names in a page when nobody says how many: distribution's default."""

LARGEST_PAGE = 1000
"""What distribution gives at most (``catalog.maxentries``)."""

MOST_PAGES = 100
"""Pages that are read from the registry for one of ours: 100,000 names. Registry 2.8 walks through
its folders for each of them."""

_PAGE_OCTETS = 1024 * 1024
"""A thousand names of 255 characters, four times over."""

_next_page = re.compile(rb"<([^<>]*)>[^,]*;\s*rel=\"?next\"?", re.IGNORECASE).search


async def catalog_page(relay: Relay, user: User, policy: Policy, access: Access) -> answers.Answer:
    """The page that ``access`` asks for, of the repositories that the user may pull.

    :raises UpstreamFailure: when the registry fails, or has too much that the user may not see.
    """
    wanted = parse_qs(access.target.partition(b"?")[2].decode("ascii"))
    size = int(wanted.get("n", [str(DEFAULT_SIZE)])[0])
    if size == 0 or policy.visible(user.name, user.groups) == "none":
        return _page([], None)
    cursor: str | None = wanted.get("last", [""])[0]
    names: list[str] = []
    # One more than wanted tells whether there is another page.
    ask_for = min(size + 1, LARGEST_PAGE)
    for _ in range(MOST_PAGES):
        reply = await relay.ask(
            b"GET",
            b"/v2/_catalog?" + _query(ask_for, cursor),
            user_name=user.name,
            limit=_PAGE_OCTETS,
        )
        if reply.status in (404, 405):
            return answers.error(404, "UNSUPPORTED", "the registry has no catalog")
        if reply.status != 200:
            raise UpstreamFailure(502, f"the registry's catalog answers {reply.status}")
        page = _names(reply.body)
        names += [name for name in page if policy.may_pull(user.name, user.groups, name)]
        cursor = _cursor(reply.field(b"link"), page)
        if len(names) > size or cursor is None:
            break
        ask_for = LARGEST_PAGE
    else:
        if not names:
            raise UpstreamFailure(503, "the registry's catalog is too long to look through")
        return _page(names[:size], size)
    return _page(names[:size], size if len(names) > size else None)


def _query(size: int, last: str | None) -> bytes:
    query = f"n={size}&last={quote(last, safe='')}" if last else f"n={size}"
    return query.encode("ascii")


def _names(body: bytes) -> list[str]:
    try:
        names: Any = json.loads(body)["repositories"]
    except (ValueError, KeyError, TypeError):
        names = 0
    # Go's encoder writes null for no names at all.
    if names is None:
        return []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UpstreamFailure(502, "the registry's catalog is not understood")
    return names


def _cursor(link: bytes | None, page: list[str]) -> str | None:
    """Where the registry's next page begins; None behind the last one."""
    found = link and _next_page(link)
    if not found:
        return None
    values = parse_qs(found[1].partition(b"?")[2].decode("ascii", "replace"))
    cursor = values["last"][0] if "last" in values else page[-1] if page else ""
    if not cursor:
        raise UpstreamFailure(502, "the registry's catalog leads nowhere")
    return cursor


def _page(names: list[str], more: int | None) -> answers.Answer:
    fields: tuple[bytes, ...] = ()
    if more is not None:
        where = f"/v2/_catalog?last={quote(names[-1], safe='')}&n={more}"
        fields = (f'Link: <{where}>; rel="next"'.encode("ascii"),)
    return answers.document({"repositories": names}, *fields)
