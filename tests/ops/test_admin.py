"""regguard.ops.admin: three pages, and nothing for whoever wants more."""

from __future__ import annotations

import gc
import re
from collections.abc import Callable
from io import BytesIO
from typing import Any

import pytest
from twisted.internet.defer import Deferred, DeferredList, fail, succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.logger import capturedLogs, formatEvent
from twisted.python.failure import Failure
from twisted.web.resource import IResource
from zope.interface.verify import verifyObject

from regguard.ops.admin import (
    IDLE_TIMEOUT,
    LONGEST_ANSWER,
    MOST_CONNECTIONS,
    AdminPages,
    admin_site,
)
from regguard.ops.metrics import Snapshot, alone

Gather = Callable[[], Deferred[list[Snapshot]]]
Complaints = Callable[[], Deferred[list[str]]]


def no_snapshot() -> Deferred[list[Snapshot]]:
    return succeed([])


def no_complaint() -> Deferred[list[str]]:
    return succeed([])


class Transport(StringTransport):
    """One that can be cut, and whose producer may leave twice."""

    def abortConnection(self) -> None:
        self.loseConnection()

    def unregisterProducer(self) -> None:
        self.producer = None


class Port:
    """An admin port in memory."""

    def __init__(self, gather: Gather = no_snapshot, complaints: Complaints = no_complaint) -> None:
        self.clock = MemoryReactorClock()  # type: ignore[no-untyped-call]
        self.factory = admin_site(self.clock, gather, complaints)
        self.connections: list[Any] = []

    def connect(self) -> Transport | None:
        """A new connection; None where it is closed at once."""
        protocol: Any = self.factory.buildProtocol(None)
        if protocol is None:
            return None
        transport = Transport()
        protocol.makeConnection(transport)
        self.connections.append(protocol)
        return transport

    def ask(self, method: str, target: str, body: bytes = b"") -> bytes:
        """What is sent back so far."""
        transport = self.connect()
        assert transport is not None
        head = f"{method} {target} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        self.connections[-1].dataReceived(head.encode() + body)
        return transport.value()


def status(answer: bytes) -> int:
    """Of exactly one whole answer."""
    head, _, body = answer.partition(b"\r\n\r\n")
    match = re.match(rb"HTTP/1\.1 (\d{3}) ", head)
    length = re.search(rb"\r\nContent-Length: (\d+)", head)
    assert match is not None
    assert length is not None
    assert len(body) in (0, int(length[1]))
    return int(match[1])


def test_pages_are_a_resource() -> None:
    """Of twisted.web."""
    port = MemoryReactorClock()  # type: ignore[no-untyped-call]

    assert verifyObject(IResource, AdminPages(port, no_snapshot, no_complaint))


@pytest.mark.parametrize("target", ["/healthz", "/readyz", "/metrics", "/metrics?x=/readyz"])
def test_each_page_answers_get_and_head_alike(target: str) -> None:
    """HEAD with the same headers and no body; a query means nothing."""
    port = Port(lambda: succeed([{"regguard_workers": alone(1)}]))
    got, headed = port.ask("GET", target), port.ask("HEAD", target)

    assert status(got) == 200
    assert got.startswith(headed)
    assert headed.endswith(b"\r\n\r\n")
    assert len(got) > len(headed)
    assert b"\r\nCache-Control: no-store\r\n" in got
    assert b"Twisted" not in got


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "FOO", "TRACE"])
@pytest.mark.parametrize("target", ["/healthz", "/readyz", "/metrics"])
def test_other_methods_are_405(method: str, target: str) -> None:
    """There is nothing to change here."""
    answer = Port().ask(method, target)

    assert status(answer) == 405
    assert b"\r\nAllow: GET, HEAD\r\n" in answer


@pytest.mark.parametrize(
    "target",
    ["/", "/metrics/", "//metrics", "/metricsx", "/v2/", "/%6detrics", "/a/../metrics", "/METRICS"],
)
def test_other_paths_are_404(target: str) -> None:
    """Whatever the method."""
    assert status(Port().ask("GET", target)) == 404
    assert status(Port().ask("POST", target)) == 404


def test_metrics_are_those_of_all_processes() -> None:
    """Summed up, in Prometheus' text format."""
    port = Port(lambda: succeed([{"regguard_workers": alone(1)}] * 3))
    answer = port.ask("GET", "/metrics")

    assert b"\nregguard_workers 3.0\n" in answer
    assert b"\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n" in answer


def test_what_is_missing_is_named() -> None:
    """A line for each complaint, and 503; health does not ask."""
    port = Port(complaints=lambda: succeed(["one", "two"]))
    answer = port.ask("GET", "/readyz")

    assert status(answer) == 503
    assert answer.endswith(b"\r\n\r\nnot ready\none\ntwo\n")
    assert status(port.ask("GET", "/healthz")) == 200


@pytest.mark.parametrize("target", ["/readyz", "/metrics"])
def test_who_does_not_answer_in_time_is_not_waited_for(target: str) -> None:
    """503, and what was asked is given up; health is there all the while."""
    asked: list[Deferred[Any]] = []

    def ask() -> Deferred[Any]:
        asked.append(Deferred())
        return asked[-1]

    port = Port(ask, ask)
    transport = port.connect()
    assert transport is not None
    port.connections[-1].dataReceived(f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    port.clock.advance(LONGEST_ANSWER - 0.1)
    assert transport.value() == b""
    assert status(port.ask("GET", "/healthz")) == 200

    with capturedLogs() as logs:
        port.clock.advance(0.2)

    assert status(transport.value()) == 503
    assert asked[0].called
    assert "no answer for" in formatEvent(logs[0])


@pytest.mark.parametrize("target", ["/readyz", "/metrics"])
def test_a_fault_is_503_and_logged(target: str) -> None:
    """Its words are for the log."""
    port = Port(lambda: fail(KeyError("inner")), lambda: fail(KeyError("inner")))
    with capturedLogs() as logs:
        answer = port.ask("GET", target)

    assert status(answer) == 503
    assert b"inner" not in answer
    assert [event["log_failure"].type for event in logs] == [KeyError]


def test_who_leaves_ends_the_wait() -> None:
    """And nothing is logged of it."""
    asked: Deferred[list[str]] = Deferred()
    port = Port(complaints=lambda: asked)
    with capturedLogs() as logs:
        assert port.ask("GET", "/readyz") == b""
        port.connections[-1].connectionLost(Failure(ConnectionDone()))

    assert asked.called
    assert logs == []


@pytest.mark.parametrize("target", ["/readyz", "/metrics"])
def test_who_leaves_is_answered_nothing_when_those_asked_are_several(target: str) -> None:
    """Several that are given up make a whole answer of none, and nobody is there for it."""

    def ask() -> Deferred[Any]:
        return DeferredList([Deferred(), Deferred()], consumeErrors=True).addCallback(lambda _: [])

    port = Port(ask, ask)
    with capturedLogs() as logs:
        assert port.ask("GET", target) == b""
        port.connections[-1].connectionLost(Failure(ConnectionDone()))
        gc.collect()

    assert logs == []


def test_a_body_is_read_and_dropped() -> None:
    """However long: it is kept neither in memory nor in a file."""
    port = Port()
    made: list[Any] = []
    site: Any = port.factory.wrappedFactory
    factory = site.requestFactory
    site.requestFactory = lambda *words: made.append(factory(*words)) or made[-1]
    transport = port.connect()
    assert transport is not None
    receive = port.connections[-1].dataReceived
    receive(b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n")
    receive(b"x" * 900_000)

    assert type(made[0].content) is BytesIO
    assert made[0].content.getvalue() == b""
    receive(b"x" * 100_000)
    assert status(transport.value()) == 405


def test_connections_are_few() -> None:
    """One that is too many is closed at once; one that leaves makes room."""
    port = Port()
    for _ in range(MOST_CONNECTIONS):
        assert port.connect() is not None
    assert port.connect() is None

    port.connections[0].connectionLost(Failure(ConnectionDone()))
    assert port.connect() is not None


def test_an_idle_connection_is_closed() -> None:
    """Prometheus comes within the time; who does not, makes room."""
    port = Port()
    transport = port.connect()
    assert transport is not None
    port.clock.advance(IDLE_TIMEOUT - 1)
    assert not transport.disconnecting
    port.clock.advance(2)

    assert transport.disconnecting


def test_pages_are_not_logged() -> None:
    """A probe a second would hide what else there is to read."""
    port = Port()
    port.factory.doStart()
    with capturedLogs() as logs:
        assert status(port.ask("GET", "/healthz")) == 200
    port.factory.doStop()

    assert logs == []
