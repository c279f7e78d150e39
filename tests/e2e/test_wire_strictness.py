"""Groups A and C of the cases through real sockets, with and without TLS, before a strict recorder.

The table is ``tests.malformed``; ``tests/guard/test_malformed.py`` cuts it at every octet.
"""

from __future__ import annotations

import contextlib
import re
import socket
from itertools import pairwise
from pathlib import Path

import pytest

from tests.canary import secret
from tests.e2e.programs import Ground
from tests.e2e.recorder import ANSWER, Asked, ok
from tests.e2e.stage import Stage, basic, read_to_end, staging
from tests.front.wire import replies
from tests.malformed import (
    BROKEN,
    CREDENTIAL,
    ELSEWHERE,
    LONG,
    MALFORMED,
    NEXT,
    SECRET,
    TARGET,
    Broken,
    Elsewhere,
    Malformed,
    head,
)
from tests.relay.test_registry_answers import BROKEN_HEADS

LOGGED = re.compile(r"127\.0\.0\.1 \S+ \S+ \[")
CLOSE = b"Connection: close"
UPLOAD = b"/v2/team/app/blobs/uploads/12345678-1234-1234-1234-123456789012"
BLOB = b"/v2/team/app/blobs/sha256:" + b"0" * 64


# -- what is refused for its form -------------------------------------------------------------


@pytest.mark.parametrize("in_pieces", [False, True], ids=["whole", "octets"])
@pytest.mark.parametrize("case", [*MALFORMED, *LONG], ids=lambda case: case.name)
def test_a01_to_a34_a_malformed_request_is_refused(
    stage: Stage, case: Malformed, in_pieces: bool
) -> None:
    """One answer, the connection closed, nothing upstream, whatever stands behind it."""
    octets = stage.as_pusher(case.octets + NEXT)
    if in_pieces and len(octets) < 1000:
        received = stage.talk(*(octets[at : at + 1] for at in range(len(octets))))
    else:
        received = stage.talk(octets)

    (answer,) = replies(received)
    assert answer.status in case.statuses
    assert answer["Connection"] == [b"close"]
    assert answer["Content-Type"] == [b"application/json"]
    assert bytes(stage.recorder.received) == b""


def test_a01_to_a34_every_refusal_is_one_line_of_the_log(ground: Ground, tmp_path: Path) -> None:
    """What stands behind what is refused is no request, in the log as on the wire."""
    with staging(ground, tmp_path / "guard", secure=False) as stage:
        for case in MALFORMED:
            stage.talk(stage.as_pusher(case.octets + NEXT))
        stage.ask(NEXT)
        stage.guard.wait_for_line("GET /v2/secret/repo/manifests/v1")
        lines = [line for line in stage.guard.program.output().splitlines() if LOGGED.match(line)]

    *refusals, last = lines
    assert len(refusals) == len(MALFORMED)
    assert all(re.search(r'\] "-" (400|408|413|417|501|505) \d+ "-" "-"$', x) for x in refusals)
    assert " 200 " in last


@pytest.mark.parametrize("in_pieces", [False, True], ids=["whole", "octets"])
@pytest.mark.parametrize("case", ELSEWHERE, ids=lambda case: case.name)
def test_a26_to_a29_c01_to_c15_what_is_no_access_stays_here(
    stage: Stage, case: Elsewhere, in_pieces: bool
) -> None:
    """It is answered here; only the good request behind it reaches the registry."""
    octets = stage.as_pusher(case.octets + NEXT)
    segments = [octets[at : at + 1] for at in range(len(octets))] if in_pieces else [octets]
    method = case.octets.partition(b" ")[0].decode()
    first, second = replies(stage.talk(*segments), method, "GET")

    assert (first.status, second.status) == (case.status, 200)
    assert b"Basic" not in first.body
    assert [asked.target for asked in stage.recorder.requests] == [SECRET]
    assert stage.recorder.received.count(b"HTTP/1.1\r\n") == 1


@pytest.mark.parametrize("in_pieces", [False, True], ids=["whole", "octets"])
@pytest.mark.parametrize("case", BROKEN, ids=lambda case: case.name)
def test_a18_to_a21_a_broken_body_breaks_both_sides(
    stage: Stage, case: Broken, in_pieces: bool
) -> None:
    """400 for the client; for the registry no last chunk, nothing behind it, and a cut."""
    octets = stage.as_pusher(case.octets + NEXT)
    cuts = range(octets.index(b"\r\n\r\n"), len(octets)) if in_pieces else []
    segments = [octets[a:b] for a, b in pairwise([0, *cuts, len(octets)])]
    (answer,) = replies(stage.talk(*segments))

    assert answer.status == 400
    assert answer["Connection"] == [b"close"]
    assert stage.recorder.requests == []
    assert b"0\r\n\r\n" not in stage.recorder.received
    assert b"secret" not in stage.recorder.received


# -- what is good, and what of it goes on -----------------------------------------------------


def only_request(stage: Stage) -> Asked:
    """The one request that reached the registry."""
    (asked,) = stage.recorder.requests
    return asked


@pytest.mark.parametrize("minor", [b"0", b"1"])
def test_a07_there_is_no_limit_but_the_registrys(stage: Stage, minor: bytes) -> None:
    """A manifest of more than 4 MiB goes on: the registry caps its own manifests."""
    body = b" " * (5 << 20)
    line = b"Content-Length: %d" % len(body)
    (answer,) = stage.ask(head(line, CLOSE, version=b"HTTP/1." + minor) + body)

    assert answer.status == 200
    assert only_request(stage).body == body


def test_a12_b05_a_name_with_an_underscore_frames_nothing(stage: Stage) -> None:
    """The field is dropped, and what looks like its body is the next request."""
    stream = head(b"Transfer_Encoding: chunked", b"Content_Length: 5", method=b"GET") + NEXT
    first, second = stage.ask(stream)

    assert (first.status, second.status) == (200, 200)
    assert [asked.target for asked in stage.recorder.requests] == [TARGET, SECRET]
    assert b"_" not in stage.recorder.received


def test_a16_f02_obs_text_is_let_through_and_escaped_where_it_is_logged(stage: Stage) -> None:
    """User agents have names of people in them; the log has one line of ASCII."""
    (answer,) = stage.ask(head(b"User-Agent: d\xf6cker-a16/1", CLOSE, method=b"GET"))

    assert answer.status == 200
    assert only_request(stage).all("User-Agent") == [b"d\xf6cker-a16/1"]
    assert r"d\xf6cker-a16/1" in stage.guard.wait_for_line("cker-a16/1")


CHUNKED = b"Transfer-Encoding: chunked"


@pytest.mark.parametrize("line", [b"5;a=b", b'5;a="b;c"', b"005", b"5;a"])
def test_a19_extensions_do_not_go_on(stage: Stage, line: bytes) -> None:
    """The body does, in chunks of our own."""
    body = line + b"\r\nhello\r\n0;last\r\n\r\n"
    (answer,) = stage.ask(head(CHUNKED, CLOSE, method=b"PATCH", target=UPLOAD) + body)

    assert answer.status == 200
    assert stage.recorder.received.endswith(b"\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
    assert only_request(stage).body == b"hello"


@pytest.mark.parametrize(
    "sent",
    [
        head(CHUNKED, method=b"PATCH", target=UPLOAD) + b"5\r\nhel",
        head(CHUNKED, method=b"PATCH", target=UPLOAD) + b"5\r\nhello\r\n",
        head(CHUNKED, method=b"PATCH", target=UPLOAD) + b"5\r\nhello\r\n0\r\n\r",
        head(b"Content-Length: 6", method=b"PATCH", target=UPLOAD) + b"hello",
    ],
)
def test_a20_an_end_in_the_body_is_no_end_of_it(stage: Stage, sent: bytes) -> None:
    """The client closes its side too early: the registry never sees a whole request."""
    with stage.connect() as connection, contextlib.suppress(ConnectionError):
        connection.settimeout(8)
        connection.sendall(stage.as_pusher(sent))
        connection.shutdown(socket.SHUT_WR)
        read_to_end(connection)  # so that the guard is done with it

    stage.ask(NEXT)
    assert [asked.target for asked in stage.recorder.requests] == [SECRET]
    assert b"0\r\n\r\n" not in stage.recorder.received


@pytest.mark.parametrize(
    "trailer",
    [
        b"Content-Length: 50",
        b"Host: evil",
        b"Authorization: Basic eDp5",
        b"X-Forwarded-User: root",
        b"Transfer-Encoding: identity",
    ],
)
def test_a21_trailers_are_neither_merged_nor_passed_on(stage: Stage, trailer: bytes) -> None:
    """The request behind them is read as it stands."""
    body = b"5\r\nhello\r\n0\r\n" + trailer + b"\r\n\r\n"
    first, second = stage.ask(head(CHUNKED, method=b"PATCH", target=UPLOAD) + body + NEXT)

    assert (first.status, second.status) == (200, 200)
    assert [asked.body for asked in stage.recorder.requests] == [b"hello", b""]
    assert trailer not in stage.recorder.received


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE"])
def test_a22_a_body_hides_no_request(stage: Stage, method: str) -> None:
    """CL.0 and 0.CL: it stays the body of the request before it, on both sides."""
    hidden = head(method=b"GET", target=SECRET).replace(CREDENTIAL + b"\r\n", b"")
    line = b"Content-Length: %d" % len(hidden)
    stream = head(line, method=method.encode()) + hidden + NEXT
    first, second = stage.ask(stream, method, "GET")

    assert (first.status, second.status) == (200, 200)
    outer, _ = stage.recorder.requests
    assert (outer.target, outer.body) == (TARGET, hidden)


def test_a23_continue_waits_for_the_verdict(stage: Stage) -> None:
    """Bad credentials: 401 and no 100. Good ones: 100. HTTP/1.0: none."""
    expecting = (b"Content-Length: 5", b"Expect: 100-continue")
    wrong = head(*expecting).replace(CREDENTIAL, b"Authorization: " + basic(("x", secret("wrong"))))
    with stage.connect() as connection:
        connection.settimeout(8)
        connection.sendall(wrong)
        received = read_to_end(connection)
    assert received.startswith(b"HTTP/1.1 401 ")
    assert stage.recorder.requests == []

    with stage.connect() as connection:
        connection.settimeout(8)
        connection.sendall(stage.as_pusher(head(*expecting, CLOSE)))
        assert connection.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"hello")
        assert read_to_end(connection).startswith(b"HTTP/1.1 200 ")
    assert only_request(stage).body == b"hello"
    assert b"xpect" not in stage.recorder.received

    stage.recorder.forget()
    (answer,) = stage.ask(head(*expecting, version=b"HTTP/1.0") + b"hello")
    assert (answer.status, answer.interim) == (200, [])


@pytest.mark.parametrize(
    ("protocol", "more"),
    [
        (b"h2c", b"HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA"),
        (b"websocket", b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="),
        (b"something/1", b"X: 1"),
    ],
)
def test_a30_an_upgrade_goes_nowhere(stage: Stage, protocol: bytes, more: bytes) -> None:
    """Not asked for at the registry; if it switches all the same, 502 and not one octet of it."""
    lines = (b"Upgrade: " + protocol, b"Connection: Upgrade, close, HTTP2-Settings", more)
    (answer,) = stage.ask(head(*lines, method=b"GET"))
    assert answer.status == 200
    assert b"pgrade" not in stage.recorder.received
    assert b"HTTP2" not in stage.recorder.received

    stage.recorder.answer = lambda asked: (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\nevil"
    )
    received = stage.talk(stage.as_pusher(head(*lines, method=b"GET")))
    (answer,) = replies(received)
    assert answer.status == 502
    assert b"evil" not in received


def test_a32_pipelined_requests_are_authenticated_each_and_answered_in_order(stage: Stage) -> None:
    """Good, nobody, wrong, good: each by its own credential."""
    good = head(method=b"GET")
    nobody = good.replace(CREDENTIAL + b"\r\n", b"")
    wrong = good.replace(CREDENTIAL, b"Authorization: " + basic(("nobody", secret("x"))))
    answers = stage.ask(good + nobody + wrong + NEXT)

    assert [answer.status for answer in answers] == [200, 401, 401, 200]
    assert [asked.target for asked in stage.recorder.requests] == [TARGET, SECRET]


def test_a34_one_empty_line_before_a_request_is_forgiven(stage: Stage) -> None:
    """RFC 9112 section 2.2."""
    first, second = stage.ask(b"\r\n" + head(method=b"GET") + b"\r\n" + NEXT)

    assert (first.status, second.status) == (200, 200)
    assert stage.recorder.received.startswith(b"GET ")


# -- what the registry answers ----------------------------------------------------------------


def answers_with(stage: Stage, octets: bytes, method: str = "GET") -> bytes:
    """What a client receives when the registry says ``octets``, and then says the usual."""

    def answer(asked: Asked) -> bytes:
        return octets if asked.target == TARGET else ok(asked)

    stage.recorder.answer = answer
    stream = head(method=method.encode()) + NEXT
    return stage.talk(stage.as_pusher(stream))


@pytest.mark.parametrize("broken", BROKEN_HEADS, ids=lambda head: repr(head[9:60]))
def test_a36_a_broken_answer_is_502(stage: Stage, broken: bytes) -> None:
    """And its connection is not used again."""
    first, second = replies(answers_with(stage, broken + b"\r\n\r\nevil"))

    assert (first.status, second.status, second.body) == (502, 200, b"{}")
    assert b"evil" not in first.body
    assert len({asked.connection for asked in stage.recorder.requests}) == 2


@pytest.mark.parametrize(
    ("method", "octets", "status", "body"),
    [
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", 200, b""),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\nevil", 204, b""),
        ("GET", b"HTTP/1.1 304 Not Modified\r\n\r\nevil", 304, b""),
        ("GET", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokevil", 200, b"ok"),
        (
            "GET",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\nevil",
            200,
            b"ok",
        ),
        (
            "GET",
            ANSWER + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
            200,
            b"{}",
        ),
    ],
)
def test_a37_a39_surplus_octets_reach_nobody(
    stage: Stage, method: str, octets: bytes, status: int, body: bytes
) -> None:
    """The next request gets an answer of its own, from another connection."""
    received = answers_with(stage, octets, method)
    first, second = replies(received, method, "GET")

    assert (first.status, first.body) == (status, body)
    assert (second.status, second.body) == (200, b"{}")
    assert b"evil" not in received
    assert len({asked.connection for asked in stage.recorder.requests}) == 2


@pytest.mark.parametrize(
    ("interim", "status"),
    [
        (b"HTTP/1.1 100 Continue\r\n\r\n", 200),
        (b"HTTP/1.1 102 Processing\r\n\r\n", 200),
        (b"HTTP/1.1 103 Early Hints\r\nLink: </evil>\r\n\r\n", 200),
        (b"HTTP/1.1 103 Early Hints\r\nLink: </evil>\r\n\r\n" * 10_000, 502),
    ],
)
def test_a38_interim_answers_are_not_relayed(stage: Stage, interim: bytes, status: int) -> None:
    """A few are passed over, a flood is 502."""
    received = answers_with(stage, interim + ANSWER)
    first, second = replies(received)

    assert (first.status, first.interim, second.status) == (status, [], 200)
    assert b"evil" not in received


# -- names and paths --------------------------------------------------------------------------


def test_c06_v2_without_its_slash_is_the_login_check(stage: Stage) -> None:
    """After authentication, and the registry is asked in its own spelling."""
    nobody = head(method=b"GET", target=b"/v2").replace(CREDENTIAL + b"\r\n", b"")
    refused, answer = stage.ask(nobody + head(CLOSE, method=b"GET", target=b"/v2"))

    assert (refused.status, answer.status) == (401, 200)
    assert only_request(stage).target == b"/v2/"


@pytest.mark.parametrize("name", ["blobs", "uploads", "manifests", "tags/list", "a/blobs/uploads"])
def test_c11_names_of_endpoint_words_are_read_from_the_right(stage: Stage, name: str) -> None:
    """The same octets go on, so what the registry reads from the right is what was decided."""
    target = f"/v2/{name}/manifests/v1".encode()
    (answer,) = stage.ask(head(CLOSE, method=b"GET", target=target))

    assert answer.status == 200
    assert only_request(stage).target == target


def test_c13_a_target_of_8000_octets_is_one(stage: Stage) -> None:
    """RFC 9112 section 3 asks for as much."""
    target = TARGET + b"?x=" + b"y" * (8000 - len(TARGET) - 3)
    (answer,) = stage.ask(head(CLOSE, method=b"GET", target=target))

    assert answer.status == 200
    assert only_request(stage).target == target
