"""The relay and its connections to the registry: reuse, staleness, failures, the end."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet import error
from twisted.internet.interfaces import IPushProducer
from zope.interface.verify import verifyObject

from regguard.relay import exchange as exchange_module
from regguard.relay.upstream import (
    IDLE_TIMEOUT,
    MAX_IDLE,
    UpstreamConnection,
    UpstreamFailure,
)
from tests.relay.world import OK, Peer, World, get, read_answer, read_request, refused

NOT_RETRIABLE = [b"POST", b"PUT", b"PATCH", b"DELETE"]


def idle(world: World) -> tuple[Peer, Peer]:
    """A client, and the registry's end of a connection that served it once and is kept."""
    client = world.client()
    client.send(get())
    registry = world.registry.last
    registry.send(OK)
    assert read_answer(client.take()).body == b"ok"
    registry.take()
    assert world.registry.open == [registry]
    return client, registry


def test_a_connection_is_a_push_producer(world: World) -> None:
    """The client's transport pauses and resumes it."""
    connection = UpstreamConnection(world.upstream)

    assert verifyObject(IPushProducer, connection)


def test_b04_a_client_without_host_gets_a_relative_location(world: World) -> None:
    """HTTP/1.0: the registry hears its own name, and its Location is made relative."""
    client = world.client()
    client.send(b"GET /v2/a/manifests/1 HTTP/1.0\r\n\r\n")

    sent = world.registry.last.take()
    authority = world.upstream.address.origin.authority
    assert b"\r\nHost: " + authority + b"\r\n" in sent
    world.registry.last.send(
        b"HTTP/1.1 200 OK\r\nLocation: http://%s/v2/x\r\nContent-Length: 0\r\n\r\n" % authority
    )
    assert read_answer(client.take())[b"location"] == b"/v2/x"


def test_a_request_is_relayed_and_answered(world: World) -> None:
    """The plain way through."""
    client = world.client()
    client.send(get())

    request = read_request(world.registry.last.take())
    assert (request.method, request.target, request.whole) == (b"GET", b"/v2/a/manifests/1", True)
    world.registry.last.send(b'HTTP/1.1 200 Fine\r\nContent-Length: 5\r\nEtag: "x"\r\n\r\nhello')
    answer = read_answer(client.take())
    assert (answer.status, answer.body, answer[b"etag"]) == (200, b"hello", b'"x"')
    assert client.is_open
    assert world.ended[0].status == 200


# -- reuse -----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
def test_get_and_head_reuse_a_kept_connection(world: World, method: bytes) -> None:
    """They may be sent twice, so a stale connection does no harm."""
    client, registry = idle(world)
    client.send(get(method=method))

    assert world.registry.connections == [registry]
    assert registry.take().startswith(method)


@pytest.mark.parametrize("method", NOT_RETRIABLE)
def test_everything_else_gets_a_fresh_connection(world: World, method: bytes) -> None:
    """They must not be sent twice, so they don't run into a stale connection at all."""
    client, registry = idle(world)
    client.send(get(method=method))

    assert len(world.registry.connections) == 2
    assert registry.take() == b""
    assert world.registry.last.take().startswith(method)


@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
def test_get_with_a_body_gets_a_fresh_connection(world: World, method: bytes) -> None:
    """A body that went out can't be sent again."""
    client, registry = idle(world)
    client.send(get(b"/v2/a/manifests/1", method, b"Content-Length: 2") + b"hi")

    assert len(world.registry.connections) == 2
    assert registry.take() == b""
    assert read_request(world.registry.last.take()).body == b"hi"


def test_a_connection_is_kept_after_an_upload_too(world: World) -> None:
    """Its request was sent whole and its answer read whole."""
    client = world.client()
    client.send(get(b"/v2/a/manifests/1", b"PUT", b"Content-Length: 2") + b"hi")
    world.registry.last.send(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")
    client.send(get())

    assert len(world.registry.connections) == 1


def test_the_most_recently_used_connection_is_reused(world: World) -> None:
    """It is the least likely to be closing."""
    clients = [world.client() for _ in range(3)]
    for client in clients:
        client.send(get())
    order = [1, 2, 0]
    for number in order:
        world.registry.connections[number].send(OK)
        world.registry.connections[number].take()
    clients[0].send(get())

    assert world.registry.connections[0].take().startswith(b"GET")


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: x, Close",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2",
    ],
)
def test_a_connection_that_will_close_is_not_kept(world: World, head: bytes) -> None:
    """The registry says so, or its HTTP/1.0 does."""
    client = world.client()
    client.send(get())
    world.registry.last.send(head + b"\r\n\r\nok")

    assert read_answer(client.take()).body == b"ok"
    assert world.registry.open == []


def test_a_keep_alive_of_http_1_0_is_believed(world: World) -> None:
    """With a length and the word."""
    client = world.client()
    client.send(get())
    world.registry.last.send(
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nok"
    )
    client.send(get())

    assert len(world.registry.connections) == 1


def test_an_idle_connection_is_closed_in_time(world: World) -> None:
    """Before the registry does it, so that reuse seldom meets a closing one."""
    _, registry = idle(world)
    world.reactor.pass_time(IDLE_TIMEOUT - 2)
    assert registry.is_open
    world.reactor.pass_time(3)

    assert not registry.is_open


def test_idle_time_counts_from_the_last_use(world: World) -> None:
    """A connection in use does not age."""
    client, registry = idle(world)
    for _ in range(3):
        world.reactor.pass_time(IDLE_TIMEOUT - 2)
        client.send(get())
        registry.send(OK)

    assert world.registry.open == [registry]


def test_only_so_many_connections_are_kept(world: World) -> None:
    """The most a registry sees when nothing happens."""
    clients = [world.client() for _ in range(MAX_IDLE + 3)]
    for client in clients:
        client.send(get())
    for registry in world.registry.connections:
        registry.send(OK)

    assert len(world.registry.open) == MAX_IDLE


@pytest.mark.parametrize("end", ["end", "reset"])
def test_a_connection_that_the_registry_closes_while_idle_is_forgotten(
    world: World, end: str
) -> None:
    """The next request opens a fresh one at once."""
    client, registry = idle(world)
    getattr(registry, end)()
    client.send(get())

    assert len(world.registry.connections) == 2
    assert world.failures == []


def test_a39_octets_on_an_idle_connection_end_it(world: World) -> None:
    """They would be taken for the next request's answer."""
    client, registry = idle(world)
    registry.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
    assert registry.was_reset
    client.send(get())

    assert len(world.registry.connections) == 2
    world.registry.last.send(OK)
    assert read_answer(client.take()).body == b"ok"


def test_a39_a_connection_that_is_being_discarded_is_not_handed_out(world: World) -> None:
    """Not even in the same turn, before the reactor has torn it down."""
    _, registry = idle(world)
    registry.transport.protocol.dataReceived(b"HTTP/1.1 200 OK\r\n")

    assert world.upstream.idle_connection() is None


# -- I05: a stale connection -----------------------------------------------------------------


@pytest.mark.parametrize("end", ["end", "reset"])
@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
def test_i05_a_stale_connection_is_forgiven_once(world: World, method: bytes, end: str) -> None:
    """GET and HEAD go once more over a fresh connection; the client notices nothing."""
    client, registry = idle(world)
    client.send(get(method=method))
    first = registry.take()
    getattr(registry, end)()

    assert len(world.registry.connections) == 2
    assert world.registry.last.take() == first
    world.registry.last.send(OK if method == b"GET" else OK[:-2])
    assert read_answer(client.take(), method).status == 200
    assert world.failures == []


def test_i05_a_fresh_connection_is_not_forgiven(world: World) -> None:
    """A registry that closes a fresh connection means it."""
    client, registry = idle(world)
    client.send(get())
    registry.end()
    world.registry.last.end()

    assert len(world.registry.connections) == 2
    assert read_answer(client.take()).status == 502


def test_i05_no_retry_after_a_first_fresh_connection(world: World) -> None:
    """The very first request of all has no stale connection to blame."""
    client = world.client()
    client.send(get())
    world.registry.last.end()

    assert len(world.registry.connections) == 1
    assert read_answer(client.take()).status == 502


@pytest.mark.parametrize("octets", [b"H", b"HTTP/1.1 200 OK\r\n", OK[:-1]])
def test_i05_no_retry_after_an_octet_of_an_answer(world: World, octets: bytes) -> None:
    """Then the request has reached the registry."""
    client, registry = idle(world)
    client.send(get())
    registry.send(octets)
    registry.end()

    assert len(world.registry.connections) == 1


def test_i05_no_retry_after_an_interim_response(world: World) -> None:
    """That is an octet of an answer, too."""
    client, registry = idle(world)
    client.send(get())
    registry.send(b"HTTP/1.1 103 Early Hints\r\n\r\n")
    registry.end()

    assert len(world.registry.connections) == 1
    assert read_answer(client.take()).status == 502


@pytest.mark.parametrize("method", NOT_RETRIABLE)
def test_i05_other_methods_are_never_sent_twice(world: World, method: bytes) -> None:
    """The registry may have acted on the first."""
    client, _ = idle(world)
    client.send(get(method=method))
    world.registry.last.end()

    assert len(world.registry.connections) == 2
    assert read_answer(client.take(), method).status == 502


# -- I01 to I04: no answer -------------------------------------------------------------------


def test_i01_a_refused_connection_is_502(world: World) -> None:
    """At once, and service again as soon as the registry is back."""
    client = world.client()
    world.registry.failure = refused()
    client.send(get())
    assert read_answer(client.take()).status == 502
    assert client.is_open

    world.registry.failure = None
    client.send(get())
    world.registry.last.send(OK)
    assert read_answer(client.take()).status == 200


@pytest.mark.parametrize(
    ("why", "status"),
    [
        (error.TimeoutError(), 504),
        (error.TCPTimedOutError(), 504),
        (refused(), 502),
        (error.NoRouteError(), 502),
        (error.ConnectError(), 502),
        (error.DNSLookupError("no such host"), 502),
        (RuntimeError("bug"), 502),
    ],
    ids=lambda value: type(value).__name__,
)
def test_i02_a_failed_connect_is_502_or_504(world: World, why: Exception, status: int) -> None:
    """504 for who does not answer, 502 for everything else."""
    world.registry.accepting = False
    client = world.client()
    client.send(get())
    world.registry.refuse(why)

    assert read_answer(client.take()).status == status
    assert world.relay.exchanges == set()


def test_i03_a_silent_registry_is_504_after_the_read_timeout(world: World) -> None:
    """And its connection is cut."""
    client = world.client()
    client.send(get())
    world.reactor.pass_time(98)
    assert client.take() == b""
    world.reactor.pass_time(4)

    assert read_answer(client.take()).status == 504
    assert world.registry.last.was_reset


def test_i20_a_registry_is_not_silent_while_nobody_listens(world: World) -> None:
    """A process that stood still heard nobody: the rest of the time is still to come."""
    client = world.client()
    client.send(get())
    world.reactor.pass_time(50)
    world.reactor.advance(300)
    world.reactor.pass_time(47)
    assert client.take() == b""
    world.reactor.pass_time(5)

    assert read_answer(client.take()).status == 504


def test_i03_half_a_head_does_not_stop_the_clock(world: World) -> None:
    """An answer that trickles is silence."""
    client = world.client()
    client.send(get())
    for octet in b"HTTP/1.1 2":
        world.registry.last.send(bytes([octet]))
        world.reactor.pass_time(10.5)

    assert read_answer(client.take()).status == 504


@pytest.mark.parametrize(
    "octets",
    [
        b"<html>oops</html>",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\x15\x03\x01\x00\x02\x02\x46",
        b"\r\n",
        b"\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/2.0 200 OK\r\n\r\n",
        b"HTTP/0.9 200 OK\r\n\r\n",
        b"http/1.1 200 OK\r\n\r\n",
        b"ICY 200 OK\r\n\r\n",
        b"H" * 40_000,
        b"HTTP/1.1 200 OK\nContent-Length: 0\n\n\r\n\r\n",
    ],
)
def test_i04_what_is_no_http_is_502(world: World, octets: bytes) -> None:
    """As soon as it can be told, and the connection is cut."""
    client = world.client()
    client.send(get())
    world.registry.last.send(octets)

    assert read_answer(client.take()).status == 502
    assert world.registry.last.was_reset


# -- capacity and the end --------------------------------------------------------------------


def test_h11_too_many_exchanges_are_503(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unbounded number would end in file descriptors that nobody has left."""
    monkeypatch.setattr(exchange_module, "MAX_EXCHANGES", 2)
    monkeypatch.setattr(exchange_module, "MAX_OF_ONE", 2)
    clients = [world.client() for _ in range(3)]
    for client in clients:
        client.send(get())

    assert [each.status for each in world.failures] == [503]
    assert read_answer(clients[2].take()).status == 503
    assert len(world.registry.connections) == 2
    world.registry.connections[0].send(OK)
    clients[2].send(get())
    assert len(world.failures) == 1


def test_h11_what_one_user_holds_is_not_held_against_the_others(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond three quarters of all places there is room only for users who have few."""
    for name, number in (("MAX_EXCHANGES", 9), ("MAX_OF_ONE", 6), ("FEW", 2)):
        monkeypatch.setattr(exchange_module, name, number)

    def refused(user_name: str) -> int:
        world.resource.user_name = user_name
        before = len(world.failures)
        for _ in range(10):
            world.client().send(get())
        return len(world.failures) - before

    assert [refused(each) for each in ("slow", "bob", "carol", "dave")] == [4, 8, 9, 10]
    for each in list(world.registry.connections):
        each.send(OK)
    assert refused("slow") == 4


def test_stop_cuts_what_is_under_way(world: World) -> None:
    """Connecting, waiting, sending, streaming and idle: nothing is left."""
    waiting, streaming, sending, connecting = (world.client() for _ in range(4))
    idle(world)
    waiting.send(get(method=b"POST"))
    streaming.send(get(method=b"DELETE"))
    world.registry.last.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc")
    sending.send(get(b"/v2/a/manifests/1", b"PUT", b"Content-Length: 9") + b"abc")
    world.registry.accepting = False
    connecting.send(get(method=b"POST"))
    assert len(world.relay.exchanges) == 4
    world.relay.stop()
    world.reactor.turn()

    assert world.relay.exchanges == set()
    assert world.registry.open == []
    assert world.registry.cancelled == 1
    assert streaming.was_reset
    for client in (waiting, sending, connecting):
        assert read_answer(client.take(), b"POST").status in (502, 503)


def test_nothing_begins_after_stop(world: World) -> None:
    """Who comes then hears why."""
    client = world.client()
    world.relay.stop()
    client.send(get())

    assert [each.message for each in world.failures] == ["regguard is going down"]
    assert read_answer(client.take()).status == 503
    assert world.registry.connections == []


def test_nothing_is_kept_after_the_upstream_stopped(world: World) -> None:
    """An exchange that ends later finds no pool."""
    client = world.client()
    world.upstream.stop()
    client.send(get())
    world.registry.last.send(OK)

    assert read_answer(client.take()).body == b"ok"
    assert world.registry.open == []


def test_start_after_stop_is_not_needed_for_a_second_stop(world: World) -> None:
    """Stopping twice is harmless."""
    world.relay.stop()
    world.relay.stop()


def test_i27_a_fault_in_one_exchange_does_not_end_the_watch(logged: list[Any]) -> None:
    """The others still have their deadline."""
    answered: list[Any] = []

    def on_failure(request: Any, failure: UpstreamFailure) -> None:
        if not answered:
            answered.append(request)
            raise RuntimeError("bug")
        request.abort()

    world = World(on_failure=on_failure)
    clients = [world.client() for _ in range(2)]
    clients[0].send(get())
    clients[1].send(get())
    world.reactor.pass_time(102)
    world.reactor.pass_time(102)

    assert any(client.was_reset for client in clients)
    assert [failure.type for failure in logged] == [RuntimeError]
    logged.clear()
    world.close()


def test_the_state_of_an_exchange_can_be_read(world: World) -> None:
    """For whoever debugs: one word."""
    client = world.client()
    world.registry.accepting = False
    client.send(get(b"/v2/a/manifests/1", b"PUT", b"Content-Length: 2"))
    [exchange] = world.relay.exchanges
    states = [repr(exchange)]
    world.registry.accept()
    states.append(repr(exchange))
    client.send(b"hi")
    states.append(repr(exchange))
    world.registry.last.send(b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\n")
    states.append(repr(exchange))
    world.registry.last.send(b"ok")
    states.append(repr(exchange))

    words = ["connecting", "sending", "waiting", "streaming", "over"]
    assert states == [f"<Exchange PUT {word}>" for word in words]
