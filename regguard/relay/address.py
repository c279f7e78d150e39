"""Where a registry is, by its ``--upstream``, and how it is reached."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass
from hashlib import sha256
from socket import AF_INET, AF_INET6, AF_UNIX
from typing import Any
from urllib.parse import unquote, unquote_to_bytes

from OpenSSL.SSL import Error as OpenSSLError
from service_identity.exceptions import VerificationError
from twisted.internet import error
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import (
    HostnameEndpoint,
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
    UNIXClientEndpoint,
    wrapClientTLS,
)
from twisted.internet.interfaces import IProtocolFactory, IStreamClientEndpoint
from twisted.internet.ssl import optionsForClientTLS
from twisted.python.failure import Failure
from zope.interface import implementer

from regguard.relay.headers import Origin, check_ends_after_port, split_url
from regguard.relay.names import KnownName, NamedEndpoint, Resolving, in_own_thread, look_up
from regguard.transport import AtOnceEndpoint

CONNECT_TIMEOUT = 5
"""Seconds until a registry that does not answer a SYN counts as gone: HAProxy's example, and
well below the 15 s after which docker gives up a login."""


@dataclass(frozen=True, slots=True)
class Address:
    """A parsed ``--upstream``.

    ``origin`` is how the registry would name itself; ``credential`` an Authorization value made
    of ``user:password@``, never printed (``str`` and ``repr`` leave it out).
    """

    scheme: str
    host: str
    port: int
    path: str
    origin: Origin
    credential: bytes | None = None

    @classmethod
    def parse(cls, url: str) -> Address:
        """Parse ``http://``, ``https://`` or ``http+unix:///path``; ValueError says the cure."""
        parts = split_url(url)
        if parts.scheme == "http+unix":
            path = unquote(parts.path)
            if parts.netloc or not path.startswith("/") or "\0" in path:
                raise ValueError("a socket path is absolute: http+unix:///run/registry.sock")
            return cls("http+unix", "", 0, path, Origin(b"http", b"localhost"))
        if parts.scheme not in ("http", "https"):
            raise ValueError("must begin with http://, https:// or http+unix:///")
        check_ends_after_port(parts)
        assert parts.hostname is not None
        port = parts.port or (443 if parts.scheme == "https" else 80)
        credential = None
        if parts.username is not None:
            pair = unquote_to_bytes(parts.username) + b":" + unquote_to_bytes(parts.password or "")
            credential = b"Basic " + b64encode(pair)
        authority = parts.netloc.rpartition("@")[2].encode("ascii")
        origin = Origin(parts.scheme.encode("ascii"), authority)
        return cls(parts.scheme, parts.hostname, port, "", origin, credential)

    @property
    def mark(self) -> bytes:
        """A short name of its place: the same in every process, whatever the order of upstreams.

        It tells apart the few upstreams of one guard, and does not say where they are.
        """
        place = f"{self.scheme}://{self.host}:{self.port}{self.path}"
        return sha256(place.encode("utf-8")).hexdigest()[:8].encode("ascii")

    def __str__(self) -> str:
        if self.scheme == "http+unix":
            return f"http+unix://{self.path}"
        return f"{self.scheme}://{self.origin.authority.decode('ascii')}"

    def __repr__(self) -> str:
        return f"<Address {self}>"


def endpoint_for(address: Address, reactor: Any, trust_root: Any = None) -> IStreamClientEndpoint:
    """The Twisted endpoint of an address; ``trust_root`` None is the system's store."""
    if address.scheme == "http+unix":
        path = address.path
        waiting = UNIXClientEndpoint(reactor, path, timeout=CONNECT_TIMEOUT)
        return AtOnceEndpoint(waiting, reactor, AF_UNIX, path)
    host, port = address.host, address.port
    endpoint: IStreamClientEndpoint
    if isIPAddress(host):
        endpoint = TCP4ClientEndpoint(reactor, host, port, CONNECT_TIMEOUT)
    elif isIPv6Address(host):
        endpoint = TCP6ClientEndpoint(reactor, host, port, CONNECT_TIMEOUT)
    else:
        name = KnownName(host, reactor, lambda: in_own_thread(reactor, lambda: look_up(host, port)))
        endpoint = NamedEndpoint(
            HostnameEndpoint(Resolving(reactor, name), host, port, CONNECT_TIMEOUT)
        )
    if address.scheme == "https":
        options = optionsForClientTLS(host, trustRoot=trust_root)
        return SecuredEndpoint(wrapClientTLS(options, endpoint), reactor)
    if host == "::1":
        return AtOnceEndpoint(endpoint, reactor, AF_INET6, (host, port, 0, 0))
    if host.startswith("127.") and isIPAddress(host):
        return AtOnceEndpoint(endpoint, reactor, AF_INET, (host, port))
    return endpoint


@implementer(IStreamClientEndpoint)
class SecuredEndpoint:
    """Connected only when the other side has shown a good certificate.

    Before that a failure is one to connect: nothing was sent, and another registry may be asked.
    The protocol has ``when_secured()``.
    """

    def __init__(self, endpoint: IStreamClientEndpoint, clock: Any) -> None:
        self._endpoint = endpoint
        self._clock = clock

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
        """Connect and shake hands; fails with TimeoutError, or with what the other side did."""
        connecting: Deferred[Any] = self._endpoint.connect(protocolFactory)
        return connecting.addCallback(self._connected)

    def _connected(self, protocol: Any) -> Deferred[Any]:
        secured: Deferred[Any] = protocol.when_secured()
        secured.addTimeout(CONNECT_TIMEOUT, self._clock, _timed_out)
        return secured.addErrback(_said_plainly)


class NotSecured(Exception):
    """The TLS handshake failed; the text says why."""


def _said_plainly(failure: Failure) -> Failure:
    if isinstance(failure.value, VerificationError):
        raise NotSecured("its certificate is for another name or address") from None
    if isinstance(failure.value, OpenSSLError):
        reasons = failure.value.args[0] if failure.value.args else ()
        why = ", ".join(str(each[-1]) for each in reasons) or "no reason given"
        cure = "; check --upstream-ca, and the certificate's dates" if "verify" in why else ""
        raise NotSecured(f"TLS: {why}{cure}") from None
    return failure


def _timed_out(result: Any, seconds: float) -> Any:
    if isinstance(result, Failure) and result.check(CancelledError):
        raise error.TimeoutError(string=f"no TLS handshake in {seconds:g} s")
    return result
