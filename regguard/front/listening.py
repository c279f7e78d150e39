"""From endpoint to listening port, with TLS where it works best.

A TCP listener (``tcp:``, ``tcp6:``, ``systemd:domain=INET``) gets TLS on the socket itself, also
behind a PROXY header (``haproxy:tcp:``).  A UNIX socket, and what else may be an endpoint, gets
Twisted's memory-BIO TLS, with the same contexts and the same contract.
"""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet import tcp
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import (
    AdoptedStreamServerEndpoint,
    TCP4ServerEndpoint,
    TCP6ServerEndpoint,
)
from twisted.internet.interfaces import IListeningPort, IStreamServerEndpoint
from twisted.protocols.tls import TLSMemoryBIOFactory

from regguard.front.certificates import Certificates
from regguard.front.site import Site
from regguard.transport import (
    InheritedEndpoint,
    bound_accepts,
    proxied_transport,
    tls_transport,
)
from regguard.transport.accepting import TURN


def is_tcp(endpoint: IStreamServerEndpoint) -> bool:
    """Whether the connections of this endpoint are plain TCP sockets of the kernel."""
    if isinstance(endpoint, (AdoptedStreamServerEndpoint, InheritedEndpoint)):
        return endpoint.addressFamily in (socket.AF_INET, socket.AF_INET6)
    return isinstance(endpoint, (TCP4ServerEndpoint, TCP6ServerEndpoint))


def listen(
    endpoint: IStreamServerEndpoint, site: Site, certificates: Certificates | None, clock: Any
) -> Deferred[IListeningPort]:
    """Listen; ``certificates`` None is plain HTTP.  Sets ``site.half_closes`` and
    ``site.certifies`` to the truth.

    :raises ValueError: if ``site.introduced`` and the endpoint is not TCP.
    """
    if site.introduced and not is_tcp(endpoint):
        raise ValueError("only TCP connections begin with a PROXY header")
    if certificates is not None and certificates.asks_clients:
        site.certifies = True
        certificates.when_clients_change(site.clients_changed)
    if certificates is None or is_tcp(endpoint):
        listening = endpoint.listen(site)
    else:
        site.half_closes = False
        listening = endpoint.listen(TLSMemoryBIOFactory(certificates, False, site, clock=clock))

    def prepare(port: Any) -> Any:
        # No connection was accepted yet: that takes a turn of the reactor.
        if isinstance(port, tcp.Port):
            # What was inherited may be shared with other workers.
            turn = 1 if isinstance(endpoint, InheritedEndpoint) else TURN
            bound_accepts(port, lambda: site.admission.room, clock, turn)
            site.admission.watch(port)
        elif is_tcp(endpoint) and (certificates is not None or site.introduced):
            raise RuntimeError("the reactor's TCP port is none of twisted.internet.tcp")
        if not is_tcp(endpoint):
            return port
        # Documented on tcp.Port: the attribute may be replaced.
        context = None if certificates is None else lambda: certificates.context
        if site.introduced:
            port.transport = proxied_transport(context, site.header_missing)
        elif context is not None:
            port.transport = tls_transport(context)
        return port

    return listening.addCallback(prepare)
