"""The grammar of HTTP/1.1 (RFC 9112) as a guard needs it: strict, pure, the same both ways.

``head`` turns the bytes of a head into a ``RequestHead`` or ``ResponseHead``.  ``body`` says
where the body ends (RFC 9112 section 6) and takes it apart.  ``emit`` writes heads and chunks.

Nothing here repairs anything.  What two parsers could read in two ways is refused, because the
registry behind us is the second parser.
"""

from __future__ import annotations

from regguard.http1.body import (
    Body,
    ChunkedBody,
    LengthBody,
    NoBody,
    UntilCloseBody,
    request_body,
    response_body,
)
from regguard.http1.emit import LAST_CHUNK, chunk, field, request_head, response_head, text
from regguard.http1.errors import MalformedRequest, MalformedResponse
from regguard.http1.head import (
    HEAD_END,
    MAX_FIELDS,
    MAX_HEAD,
    MAX_TARGET,
    RequestHead,
    ResponseHead,
    check_partial_request,
    is_host,
    parse_request_head,
    parse_response_head,
)

__all__ = [
    "HEAD_END",
    "LAST_CHUNK",
    "MAX_FIELDS",
    "MAX_HEAD",
    "MAX_TARGET",
    "Body",
    "ChunkedBody",
    "LengthBody",
    "MalformedRequest",
    "MalformedResponse",
    "NoBody",
    "RequestHead",
    "ResponseHead",
    "UntilCloseBody",
    "check_partial_request",
    "chunk",
    "field",
    "is_host",
    "parse_request_head",
    "parse_response_head",
    "request_body",
    "request_head",
    "response_body",
    "response_head",
    "text",
]
