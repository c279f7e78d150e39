"""Requests as the logs read them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from regguard.access import Access
from regguard.http1 import RequestHead, ResponseHead, parse_request_head, parse_response_head

PIPE_BUF = 4096
"""Octets that Linux takes into a pipe whole or not at all."""


@dataclass
class Request:
    """What the logs read of a ``front.Request``."""

    head: RequestHead | None
    client: str = "192.0.2.7"
    user_name: str | None = None
    incident: str | None = None
    refused_by: str | None = None
    access: Access | None = None
    answered: ResponseHead | None = None
    began: float = 0.0
    upstream_seconds: float | None = None
    status: int = 200
    head_bytes_in: int = 0
    body_bytes_in: int = 0
    head_bytes_out: int = 0
    body_bytes_out: int = 0


def head(
    *lines: bytes, target: bytes = b"/v2/", version: bytes = b"1.1", method: bytes = b"GET"
) -> RequestHead:
    """A request head with these field lines."""
    start = method + b" " + target + b" HTTP/" + version
    return parse_request_head(b"\r\n".join([start, b"Host: x", *lines, b"", b""]))


def answered(*lines: bytes, status: int = 200) -> Any:
    """The head of a registry's answer."""
    start = b"HTTP/1.1 %d x" % (status or 200)
    return parse_response_head(b"\r\n".join([start, b"Content-Length: 0", *lines, b"", b""]))
