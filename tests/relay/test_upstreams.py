"""Several registries: which one is asked, when the next one, and where an upload stays."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from twisted.internet import error

from regguard.relay import Address, Upstream, Upstreams
from regguard.relay.address import CONNECT_TIMEOUT
from regguard.relay.headers import Origin
from regguard.relay.sending import KNOCKS, PAUSE, TRY_FOR
from regguard.relay.upstream import LAST_PROBE, RESTARTS_WITHIN
from tests.relay.world import OK, Peer, World, get, read_answer, read_request, refused

URLS = ("http://a:5000", "http://b:5000", "http://c:5000")
METHODS = [b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE"]
DOWN = "the registry http://a:5000 is down: Connection was refused by other side"


@pytest.fixture
def three(logged: list[Any]) -> Iterator[World]:
    """A world with three registries."""
    world = World(urls=URLS)
    yield world
    world.close()


def ask(world: World, octets: bytes = b"") -> Peer:
    """A client that has sent one request."""
    client = world.client()
    client.send(octets or get())
    return client


def served_by(world: World, octets: bytes = b"") -> int:
    """The number of the registry that answers one request."""
    before = [len(each.connections) for each in world.registries]
    client = ask(world, octets or get(method=b"POST"))
    after = [len(each.connections) for each in world.registries]
    [number] = [n for n in range(len(after)) if after[n] > before[n]]
    world.registries[number].last.send(OK)
    assert read_answer(client.take(), b"POST").status == 200
    return number


def restart(world: World, failure: Exception | None = None) -> None:
    """Serve one request, go away, and be no more to be connected to."""
    served_by(world)
    world.registry.last.end()
    world.registry.failure = failure or refused()


# -- in which order --------------------------------------------------------------------------


def test_the_first_one_serves_while_it_is_there(three: World) -> None:
    """The order is the operator's."""
    assert [served_by(three) for _ in range(3)] == [0, 0, 0]


def test_those_that_are_known_to_be_down_come_last(three: World) -> None:
    """A request that finds the first one gone turns to one that was there a moment ago."""
    three.registries[0].failure = three.registries[1].failure = refused()
    assert served_by(three) == 2
    three.registries[0].failure = None
    three.reactor.pass_time(2)
    assert [each.is_up for each in three.upstreams] == [True, False, True]
    three.registries[0].failure = refused()
    three.registries[1].failure = None

    assert served_by(three) == 2


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "why",
    [refused(), error.NoRouteError(), error.DNSLookupError("no"), error.ConnectionLost("TLS")],
    ids=lambda why: type(why).__name__,
)
def test_i01_the_next_one_is_asked_where_one_cannot_be_connected_to(
    three: World, method: bytes, why: Exception
) -> None:
    """Nothing was sent, so any method may; the client notices nothing."""
    three.registries[0].failure = three.registries[1].failure = why
    client = ask(three, get(b"/v2/a/manifests/1", method))

    assert three.registries[2].last.take().startswith(method + b" /v2/a/manifests/1 ")
    three.registries[2].last.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    assert read_answer(client.take(), method).status == 200
    assert three.failures == []


def test_i02_the_next_one_is_asked_after_a_connect_without_an_answer(three: World) -> None:
    """A registry of which the machine is gone."""
    three.registry.accepting = False
    client = ask(three)
    three.registry.refuse(error.TimeoutError())
    three.registries[1].last.send(OK)

    assert read_answer(client.take()).status == 200


def test_a_body_goes_to_the_one_that_takes_it(three: World) -> None:
    """It stays with the client until a registry is there, and so does 100 Continue."""
    three.registry.accepting = False
    client = ask(
        three,
        get(b"/v2/a/manifests/1", b"PUT", b"Content-Length: 4", b"Expect: 100-continue"),
    )
    assert client.take() == b""
    three.registry.refuse(refused())
    assert client.take() == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.send(b"body")

    assert read_request(three.registries[1].last.take()).body == b"body"


def test_each_one_hears_its_own_credential(logged: list[Any]) -> None:
    """And nothing of another one's."""
    world = World(urls=["http://u:one@a", "http://u:two@b", "http://c"])
    world.registries[0].failure = refused()
    ask(world)
    world.registries[1].failure = refused()
    ask(world, get(method=b"POST"))

    assert read_request(world.registries[1].last.take())[b"authorization"] == b"Basic dTp0d28="
    assert read_request(world.registries[2].last.take()).all(b"authorization") == []
    world.close()


def test_a_client_without_host_brings_each_one_its_own_name(three: World) -> None:
    """HTTP/1.0: the registry's own name is the best there is."""
    three.registries[0].failure = refused()
    ask(three, b"GET /v2/a/manifests/1 HTTP/1.0\r\n\r\n")

    assert b"\r\nHost: b:5000\r\n" in three.registries[1].last.take()


def test_regguards_own_questions_go_to_the_next_one_too(three: World) -> None:
    """The same rules for them."""
    three.registries[0].failure = refused()
    asked = three.relay.ask(b"HEAD", b"/v2/a/manifests/1", user_name="alice", limit=0)
    replies: list[Any] = []
    asked.addBoth(replies.append)
    three.reactor.turn()
    assert b"Host: b:5000\r\n" in three.registries[1].last.take()
    three.registries[1].last.send(b"HTTP/1.1 404 N\r\nContent-Length: 0\r\n\r\n")

    assert replies[0].status == 404


def test_a_get_goes_to_the_next_one_when_a_fresh_connection_ends_without_a_word(
    three: World,
) -> None:
    """A registry that is killed, or a balancer with nobody behind it."""
    client = ask(three)
    three.registry.last.reset()
    three.registries[1].last.send(OK)

    assert read_answer(client.take()).status == 200


@pytest.mark.parametrize("method", [b"POST", b"PUT", b"PATCH", b"DELETE"])
def test_i05_what_was_sent_is_not_sent_to_another_one(three: World, method: bytes) -> None:
    """It may have been done, without an answer."""
    client = ask(three, get(b"/v2/a/manifests/1", method))
    three.registry.last.reset()

    assert read_answer(client.take(), method).status == 502
    assert [len(each.connections) for each in three.registries] == [1, 0, 0]


def test_i06_an_answer_that_began_is_not_asked_for_elsewhere(three: World) -> None:
    """One octet of it is enough."""
    client = ask(three)
    three.registry.last.send(b"H")
    three.registry.last.reset()

    assert read_answer(client.take()).status == 502
    assert three.registries[1].connections == []


@pytest.mark.parametrize(
    ("last", "status"), [(refused(), 502), (error.TimeoutError(), 504)], ids=["refused", "silent"]
)
def test_with_all_of_them_down_every_request_asks_all(
    three: World, last: Exception, status: int
) -> None:
    """What is known of them may be out of date; the last one's failure is told."""
    for each in three.registries:
        each.failure = last
    for _ in range(3):
        assert read_answer(ask(three).take()).status == status

    three.registries[2].failure = None
    assert served_by(three) == 2


def test_h11_a_request_does_not_wait_for_one_silent_registry_after_another(three: World) -> None:
    """Two take 10 s; docker gives up a login after 15."""
    for each in three.registries:
        each.accepting = False
    client = ask(three)
    three.reactor.pass_time(CONNECT_TIMEOUT)
    three.registries[0].refuse(error.TimeoutError())
    assert CONNECT_TIMEOUT < TRY_FOR < 2 * CONNECT_TIMEOUT
    three.reactor.pass_time(CONNECT_TIMEOUT)
    three.registries[1].refuse(error.TimeoutError())

    assert read_answer(client.take()).status == 504
    assert three.registries[2]._waiting == []


def test_a_body_that_waits_buys_no_registry_time(three: World) -> None:
    """The client's turn begins when there is a registry to send to."""
    for each in three.registries:
        each.accepting = False
    client = three.client()
    client.send(get(b"/v2/a/blobs/uploads/1", b"PUT", b"Content-Length: 5"))
    for each in three.registries[:2]:
        three.reactor.pass_time(CONNECT_TIMEOUT)
        each.refuse(error.TimeoutError())

    assert read_answer(client.take(), b"PUT").status == 504
    assert three.registries[2]._waiting == []


@pytest.mark.parametrize(
    "why",
    [error.ConnectBindError(24, "Too many open files"), OSError(24, "Too many open files")],
    ids=["tcp", "unix"],
)
def test_h06_without_a_socket_of_our_own_no_registry_is_to_blame(
    three: World, log_lines: list[str], why: Exception
) -> None:
    """503, and the next request finds everything as it was."""
    for each in three.registries:
        each.failure = why
    assert read_answer(ask(three).take()).status == 503
    assert [each.is_up for each in three.upstreams] == [True, True, True]
    assert not any("is down" in line for line in log_lines)


def test_a_client_that_leaves_says_nothing_of_the_registry(three: World) -> None:
    """Its connect is given up, and the registry is as it was."""
    three.registry.accepting = False
    ask(three).reset()

    assert three.registry.cancelled == 1
    assert three.upstream.is_up
    assert three.registries[1].connections == []


# -- health ----------------------------------------------------------------------------------


def test_i01_it_is_said_once_when_it_goes_and_once_when_it_is_back(
    three: World, log_lines: list[str]
) -> None:
    """However many requests there are meanwhile."""
    three.registry.failure = refused()
    for _ in range(5):
        assert served_by(three) == 1
    assert log_lines == [DOWN]

    three.registry.failure = None
    three.reactor.pass_time(2)
    assert log_lines == [DOWN, "the registry http://a:5000 is back after 1 s"]
    assert served_by(three) == 0


def test_one_that_is_down_costs_no_request_anything(three: World) -> None:
    """It is looked for beside them."""
    three.registry.failure = error.TimeoutError()
    assert served_by(three) == 1
    three.registry.failure = None
    three.registry.accepting = False
    assert served_by(three) == 1
    three.reactor.pass_time(10)
    assert len(three.registry._waiting) == 1
    assert served_by(three) == 1


def test_it_is_looked_for_ever_more_seldom(three: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """After 1, 2, 4, 8 and 16 s, then every 30; from the start when it goes again."""
    looks: list[float] = []
    connect = three.registry.connect

    def counted(factory: Any) -> Any:
        looks.append(three.reactor.seconds())
        return connect(factory)

    monkeypatch.setattr(three.registry, "connect", counted)
    three.registry.failure = refused()
    for _ in range(2):
        assert served_by(three) == 1
        three.reactor.pass_time(100)
        steps = [after - before for before, after in pairwise(looks)]
        assert steps == [1, 2, 4, 8, 16, LAST_PROBE, LAST_PROBE]
        three.registry.failure = None
        three.reactor.pass_time(LAST_PROBE)
        assert three.upstream.is_up
        three.registry.failure = refused()
        three.reactor.pass_time(LAST_PROBE + 1)  # the connection of the probe is closed
        looks.clear()


def test_the_probes_connection_serves_the_next_get(three: World) -> None:
    """It is kept like any other."""
    three.registry.failure = refused()
    assert served_by(three) == 1
    three.registry.failure = None
    three.reactor.pass_time(2)
    [kept] = three.registry.connections
    ask(three)

    assert kept.take().startswith(b"GET ")
    assert three.registry.connections == [kept]


def test_i01_the_only_one_is_tried_by_every_request(world: World, log_lines: list[str]) -> None:
    """It serves as soon as it is back; a back-off would refuse what could be served."""
    world.registry.failure = refused()
    for _ in range(3):
        assert read_answer(ask(world).take()).status == 502
    world.registry.failure = None

    assert served_by(world) == 0
    lines = [line for line in log_lines if "registry" in line]
    assert [line.split(" is ")[1].split(" ")[0] for line in lines] == ["down:", "back"]


@pytest.mark.parametrize("method", METHODS)
def test_i12_a_registry_that_restarts_is_waited_for(
    world: World, log_lines: list[str], method: bytes
) -> None:
    """It took a connection a moment ago, and refuses the next one: engines give up at a 502."""
    restart(world)
    client = ask(world, get(method=method))
    world.reactor.pass_time(0.35)
    assert client.take() == b""
    world.registry.failure = None
    world.reactor.pass_time(0.1)
    world.registry.last.send(OK)

    assert read_answer(client.take(), method).status == 200
    lines = [line for line in log_lines if "registry" in line]
    assert [line.split(" is ")[1].split(" ")[0] for line in lines] == ["down:", "back"]


def test_i01_nobody_waits_a_second_for_a_registry_that_is_gone(world: World) -> None:
    """And nobody at all when it has not been there for a while."""
    restart(world)
    client = ask(world)
    for _ in range(KNOCKS):
        assert client.take() == b""
        world.reactor.pass_time(PAUSE)
    assert read_answer(client.take()).status == 502
    world.reactor.pass_time(RESTARTS_WITHIN)

    assert read_answer(ask(world).take()).status == 502


@pytest.mark.parametrize("failure", [error.NoRouteError(), error.DNSLookupError("no")])
def test_i01_only_who_refuses_is_taken_for_restarting(world: World, failure: Exception) -> None:
    """No route and no name do not come back in a second."""
    restart(world, failure)

    assert read_answer(ask(world).take()).status == 502


def test_i12_a_unix_socket_that_is_not_there_yet_is_waited_for(world: World) -> None:
    """A registry that starts makes it anew."""
    restart(world, error.ConnectError(errno.ENOENT, "No such file or directory"))
    client = ask(world)

    assert client.take() == b""
    client.end()


def test_i12_where_there_is_another_registry_nobody_waits(three: World) -> None:
    """All refuse, and the client hears it at once."""
    restart(three)
    for each in three.registries:
        each.failure = refused()

    assert read_answer(ask(three).take()).status == 502


def test_a_failure_that_was_overtaken_does_not_count(three: World) -> None:
    """A connect that began before another one succeeded knows less."""
    three.registry.accepting = False
    slow = ask(three)
    (waiting,) = three.registry._waiting
    three.registry._waiting = []
    three.reactor.pass_time(1)
    three.registry.accepting = True
    assert served_by(three) == 0
    waiting[1].errback(error.TimeoutError())
    three.reactor.turn()

    assert three.upstream.is_up
    three.registries[1].last.send(OK)
    assert read_answer(slow.take()).status == 200


def test_stop_ends_a_probe(logged: list[Any]) -> None:
    """Nothing is left, and nothing is logged."""
    world = World(urls=URLS)
    world.registry.failure = refused()
    served_by(world)
    world.registry.failure = None
    world.registry.accepting = False
    world.reactor.pass_time(2)
    assert len(world.registry._waiting) == 1
    world.close()

    assert world.registry.cancelled == 1


def test_i27_a_fault_in_a_probe_does_not_end_the_watch(
    three: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It counts as a failure, and is tried again."""
    three.registry.failure = refused()
    served_by(three)
    monkeypatch.setattr(three.upstream, "connect", lambda: 1 / 0)
    three.reactor.pass_time(5)
    monkeypatch.undo()
    three.registry.failure = None
    three.reactor.pass_time(LAST_PROBE)

    assert three.upstream.is_up


# -- uploads ---------------------------------------------------------------------------------

START = b"/v2/team/app/blobs/uploads/"
UPLOAD = START + b"1-2?_state=a%2Fb_-%3D%3D"


def mark(number: int) -> bytes:
    """The mark of a registry."""
    return b"_upstream=" + Address.parse(URLS[number]).mark


def upload_at(world: World, number: int) -> bytes:
    """The Location of an upload that a registry has started."""
    before = [each.failure for each in world.registries]
    for n, each in enumerate(world.registries):
        each.failure = None if n == number else refused()
    client = ask(world, get(START, b"POST", b"Content-Length: 0"))
    world.registries[number].last.send(
        b"HTTP/1.1 202 Accepted\r\nLocation: https://r.example" + UPLOAD + b"\r\n"
        b"Content-Length: 0\r\n\r\n"
    )
    world.registries[number].last.take()
    for each, failure in zip(world.registries, before, strict=True):
        each.failure = failure
    location = read_answer(client.take(), b"POST")[b"location"]
    return location.removeprefix(b"https://r.example")


@pytest.mark.parametrize("method", [b"PATCH", b"PUT", b"GET", b"HEAD", b"DELETE"])
def test_an_upload_stays_where_it_began(three: World, method: bytes) -> None:
    """Though the first registry is back; and the registry never sees the mark."""
    location = upload_at(three, 1)
    assert location == UPLOAD + b"&" + mark(1)
    three.reactor.pass_time(5)
    assert three.upstream.is_up
    ask(three, get(location + b"&digest=sha256%3Aaa", method))

    sent = read_request(three.registries[1].last.take())
    assert (sent.method, sent.target) == (method, UPLOAD + b"&digest=sha256%3Aaa")


@pytest.mark.parametrize(
    "target",
    [
        START + b"1-2?_state=s&" + mark(1),
        START + b"1-2?" + mark(1) + b"&_state=s",
        START + b"1-2?_state=s&" + mark(1) + b"&digest=d",
        START + b"1-2?_state=s&_upstream=01234567&" + mark(1),
        START + b"1-2?_upstream=01234567&" + mark(1) + b"&_state=s&x=" + mark(2),
        START + b"1-2?" + mark(1),
    ],
)
def test_the_mark_is_taken_out_wherever_a_client_puts_it(three: World, target: bytes) -> None:
    """Go's clients sort the query; of several marks the last one is ours, the others' stay."""
    upstream, bare = three.relay.upstreams.of_upload(target)

    assert upstream is three.upstreams[1]
    before, _, after = target.rpartition(mark(1))
    assert bare == (before + after.lstrip(b"&") if after else before[:-1])


@pytest.mark.parametrize(
    "target",
    [
        UPLOAD,
        UPLOAD + b"&_upstream=01234567",
        UPLOAD + b"&_upstream=",
        UPLOAD + b"&_upstream",
        UPLOAD + b"&x" + mark(1),
        UPLOAD + b"&" + mark(1) + b"0",
        UPLOAD + b"&" + mark(1).upper(),
        UPLOAD + b"&%5Fupstream=" + mark(1)[-8:],
        UPLOAD + b"&" + mark(1) + b"&_upstream=01234567",
        START + mark(1),
    ],
)
def test_what_is_no_mark_of_ours_stays_and_says_nothing(three: World, target: bytes) -> None:
    """The first registry is asked, and gets it as it was."""
    assert three.relay.upstreams.of_upload(target) == (three.upstream, target)


def test_a_mark_means_nothing_but_on_uploads(three: World) -> None:
    """Elsewhere it is a word like any other."""
    target = b"/v2/a/manifests/1?" + mark(1)
    ask(three, get(target))

    assert read_request(three.registry.last.take()).target == target


def test_an_upload_is_looked_for_where_it_began_even_if_that_one_was_down(three: World) -> None:
    """Nobody else may know it, and what is known of that registry may be out of date."""
    location = upload_at(three, 0)
    three.registry.failure = refused()
    assert served_by(three) == 1
    three.registry.failure = None

    assert served_by(three, get(location, b"PATCH")) == 0


def test_an_upload_goes_on_elsewhere_when_its_registry_is_gone(three: World) -> None:
    """They share their storage; its next Location bears the new one's mark."""
    location = upload_at(three, 0)
    three.registry.failure = refused()
    client = ask(three, get(location, b"PATCH", b"Content-Length: 2") + b"hi")
    sent = read_request(three.registries[1].last.take())
    assert (sent.target, sent.body) == (UPLOAD, b"hi")
    three.registries[1].last.send(
        b"HTTP/1.1 202 Accepted\r\nLocation: http://b:5000" + UPLOAD + b"\r\n"
        b"Content-Length: 0\r\n\r\n"
    )

    location = read_answer(client.take(), b"PATCH")[b"location"]
    assert location == UPLOAD + b"&" + mark(1)


def test_a_finished_blobs_location_has_no_mark(three: World) -> None:
    """It is the same wherever it is asked for."""
    location = upload_at(three, 1)
    client = ask(three, get(location + b"&digest=sha256:aa", b"PUT"))
    three.registries[1].last.send(
        b"HTTP/1.1 201 Created\r\nLocation: /v2/team/app/blobs/sha256:aa\r\n"
        b"Content-Length: 0\r\n\r\n"
    )

    assert read_answer(client.take(), b"PUT")[b"location"] == b"/v2/team/app/blobs/sha256:aa"


def test_with_one_registry_nothing_is_marked_and_no_mark_taken_out(world: World) -> None:
    """What stands there then is another guard's."""
    assert upload_at(world, 0) == UPLOAD
    target = UPLOAD + b"&_upstream=" + world.upstream.mark

    assert world.relay.upstreams.of_upload(target) == (world.upstream, target)


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        (START + b"1", START + b"1?" + mark(0)),
        (START + b"1?a#f", START + b"1?a&" + mark(0) + b"#f"),
        (b"/v2/a/blobs/sha256:aa?x=/blobs/uploads/", b"/v2/a/blobs/sha256:aa?x=/blobs/uploads/"),
    ],
)
def test_the_mark_stands_at_the_end_of_the_query(
    three: World, location: bytes, expected: bytes
) -> None:
    """Of an upload's URL, whether it has a query or not."""
    assert three.relay.upstreams.marked(location, three.upstream) == expected


def test_a_mark_is_the_same_in_every_process_and_order() -> None:
    """Whoever has the same registries finds the same one; a password makes no difference."""
    addresses = [Address.parse(url) for url in ("http://a:80", "http://u:p@b", "https://b")]
    marks = [each.mark for each in addresses]

    assert len(set(marks)) == 3
    assert Address.parse("http://A").mark == marks[0]
    assert Address.parse("http://b").mark == marks[1]
    ones = [Upstream(each, None, None) for each in addresses]  # type: ignore[arg-type]
    target = UPLOAD + b"&_upstream=" + marks[2]
    for order in (ones, ones[::-1]):
        assert Upstreams(order).of_upload(target) == (ones[2], UPLOAD)


# -- where answers lead ----------------------------------------------------------------------


def led(world: World, line: bytes, octets: bytes, status: bytes = b"202 Accepted") -> Peer:
    """A client that got an answer with this field."""
    client = ask(world, octets)
    world.registry.last.send(
        b"HTTP/1.1 " + status + b"\r\n" + line + b"\r\nContent-Length: 2\r\n\r\nok"
    )
    return client


EVIL = [
    b"Location: https://evil.example/v2/a/blobs/uploads/1",
    b"Location: //evil/x",
    b"Location: javascript:alert(1)",
    b"Location: https://u:p@r.example/v2/a/blobs/uploads/1",
    b"Location: /v2/a/blobs/uploads/1\r\nLocation: /v2/a/blobs/uploads/2",
    b"Location:",
    b'Link: <https://evil.example/v2/a/tags/list?n=1>; rel="next"',
]


@pytest.mark.parametrize("line", EVIL)
@pytest.mark.parametrize("method", [b"POST", b"PATCH", b"PUT", b"GET"])
def test_d20_an_answer_that_leads_astray_is_502(
    world: World, log_lines: list[str], line: bytes, method: bytes
) -> None:
    """Nothing of it reaches the client, and its connection is not used again."""
    client = led(world, line, get(START + b"1", method))

    answer = read_answer(client.take(), method)
    assert (answer.status, answer.all(b"location"), answer.all(b"link")) == (502, [], [])
    assert b"evil" not in answer.body
    assert world.registry.open == []
    assert len(log_lines) == 1
    assert log_lines[0].startswith("the registry http://127.0.0.1:5000 leads alice astray: ")


@pytest.mark.parametrize("line", [b"Location: /x\nX: y", b"Location: /x\rX: y", b"Link: <\x00>"])
def test_d20_a_line_end_in_a_location_is_502(world: World, line: bytes) -> None:
    """No parser agrees with another one on that."""
    client = led(world, line, get(START + b"1", b"PATCH"))

    assert read_answer(client.take(), b"PATCH").status == 502


def test_d20_an_early_answer_that_leads_astray_ends_the_upload(world: World) -> None:
    """The rest of the body goes nowhere."""
    client = ask(world, get(START + b"1", b"PATCH", b"Content-Length: 9") + b"abc")
    world.registry.last.send(b"HTTP/1.1 307 T\r\nLocation: https://evil/x\r\n\r\n")

    assert world.registry.last.was_reset
    assert read_answer(client.take(), b"PATCH").status == 502


@pytest.mark.parametrize("status", [b"301 M", b"302 F", b"303 S", b"307 T", b"308 P"])
@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
def test_d22_a_download_is_redirected_to_storage_untouched(
    world: World, status: bytes, method: bytes
) -> None:
    """Octet by octet: its query is signed."""
    url = b"https://bucket.s3.example/x?X-Amz-Signature=abc%2F&_upstream=1"
    client = led(world, b"Location: " + url, get(b"/v2/a/blobs/sha256:aa", method), status)

    assert read_answer(client.take(), method)[b"location"] == url


@pytest.mark.parametrize("method", [b"POST", b"PUT", b"PATCH", b"DELETE"])
def test_d22_a_write_is_redirected_nowhere(world: World, method: bytes) -> None:
    """307 makes a client send its body again, there."""
    client = led(
        world, b"Location: https://evil/x", get(b"/v2/a/manifests/1", method), b"307 Temporary"
    )

    assert read_answer(client.take(), method).status == 502


def test_d22_an_uploads_state_is_nowhere_else(world: World) -> None:
    """Where it is asked for, the next octets go."""
    client = led(world, b"Location: https://evil/x", get(START + b"1"), b"307 Temporary")

    assert read_answer(client.take()).status == 502


def test_d19_any_registrys_address_is_known(three: World) -> None:
    """A registry may name itself as its neighbour does."""
    client = led(three, b"Location: http://c:5000" + UPLOAD, get(START, b"POST"))

    assert read_answer(client.take(), b"POST")[b"location"] == UPLOAD + b"&" + mark(0)


def test_d19_the_public_url_wins(logged: list[Any]) -> None:
    """Over Host and over the registry's own name."""
    world = World(origin=Origin(b"https", b"hub.example"))
    client = led(world, b"Location: http://127.0.0.1:5000" + UPLOAD, get(START, b"POST"))

    assert read_answer(client.take(), b"POST")[b"location"] == b"https://hub.example" + UPLOAD
    world.close()
