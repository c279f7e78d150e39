"""regguard.relay.names: look-ups beside the reactor, and the last good addresses."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.error import DNSLookupError
from twisted.internet.interfaces import IHostnameResolver, IReactorPluggableNameResolver
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from zope.interface.verify import verifyObject

from regguard.relay import Address, Upstream
from regguard.relay.names import (
    FRESH,
    LOOKUP_TIMEOUT,
    PATIENCE,
    Addresses,
    KnownName,
    NamedEndpoint,
    Resolving,
    in_own_thread,
    look_up,
)

ONE: Addresses = [IPv4Address("TCP", "192.0.2.1", 5000)]
TWO: Addresses = [IPv4Address("TCP", "192.0.2.2", 5000), IPv6Address("TCP", "2001:db8::2", 5000)]
NXDOMAIN = socket.gaierror(socket.EAI_NONAME, "Name or service not known")


class Told:
    """An IResolutionReceiver that remembers."""

    def __init__(self) -> None:
        self.addresses: list[Any] = []
        self.complete = False

    def resolutionBegan(self, resolutionInProgress: Any) -> None:
        assert not self.complete

    def addressResolved(self, address: Any) -> None:
        assert not self.complete
        self.addresses.append(address)

    def resolutionComplete(self) -> None:
        assert not self.complete
        self.complete = True


class Service:
    """A name service under the test's hands, and a name that it is asked for."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.asked: list[Deferred[Addresses]] = []
        self.name = KnownName("registry", self.clock, self._look_up)

    def _look_up(self) -> Deferred[Addresses]:
        self.asked.append(Deferred())
        return self.asked[-1]

    def resolve(self) -> Told:
        """Somebody needs an address."""
        told = Told()
        self.name.resolveHostName(told, "registry", 5000)  # type: ignore[arg-type]
        return told

    def resolved(self) -> list[Any]:
        """The same; he gets it at once."""
        told = self.resolve()
        assert told.complete
        return told.addresses

    def answer(self, addresses: Addresses) -> None:
        """Answer the latest question."""
        self.asked[-1].callback(addresses)

    def fail(self, why: Exception = NXDOMAIN) -> None:
        """Fail the latest question."""
        self.asked[-1].errback(why)


@pytest.fixture
def service() -> Service:
    """A name service that was asked for nothing yet."""
    return Service()


@pytest.fixture
def known(service: Service) -> Service:
    """A name service that has answered once, a while ago."""
    service.resolve()
    service.answer(ONE)
    service.clock.advance(FRESH)
    return service


def test_what_it_provides(service: Service) -> None:
    """The interfaces that HostnameEndpoint asks for."""
    assert verifyObject(IHostnameResolver, service.name)
    resolving = Resolving(MemoryReactorClock(), service.name)
    assert verifyObject(IReactorPluggableNameResolver, resolving)
    assert resolving.installNameResolver(service.name) is service.name


def test_the_first_one_waits_for_the_look_up(service: Service) -> None:
    """And whoever comes meanwhile with him: there is one look-up at a time."""
    told = [service.resolve(), service.resolve()]
    assert [each.complete for each in told] == [False, False]
    service.answer(TWO)

    assert [each.addresses for each in told] == [TWO, TWO]
    assert all(each.complete for each in told)
    assert len(service.asked) == 1
    assert service.clock.getDelayedCalls() == []


def test_for_a_second_nobody_is_asked_again(service: Service) -> None:
    """One look-up a second, however many connections there are."""
    service.resolve()
    service.answer(ONE)
    service.clock.advance(FRESH / 2)
    assert service.resolved() == ONE
    assert len(service.asked) == 1
    service.clock.advance(FRESH / 2)
    told = service.resolve()
    service.answer(TWO)

    assert told.addresses == TWO
    assert service.resolved() == TWO


def test_i22_the_last_good_address_is_used_while_the_name_is_unknown(
    known: Service, log_lines: list[str]
) -> None:
    """It is said once, and once when it is over."""
    told = known.resolve()
    known.fail()
    assert told.addresses == ONE
    for _ in range(3):
        known.clock.advance(FRESH)
        assert known.resolved() == ONE
        known.fail()
    assert len(known.asked) == 5
    assert log_lines == [
        f"cannot look up registry: {NXDOMAIN}; going on with its last address",
    ]
    known.clock.advance(FRESH)
    assert known.resolved() == ONE
    known.answer(TWO)

    assert known.resolved() == TWO
    assert log_lines[1:] == ["the name registry is known again"]


def test_i22_a_silent_name_service_is_waited_for_once(known: Service, log_lines: list[str]) -> None:
    """Then everybody has the last good address at once, until it answers."""
    told = known.resolve()
    known.clock.advance(PATIENCE - 0.1)
    assert not told.complete
    known.clock.advance(0.1)
    assert told.addresses == ONE
    for _ in range(100):
        known.clock.advance(FRESH)
        assert known.resolved() == ONE
    assert len(known.asked) == 2, "there is never more than one look-up under way"
    assert len(log_lines) == 1
    assert "no answer in 1 s" in log_lines[0]
    known.answer(TWO)

    assert known.resolved() == TWO


def test_i22_an_answer_without_an_address_is_no_good_one(known: Service) -> None:
    """What is known stays."""
    told = known.resolve()
    known.answer([])

    assert told.addresses == ONE


@pytest.mark.parametrize("silent", [True, False])
def test_i13_a_name_that_was_never_known_has_no_address(
    service: Service, silent: bool, log_lines: list[str]
) -> None:
    """The next one who needs it asks again."""
    told = service.resolve()
    if silent:
        service.clock.advance(LOOKUP_TIMEOUT)
    else:
        service.fail()
    assert (told.complete, told.addresses) == (True, [])
    assert log_lines[0].endswith("no address is known")
    if silent:
        service.fail()
    service.clock.advance(FRESH)
    told = service.resolve()
    service.answer(ONE)

    assert told.addresses == ONE


def test_a_look_up_that_cannot_begin_is_one_that_failed(log_lines: list[str]) -> None:
    """No thread may be left, say."""

    def look_up() -> Deferred[Addresses]:
        raise RuntimeError("can't start new thread")

    told = Told()
    KnownName("registry", Clock(), look_up).resolveHostName(told, "registry")  # type: ignore[arg-type]

    assert (told.complete, told.addresses) == (True, [])
    assert "can't start new thread" in log_lines[0]


def connect(service: Service, reactor: MemoryReactorClock) -> list[Any]:
    """Connect to the name; the outcome, when there is one."""
    endpoint = HostnameEndpoint(Resolving(reactor, service.name), "registry", 5000, 5)
    outcome: list[Any] = []
    endpoint.connect(Factory.forProtocol(Protocol)).addBoth(outcome.append)
    return outcome


def test_i22_an_endpoint_connects_to_what_is_known(known: Service, log_lines: list[str]) -> None:
    """Twisted's own, with its race between several addresses."""
    reactor = MemoryReactorClock()
    connect(known, reactor)
    known.fail()

    assert [each[:2] for each in reactor.tcpClients] == [("192.0.2.1", 5000)]
    assert len(log_lines) == 1


def test_i13_an_endpoint_fails_for_a_name_that_nobody_knows(service: Service) -> None:
    """As with any resolver."""
    outcome = connect(service, MemoryReactorClock())
    service.fail()

    assert outcome[0].check(DNSLookupError)


def test_who_gives_up_waiting_harms_nobody(service: Service) -> None:
    """The answer comes when it comes."""
    reactor = MemoryReactorClock()
    endpoint = HostnameEndpoint(Resolving(reactor, service.name), "registry", 5000, 5)
    connecting = endpoint.connect(Factory.forProtocol(Protocol))
    connecting.addErrback(lambda _: None)
    told = service.resolve()
    connecting.cancel()
    service.answer(ONE)

    assert told.addresses == ONE
    assert reactor.tcpClients == []


def test_who_gives_up_waiting_says_nothing_of_the_registry(
    service: Service, log_lines: list[str]
) -> None:
    """A client that leaves during a look-up; Twisted says then that there is no such name."""
    reactor = MemoryReactorClock()
    endpoint = NamedEndpoint(HostnameEndpoint(Resolving(reactor, service.name), "registry", 5000))
    upstream = Upstream(Address.parse("http://registry:5000"), endpoint, reactor)
    outcome: list[Any] = []
    connecting = upstream.connect().addBoth(outcome.append)
    connecting.cancel()
    assert outcome[0].check(CancelledError)
    service.answer(ONE)

    assert upstream.is_up
    assert log_lines == []
    assert reactor.tcpClients == []


def test_who_gives_up_connecting_ends_it(known: Service) -> None:
    """No socket stays behind."""
    reactor = MemoryReactorClock()
    endpoint = NamedEndpoint(HostnameEndpoint(Resolving(reactor, known.name), "registry", 5000))
    connecting = endpoint.connect(Factory.forProtocol(Protocol)).addErrback(lambda _: None)
    known.answer(ONE)
    assert len(reactor.connectors) == 1
    connecting.cancel()

    assert reactor.connectors[0].stoppedConnecting
    assert reactor.getDelayedCalls() == []


# -- threads ---------------------------------------------------------------------------------


class Caller:
    """What is used of a reactor: it runs what threads hand it when the test says so."""

    def __init__(self) -> None:
        self.handed = threading.Event()
        self.calls: list[Callable[[], object]] = []

    def callFromThread(self, function: Callable[..., object], *arguments: Any) -> None:
        self.calls.append(lambda: function(*arguments))
        self.handed.set()


@pytest.mark.parametrize("fails", [False, True])
def test_a_look_up_has_a_thread_of_its_own(fails: bool) -> None:
    """Its outcome comes back through the reactor; the process need not wait for it."""
    caller = Caller()
    seen: list[threading.Thread] = []

    def function() -> Addresses:
        seen.append(threading.current_thread())
        if fails:
            raise NXDOMAIN
        return ONE

    outcome: list[Any] = []
    in_own_thread(caller, function).addBoth(outcome.append)
    assert caller.handed.wait(30)
    assert outcome == []
    caller.calls[0]()

    assert seen[0] is not threading.current_thread()
    assert seen[0].daemon
    assert outcome[0].value is NXDOMAIN if fails else outcome == [ONE]


def test_both_families_are_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the system's order; others are left out."""
    stream = socket.SOCK_STREAM

    def getaddrinfo(host: str, port: int, *, type: int) -> list[Any]:
        assert (host, port, type) == ("registry", 5000, stream)
        return [
            (socket.AF_INET6, stream, 6, "", ("2001:db8::1", 5000, 0, 0)),
            (socket.AF_INET, stream, 6, "", ("192.0.2.1", 5000)),
            (socket.AF_UNIX, stream, 0, "", "/run/x"),
        ]

    monkeypatch.setattr("regguard.relay.names.socket.getaddrinfo", getaddrinfo)

    assert look_up("registry", 5000) == [IPv6Address("TCP", "2001:db8::1", 5000), ONE[0]]
