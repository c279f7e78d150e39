"""Accepted connections that a balancer introduces with a PROXY header (proxy-protocol.txt).

The header comes before everything else, TLS too, and belongs to nobody but the transport: it is
taken off the socket octet by octet as far as it goes, and what follows is read by whatever reads
the rest of the connection.  Twisted's own wrapper (``twisted.protocols.haproxy``) would need TLS in
memory above it, wants the header in one segment, and believes everybody.

Whether the peer may introduce others is decided before there is a transport; how long it may take
is the protocol's deadline for its first octet.
"""

from __future__ import annotations

import re
import socket
import struct
from collections.abc import Callable
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import TYPE_CHECKING, Any

from OpenSSL import SSL
from twisted.internet import address, main, tcp

from regguard.transport.tls import TLSServer

MAX_LINE = 107
"""Octets of a version 1 line, by the specification."""

MAX_BLOCK = 4096
"""Octets of a version 2 header.  The addresses take 52 at most; balancers append what they know
of the client's TLS, names of virtual machines and the like, some hundred octets."""

_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_LINE = re.compile(
    rb"PROXY (?:UNKNOWN(?: [ -~]*)?"
    rb"|TCP([46]) ([0-9A-Fa-f:.]+) ([0-9A-Fa-f:.]+) ([0-9]{1,5}) ([0-9]{1,5}))"
)
_ADDRESSES = {b"4": IPv4Address, b"6": IPv6Address}
# By address family and protocol: how long the addresses are, and one of them.
_TCP = {0x11: (12, 4, IPv4Address), 0x21: (36, 16, IPv6Address)}

if TYPE_CHECKING:
    _Base = tcp.Server
else:
    _Base = object


class MalformedHeader(Exception):
    """The connection does not begin with a PROXY header."""


class ProxyHeader:
    """A PROXY header of version 1 or 2, taken in as it comes.

    ``source`` is the client's address and port when ``complete``; None where the balancer speaks
    for itself (LOCAL, for its health checks) or does not know (UNKNOWN): then the peer counts.
    """

    __slots__ = ("_octets", "complete", "source")

    def __init__(self) -> None:
        self._octets = b""
        self.complete = False
        self.source: tuple[str, int] | None = None

    def take(self, ahead: bytes) -> int:
        """How many of the octets ahead belong to the header; they are taken in.

        :raises MalformedHeader: if this becomes none.
        """
        before = len(self._octets)
        seen = self._octets + ahead
        if seen.startswith(_SIGNATURE):
            end = self._end_of_block(seen)
        elif seen.startswith(b"PROXY "):
            end = self._end_of_line(seen)
        elif _SIGNATURE.startswith(seen) or b"PROXY ".startswith(seen):
            end = None
        else:
            raise MalformedHeader
        if end is None or end > len(seen):
            self._octets = seen
            return len(ahead)
        self.source = (_block if seen.startswith(_SIGNATURE) else _line)(seen[:end])
        self._octets = b""
        self.complete = True
        return end - before

    def _end_of_block(self, seen: bytes) -> int | None:
        if len(seen) < 16:
            return None
        end: int = 16 + struct.unpack_from("!H", seen, 14)[0]
        if end > MAX_BLOCK:
            raise MalformedHeader
        return end

    def _end_of_line(self, seen: bytes) -> int | None:
        end = seen.find(b"\r\n", 0, MAX_LINE)
        if end >= 0:
            return end + 2
        if len(seen) >= MAX_LINE:
            raise MalformedHeader
        return None


def _line(header: bytes) -> tuple[str, int] | None:
    match = _LINE.fullmatch(header[:-2])
    if match is None:
        raise MalformedHeader
    family, source, destination, *ports = match.groups()
    if family is None:
        return None
    try:
        client = _ADDRESSES[family](source.decode("ascii"))
        _ADDRESSES[family](destination.decode("ascii"))
    except AddressValueError:
        raise MalformedHeader from None
    if any(int(port) > 65535 for port in ports):
        raise MalformedHeader
    return str(client), int(ports[0])


def _block(header: bytes) -> tuple[str, int] | None:
    version_and_command, family = header[12:14]
    if version_and_command == 0x20:  # LOCAL
        return None
    if version_and_command != 0x21:  # PROXY
        raise MalformedHeader
    if family == 0x00 or family >> 4 == 3:  # unspecified, or a UNIX socket
        return None
    if family not in _TCP:
        raise MalformedHeader
    length, size, kind = _TCP[family]
    if len(header) < 16 + length:
        raise MalformedHeader
    (port,) = struct.unpack_from("!H", header, 16 + 2 * size)
    return str(kind(header[16 : 16 + size])), port


class _Proxied(_Base):
    """A connection whose ``getPeer`` is what the PROXY header says.

    The protocol's ``client_named`` is called when it has said so; it need not name anybody.
    """

    _header: ProxyHeader | None = None
    _client: address.IPv4Address | address.IPv6Address | None = None
    when_malformed: Callable[[], None]

    def doRead(self) -> Any:
        """Read the header first; then as ever."""
        if self._header is None:
            return super().doRead()
        return self._read_header(self._header)

    def _read_header(self, header: ProxyHeader) -> Any:
        try:
            ahead = self.socket.recv(MAX_BLOCK, socket.MSG_PEEK)
            if not ahead:
                return main.CONNECTION_LOST
            taken = header.take(ahead)
            self.socket.recv(taken)
        except BlockingIOError:
            return None
        except OSError:
            return main.CONNECTION_LOST
        except MalformedHeader:
            self.when_malformed()
            return main.CONNECTION_LOST
        if not header.complete:
            return None
        self._header = None
        if header.source is not None:
            host, port = header.source
            kind = address.IPv6Address if ":" in host else address.IPv4Address
            self._client = kind("TCP", host, port)
            self.protocol.client_named()  # type: ignore[attr-defined]
        # Not super's: whoever aborts a connection puts another one in its place.
        return self.doRead() if taken < len(ahead) else None

    def getPeer(self) -> Any:
        """The client, where the header named one."""
        return self._client or super().getPeer()  # type: ignore[no-untyped-call]


class ProxiedServer(_Proxied, tcp.Server):
    """A plain TCP connection behind a PROXY header."""


class ProxiedTLSServer(_Proxied, TLSServer):
    """A TLS connection behind a PROXY header, which is not encrypted."""


def proxied_transport(
    current_context: Callable[[], SSL.Context] | None, when_malformed: Callable[[], None]
) -> Callable[..., tcp.Server]:
    """What ``tcp.Port.transport`` is set to; see ``tls_transport``.

    ``current_context`` None is plain TCP.  ``when_malformed`` is called for each connection that
    does not begin with a PROXY header; it is closed.
    """

    def accept(*arguments: Any) -> tcp.Server:
        transport: ProxiedServer | ProxiedTLSServer
        if current_context is None:
            transport = ProxiedServer(*arguments)
        else:
            transport = ProxiedTLSServer(current_context(), *arguments)
        transport._header = ProxyHeader()
        transport.when_malformed = when_malformed
        return transport

    return accept
