"""Onward: what was granted goes to the registry, and the registry's answer comes back.

``headers``
    which fields go on, which end here, which are ours (both ways); pure.
``upstream``
    where the registry is, its kept-alive connections, and one connection's HTTP/1.1.
``sending``
    one request on its way there: over which connection, how often, and how that fails.
``exchange``
    a client's request and its response, streaming both ways with back-pressure.
``inquiry``
    a question of regguard's own, and its small answer.
``whole``
    a small body, read before its request goes on.
"""

from __future__ import annotations

from regguard.relay.exchange import Relay
from regguard.relay.headers import Origin
from regguard.relay.inquiry import Reply
from regguard.relay.upstream import Upstream, UpstreamFailure
from regguard.relay.whole import Allowance, BodyTooLong, read_whole

__all__ = [
    "Allowance",
    "BodyTooLong",
    "Origin",
    "Relay",
    "Reply",
    "Upstream",
    "UpstreamFailure",
    "read_whole",
]
