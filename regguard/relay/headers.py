"""Header rules, both ways.

The order is what keeps it safe (CVE-2022-31813, CVE-2024-45410, CVE-2025-48865): first
everything that ends here is dropped, with what ``Connection`` lists; then framing and our own
fields are added, so nothing a client sends can take them away or double them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import SplitResult, urlsplit

from regguard.http1 import RequestHead, ResponseHead, field, request_head, text

HOP_BY_HOP = frozenset(
    (
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    )
)
"""RFC 9110 section 7.6.1, and Proxy-Connection which clients made up."""

_DROPPED_FROM_REQUEST = HOP_BY_HOP | {
    # Written anew, from what was decided on.
    b"host",
    b"content-length",
    # Ends here: the registry must never see the credential, nor decide on a 100 Continue.
    b"authorization",
    b"expect",
    # Who, from where, to which address: only our word counts.  distribution believes
    # "Forwarded" more than anything else, from anyone.
    b"forwarded",
    b"via",
    b"x-real-ip",
    b"x-remote-user",
    b"x-remote-group",
    b"remote-user",
    b"x-original-url",
    b"x-rewrite-url",
    b"x-original-method",
    b"x-original-host",
    # Goes with an Upgrade, which ends here; clients list it in Connection, or forget to.
    b"http2-settings",
    # "Act as if another method had been used": decided on one, done another.
    b"x-http-method",
    b"x-http-method-override",
    b"x-method-override",
}

_DROPPED_FROM_RESPONSE = HOP_BY_HOP | {
    b"content-length",
    b"docker-distribution-api-version",
    # The registry's own challenge would send the client's password to whom it names
    # (CVE-2026-33540).
    b"www-authenticate",
    b"alt-svc",
}

_MOST_THAT_GOES_ON = frozenset(
    (b"accept", b"accept-encoding", b"user-agent", b"content-type", b"range", b"content-range")
)
"""What clients send most, and ``_goes_on`` would be asked for in vain."""

_LEADS = frozenset((b"location", b"link"))

_LOOKED_AT = _DROPPED_FROM_RESPONSE | _LEADS

API_VERSION = b"Docker-Distribution-Api-Version: registry/2.0"


@dataclass(frozen=True, slots=True)
class Origin:
    """The scheme and authority by which clients reach the registry (``--public-url``)."""

    scheme: bytes
    authority: bytes


def upstream_request(
    head: RequestHead,
    target: bytes,
    *,
    client: str,
    secure: bool,
    authority: bytes,
    user_name: str,
    is_upload: bool,
    origin: Origin | None,
    registry: Origin,
    credential: bytes | None,
    body_length: int | None = None,
) -> bytes:
    """The head that goes to the registry.

    ``client``, ``secure`` and ``authority`` say who asked, how, and for which host.
    ``target`` is the canonical one that was authorized.  ``origin`` is the public one, where it is
    not what ``authority`` says; ``registry`` is the registry's own.  ``credential`` is regguard's
    own Authorization value for the registry, if it has one.  An upload's content type is always
    ``application/octet-stream``: Go reads ``mount`` and ``from`` out of a form body (cases
    D02-D04), so there must be none.  ``body_length`` is for a body that was read whole: however
    the client framed it, it goes on with its length.
    """
    scheme, authority = told_origin(authority, secure, origin, registry)
    lines = [b"Host: " + authority]
    options = head.connection_options
    for name, key, value in head.fields:
        if key in _DROPPED_FROM_REQUEST or key in options:
            continue
        if key not in _MOST_THAT_GOES_ON and not _goes_on(key):
            continue
        if is_upload and key == b"content-type":
            continue
        lines.append(name + b": " + value)
    if is_upload:
        lines.append(b"Content-Type: application/octet-stream")
    if body_length is not None:
        lines.append(b"Content-Length: %d" % body_length)
    elif head.chunked:
        lines.append(b"Transfer-Encoding: chunked")
    elif head.content_length is not None:
        lines.append(b"Content-Length: %d" % head.content_length)
    lines.append(_introduction(client, scheme, authority, user_name))
    if credential is not None:
        lines.append(b"Authorization: " + credential)
    return request_head(head.method, target, lines)


@lru_cache(1024)  # who is busy asks again and again
def _introduction(client: str, scheme: bytes, authority: bytes, user_name: str) -> bytes:
    """The lines that say who asks, from where and for which host."""
    address = field(b"X-Real-IP", client.encode("ascii", "replace"))
    return b"\r\n".join(
        (
            address,
            b"X-Forwarded-For" + address[9:],
            b"X-Forwarded-Proto: " + scheme,
            b"X-Forwarded-Host: " + authority,
            b"X-Forwarded-User: " + text(user_name),
        )
    )


def told_origin(
    authority: bytes, secure: bool, origin: Origin | None, registry: Origin
) -> tuple[bytes, bytes]:
    """Scheme and authority by which the registry hears that clients reach it."""
    if origin is None:
        if authority:
            return b"https" if secure else b"http", authority
        # HTTP/1.0: the registry's own name; its Location is made a path then.
        origin = registry
    return origin.scheme, origin.authority


def inquiry_request(
    method: bytes,
    target: bytes,
    lines: Iterable[bytes],
    *,
    user_name: str,
    authority: bytes,
    credential: bytes | None,
) -> bytes:
    """The head of a question of our own; nothing in it is a client's but the user's name."""
    ours = [b"Host: " + authority, *lines, b"X-Forwarded-User: " + text(user_name)]
    if credential is not None:
        ours.append(b"Authorization: " + credential)
    return request_head(method, target, ours)


def _goes_on(key: bytes) -> bool:
    """Whether a client's field may go to the registry at all.

    Names with ``_`` or ``.`` are other names' doubles to CGI-like servers (CVE-2025-64484);
    no registry client sends them.
    """
    return not key.startswith(b"x-forwarded-") and b"_" not in key and b"." not in key


def client_fields(
    head: ResponseHead, lead: Callable[[ResponseHead, bytes, bytes], bytes]
) -> list[bytes]:
    """The field lines for the client, without framing of a body of unknown length.

    ``lead(head, key, value)`` says where a Location or a Link leads the client.
    """
    lines = [API_VERSION]
    options = head.connection_options
    for name, key, value in head.fields:
        if key in _LOOKED_AT or key in options:
            if key not in _LEADS or key in options:
                continue
            value = lead(head, key, value)
        lines.append(name + b": " + value)
    # RFC 9110 section 8.6: never with 204.
    if head.content_length is not None and head.status != 204:
        lines.append(b"Content-Length: %d" % head.content_length)
    return lines


def origin_of(url: str) -> Origin:
    """The origin of an ``http://`` or ``https://`` URL; raises ValueError with the reason."""
    parts = split_url(url)
    if parts.scheme not in ("http", "https"):
        raise ValueError("must begin with http:// or https://")
    check_ends_after_port(parts)
    if parts.username is not None:
        raise ValueError("must not hold a user or password")
    return Origin(parts.scheme.encode("ascii"), parts.netloc.encode("ascii"))


def split_url(url: str) -> SplitResult:
    """Take a URL apart; its host and port are well formed where it has any.

    Raises ValueError with a reason that never quotes the URL, because it may hold a password.
    """
    if not (url.isascii() and url.isprintable()):
        raise ValueError("must be written in printable ASCII")
    try:
        parts = urlsplit(url)
        malformed = parts.port == 0 or _HOST.fullmatch(parts.hostname or "") is None
    except ValueError:
        malformed = True
    if malformed:
        raise ValueError("its host or port is malformed; write it as http://HOST:PORT")
    return parts


def check_ends_after_port(parts: SplitResult) -> None:
    """Raise ValueError for a URL that is more or less than an origin."""
    if not parts.hostname:
        raise ValueError("names no host; write it as http://HOST:PORT")
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError("must end after the host and port; clients' paths go on as they are")


# Host names, with the underscore of docker compose's services, and addresses.
_HOST = re.compile(r"[a-z0-9._-]*|[0-9a-f:.]+(?:%[a-z0-9]+)?")
