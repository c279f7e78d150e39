"""Onward: what was granted goes to the registry, and the registry's answer comes back.

``headers``
    which fields go on, which end here, which are ours (both ways); pure.
``upstream``
    where the registry is, its kept-alive connections, and one connection's HTTP/1.1.
``exchange``
    one request and its response, streaming both ways with back-pressure.
"""

from __future__ import annotations

from regguard.relay.exchange import Relay
from regguard.relay.headers import Origin
from regguard.relay.upstream import Upstream, UpstreamFailure

__all__ = ["Origin", "Relay", "Upstream", "UpstreamFailure"]
