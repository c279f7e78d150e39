"""Whose fault a broken message is: the client's or the registry's."""

from __future__ import annotations


class MalformedRequest(Exception):
    """The client's bytes are no acceptable HTTP/1.1 request.

    ``status`` is the answer that the client gets before its connection is closed; ``reason`` is
    one short English phrase for the answer and the log.  It never quotes the client's bytes.
    """

    def __init__(self, reason: str, status: int = 400) -> None:
        super().__init__(reason)
        self.reason = reason
        self.status = status


class MalformedResponse(Exception):
    """The registry's bytes are no acceptable HTTP/1.1 response: 502 for the client."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
