"""From an endpoint string to a listening port, with TLS where it works best.

A plain TCP listener (``tcp:``, ``tcp6:``, ``systemd:domain=INET``) gets TLS on the socket itself.
Every other one (``unix:``, ``haproxy:``: the PROXY line comes before TLS) gets Twisted's
memory-BIO TLS, with the same contexts and the same contract.
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
from regguard.transport import tls_transport


def takes_tls_on_socket(endpoint: IStreamServerEndpoint) -> bool:
    """Whether the connections of this endpoint are plain TCP sockets of the kernel."""
    if isinstance(endpoint, AdoptedStreamServerEndpoint):
        return endpoint.addressFamily in (socket.AF_INET, socket.AF_INET6)
    return isinstance(endpoint, (TCP4ServerEndpoint, TCP6ServerEndpoint))


def listen(
    endpoint: IStreamServerEndpoint, site: Site, certificates: Certificates | None, clock: Any
) -> Deferred[IListeningPort]:
    """Listen; ``certificates`` None is plain HTTP.  Sets ``site.half_closes`` to the truth."""
    if certificates is None:
        return endpoint.listen(site)
    if takes_tls_on_socket(endpoint):
        listening = endpoint.listen(site)

        def accept_tls(port: Any) -> Any:
            # Documented on tcp.Port: the attribute may be replaced.  No connection was
            # accepted yet: that takes a turn of the reactor.
            if isinstance(port, tcp.Port):
                port.transport = tls_transport(  # type: ignore[assignment]
                    lambda: certificates.context
                )
                return port
            raise RuntimeError("the reactor's TCP port is none of twisted.internet.tcp")

        return listening.addCallback(accept_tls)
    site.half_closes = False
    return endpoint.listen(TLSMemoryBIOFactory(certificates, False, site, clock=clock))
