"""The Authorization header's grammar: HTTP Basic (RFC 7617), read in one way only.

One credential, one spelling: what two readers could decode differently is refused. Characters are
UTF-8, as the challenge announces. They are taken as they come: RFC 7617 section 2.1 leaves it to
the client to normalize, so the NFD form of a password is another password than its NFC form.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode

from regguard.auth.interfaces import Unauthenticated

# Real ones are below 200 bytes; nginx and Apache take no header line of more than 8 KiB either.
LIMIT = 8192

# RFC 9110 section 11.4: the scheme in any case, spaces (no tab), one token68 in base64 alphabet.
_basic = re.compile(rb"[Bb][Aa][Ss][Ii][Cc] +([A-Za-z0-9+/]+={0,2})").fullmatch
# RFC 7617 section 2: neither user-id nor password holds a control character, NUL among them.
_has_control = re.compile(r"[\x00-\x1f\x7f]").search


def decode_basic(authorization: bytes) -> tuple[str, str]:
    """Return user name and password of an Authorization header's value.

    :raises Unauthenticated: when it is longer than :data:`LIMIT`, of another scheme, not
        canonical base64 of UTF-8, without colon, or with an empty name or password.
    """
    if len(authorization) > LIMIT:
        raise Unauthenticated("credentials too long")
    match = _basic(authorization)
    if match is None:
        raise Unauthenticated("not Basic credentials")
    try:
        decoded = b64decode(match[1], validate=True)
        text = decoded.decode("utf-8")
    except ValueError:
        # The exception would carry the password.
        raise Unauthenticated("credentials are not base64 of UTF-8") from None
    if b64encode(decoded) != match[1]:
        raise Unauthenticated("credentials are not in canonical base64")
    name, colon, password = text.partition(":")
    if not (name and colon and password):
        raise Unauthenticated("credentials without user name or password")
    if _has_control(text):
        raise Unauthenticated("credentials with a control character")
    return name, password
