"""What a trusted proxy says of the request that it passes on."""

from __future__ import annotations

from typing import NamedTuple

from regguard.addresses import TrustedProxies, address_of
from regguard.http1 import RequestHead, is_host


class Forwarded(NamedTuple):
    """Who asks, whether over TLS, and by which name: as far as the proxy said so."""

    client: str
    secure: bool
    authority: bytes


def forwarded(head: RequestHead, peer: str, secure: bool, trusted: TrustedProxies) -> Forwarded:
    """Read ``X-Forwarded-For``, ``-Proto`` and ``-Host`` and ``X-Real-IP`` of a trusted ``peer``.

    ``X-Real-IP`` counts where there is no ``X-Forwarded-For``: balancers that know only the latter
    pass on what a client sends as the former.  A scheme or a host that is given twice, or is none,
    is not believed: the client may have sent one of them.
    """
    client, authority = peer, head.host
    hops: list[str] = []
    schemes: list[bytes] = []
    hosts: list[bytes] = []
    real = b""
    for _, key, value in head.fields:
        if key == b"x-forwarded-for":
            hops.append(value.decode("latin-1"))
        elif key == b"x-forwarded-proto":
            schemes.append(value.lower())
        elif key == b"x-forwarded-host":
            hosts.append(value)
        elif key == b"x-real-ip":
            real = value
    if hops:
        client = trusted.client_of(peer, hops)
    elif real:
        client = str(address_of(real.decode("latin-1")) or peer)
    if schemes in ([b"https"], [b"http"]):
        secure = schemes == [b"https"]
    if len(hosts) == 1 and is_host(hosts[0]):
        authority = hosts[0]
    return Forwarded(client, secure, authority)
