"""Hidden repositories: nothing tells them from missing ones."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from regguard.access import Freeze, Policy, Rule, Who
from regguard.guard.missing import no_such_repository
from regguard.relay import Relay
from tests.guard.questions import ACCEPTED, CREATED, MISSING, Questions, tag_list
from tests.guard.world import D, Guarded, request
from tests.relay.world import Peer, Received, read_answer

# Of the same length, and so are the answers.
HIDDEN, ABSENT, PRESENT = b"hidden/app", b"absent/app", b"public/app"
HIDES = Rule(match=("hidden/**",), pull=Who.parse("user:boss"), hide=True)
POLICY = Policy(rules=[HIDES])

NOT_THERE = (
    b"HTTP/1.1 404 Not Found\r\nContent-Type: application/json\r\nX-Theirs: yes\r\n"
    b"Content-Length: 23\r\n\r\n" + b'{"errors":["of theirs"]}'[:23]
)

PULLS = [
    (b"GET", b"/manifests/v1"),
    (b"HEAD", b"/manifests/v1"),
    (b"GET", b"/manifests/" + D),
    (b"GET", b"/blobs/" + D),
    (b"HEAD", b"/blobs/" + D),
    (b"GET", b"/blobs/" + D + b"?ns=docker.io"),
    (b"GET", b"/tags/list"),
    (b"GET", b"/tags/list?n=5&last=a"),
    (b"HEAD", b"/tags/list"),
    (b"GET", b"/referrers/" + D + b"?artifactType=a/b"),
]
LINES = (b"Accept: a/b", b"Accept: */*;q=0.1", b"Range: bytes=1-2", b"User-Agent: x/1")


@pytest.fixture
def guarded(logged: list[Any]) -> Iterator[Guarded]:
    """A guard that hides what is below hidden/ from everybody but the boss."""
    guarded = Guarded(POLICY)
    yield guarded
    guarded.world.close()


@pytest.fixture
def questions(guarded: Guarded) -> Questions:
    return Questions(guarded)


def send(guarded: Guarded, octets: bytes) -> Peer:
    client = guarded.world.client()
    client.send(octets)
    return client


def pull(method: bytes, name: bytes, rest: bytes, *lines: bytes) -> bytes:
    return request(method, b"/v2/" + name + rest, *lines)


@dataclass
class Seen:
    """All that a client and the registry saw of one request."""

    octets: bytes = b""
    open: bool = True
    questions: list[Received] = field(default_factory=list)
    connections: list[int] = field(default_factory=list)


def ask(octets: bytes, *answers: bytes | Callable[[Peer], None]) -> Seen:
    """Send a request to a guard of its own, whose registry answers its questions in order."""
    guarded = Guarded(POLICY)
    questions = Questions(guarded)
    client = send(guarded, octets)
    seen = Seen()
    for answer in answers:
        assert b"HTTP/1.1 4" not in client.received
        seen.questions.append(questions.next())
        seen.connections.append(guarded.registry.connections.index(questions.peer))
        if callable(answer):
            answer(questions.peer)
            guarded.world.reactor.turn()
        else:
            questions.peer.send(answer)
    assert not questions.waiting
    seen.octets = client.take()
    seen.open = client.is_open
    client.reset()
    guarded.world.close()
    return seen


def check_same(
    rest: bytes, *answers: Any, method: bytes = b"GET", lines: tuple[bytes, ...] = ()
) -> Seen:
    """Nothing tells hidden from missing, on either side; what was seen of the hidden one."""
    hidden = ask(pull(method, HIDDEN, rest, *lines), *answers)
    absent = ask(pull(method, ABSENT, rest, *lines), *answers)

    assert hidden.octets.replace(HIDDEN, ABSENT) == absent.octets
    assert hidden.open == absent.open
    assert hidden.connections == absent.connections
    assert len(hidden.questions) == len(absent.questions)
    for mine, theirs in zip(hidden.questions, absent.questions, strict=True):
        assert mine.method == theirs.method
        assert mine.headers == theirs.headers
        assert (mine.body, mine.whole) == (theirs.body, theirs.whole)
        # What goes up has the name of nothing instead.
        nowhere = re.fullmatch(rb"/v2/([0-9a-f]{32})(/.*)", mine.target)
        assert nowhere
        assert theirs.target == b"/v2/" + ABSENT + nowhere[2]
    return hidden


# -- hidden is as missing --------------------------------------------------------------------


@pytest.mark.parametrize("lines", [(), LINES])
@pytest.mark.parametrize(("method", "rest"), PULLS)
def test_d25_hidden_answers_as_missing(
    method: bytes, rest: bytes, lines: tuple[bytes, ...], logged: list[Any]
) -> None:
    """Byte for byte, after the same questions over the same connections."""
    seen = check_same(rest, NOT_THERE if method == b"GET" else MISSING, MISSING,
                      method=method, lines=lines)  # fmt: skip

    answer = read_answer(seen.octets, method)
    assert answer.status == 404
    assert answer.all(b"x-theirs") == []
    if method == b"GET":
        [error] = json.loads(answer.body)["errors"]
        assert error == {
            "code": "NAME_UNKNOWN",
            "message": "repository name not known to registry",
            "detail": {"name": HIDDEN.decode()},
        }
    first, second = seen.questions
    assert (second.method, second.target[36:]) == (b"GET", b"/tags/list?n=1")
    assert first.target[:36] == second.target[:36]
    assert first[b"x-forwarded-user"] == second[b"x-forwarded-user"] == b"reader"


def test_every_hidden_one_is_looked_for_in_a_place_of_its_own() -> None:
    """The same every time, for what is asked for often is found faster; a guess finds none."""
    names: list[bytes] = []
    for _ in range(2):
        guarded = Guarded(POLICY)
        questions = Questions(guarded)
        for name in (HIDDEN, HIDDEN, b"hidden/b"):
            client = send(guarded, pull(b"GET", name, b"/tags/list"))
            names.append(questions.answer(MISSING).target)
            questions.answer(MISSING)
            assert guarded.answer_of(client).status == 404
        guarded.world.close()
    assert names[0] == names[1]
    assert names[3] == names[4]
    assert len(set(names)) == 4


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 401 X\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        b"garbage\r\n\r\n",
    ],
)
def test_what_the_registry_says_otherwise_is_the_same_for_both(
    answer: bytes, logged: list[Any]
) -> None:
    """What is no refusal, and what is no answer."""
    check_same(b"/blobs/" + D, answer)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 400 Bad Request\r\nContent-Length: 3\r\n\r\nbad",
        b"HTTP/1.1 405 Method Not Allowed\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 416 X\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 429 Slow Down\r\nRetry-After: 9\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 500 X\r\nContent-Length: 3\r\n\r\nouc",
        b"HTTP/1.1 503 X\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
    ],
)
def test_no_error_of_the_registrys_is_told_of_either(answer: bytes, logged: list[Any]) -> None:
    """It may name the folder in which it looked, and that would not be the caller's."""
    seen = check_same(b"/blobs/" + D, answer, MISSING)

    assert read_answer(seen.octets).body == no_such_repository(HIDDEN.decode()).body


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 500 X\r\nContent-Length: 3\r\n\r\nouc",
        b"HTTP/1.1 429 X\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 401 X\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 302 X\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n",
        b"garbage\r\n\r\n",
    ],
)
def test_a_registry_that_does_not_tell_is_a_failure_for_both(
    answer: Any, logged: list[Any]
) -> None:
    """502: there is no telling, so nothing is told."""
    seen = check_same(b"/manifests/v1", MISSING, answer)

    assert read_answer(seen.octets).status == 502


@pytest.mark.parametrize("cut", [lambda peer: peer.end(), lambda peer: peer.reset()])
def test_a_registry_that_goes_away_is_the_same_for_both(cut: Any, logged: list[Any]) -> None:
    """On the first question, and on the second, which is tried again over a fresh connection."""
    for answers in ([cut], [MISSING, cut, cut]):
        assert read_answer(check_same(b"/manifests/v1", *answers).octets).status == 502


@pytest.mark.parametrize(
    "body",
    [
        (b"Content-Length: 3\r\n\r\nabc",),
        (b"Content-Length: 3\r\n\r\na",),
        (b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",),
        (b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n",),
        (b"Content-Length: 3\r\nExpect: 100-continue\r\n\r\n",),
    ],
)
def test_a_body_tells_nothing(body: tuple[bytes], logged: list[Any]) -> None:
    """Nobody sends one with a GET, but somebody might, to see."""

    def framed(name: bytes) -> bytes:
        return pull(b"GET", name, b"/manifests/v1")[:-2] + body[0]

    hidden, absent = (ask(framed(name), MISSING, MISSING) for name in (HIDDEN, ABSENT))
    assert hidden.octets.replace(HIDDEN, ABSENT) == absent.octets
    assert (hidden.open, hidden.connections) == (absent.open, absent.connections)
    assert b" 404 " in hidden.octets


def test_the_registry_is_down_for_both(guarded: Guarded) -> None:
    """The same words, and 503 where there is no room."""
    guarded.registry.failure = ConnectionRefusedError()
    seen = set()
    for name in (HIDDEN, ABSENT):
        client = send(guarded, pull(b"GET", name, b"/tags/list"))
        seen.add(client.take())
    assert len(seen) == 1
    assert read_answer(seen.pop()).status == 502
    guarded.world.relay.stop()
    for name in (HIDDEN, ABSENT):
        client = send(guarded, pull(b"GET", name, b"/tags/list"))
        seen.add(client.take())
    assert len(seen) == 1
    assert read_answer(seen.pop()).status == 503


def test_silence_is_the_same_for_both(guarded: Guarded) -> None:
    """504 at the same moment."""
    clients = [send(guarded, pull(b"GET", name, b"/tags/list")) for name in (HIDDEN, ABSENT)]
    guarded.world.reactor.pass_time(99)
    assert [client.take() for client in clients] == [b"", b""]
    guarded.world.reactor.pass_time(3)

    first, second = [client.take() for client in clients]
    assert first == second
    assert read_answer(first).status == 504


def test_before_there_is_a_relay_both_are_put_off() -> None:
    """503."""
    guarded = Guarded(POLICY)
    guarded.guard._relay = None
    seen = {send(guarded, pull(b"GET", name, b"/tags/list")).take() for name in (HIDDEN, ABSENT)}

    assert len(seen) == 1
    assert read_answer(seen.pop()).status == 503


# -- what is there ---------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "rest"), PULLS)
def test_what_a_repository_lacks_the_registry_says(
    guarded: Guarded, questions: Questions, method: bytes, rest: bytes
) -> None:
    """The repository is there: the registry's own 404 goes on, asked for once more."""
    answer = (
        NOT_THERE if method == b"GET" else MISSING.replace(b"\r\n", b"\r\nX-Theirs: yes\r\n", 1)
    )
    client = send(guarded, pull(method, PRESENT, rest, *LINES))
    first = questions.answer(answer)
    second = questions.answer(tag_list(["v2"]))
    third = questions.answer(answer)

    assert second.target == b"/v2/" + PRESENT + b"/tags/list?n=1"
    assert (third.method, third.target, third.headers) == (
        first.method, first.target, first.headers,
    )  # fmt: skip
    got = guarded.answer_of(client, method)
    assert (got.status, got[b"x-theirs"]) == (404, b"yes")


def test_an_error_about_what_is_there_is_told(guarded: Guarded, questions: Questions) -> None:
    """In the registry's own words, as without hiding."""
    broken = b"HTTP/1.1 500 X\r\nContent-Length: 3\r\n\r\nouc"
    client = send(guarded, pull(b"GET", PRESENT, b"/manifests/v1"))
    for octets in (broken, tag_list([]), broken):
        questions.answer(octets)

    answer = guarded.answer_of(client)
    assert (answer.status, answer.body) == (500, b"ouc")


def test_what_is_found_costs_one_question(guarded: Guarded, questions: Questions) -> None:
    """It streams as ever."""
    client = send(guarded, pull(b"GET", PRESENT, b"/manifests/v1"))
    questions.answer(tag_list([]))

    assert guarded.answer_of(client).status == 200
    assert not questions.waiting


@pytest.mark.parametrize("unfinished", [True, False])
def test_a_body_is_not_promised_twice(
    guarded: Guarded, questions: Questions, unfinished: bool
) -> None:
    """A registry that waited for octets that are gone would never answer."""
    client = send(
        guarded,
        pull(b"GET", PRESENT, b"/manifests/v1", b"Content-Length: 3")
        + (b"a" if unfinished else b"abc"),
    )
    questions.answer(NOT_THERE)
    questions.answer(tag_list([]))
    again = questions.answer(NOT_THERE)

    assert (again[b"content-length"], again.body, again.whole) == (b"0", b"", True)
    assert guarded.answer_of(client).status == 404


@pytest.mark.parametrize(("method", "rest"), PULLS)
def test_a_policy_that_hides_nothing_asks_nothing_more(method: bytes, rest: bytes) -> None:
    """One question, and the registry's own 404."""
    guarded = Guarded(Policy(rules=[Rule(match=("a",), hide=False)]))
    questions = Questions(guarded)
    client = send(guarded, pull(method, ABSENT, rest))
    questions.answer(MISSING.replace(b"\r\n", b"\r\nX-Theirs: yes\r\n", 1))

    assert guarded.answer_of(client, method)[b"x-theirs"] == b"yes"
    assert not questions.waiting
    guarded.world.close()


# -- writes and other rights -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "rest"),
    [
        (b"PUT", b"/manifests/v1"),
        (b"DELETE", b"/manifests/" + D),
        (b"DELETE", b"/blobs/" + D),
        (b"POST", b"/blobs/uploads/"),
        (b"PATCH", b"/blobs/uploads/u"),
        (b"GET", b"/blobs/uploads/u"),
        (b"DELETE", b"/blobs/uploads/u"),
    ],
)
def test_d25_writes_to_a_hidden_repository_get_the_same_answer(
    guarded: Guarded, method: bytes, rest: bytes
) -> None:
    """At once: nobody is asked."""
    answer = guarded.ask(pull(method, HIDDEN, rest, b"Content-Length: 0"))

    assert answer.status == 404
    assert answer.body == no_such_repository(HIDDEN.decode()).body
    assert guarded.registry.connections == []


def test_who_may_push_and_not_pull_is_served(guarded: Guarded, questions: Questions) -> None:
    """What he may do he may know of; what he may not is hidden."""
    target = b"/v2/" + HIDDEN + b"/manifests/v1"
    client = send(guarded, request(b"PUT", target, user="writer", body=b"{}"))
    assert questions.answer(CREATED).target == target
    assert guarded.answer_of(client, b"PUT").status == 201
    client = send(guarded, request(b"DELETE", target, user="writer"))
    assert questions.answer(ACCEPTED).target == target
    assert guarded.answer_of(client, b"DELETE").status == 202
    client = send(guarded, request(b"GET", target, user="writer"))
    assert HIDDEN not in questions.answer(MISSING).target
    assert HIDDEN not in questions.answer(MISSING).target

    assert guarded.answer_of(client).status == 404


def test_a_freeze_is_told_for_both() -> None:
    """Whether there is such a repository or not."""
    guarded = Guarded(Policy(rules=[HIDES], freeze=Freeze("moving", "freeze")))
    seen = set()
    for name in (HIDDEN, ABSENT):
        answer = guarded.ask(pull(b"POST", name, b"/blobs/uploads/"))
        seen.add((answer.status, re.sub(rb"[0-9a-f]{8}", b"", answer.body).replace(name, b"")))
    assert len(seen) == 1
    assert seen.pop()[0] == 403


# -- logs and endings ------------------------------------------------------------------------


@pytest.mark.parametrize("method", [b"GET", b"PUT"])
@pytest.mark.parametrize("name", [HIDDEN, ABSENT])
def test_the_incident_is_in_the_logs_only(
    guarded: Guarded, questions: Questions, log_lines: list[str], method: bytes, name: bytes
) -> None:
    """The operator can find out; the caller can't, not even by the time that logging takes."""
    if (method, name) == (b"PUT", ABSENT):
        method = b"HEAD"
    incidents: list[Any] = []
    guarded.world.site.log = lambda request: incidents.append(request.incident)
    client = send(guarded, pull(method, name, b"/manifests/v1"))
    if method != b"PUT":
        questions.answer(MISSING)
        questions.answer(MISSING)

    octets = client.take()
    [incident] = incidents
    assert octets.startswith(b"HTTP/1.1 404 ")
    assert re.fullmatch("[0-9a-f]{8}", incident)
    assert incident.encode() not in octets
    [line] = [line for line in log_lines if incident in line]
    assert "reader" in line
    assert name.decode() in line
    assert ("(hidden)" in line) is (name == HIDDEN)


def test_d25_the_denial_is_logged_when_the_answer_is_out(
    guarded: Guarded, questions: Questions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Writing it takes time that a missing repository does not take."""
    had: list[bytes] = []

    class Log:
        def info(self, *_: Any, **__: Any) -> None:
            client.pull()
            had.append(bytes(client.received[:12]))

    monkeypatch.setattr(guarded.guard, "_log", Log())
    client = send(guarded, pull(b"GET", HIDDEN, b"/manifests/v1"))
    questions.answer(MISSING)
    questions.answer(MISSING)

    assert had == [b"HTTP/1.1 404"]


@pytest.mark.parametrize("name", [HIDDEN, ABSENT, PRESENT])
@pytest.mark.parametrize("after", [0, 1, 2])
def test_who_leaves_ends_the_questions(
    guarded: Guarded, questions: Questions, name: bytes, after: int
) -> None:
    """At any of them; nothing more is asked, nothing is logged as a fault."""
    client = send(guarded, pull(b"GET", name, b"/manifests/v1"))
    for answer in [NOT_THERE, tag_list([])][:after]:
        questions.answer(answer)
    if questions.waiting:
        questions.next()
    client.reset()

    assert not questions.waiting
    assert guarded.world.relay.exchanges == set()
    # A hidden one was answered after two questions.
    answered = name == HIDDEN and after == 2
    assert [each.status for each in guarded.world.ended] == [404 if answered else 0]


@pytest.mark.parametrize("name", [HIDDEN, ABSENT])
def test_a_fault_is_a_refusal(
    guarded: Guarded,
    questions: Questions,
    logged: list[Any],
    monkeypatch: pytest.MonkeyPatch,
    name: bytes,
) -> None:
    """500, for both."""

    def fault(*_: Any, **__: Any) -> Any:
        raise RuntimeError("injected")

    client = send(guarded, pull(b"GET", name, b"/manifests/v1"))
    monkeypatch.setattr(Relay, "ask", fault)
    questions.answer(MISSING)

    assert guarded.answer_of(client).status == 500
    assert [each.type for each in logged] == [RuntimeError]
    logged.clear()
