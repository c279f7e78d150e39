"""Onward: what was granted goes to the registry, and the registry's answer comes back.

``headers``
    which fields go on, which end here, which are ours (both ways); pure.
``references``
    where a Location or a Link leads the client; pure.
``names``
    a registry's host name, looked up beside the reactor; its last good addresses.
``address``
    where a registry is, and how it is reached.
``upstream``
    one registry: its kept-alive connections, one connection's HTTP/1.1, whether it is there.
``upstreams``
    which of several registries is asked, and which one an upload belongs to.
``reachability``
    whether one of them takes a connection, for whoever asks how regguard is.
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

from regguard.relay.address import Address, endpoint_for
from regguard.relay.exchange import Relay
from regguard.relay.headers import Origin
from regguard.relay.inquiry import Reply
from regguard.relay.reachability import Reachability
from regguard.relay.upstream import Upstream, UpstreamFailure
from regguard.relay.upstreams import Upstreams
from regguard.relay.whole import Allowance, BodyTooLong, read_whole

__all__ = [
    "Address",
    "Allowance",
    "BodyTooLong",
    "Origin",
    "Reachability",
    "Relay",
    "Reply",
    "Upstream",
    "UpstreamFailure",
    "Upstreams",
    "endpoint_for",
    "read_whole",
]
