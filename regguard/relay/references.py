"""Where the registry's answers lead: ``Location`` and ``Link`` as the client must read them.

A client goes where it is led with whatever it has: the rest of a layer, often its password.  So
where an answer leads is one of

- a path, or an origin that is ours: the registry's address, the name that we gave it for
  ourselves, the public one.  What the client can't reach of these is rewritten;
- another host, to which a registry redirects a download: a signed storage URL, kept octet by
  octet;
- anything else, and then nobody is led there (cases D19 to D22).
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from regguard.relay.headers import Origin


class Misleading(Exception):
    """An answer leads where no client may be sent; the text says why, for the operator."""


# RFC 3986 without "\", which browsers and some libraries take for "/".
_URL = re.compile(rb"[!-\[\]-~]+")
_SCHEME = re.compile(rb"[^/?#:]*:")
_ABSOLUTE = re.compile(rb"(https?)://([^/?#]*)(.*)", re.IGNORECASE)
_AUTHORITY = re.compile(rb"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?")
_LINK = re.compile(rb"<([^<>]*)>([^<]*)")
_IS_NEXT = re.compile(rb";\s*rel\s*=\s*\"?[^\";]*\bnext\b", re.IGNORECASE)
_DEFAULT_PORT = {b"http": b":80", b"https": b":443"}


class References:
    """Rewrites what the registry's answers lead to.

    ``registries`` are the origins by which the registry may call itself; ``public`` is the
    ``--public-url``, which is told in their place; without one it is the path alone, which a
    client resolves by what it used itself (docker since 1.8).
    """

    def __init__(self, registries: Iterable[Origin], public: Origin | None) -> None:
        self._registries = frozenset(_spelled_alike(each) for each in registries)
        self._prefix = b"" if public is None else public.scheme + b"://" + public.authority

    def location(self, value: bytes, told: Origin, *, may_leave: bool) -> bytes:
        """A Location for the client.

        ``told`` is what we told the registry that we are called; ``may_leave`` says that
        another host is a good answer.

        :raises Misleading: when no client may be sent there.
        """
        found, is_ours = self._read(value, told)
        if not (is_ours or may_leave):
            raise Misleading(
                f"its Location leads to {_host(value)}, which is neither its own address nor the "
                "client's; if clients use that name, say it with --public-url"
            )
        return found

    def link(self, value: bytes, told: Origin) -> bytes:
        """A Link for the client.

        :raises Misleading: when the next page of a list would be elsewhere.
        """

        def rewritten(link: re.Match[bytes]) -> bytes:
            url, parameters = link.groups()
            is_next = _IS_NEXT.search(parameters) is not None
            try:
                found, is_ours = self._read(url, told)
            except Misleading:
                if is_next:
                    raise
                return link[0]  # for whoever reads; no client follows it
            if is_next and not is_ours:
                raise Misleading(f"the next page of its list is at {_host(url)}")
            return b"<" + found + b">" + parameters

        return _LINK.sub(rewritten, value)

    def _read(self, value: bytes, told: Origin) -> tuple[bytes, bool]:
        """The reference for the client, and whether it stays with us."""
        if _URL.fullmatch(value) is None:
            raise Misleading("it leads to what is no URL")
        parts = _ABSOLUTE.fullmatch(value)
        if parts is None:
            if value.startswith(b"//") or _SCHEME.match(value):
                raise Misleading("it leads to what is neither a path nor an HTTP URL")
            return value, True
        scheme, authority, rest = parts.groups()
        if _AUTHORITY.fullmatch(authority) is None:
            raise Misleading("it leads to a malformed host")
        origin = _spelled_alike(Origin(scheme, authority))
        ours = _spelled_alike(told)
        if origin == ours and origin not in self._registries:
            return value, True
        # The other scheme: the registry has not listened when we said which one clients use, and
        # repeats the port as it stood there.
        known = (ours.authority, told.authority.lower())
        if origin not in self._registries and origin.authority not in known:
            return value, False
        # Two slashes at the front of a path alone would name another host.
        return self._prefix + b"/" + rest.lstrip(b"/"), True


def _spelled_alike(origin: Origin) -> Origin:
    """One spelling for origins that are the same (RFC 9110 section 4.2.3)."""
    scheme = origin.scheme.lower()
    authority = origin.authority.lower().removesuffix(_DEFAULT_PORT.get(scheme, b""))
    return Origin(scheme, authority.removesuffix(b":"))


def _host(url: bytes) -> str:
    parts = _ABSOLUTE.fullmatch(url)
    return "nowhere" if parts is None else (parts[1] + b"://" + parts[2]).decode("ascii").lower()
