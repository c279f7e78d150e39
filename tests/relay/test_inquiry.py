"""Questions of regguard's own to the registry."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet import error
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from regguard.relay import Origin, Reply, UpstreamFailure
from regguard.relay import exchange as exchange_module
from tests.relay.world import Peer, World, read_answer, refused

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\no\r\n1\r\nk\r\n0\r\n\r\n"
UNTIL_CLOSE = b"HTTP/1.1 200 OK\r\n\r\nok"
CATALOG = b"/v2/_catalog?n=1000&last=a"
GET = b"GET /v2/a/manifests/1 HTTP/1.1\r\nHost: r.example\r\n\r\n"


class Question:
    """A question and what became of it."""

    def __init__(
        self,
        world: World,
        *lines: bytes,
        method: bytes = b"GET",
        target: bytes = CATALOG,
        limit: int = 1000,
        user_name: str = "alice",
    ) -> None:
        self.outcomes: list[Any] = []
        self.asking = world.relay.ask(method, target, *lines, user_name=user_name, limit=limit)
        self.asking.addBoth(self._ended)
        world.reactor.turn()

    def _ended(self, outcome: Any) -> None:
        self.outcomes.append(outcome.value if isinstance(outcome, Failure) else outcome)

    @property
    def reply(self) -> Reply:
        """The answer."""
        [outcome] = self.outcomes
        assert isinstance(outcome, Reply), outcome
        return outcome

    @property
    def failure(self) -> UpstreamFailure:
        """Why there is none."""
        [outcome] = self.outcomes
        assert isinstance(outcome, UpstreamFailure), outcome
        return outcome


def idle(world: World) -> Peer:
    """The registry's end of a connection that is kept."""
    question = Question(world)
    registry = world.registry.last
    registry.send(OK)
    assert question.reply.body == b"ok"
    registry.take()
    assert world.registry.open == [registry]
    return registry


# -- the question ----------------------------------------------------------------------------


def test_a_question_is_asked_in_exactly_these_octets(world: World) -> None:
    """The registry's own name, for there is no client's Host; and the user who is behind it."""
    Question(world, b"Accept: a/b", b"Accept: c/d", user_name="jo é")

    assert world.registry.last.take() == (
        b"GET /v2/_catalog?n=1000&last=a HTTP/1.1\r\n"
        b"Host: 127.0.0.1:5000\r\n"
        b"Accept: a/b\r\n"
        b"Accept: c/d\r\n"
        b"X-Forwarded-User: jo%20%C3%A9\r\n"
        b"\r\n"
    )


@pytest.fixture
def known(logged: list[Any]) -> Iterator[World]:
    """A world with a public origin and a credential for the registry."""
    world = World(
        urls=["http://me:secret@registry:5000"], origin=Origin(b"https", b"public.example:8443")
    )
    yield world
    world.close()


def test_b09_regguards_own_credential_and_the_public_origin_go_up(known: World) -> None:
    """As with a relayed request."""
    Question(known, method=b"HEAD")

    assert known.registry.last.take() == (
        b"HEAD /v2/_catalog?n=1000&last=a HTTP/1.1\r\n"
        b"Host: public.example:8443\r\n"
        b"X-Forwarded-User: alice\r\n"
        b"Authorization: Basic bWU6c2VjcmV0\r\n"
        b"\r\n"
    )


# -- the answer ------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [OK, CHUNKED], ids=["length", "chunked"])
def test_an_answer_is_whole_at_every_split(world: World, answer: bytes) -> None:
    """However the network cuts it; and the connection is used again."""
    for cut in range(1, len(answer)):
        question = Question(world)
        world.registry.last.send(answer[:cut])
        assert question.outcomes == []
        world.registry.last.send(answer[cut:])
        assert (question.reply.status, question.reply.body) == (200, b"ok")

    assert len(world.registry.connections) == 1


def test_an_answer_that_the_close_ends_is_whole(world: World) -> None:
    """RFC 9112 section 6.3, rule 8."""
    question = Question(world)
    world.registry.last.send(UNTIL_CLOSE)
    assert question.outcomes == []
    world.registry.last.end()

    assert question.reply.body == b"ok"
    assert world.registry.open == []


@pytest.mark.parametrize("limit", [0, 1])
def test_head_has_no_body(world: World, limit: int) -> None:
    """Whatever length its answer tells: that is GET's."""
    question = Question(world, method=b"HEAD", limit=limit)
    world.registry.last.send(
        b"HTTP/1.1 200 OK\r\nContent-Length: 4096\r\nDocker-Content-Digest: sha256:ab\r\n\r\n"
    )

    assert question.reply.field(b"docker-content-digest") == b"sha256:ab"
    assert question.reply.body == b""
    assert len(world.registry.open) == 1


@pytest.mark.parametrize("status", [200, 304, 307, 400, 403, 404, 429, 500, 503])
def test_any_status_is_an_answer(world: World, status: int) -> None:
    """What it means is for whoever asked."""
    question = Question(world)
    world.registry.last.send(b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n" % status)

    assert question.reply.status == status


def test_fields_are_found_in_any_case_and_a_doubled_one_is_a_list(world: World) -> None:
    """No Link is lost, and a doubled digest equals none."""
    question = Question(world)
    world.registry.last.send(
        b"HTTP/1.1 200 OK\r\nLINK: </a>; rel=x\r\nContent-Length: 0\r\nlink: </b>; rel=next\r\n"
        b"Docker-Content-Digest: sha256:a\r\nDocker-Content-Digest: sha256:b\r\nEtag:\r\n\r\n"
    )

    reply = question.reply
    assert reply.field(b"link") == b"</a>; rel=x, </b>; rel=next"
    assert reply.field(b"docker-content-digest") == b"sha256:a, sha256:b"
    assert reply.field(b"etag") == b""
    assert reply.field(b"location") is None


# -- the limit -------------------------------------------------------------------------------


def framed(body: bytes, kind: str) -> bytes:
    """An answer with this body."""
    if kind == "chunked":
        return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (
            len(body),
            body,
        )
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


@pytest.mark.parametrize("kind", ["length", "chunked"])
def test_a_body_of_just_the_limit_is_taken(world: World, kind: str) -> None:
    """And one octet more is not."""
    question = Question(world, limit=10)
    world.registry.last.send(framed(bytes(10), kind))
    assert question.reply.body == bytes(10)
    question = Question(world, limit=10)
    world.registry.last.send(framed(bytes(11), kind))

    assert (question.failure.status, question.failure.message) == (
        502,
        "the registry's answer is too long",
    )
    assert world.relay.exchanges == set()


def test_an_answer_without_end_is_cut_at_the_limit(world: World) -> None:
    """As soon as it is too long; its connection is not used again."""
    question = Question(world, limit=10)
    world.registry.last.send(UNTIL_CLOSE, b"12345678")
    assert question.outcomes == []
    world.registry.last.send(b"9")

    assert question.failure.message == "the registry's answer is too long"
    assert world.registry.last.was_reset


def test_with_a_limit_of_0_the_head_is_all_that_is_awaited(world: World) -> None:
    """Whether a repository exists is told by the status; a long list of its tags is cut."""
    question = Question(world, limit=0)
    world.registry.last.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n")

    assert (question.reply.status, question.reply.body) == (200, b"")
    assert world.registry.last.was_reset


@pytest.mark.parametrize("answer", [OK, CHUNKED], ids=["length", "chunked"])
def test_with_a_limit_of_0_a_whole_answer_keeps_its_connection(world: World, answer: bytes) -> None:
    """Small ones come in one piece with their head."""
    question = Question(world, limit=0)
    world.registry.last.send(answer)

    assert (question.reply.status, question.reply.body) == (200, b"")
    assert world.registry.open == [world.registry.last]


# -- the connection --------------------------------------------------------------------------


def test_questions_and_requests_share_the_connections(world: World) -> None:
    """Each uses what the other has left."""
    registry = idle(world)
    client = world.client()
    client.send(GET)
    assert registry.take().startswith(b"GET /v2/a/manifests/1 ")
    registry.send(OK)
    assert read_answer(client.take()).body == b"ok"
    question = Question(world)
    registry.send(OK)

    assert question.reply.body == b"ok"
    assert world.registry.connections == [registry]


def test_the_next_question_may_be_asked_in_the_answer_to_the_last(world: World) -> None:
    """A catalog has many pages: over one connection, whose state is settled by then."""
    pages: list[bytes] = []

    def ask(limit: int) -> None:
        asking = world.relay.ask(b"GET", b"/v2/x", user_name="alice", limit=limit)
        asking.addCallback(answered)

    def answered(reply: Reply) -> None:
        pages.append(reply.body)
        if len(pages) < 4:
            ask(len(pages) % 2)

    ask(1)
    world.reactor.turn()
    for answer in (
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n2\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    ):
        world.registry.last.send(answer)
    world.registry.last.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n", b"4")

    assert pages == [b"1", b"2", b"", b"4"]
    assert len(world.registry.connections) == 1


@pytest.mark.parametrize("end", ["end", "reset"])
@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
def test_i05_a_stale_connection_is_forgiven_once(world: World, method: bytes, end: str) -> None:
    """Nobody notices."""
    registry = idle(world)
    question = Question(world, method=method)
    first = registry.take()
    getattr(registry, end)()
    assert world.registry.last.take() == first
    world.registry.last.send(OK if method == b"GET" else OK[:-2])

    assert question.reply.status == 200
    assert len(world.registry.connections) == 2


def test_i05_a_fresh_connection_is_not_forgiven(world: World) -> None:
    """A registry that closes it means it."""
    registry = idle(world)
    question = Question(world)
    registry.end()
    world.registry.last.end()

    assert question.failure.status == 502
    assert question.failure.message == "the registry closed the connection without an answer"
    assert len(world.registry.connections) == 2


def test_i05_no_retry_after_an_octet_of_an_answer(world: World) -> None:
    """The question has reached the registry then."""
    registry = idle(world)
    question = Question(world)
    registry.send(b"H")
    registry.end()

    assert question.failure.status == 502
    assert len(world.registry.connections) == 1


# -- failures --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("why", "status"),
    [
        (error.TimeoutError(), 504),
        (error.TCPTimedOutError(), 504),
        (refused(), 502),
        (error.DNSLookupError("no such host"), 502),
        (RuntimeError("bug"), 502),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("at_once", [True, False])
def test_i01_i02_a_failed_connect_is_502_or_504(
    world: World, why: Exception, status: int, at_once: bool
) -> None:
    """504 for who does not answer, 502 for everything else."""
    if at_once:
        world.registry.failure = why
        question = Question(world)
    else:
        world.registry.accepting = False
        question = Question(world)
        world.registry.refuse(why)

    assert question.failure.status == status
    assert world.relay.exchanges == set()


def test_i03_a_silent_registry_is_504(world: World) -> None:
    """After the read timeout, and its connection is cut."""
    question = Question(world)
    world.reactor.pass_time(98)
    assert question.outcomes == []
    world.reactor.pass_time(4)

    assert (question.failure.status, question.failure.message) == (504, "the registry is silent")
    assert world.registry.last.was_reset


def test_a_slow_answer_that_moves_is_not_silence(world: World) -> None:
    """The read timeout counts from the last octet of the body."""
    question = Question(world)
    world.registry.last.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n")
    for _ in range(4):
        world.reactor.pass_time(60)
        world.registry.last.send(b"x")

    assert question.reply.body == b"xxxx"


@pytest.mark.parametrize(
    "octets",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\r\n",
        b"HTTP/1.1 101 Switching\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx",
    ],
)
def test_i04_what_is_no_http_is_502(world: World, octets: bytes) -> None:
    """And the connection is cut."""
    question = Question(world)
    world.registry.last.send(octets)

    assert question.failure.status == 502
    assert world.registry.last.was_reset


@pytest.mark.parametrize("end", ["end", "reset"])
@pytest.mark.parametrize("answer", [OK, CHUNKED], ids=["length", "chunked"])
def test_i06_an_answer_that_is_cut_is_502(world: World, answer: bytes, end: str) -> None:
    """Half a catalog must not look whole, wherever it was cut."""
    for cut in range(len(answer)):
        question = Question(world)
        world.registry.last.send(answer[:cut])
        getattr(world.registry.last, end)()

        assert question.failure.status == 502
    assert world.relay.exchanges == set()


def test_i06_an_answer_that_a_reset_ends_is_502(world: World) -> None:
    """Only a clean close is an end."""
    question = Question(world)
    world.registry.last.send(UNTIL_CLOSE)
    world.registry.last.reset()

    assert question.failure.status == 502


@pytest.mark.parametrize("status", [401, 407])
@pytest.mark.parametrize("limit", [0, 1000])
@pytest.mark.parametrize("rest", [b"Content-Length: 2\r\n\r\nno", b"Content-Length: 9\r\n\r\n"])
def test_b09_a_registry_that_wants_a_login_is_502(
    world: World, status: int, limit: int, rest: bytes
) -> None:
    """Nobody here can satisfy it."""
    question = Question(world, limit=limit)
    world.registry.last.send(b"HTTP/1.1 %d X\r\n" % status + rest)

    assert question.failure.status == 502
    assert question.failure.message == "the registry asks regguard for credentials"
    assert world.registry.last.was_reset


# -- capacity and the end --------------------------------------------------------------------


def test_h11_questions_count_among_what_is_under_way(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client's requests and regguard's own share one limit."""
    monkeypatch.setattr(exchange_module, "MAX_EXCHANGES", 2)
    monkeypatch.setattr(exchange_module, "MAX_OF_ONE", 2)
    client = world.client()
    client.send(GET)
    first = Question(world)
    second = Question(world)
    client = world.client()
    client.send(GET)

    assert (second.failure.status, second.failure.message) == (
        503,
        "too many requests are under way",
    )
    assert read_answer(client.take()).status == 503
    world.registry.last.send(OK)
    assert first.reply.status == 200
    assert len(world.relay.exchanges) == 1


def test_a_question_that_is_given_up_cuts_its_connection(world: World) -> None:
    """While it waits, and in the middle of the answer."""
    for octets in (b"", OK[:-1]):
        question = Question(world)
        world.registry.last.send(octets)
        question.asking.cancel()
        world.reactor.turn()

        assert [type(outcome) for outcome in question.outcomes] == [CancelledError]
        assert world.registry.last.was_reset
        assert world.relay.exchanges == set()


def test_a_question_that_is_given_up_while_connecting_cancels_that(world: World) -> None:
    """A flood of clients that leave must not pile up connects."""
    world.registry.accepting = False
    question = Question(world)
    question.asking.cancel()

    assert [type(outcome) for outcome in question.outcomes] == [CancelledError]
    assert world.registry.cancelled == 1
    assert world.relay.exchanges == set()


def test_an_answered_question_may_be_given_up(world: World) -> None:
    """It changes nothing: the connection is somebody else's by then."""
    question = Question(world)
    world.registry.last.send(OK)
    question.asking.cancel()
    world.reactor.turn()

    assert question.reply.body == b"ok"
    assert len(world.registry.open) == 1


def test_i14_stop_ends_the_questions(world: World) -> None:
    """Connecting, waiting and half answered; and whoever asks after that hears the same."""
    questions = [Question(world), Question(world)]
    world.registry.last.send(OK[:-1])
    world.registry.accepting = False
    questions.append(Question(world))
    world.relay.stop()
    world.reactor.turn()
    questions.append(Question(world))

    for question in questions:
        assert question.failure.status == 503
        assert question.failure.message == "regguard is going down"
    assert world.relay.exchanges == set()
    assert world.registry.open == []


def test_i14_what_waited_for_another_ones_end_does_not_begin_in_a_stop(world: World) -> None:
    """A lock that is free again must not let a new request in; and giving up others is no fault."""
    outcomes: list[Any] = []
    first, second = (world.relay.ask(b"GET", b"/v2/x", user_name="a", limit=1) for _ in range(2))

    def ended(failure: Failure, other: Deferred[Reply]) -> None:
        other.cancel()
        outcomes.append(failure.type)
        world.relay.ask(b"GET", b"/v2/x", user_name="a", limit=1).addErrback(refused_again)

    def refused_again(failure: Failure) -> None:
        outcomes.append(failure.getErrorMessage())

    first.addErrback(ended, second)
    second.addErrback(ended, first)
    world.reactor.turn()
    world.relay.stop()
    world.reactor.turn()

    assert sorted(str(outcome) for outcome in outcomes) == [
        str(UpstreamFailure),
        str(CancelledError),
        "regguard is going down",
        "regguard is going down",
    ]
    assert len(world.registry.connections) == 2
    assert world.relay.exchanges == set()


def test_the_state_of_a_question_can_be_read(world: World) -> None:
    """For whoever debugs: one word."""
    world.registry.accepting = False
    Question(world, method=b"HEAD")
    [question] = world.relay.exchanges
    states = [repr(question)]
    world.registry.accept()
    states.append(repr(question))
    world.registry.last.send(OK[:-2])
    states.append(repr(question))

    assert states == [f"<Inquiry HEAD {word}>" for word in ("connecting", "waiting", "over")]
