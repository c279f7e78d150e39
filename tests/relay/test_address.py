"""regguard.relay.address: where the registry is, and how it is reached."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet import error
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
    UNIXClientEndpoint,
)
from twisted.internet.interfaces import IHandshakeListener, IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from zope.interface.verify import verifyObject

from regguard.relay.address import CONNECT_TIMEOUT, Address, SecuredEndpoint, endpoint_for
from regguard.relay.headers import Origin
from regguard.relay.names import NamedEndpoint
from regguard.relay.upstream import UpstreamConnection
from regguard.transport import AtOnceEndpoint
from tests.relay.world import Peer, World, get, read_answer


@pytest.mark.parametrize(
    ("url", "scheme", "host", "port", "authority"),
    [
        ("http://127.0.0.1:5000", "http", "127.0.0.1", 5000, b"127.0.0.1:5000"),
        ("http://registry:5000/", "http", "registry", 5000, b"registry:5000"),
        ("http://my_registry", "http", "my_registry", 80, b"my_registry"),
        ("https://registry.example", "https", "registry.example", 443, b"registry.example"),
        ("http://[::1]:5000", "http", "::1", 5000, b"[::1]:5000"),
        ("https://u:p@registry.example:8443", "https", "registry.example", 8443,
         b"registry.example:8443"),
    ],
)  # fmt: skip
def test_an_url_is_taken_apart(
    url: str, scheme: str, host: str, port: int, authority: bytes
) -> None:
    """Scheme, host, port, and what the registry would call itself."""
    address = Address.parse(url)

    assert (address.scheme, address.host, address.port) == (scheme, host, port)
    assert address.origin == Origin(scheme.encode(), authority)


def test_a_socket_path_is_taken_apart() -> None:
    """http+unix:///path, percent-decoded."""
    address = Address.parse("http+unix:///run/my%20registry.sock")

    assert (address.scheme, address.path) == ("http+unix", "/run/my registry.sock")
    assert str(address) == "http+unix:///run/my registry.sock"


@pytest.mark.parametrize(
    ("url", "credential"),
    [
        ("http://registry", None),
        ("https://rg:secret@registry", b"Basic cmc6c2VjcmV0"),
        ("https://rg:se%63ret@registry", b"Basic cmc6c2VjcmV0"),
        ("https://rg@registry", b"Basic cmc6"),
        ("https://a:p%40%3A@registry", b"Basic YTpwQDo="),
    ],
)
def test_a_credential_becomes_an_authorization_value(url: str, credential: bytes | None) -> None:
    """user:password@ is percent-decoded and encoded as RFC 7617 says."""
    assert Address.parse(url).credential == credential


def test_f01_an_address_never_shows_its_password() -> None:
    """Neither str nor repr nor a format shows it, plain or encoded."""
    address = Address.parse("https://rg:canary@registry.example:8443")

    for shown in (str(address), repr(address), f"{address}", f"{[address]}"):
        assert "canary" not in shown
        assert "cmc6Y2FuYXJ5" not in shown
        assert "rg" not in shown.replace("registry", "")
    assert str(address) == "https://registry.example:8443"
    assert repr(address) == "<Address https://registry.example:8443>"


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("", "begin with http://"),
        ("127.0.0.1:5000", "begin with http://"),
        ("registry:5000", "begin with http://"),
        ("ftp://registry", "begin with http://"),
        ("tcp:registry:5000", "begin with http://"),
        ("http://", "names no host"),
        ("http://:5000", "names no host"),
        ("http:///v2/", "names no host"),
        ("http://user@", "names no host"),
        ("http://registry:0", "port"),
        ("http://registry:65536", "port"),
        ("http://registry:-1", "port"),
        ("http://registry:http", "port"),
        ("http://registry/v2/", "must end after the host"),
        ("http://registry?x=1", "must end after the host"),
        ("http://registry#x", "must end after the host"),
        ("http://regi stry", "host"),
        ("http://regi\tstry:5000", "ASCII"),
        ("http://registry:5000\n", "ASCII"),
        ("http://a,b", "host"),
        ("http://[::1", "host"),
        ("http://rögistry", "ASCII"),
        ("http+unix://run/registry.sock", "absolute"),
        ("http+unix:run/registry.sock", "absolute"),
        ("http+unix://", "absolute"),
        ("http+unix:///run/%00", "absolute"),
    ],
)
def test_a_bad_url_is_refused_with_the_reason(url: str, reason: str) -> None:
    """One line, and it is about what is wrong."""
    with pytest.raises(ValueError, match=reason) as caught:
        Address.parse(url)
    assert type(caught.value) is ValueError
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "http://rg:canary@registry:x",
        "http://rg:canary@",
        "http://rg:canary#@registry",
        "http://rg:canary/@registry",
        "http://rg:canary?@registry",
        "http://rg:canary@registry/x",
        "http://rg:canary@[::1",
        "http://rg:canary\u2100@registry",
        "http://rg:canary@r\u2100egistry",
        "http://rg:canary@rögistry",
        "ftp://rg:canary@registry",
    ],
)
def test_f01_a_refusal_never_shows_the_password(url: str) -> None:
    """Nor does what caused it, which a traceback would print."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        Address.parse(url)
    assert "canary" not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("http://192.0.2.1:5000", TCP4ClientEndpoint),
        ("http://[2001:db8::1]:5000", TCP6ClientEndpoint),
        ("http://registry:5000", NamedEndpoint),
        ("http://127.registry:5000", NamedEndpoint),
    ],
)
def test_every_address_has_its_endpoint(url: str, kind: type[object]) -> None:
    """Numbers are not looked up, names are, off the reactor thread."""
    assert type(endpoint_for(Address.parse(url), MemoryReactorClock())) is kind


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("http://127.0.0.1:5000", TCP4ClientEndpoint),
        ("http://[::1]:5000", TCP6ClientEndpoint),
        ("http+unix:///run/registry.sock", UNIXClientEndpoint),
    ],
)
def test_on_this_machine_it_is_tried_at_once(url: str, kind: type[object]) -> None:
    """And in the same way as every other where that does not work."""
    endpoint = endpoint_for(Address.parse(url), MemoryReactorClock())

    assert type(endpoint) is AtOnceEndpoint
    assert type(endpoint._endpoint) is kind


@pytest.mark.parametrize("url", ["https://registry.example", "https://127.0.0.1", "https://[::1]"])
def test_https_is_wrapped_in_tls(url: str) -> None:
    """The name, or the address, is what the certificate is checked against."""
    endpoint = endpoint_for(Address.parse(url), MemoryReactorClock())

    assert type(endpoint) is SecuredEndpoint
    assert type(endpoint._endpoint).__name__ == "_WrapperEndpoint"


def test_i02_a_connect_has_a_deadline() -> None:
    """A registry that does not answer a SYN counts as gone after that."""
    reactor = MemoryReactorClock()
    endpoint_for(Address.parse("http://192.0.2.1:5000"), reactor).connect(
        Factory.forProtocol(Protocol)
    ).addErrback(lambda _: None)

    assert reactor.tcpClients[0][3] == CONNECT_TIMEOUT


# -- TLS: connected is who has shown a good certificate --------------------------------------


class Handshaking:
    """A world of which the registry's connections are up only after a handshake."""

    def __init__(self) -> None:
        self.world = World(urls=["https://registry"])
        endpoint = self.world.upstream._endpoint
        self.world.upstream._endpoint = SecuredEndpoint(endpoint, self.world.reactor)
        self.client = self.world.client()
        self.client.send(get(method=b"POST"))

    @property
    def registry(self) -> Peer:
        """The registry's end."""
        return self.world.registry.last

    @property
    def connection(self) -> UpstreamConnection:
        """Our end."""
        protocol: UpstreamConnection = self.registry.transport.protocol
        return protocol

    def status(self) -> int:
        """What the client hears."""
        return read_answer(self.client.take(), b"POST").status


def test_what_takes_part_in_a_handshake_says_so() -> None:
    """Twisted's TLS tells those who provide the interface."""
    world = World()

    assert verifyObject(IHandshakeListener, UpstreamConnection(world.upstream))
    assert verifyObject(IStreamClientEndpoint, SecuredEndpoint(world.registry, world.reactor))
    world.close()


def test_g12_nothing_is_sent_before_the_certificate_was_seen(logged: list[Any]) -> None:
    """Neither the head nor our credential."""
    handshaking = Handshaking()
    assert handshaking.registry.take() == b""
    handshaking.connection.handshakeCompleted()
    handshaking.world.reactor.turn()

    assert handshaking.registry.take().startswith(b"POST ")
    handshaking.connection.handshakeCompleted()  # a renegotiation
    handshaking.world.close()


def test_g12_a_handshake_that_fails_is_a_registry_that_is_down(
    logged: list[Any], log_lines: list[str]
) -> None:
    """502, the reason in the log, and another registry may be asked."""
    handshaking = Handshaking()
    transport = handshaking.registry.transport
    transport.connectionLost(Failure(error.ConnectionLost("certificate has expired")))
    handshaking.world.reactor.turn()

    assert handshaking.status() == 502
    assert not handshaking.world.upstream.is_up
    assert len(log_lines) == 1
    assert log_lines[0].startswith("the registry https://registry is down: ")
    assert "certificate has expired" in log_lines[0]
    handshaking.world.close()


def test_g12_a_handshake_that_does_not_end_is_a_timeout(logged: list[Any]) -> None:
    """As a connect that does not: 504, and the connection is cut."""
    handshaking = Handshaking()
    handshaking.world.reactor.pass_time(CONNECT_TIMEOUT)

    assert handshaking.status() == 504
    assert handshaking.registry.was_reset
    assert not handshaking.world.upstream.is_up
    handshaking.world.close()


def test_a_client_that_leaves_ends_the_handshake(logged: list[Any]) -> None:
    """And that says nothing of the registry."""
    handshaking = Handshaking()
    handshaking.client.reset()

    assert handshaking.registry.was_reset
    assert handshaking.world.upstream.is_up
    handshaking.world.close()


def test_a_handshake_that_is_over_already_is_not_waited_for() -> None:
    """The order of the two is the reactor's."""
    world = World()
    connection = UpstreamConnection(world.upstream)
    connection.handshakeCompleted()
    done: list[Any] = []
    connection.when_secured().addCallback(done.append)

    assert done == [connection]
    world.close()
