"""What others sent, on its way into a log line: bounded, and without secrets."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeVar

Text = TypeVar("Text", str, bytes)

MAX_TEXT = 640
"""Characters of one text in a line, escapes counted; the rest is cut.  An upload's longest target
without its secret has some 450.  With four of them, and what else stands there, no line is longer
than 4096 octets, Linux's ``PIPE_BUF``: it goes into a pipe whole or not at all, whoever else writes
there (pipe(7))."""

MAX_WORD = 200
"""Characters of a reference, digest or media type: a tag has 128 at most, SHA-512 in hex 135."""

# Whoever has the registry's signed upload state can go on with the upload.
_SECRET = re.compile(rb"([?&](?:_state|access_token)=)[^&]*")
_USERINFO = re.compile(rb"//[^/?# ]*@")


def without_secrets(value: bytes) -> bytes:
    """A target or URL without upload states, tokens and passwords."""
    if b"?" in value:
        value = _SECRET.sub(rb"\1...", value)
    if b"@" in value:
        value = _USERINFO.sub(b"//...@", value)
    return value


def cut(value: Text, escape: Callable[[Text], Text], limit: int) -> Text:
    """As much of the begin of ``value`` as has at most ``limit`` characters when it is escaped."""
    value = value[:limit]
    while len(escaped := escape(value)) > limit:
        # Shorter by as much as it is too long; and escapes stay whole.
        value = value[: len(value) * limit // len(escaped)]
    return escaped
