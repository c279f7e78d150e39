"""regguard.auth.directory.wire: connections to directory servers."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IHandshakeListener
from twisted.internet.testing import MemoryReactorClock, StringTransport
from zope.interface.verify import verifyObject

from regguard.auth.directory.settings import Server, parse_settings
from regguard.auth.directory.wire import WireError, _Outer, open_wire, starttls_agreed

YES = bytes.fromhex("300c02010178070a010004000400")
NO = bytes.fromhex("300c02010178070a013404000400")  # 52: unavailable
# As Active Directory writes it: lengths in four octets.
LONG_YES = bytes.fromhex("3084000000280201017884000000 1f0a0100 0400 0400".replace(" ", "")) + (
    b"\x8a\x16" + b"1.3.6.1.4.1.1466.20037"
)


@pytest.mark.parametrize("answer", [YES, LONG_YES])
def test_yes_is_yes_when_it_is_whole(answer: bytes) -> None:
    """Each octet may come by itself."""
    for end in range(len(answer)):
        assert not starttls_agreed(answer[:end])
    assert starttls_agreed(answer)


def test_no_is_told() -> None:
    """The result code is the server's."""
    with pytest.raises(WireError, match="refuses \\(result 52\\)"):
        starttls_agreed(NO)


def test_nothing_may_follow_in_clear_text() -> None:
    """Else whoever sits on the line could put his answers before those that come over TLS."""
    bind_succeeded = bytes.fromhex("300c02010261070a010004000400")
    with pytest.raises(WireError, match="says more"):
        starttls_agreed(YES + bind_succeeded)
    with pytest.raises(WireError, match="says more"):
        starttls_agreed(YES + b"\x30")


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 400 Bad Request\r\n",
        b"\x16\x03\x01",
        bytes.fromhex("300c02010278070a010004000400"),  # to another message
        bytes.fromhex("300c02010161070a010004000400"),  # to a bind
        b"\x30\x84\x7f\xff\xff\xff" + bytes(5000),  # a message that never ends
    ],
)
def test_what_is_no_such_answer_is_refused(answer: bytes) -> None:
    """And waited for no longer."""
    with pytest.raises(WireError):
        starttls_agreed(answer)


class _Transport(StringTransport):
    """A transport that knows startTLS and abortConnection."""

    secured = False
    aborted = False

    def setTcpNoDelay(self, enabled: bool) -> None:
        assert enabled

    def startTLS(self, options: Any) -> None:
        self.secured = True

    def abortConnection(self) -> None:
        self.aborted = True


def outer(secure: bool = False, options: object | None = object()) -> tuple[Any, _Transport]:
    """A connection that has just been made."""
    connection = _Outer(MemoryReactorClock(), Server("a", 1, secure), options)
    transport = _Transport()
    connection.makeConnection(transport)  # type: ignore[arg-type]
    return connection, transport


def failure_of(deferred: Deferred[Any]) -> BaseException:
    """What it failed with."""
    seen: list[BaseException] = []
    deferred.addErrback(lambda failure: seen.append(failure.value))
    (failure,) = seen
    return failure


def test_interfaces() -> None:
    """It is told when the handshake is complete."""
    verifyObject(IHandshakeListener, outer()[0])


def test_with_starttls_nothing_is_said_before_the_server_agreed() -> None:
    """The request of RFC 4511, then TLS, and the connection is up after the handshake only."""
    connection, transport = outer()

    assert transport.value().hex() == ("301d02010177188016" + b"1.3.6.1.4.1.1466.20037".hex())
    connection.dataReceived(YES[:5])
    assert not transport.secured
    connection.dataReceived(YES[5:])
    assert transport.secured
    assert not connection.opened.called


def test_a_refusal_ends_the_connection() -> None:
    """There is no way on in clear text."""
    connection, transport = outer()

    connection.dataReceived(NO)

    assert isinstance(failure_of(connection.opened), WireError)
    assert transport.aborted
    assert not transport.secured


@pytest.mark.parametrize("scheme", ["ldap", "ldaps"])
def test_who_cancels_while_it_connects_is_told_so(scheme: str) -> None:
    """A server that is gone takes no connection: to be asked in time, the next one is waiting."""
    (server,) = parse_settings(f"{scheme}://127.0.0.1/dc=x").servers
    reactor = MemoryReactorClock()
    opening = open_wire(reactor, server, None, starttls=False)
    assert len(reactor.tcpClients) == 1

    opening.cancel()

    assert isinstance(failure_of(opening), CancelledError)
    assert not reactor.getDelayedCalls()


def test_who_cancels_has_the_connection_cut() -> None:
    """At any time before it is up."""
    connection, transport = outer(secure=True)

    connection.opened.cancel()

    assert transport.aborted
    connection.opened.addErrback(lambda _: None)
