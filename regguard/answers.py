"""regguard's own answers: always the OCI error JSON, framed exactly.

``{"errors":[{"code","message","detail"}]}`` (OCI distribution-spec, "Error Codes"), so that
docker and its kin print ``message``.  The text is JSON-encoded ASCII and never HTML, and
``nosniff`` keeps browsers from guessing.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field

_FIXED = (
    b"Content-Type: application/json",
    b"Docker-Distribution-Api-Version: registry/2.0",
    b"X-Content-Type-Options: nosniff",
)


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole response of regguard's own: status, ready field lines and body."""

    status: int
    body: bytes
    fields: tuple[bytes, ...] = field(default=_FIXED)


def error(
    status: int, code: str, message: str, *more_fields: bytes, detail: object = None
) -> Answer:
    """An OCI error; ``more_fields`` are ready field lines such as ``Allow: GET``."""
    entry: dict[str, object] = {"code": code, "message": message}
    if detail is not None:
        entry["detail"] = detail
    body = json.dumps({"errors": [entry]}, separators=(",", ":")).encode("ascii") + b"\n"
    return Answer(status, body, _FIXED + more_fields)


def document(content: object, *more_fields: bytes) -> Answer:
    """A 200 with JSON, as the registry itself would write it."""
    body = json.dumps(content, separators=(",", ":")).encode("ascii") + b"\n"
    return Answer(200, body, _FIXED + more_fields)


def challenge(realm: str) -> Answer:
    """The 401 for everybody who is not (yet) known; RFC 7617 section 2.

    One challenge and the same bytes for every repository: a second challenge confuses old
    clients, and a difference would tell which repositories exist.
    """
    quoted = realm.replace("\\", "\\\\").replace('"', '\\"').encode("utf-8")
    return error(
        401,
        "UNAUTHORIZED",
        "authentication required",
        b'WWW-Authenticate: Basic realm="%s", charset="UTF-8"' % quoted,
    )


def busy(retry_after: int) -> Answer:
    """The 503 for who should come again, in ``retry_after`` seconds."""
    later = b"Retry-After: %d" % retry_after
    return error(503, "UNAVAILABLE", "too busy now, please retry", later)


def throttled(reason: str, retry_after: int) -> Answer:
    """The 429 (RFC 6585 section 4) for who should stop trying, for ``retry_after`` seconds."""
    message = f"{reason}; try again in {retry_after} s"
    return error(429, "TOOMANYREQUESTS", message, b"Retry-After: %d" % retry_after)


def welcome() -> Answer:
    """The line that balancers and browsers get at ``/``."""
    return Answer(
        200,
        b"This is a container image registry; its API is at /v2/.\n",
        (b"Content-Type: text/plain; charset=utf-8", b"X-Content-Type-Options: nosniff"),
    )
