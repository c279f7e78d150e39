"""A connection to a directory server, TLS included; its end is a local socket."""

from __future__ import annotations

import socket
from typing import Any

from OpenSSL.SSL import Error as TLSError
from service_identity import VerificationError
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.error import ConnectError, ConnectingCancelledError, DNSLookupError
from twisted.internet.interfaces import IHandshakeListener, IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.ssl import optionsForClientTLS
from twisted.python.failure import Failure
from zope.interface import implementer

from regguard.auth.directory.settings import Server

# RFC 4511 section 4.14.1: ExtendedRequest of message 1 with the name 1.3.6.1.4.1.1466.20037.
_STARTTLS = b"\x30\x1d\x02\x01\x01\x77\x18\x80\x16" + b"1.3.6.1.4.1.1466.20037"
# The answer is some 20 bytes, and a reason in words.
_ANSWER_LIMIT = 4096


class WireError(Exception):
    """There is no (secure) connection; the message says why."""


class Wire:
    """A connection that is up: what is written to ``inner`` arrives at the server.

    ``inner`` is a blocking socket, for a thread to use and to close.
    """

    def __init__(self, outer: _Outer, inner: socket.socket) -> None:
        self._outer = outer
        self.inner = inner

    @property
    def up(self) -> bool:
        """Whether the server has not closed it."""
        return bool(self._outer.connected)

    def cut(self) -> None:
        """End it now; whoever waits on ``inner`` is told by an end of file."""
        self._outer.cut()


class _Inner(Protocol):
    """The reactor's end of the socket pair."""

    transport: Any

    def __init__(self, outer: _Outer) -> None:
        self._outer = outer

    def connectionMade(self) -> None:
        # Each side reads no faster than the other one takes it.
        self.transport.registerProducer(self._outer.transport, True)
        self._outer.transport.registerProducer(self.transport, True)

    def dataReceived(self, data: bytes) -> None:
        if self._outer.connected:
            self._outer.transport.write(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._outer.connected:
            self._outer.transport.unregisterProducer()
            self._outer.transport.loseConnection()


@implementer(IHandshakeListener)
class _Outer(Protocol):
    """The connection to the server, from its first byte until it passes on what it gets."""

    transport: Any

    def __init__(self, reactor: Any, server: Server, options: Any | None) -> None:
        self._reactor = reactor
        self._server = server
        self._options = options
        self._answer = b""
        self._inner: _Inner | None = None
        self.opened: Deferred[Wire] = Deferred(lambda _: self.cut())

    def cut(self) -> None:
        # TLS of Twisted does not bear to be told twice.
        if self.connected:
            self.transport.abortConnection()

    def connectionMade(self) -> None:
        # Questions are small, and each one waits for its answer.
        self.transport.setTcpNoDelay(True)
        if self._options is not None and not self._server.secure:
            self.transport.write(_STARTTLS)
        elif not self._server.secure:
            self._open()

    def handshakeCompleted(self) -> None:
        # Only after the certificate and the name in it were found good.
        self._open()

    def dataReceived(self, data: bytes) -> None:
        if self._inner is not None:
            self._inner.transport.write(data)
        else:
            self._answer += data
            try:
                complete = starttls_agreed(self._answer)
            except WireError as error:
                self._fail(error)
                return
            if complete:
                self.transport.startTLS(self._options)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.connected = 0
        if self._inner is not None:
            self._inner.transport.unregisterProducer()
            self._inner.transport.loseConnection()
        self._fail(reason.value)

    def _fail(self, reason: BaseException | None) -> None:
        if not self.opened.called:
            self.opened.errback(WireError(_words(reason)))
        self.cut()

    def _open(self) -> None:
        if self.opened.called:
            return  # cancelled
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        inner = self._inner = _Inner(self)
        factory = Factory.forProtocol(lambda: inner)
        factory.noisy = False
        # It makes a copy of the descriptor.
        self._reactor.adoptStreamConnection(ours.fileno(), socket.AF_UNIX, factory)
        ours.close()
        self.opened.callback(Wire(self, theirs))


def starttls_agreed(answer: bytes) -> bool:
    """Whether the answer to StartTLS has come (RFC 4511 section 4.14.2), and is yes.

    :raises WireError: when it is no, or is not one LDAP message and nothing else. What came
        behind it in clear text could be anybody's, and must not pass for an answer over TLS.
    """
    try:
        message, rest = _element(answer, 0x30)
        identity, operation = _element(message, 0x02)
        response, _ = _element(operation, 0x78)
        result, _ = _element(response, 0x0A)
    except IndexError:
        if len(answer) > _ANSWER_LIMIT:
            raise WireError("StartTLS: what the server answers is no LDAP") from None
        return False
    if identity != b"\x01" or rest:
        raise WireError("StartTLS: the server says more than yes or no")
    if result != b"\x00":
        raise WireError(f"StartTLS: the server refuses (result {int.from_bytes(result, 'big')})")
    return True


def _element(data: bytes, tag: int) -> tuple[bytes, bytes]:
    """A BER element's content and what follows it; IndexError when it is not all there."""
    if data[0] != tag:
        raise WireError("StartTLS: what the server answers is no LDAP")
    length, start = data[1], 2
    if length > 0x80:
        start += length - 0x80
        length = int.from_bytes(data[2:start], "big")
    if len(data) < start + length:
        raise IndexError
    return data[start : start + length], data[start + length :]


def open_wire(reactor: Any, server: Server, trust_root: Any, *, starttls: bool) -> Deferred[Wire]:
    """Connect; fires when the connection is up and, if it is to be encrypted, secure.

    Cancelled, it drops what it has. It sets no time limit of its own.

    :param trust_root: None is the system's store.
    :raises WireError: from the Deferred.
    """
    options = None
    # The caller's limit is shorter than any of its own.
    endpoint: IStreamClientEndpoint = HostnameEndpoint(reactor, server.host, server.port)
    if server.secure or starttls:
        options = optionsForClientTLS(server.host, trustRoot=trust_root)
        if server.secure:
            endpoint = wrapClientTLS(options, endpoint)
    outer = _Outer(reactor, server, options)
    factory = Factory.forProtocol(lambda: outer)
    factory.noisy = False

    connecting: Deferred[Any] = endpoint.connect(factory)
    return connecting.addCallbacks(lambda _: outer.opened, _no_connection)


def _no_connection(failure: Failure) -> Failure:
    if failure.check(ConnectingCancelledError):
        # An endpoint's own word for it, which nobody else knows.
        return Failure(CancelledError())
    failure.trap(ConnectError, DNSLookupError)
    return Failure(WireError(_words(failure.value)))


def _words(error: BaseException | None) -> str:
    """An error of sockets or TLS in a few words."""
    if isinstance(error, VerificationError):
        return "TLS: the certificate is for another host"
    if isinstance(error, TLSError) and error.args:
        return "TLS: " + ", ".join(str(reason[-1]) for reason in error.args[0])
    return str(error) or type(error).__name__
