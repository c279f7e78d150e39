"""What the registry answers: whole in every shape, broken, or broken off."""

from __future__ import annotations

from typing import Any

import pytest

from regguard.relay.upstream import MAX_INTERIM
from tests.relay.world import OK, World, get, read_answer, read_answers

# -- A36 to A38: broken answers --------------------------------------------------------------

BROKEN_HEADS = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 2",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2, 2",
    b"HTTP/1.1 200 OK\r\nContent-Length: +2",
    b"HTTP/1.1 200 OK\r\nContent-Length: -2",
    b"HTTP/1.1 200 OK\r\nContent-Length: 0x2",
    b"HTTP/1.1 200 OK\r\nContent-Length: 1_0",
    b"HTTP/1.1 200 OK\r\nContent-Length:",
    b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 30,
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked",
    b"HTTP/1.1 200 OK\r\nX: a\r\n b",
    b"HTTP/1.1 200 OK\r\nX: a\0b",
    b"HTTP/1.1 200 OK\r\nX: a\rb",
    b"HTTP/1.1 200 OK\r\nX: a\nb",
    b"HTTP/1.1 200 OK\r\nX : a",
    b"HTTP/1.1 200 OK\r\nno colon",
    b"HTTP/1.1 200 O\0K",
    b"HTTP/1.1 200 O\rK",
    b"HTTP/1.1 -1 OK",
    b"HTTP/1.1 +200 OK",
    b"HTTP/1.1 2_0 OK",
    b"HTTP/1.1 99 OK",
    b"HTTP/1.1 099 OK",
    b"HTTP/1.1 600 OK",
    b"HTTP/1.1 1000 OK",
    b"HTTP/1.1  200 OK",
    b"HTTP/1.1\t200 OK",
    b"HTTP/1.1 200 OK\r\n" + b"\r\n".join(b"X: %d" % n for n in range(101)),
    b"HTTP/1.1 200 OK\r\n" + b"\r\n".join(b"X: %d" % n for n in range(10_000)),
    b"HTTP/1.1 200 OK\r\nX: " + b"a" * 40_000,
]


@pytest.mark.parametrize("head", BROKEN_HEADS, ids=lambda head: repr(head[9:60]))
def test_a36_a_broken_head_is_502(world: World, head: bytes) -> None:
    """What two parsers could read in two ways is not passed on, and the connection is cut."""
    client = world.client()
    client.send(get())
    world.registry.last.send(head + b"\r\n\r\nok")

    assert read_answer(client.take()).status == 502
    assert world.registry.last.was_reset
    assert world.registry.open == []
    assert client.is_open


@pytest.mark.parametrize(
    "surplus", [b"x", OK, b"\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"]
)
@pytest.mark.parametrize(
    ("method", "head", "body"),
    [
        (b"GET", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", b"ok"),
        (
            b"GET",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            b"ok",
        ),
        (b"GET", b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (b"GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", b""),
        (b"GET", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b""),
        (b"HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", b""),
        (b"HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b""),
    ],
)
@pytest.mark.parametrize("together", [True, False])
def test_a37_surplus_octets_are_dropped_and_end_the_connection(
    world: World, method: bytes, head: bytes, body: bytes, surplus: bytes, together: bool
) -> None:
    """The next client must not see them."""
    client = world.client()
    client.send(get(method=method))
    registry = world.registry.last
    registry.send(*([head + surplus] if together else [head, surplus]))

    answer = read_answer(client.take(), method)
    assert (answer.body, answer.whole) == (body, True)
    assert registry.was_reset
    client.send(get())
    assert len(world.registry.connections) == 2


@pytest.mark.parametrize("status", [b"100 Continue", b"102 Processing", b"103 Early Hints"])
def test_a38_interim_responses_are_passed_over(world: World, status: bytes) -> None:
    """The client gets one final response."""
    client = world.client()
    client.send(get())
    world.registry.last.send((b"HTTP/1.1 " + status + b"\r\nX: 1\r\n\r\n") * MAX_INTERIM + OK)

    octets = client.take()
    assert octets.count(b"HTTP/1.1 ") == 1
    assert read_answer(octets).body == b"ok"


def test_a38_interim_responses_are_passed_over_octet_by_octet(world: World) -> None:
    """However the network cuts them."""
    client = world.client()
    client.send(get())
    octets = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 E\r\nLink: x\r\n\r\n" + OK
    world.registry.last.send(*[octets[n : n + 1] for n in range(len(octets))])

    assert read_answer(client.take()).body == b"ok"


@pytest.mark.parametrize("number", [MAX_INTERIM + 1, 10_000])
def test_a38_endless_interim_responses_are_502(world: World, number: int) -> None:
    """No registry sends them, so there is a bound."""
    client = world.client()
    client.send(get())
    world.registry.last.send(b"HTTP/1.1 100 Continue\r\n\r\n" * number)

    assert read_answer(client.take()).status == 502
    assert world.registry.last.was_reset


@pytest.mark.parametrize("after", [b"evil", b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"])
def test_a30_switching_protocols_is_502(world: World, after: bytes) -> None:
    """Nobody asked for it, and nothing behind it is relayed."""
    client = world.client()
    client.send(get(b"/v2/a/manifests/1", b"GET", b"Connection: Upgrade", b"Upgrade: h2c"))
    world.registry.last.send(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n" + after
    )

    octets = client.take()
    assert read_answer(octets).status == 502
    assert b"evil" not in octets


@pytest.mark.parametrize("status", [b"401 Unauthorized", b"407 Proxy Authentication Required"])
@pytest.mark.parametrize("body", [b"Content-Length: 2\r\n\r\nno", b"Content-Length: 9\r\n\r\nno"])
def test_d23_a_challenge_of_the_registry_is_502(world: World, status: bytes, body: bytes) -> None:
    """It would send clients' passwords to whom it names (CVE-2026-33540)."""
    client = world.client()
    client.send(get())
    world.registry.last.send(
        b"HTTP/1.1 " + status + b'\r\nWWW-Authenticate: Bearer realm="https://evil/"\r\n' + body
    )

    octets = client.take()
    assert read_answer(octets).status == 502
    assert b"evil" not in octets
    assert b"authenticate" not in octets.lower()
    assert world.registry.open == []


def test_d23_a_connection_with_a_challenge_is_not_handed_on(world: World) -> None:
    """A pipelined request, which runs in the same turn, must not get the cut connection."""
    client = world.client()
    client.send(get() + get(b"/v2/b/manifests/1"))
    first = world.registry.last
    first.take()
    first.send(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n")

    assert first.take() == b""
    assert len(world.registry.connections) == 2
    world.registry.last.send(OK)
    assert [a.status for a in read_answers(client.take(), b"GET", b"GET")] == [502, 200]


# -- answers of every shape ------------------------------------------------------------------

ANSWERS: list[tuple[bytes, bytes, int, bytes, dict[bytes, bytes]]] = [
    (b"GET", b"200 OK\r\nContent-Length: 0\r\n\r\n", 200, b"", {b"content-length": b"0"}),
    (b"GET", b"200 OK\r\nContent-Length: 3\r\n\r\nabc", 200, b"abc", {b"content-length": b"3"}),
    (b"GET", b"200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 200, b"", {}),
    (
        b"GET",
        b"200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;a=b\r\na\r\n2\r\nbc\r\n0\r\nX: y\r\n\r\n",
        200,
        b"abc",
        {},
    ),
    (b"HEAD", b"200 OK\r\nContent-Length: 3\r\n\r\n", 200, b"", {b"content-length": b"3"}),
    (b"HEAD", b"200 OK\r\nContent-Length: 0\r\n\r\n", 200, b"", {b"content-length": b"0"}),
    (b"HEAD", b"200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", 200, b"", {}),
    (b"HEAD", b"404 Not Found\r\nContent-Length: 99\r\n\r\n", 404, b"", {b"content-length": b"99"}),
    (b"GET", b"204 No Content\r\n\r\n", 204, b"", {}),
    (b"DELETE", b"204 No Content\r\nContent-Length: 0\r\n\r\n", 204, b"", {}),
    (b"GET", b"304 Not Modified\r\nETag: x\r\n\r\n", 304, b"", {b"etag": b"x"}),
    (
        b"GET",
        b"206 Partial Content\r\nContent-Range: bytes 1-2/9\r\nContent-Length: 2\r\n\r\nbc",
        206,
        b"bc",
        {b"content-range": b"bytes 1-2/9", b"content-length": b"2"},
    ),
    (b"GET", b"416 Range Not Satisfiable\r\nContent-Length: 0\r\n\r\n", 416, b"", {}),
    (
        b"GET",
        b"307 Temporary Redirect\r\nLocation: https://s3/x?sig=%2F\r\nContent-Length: 0\r\n\r\n",
        307,
        b"",
        {b"location": b"https://s3/x?sig=%2F"},
    ),
    (b"POST", b"202 Accepted\r\nRange: 0-0\r\nContent-Length: 0\r\n\r\n", 202, b"", {}),
    (b"GET", b"200\r\nContent-Length: 0\r\n\r\n", 200, b"", {}),
    (b"GET", b"200 \r\nContent-Length: 0\r\n\r\n", 200, b"", {}),
    (b"GET", b"599 What\r\nContent-Length: 0\r\n\r\n", 599, b"", {}),
]


@pytest.mark.parametrize(("method", "octets", "status", "body", "headers"), ANSWERS)
@pytest.mark.parametrize("version", [b"HTTP/1.1", b"HTTP/1.0"])
def test_every_shape_of_answer_comes_back_at_every_split(
    world: World,
    method: bytes,
    octets: bytes,
    status: int,
    body: bytes,
    headers: dict[bytes, bytes],
    version: bytes,
) -> None:
    """Same status, fields and body, and never an answer whose end the client can't see."""
    octets = b"HTTP/1.1 " + octets
    for cut in range(len(octets)):
        client = world.client()
        client.send(
            method + b" /v2/a/manifests/1 " + version + b"\r\nHost: r.example\r\n"
            b"Connection: keep-alive\r\n\r\n"
        )
        # The most recently used connection serves again.
        registry = next(each for each in world.registry.open if each.received)
        registry.take()
        registry.send(*filter(None, [octets[:cut], octets[cut:]]))

        raw = client.take()
        answer = read_answer(raw, method, ended=client.was_ended)
        assert (answer.status, answer.body, answer.whole) == (status, body, True)
        for name, value in headers.items():
            assert answer[name] == value
        assert len(answer.all(b"docker-distribution-api-version")) == 1
        if method == b"HEAD" or status in (204, 304):
            assert raw.endswith(b"\r\n\r\n")
        elif not (answer.all(b"content-length") or answer.all(b"transfer-encoding")):
            assert version == b"HTTP/1.0"
            assert client.was_ended
        client.end()


def test_a_close_delimited_answer_comes_back_whole(world: World) -> None:
    """An HTTP/1.1 client gets it chunked, so that its end is a real one."""
    client = world.client()
    client.send(get())
    registry = world.registry.last
    registry.send(b"HTTP/1.1 200 OK\r\n\r\nab", b"cd")
    registry.end()

    answer = read_answer(client.take())
    assert (answer.body, answer[b"transfer-encoding"]) == (b"abcd", b"chunked")
    assert client.is_open


def test_a_close_delimited_answer_without_a_body_comes_back_whole(world: World) -> None:
    """Nothing but a head and a close is an empty body."""
    client = world.client()
    client.send(get())
    world.registry.last.send(b"HTTP/1.1 200 OK\r\n\r\n")
    world.registry.last.end()

    assert read_answer(client.take()).whole


@pytest.mark.parametrize("keep", [b"", b"Connection: keep-alive\r\n"])
def test_an_http_1_0_client_gets_a_close_delimited_body(world: World, keep: bytes) -> None:
    """It knows no chunks; the close is the end."""
    client = world.client()
    client.send(b"GET /v2/a/manifests/1 HTTP/1.0\r\nHost: r.example\r\n" + keep + b"\r\n")
    registry = world.registry.last
    registry.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n")
    registry.send(b"2\r\ncd\r\n0\r\n\r\n")

    raw = client.take()
    assert raw.endswith(b"\r\n\r\nabcd")
    assert b"ransfer-" not in raw
    assert client.was_ended
    assert not client.was_reset


# -- I06 to I08: an answer that breaks off ---------------------------------------------------

TRUNCATED = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc",
    b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
]


@pytest.mark.parametrize("octets", TRUNCATED)
@pytest.mark.parametrize("end", ["end", "reset"])
@pytest.mark.parametrize("version", [b"HTTP/1.1", b"HTTP/1.0"])
def test_i06_i07_i08_a_truncated_answer_cuts_the_client(
    world: World, octets: bytes, end: str, version: bytes
) -> None:
    """No clean end of any kind: a truncated blob must never look whole."""
    client = world.client()
    client.send(b"GET /v2/a/blobs/1 " + version + b"\r\nHost: r.example\r\n\r\n")
    world.registry.last.send(octets)
    getattr(world.registry.last, end)()

    assert client.was_reset
    assert not client.was_ended
    raw = client.take()
    assert b"0\r\n\r\n" not in raw
    assert raw.count(b"HTTP/1.1 ") == 1
    assert not read_answer(raw).whole


def test_i06_a_reset_ends_a_close_delimited_answer_dishonestly(world: World) -> None:
    """Only a FIN is an end."""
    client = world.client()
    client.send(get())
    world.registry.last.send(b"HTTP/1.1 200 OK\r\n\r\nabc")
    world.registry.last.reset()

    assert client.was_reset


@pytest.mark.parametrize("chunk", [b"x\r\n", b"3\r\nabcd\r\n", b"3 \r\nabc\r\n", b"3\nabc\r\n"])
def test_a36_a_broken_chunk_cuts_the_client(world: World, chunk: bytes) -> None:
    """The head is out already, so the only honest answer is the cut."""
    client = world.client()
    client.send(get())
    world.registry.last.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", chunk)

    assert client.was_reset
    assert b"0\r\n\r\n" not in client.take()
    assert world.registry.last.was_reset


def test_i03_silence_in_an_answer_cuts_the_client(world: World) -> None:
    """After the read timeout, and not before."""
    client = world.client()
    client.send(get())
    world.registry.last.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc")
    world.reactor.pass_time(98)
    world.registry.last.send(b"d")
    world.reactor.pass_time(98)
    assert client.is_open
    world.reactor.pass_time(4)

    assert client.was_reset
    assert world.registry.last.was_reset


def test_i06_a_truncated_answer_is_logged(world: World, log_lines: list[Any]) -> None:
    """The access log shows a 200 with too few octets; operators need the reason."""
    client = world.client()
    client.send(get())
    world.registry.last.send(TRUNCATED[0])
    world.registry.last.end()

    assert any("the registry cut its answer" in line for line in log_lines)
