"""Immutable tags: no write that regguard lets through takes one from its manifest."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from twisted.internet.defer import CancelledError
from twisted.internet.error import TimeoutError as ConnectTimeout

from regguard.access import Freeze, Policy, Rule, Who
from regguard.guard import resource
from regguard.guard.tags import (
    LARGEST_MANIFEST,
    MOST_OCTETS,
    MOST_OCTETS_OF_ONE,
    MOST_PAGES,
    MOST_TAGS,
    MOST_WAITING,
    Turn,
    Turns,
    check_tags,
)
from regguard.relay import Relay, UpstreamFailure
from regguard.relay.exchange import Exchange
from tests.guard.questions import (
    ACCEPTED,
    CREATED,
    MISSING,
    Questions,
    digest,
    manifest,
    stands_for,
    tag_list,
    text,
)
from tests.guard.world import Guarded, request
from tests.relay.world import Answer, Peer, read_answers, read_request, refused

RULE = "rules.toml:7: immutable = v*, release-*"
SAID = {"immutable": "rules.toml:7"}
POLICY = Policy(rules=[Rule(("team/**",), immutable=("v*", "release-*"), said=SAID)])

APP = b"/v2/team/app/"
V1 = APP + b"manifests/v1"
OLD = b'{"schemaVersion":2,"what":"old"}'
NEW = b'{"schemaVersion":2,"what":"new"}'
KIND = b"Content-Type: application/vnd.oci.image.manifest.v1+json"
OTHER = b"/v2/team/other/manifests/v1"


@pytest.fixture
def guarded(logged: list[Any]) -> Iterator[Guarded]:
    """A guard with immutable tags below team/; in the end it is nobody's turn."""
    guarded = Guarded(POLICY)
    yield guarded
    check_no_turns(guarded)
    guarded.world.close()


@pytest.fixture
def questions(guarded: Guarded) -> Questions:
    return Questions(guarded)


def check_no_turns(guarded: Guarded) -> None:
    """Nobody has a turn or waits for one, and no manifest is held."""
    assert guarded.guard._turns._queues == {}
    assert guarded.guard._allowance.free == MOST_OCTETS


def put(body: bytes, target: bytes = V1, *lines: bytes) -> bytes:
    return request(b"PUT", target, KIND, *lines, user="writer", body=body)


def delete(target: bytes, *lines: bytes) -> bytes:
    return request(b"DELETE", target, *lines, user="writer")


def chunked(body: bytes, target: bytes = V1, *lines: bytes) -> bytes:
    """In two chunks, with an extension and a trailer, which nobody needs."""
    head = request(b"PUT", target, KIND, b"Transfer-Encoding: chunked", *lines, user="writer")
    half = len(body) // 2
    chunks = [b"%x;a=b\r\n%b\r\n" % (len(each), each) for each in (body[:half], body[half:])]
    return head + b"".join(chunks) + b"0\r\nX-Sum: 1\r\n\r\n"


def send(guarded: Guarded, octets: bytes) -> Peer:
    client = guarded.world.client()
    client.send(octets)
    return client


def check_denied(answer: Answer, *parts: str) -> None:
    """403 DENIED for the rule, whose message has all the parts."""
    assert answer.status == 403
    [error] = json.loads(answer.body)["errors"]
    incident = error["detail"]["incident"]
    assert re.fullmatch("[0-9a-f]{8}", incident)
    assert error["code"] == "DENIED"
    assert error["detail"] == {"rule": RULE, "incident": incident}
    assert error["message"].endswith(f" (incident {incident})")
    for part in parts:
        assert part in error["message"]


def check_failed(answer: Answer, status: int) -> None:
    assert answer.status == status
    assert json.loads(answer.body)["errors"][0]["code"] == "UNAVAILABLE"


def check_written(guarded: Guarded, questions: Questions, client: Peer, body: bytes) -> None:
    """A write goes up now, whole, and its answer comes down."""
    write = questions.answer(CREATED)
    assert (write.method, write.body, write.whole, write.rest) == (b"PUT", body, True, b"")
    assert write[b"content-length"] == b"%d" % len(body)
    assert write.all(b"transfer-encoding") == write.all(b"expect") == []
    assert write[b"content-type"] == KIND.partition(b" ")[2]
    answer = guarded.answer_of(client, b"PUT")
    assert (answer.status, answer[b"x-theirs"]) == (201, b"yes")


# -- a tag is set ----------------------------------------------------------------------------


@pytest.mark.parametrize("octets", [put(NEW), chunked(NEW)], ids=["length", "chunked"])
def test_d12_a_tag_that_is_not_there_is_set(
    guarded: Guarded, questions: Questions, octets: bytes
) -> None:
    """After one question, in which every kind of manifest is welcome."""
    client = send(guarded, octets)
    question = questions.answer(MISSING)

    assert (question.method, question.target, question.body) == (b"HEAD", V1, b"")
    assert question[b"x-forwarded-user"] == b"writer"
    accepted = [each.strip() for each in question[b"accept"].split(b",")]
    assert set(accepted) >= {
        b"application/vnd.oci.image.index.v1+json",
        b"application/vnd.oci.image.manifest.v1+json",
        b"application/vnd.docker.distribution.manifest.list.v2+json",
        b"application/vnd.docker.distribution.manifest.v2+json",
        b"*/*",
    }
    assert question.all(b"authorization") == []
    check_written(guarded, questions, client, NEW)


@pytest.mark.parametrize(
    "there", [digest(NEW), b"sha512:" + hashlib.sha512(NEW).hexdigest().encode()]
)
@pytest.mark.parametrize("octets", [put(NEW), chunked(NEW)], ids=["length", "chunked"])
def test_the_same_manifest_may_be_pushed_again(
    guarded: Guarded, questions: Questions, octets: bytes, there: bytes
) -> None:
    """By whatever digest the registry knows it: who lost the answer may try once more."""
    client = send(guarded, octets)
    questions.answer(stands_for(there))

    check_written(guarded, questions, client, NEW)


@pytest.mark.parametrize("octets", [put(NEW), chunked(NEW)], ids=["length", "chunked"])
def test_d12_another_manifest_is_refused(
    guarded: Guarded, questions: Questions, log_lines: list[str], octets: bytes
) -> None:
    """With the tag, what it stands for, the rule and an incident; nothing is written."""
    client = send(guarded, octets)
    questions.answer(stands_for(digest(OLD)))

    answer = guarded.answer_of(client, b"PUT")
    check_denied(answer, "user writer may not push team/app:v1", digest(OLD).decode())
    assert not questions.waiting
    assert len(guarded.registry.connections) == 1
    assert client.is_open
    incident = json.loads(answer.body)["errors"][0]["detail"]["incident"]
    assert [line for line in log_lines if incident in line]
    assert [(each.status, each.user_name) for each in guarded.world.ended] == [(403, "writer")]


def test_a23_continue_is_sent_before_the_question(guarded: Guarded, questions: Questions) -> None:
    """The body is needed for the answer."""
    client = send(guarded, put(b"", V1, b"Content-Length: 32", b"Expect: 100-continue"))
    assert client.take() == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert guarded.registry.connections == []
    client.send(NEW[:7], NEW[7:])
    questions.answer(MISSING)

    check_written(guarded, questions, client, NEW)


def test_the_connections_next_request_is_served(guarded: Guarded, questions: Questions) -> None:
    """What is pipelined behind a push that waits keeps its place."""
    client = send(guarded, chunked(NEW) + put(OLD))
    questions.answer(stands_for(digest(OLD)))
    questions.answer(stands_for(digest(OLD)))
    questions.answer(CREATED)

    found = list(read_answers(client.take(), b"PUT", b"PUT"))
    assert [each.status for each in found] == [403, 201]


GARBAGE: list[tuple[bytes, int]] = [
    (stands_for(digest(NEW), 500), 502),
    (stands_for(digest(NEW), 503), 502),
    (stands_for(digest(NEW), 301), 502),
    (stands_for(digest(NEW), 206), 502),
    (stands_for(digest(NEW), 403), 502),
    (stands_for(digest(NEW), 429), 502),
    (b'HTTP/1.1 401 X\r\nWWW-Authenticate: Basic realm="x"\r\nContent-Length: 0\r\n\r\n', 502),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 700\r\n\r\n", 502),
    (stands_for(digest(NEW) + b"\r\nDocker-Content-Digest: " + digest(NEW)), 502),
    (stands_for(digest(NEW) + b"\r\nDocker-Content-Digest: " + digest(OLD)), 502),
    (stands_for(digest(NEW).upper()), 502),
    (stands_for(digest(NEW)[:-1]), 502),
    (stands_for(b"md5:" + hashlib.md5(NEW).hexdigest().encode()), 502),
    (stands_for(b""), 502),
    (stands_for("sha256:é".encode()), 502),
    (b"SSH-2.0-OpenSSH_9.2\r\n", 502),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 502),
]


@pytest.mark.parametrize(("octets", "status"), GARBAGE)
def test_who_does_not_get_to_know_refuses(
    guarded: Guarded, questions: Questions, octets: bytes, status: int
) -> None:
    """Whatever else the registry answers than what a tag stands for; nothing is written."""
    client = send(guarded, put(NEW))
    questions.answer(octets)

    check_failed(guarded.answer_of(client, b"PUT"), status)
    assert not questions.waiting
    assert len(guarded.registry.connections) == 1


def _closes(guarded: Guarded) -> None:
    guarded.registry.last.end()


def _resets(guarded: Guarded) -> None:
    guarded.registry.last.reset()


def _says_nothing(guarded: Guarded) -> None:
    guarded.world.reactor.pass_time(102)


def _stops(guarded: Guarded) -> None:
    guarded.world.relay.stop()
    guarded.world.reactor.turn()


@pytest.mark.parametrize(
    ("act", "status"), [(_closes, 502), (_resets, 502), (_says_nothing, 504), (_stops, 503)]
)
@pytest.mark.parametrize("octets", [put(NEW), delete(APP + b"manifests/" + digest(NEW))])
def test_who_hears_nothing_refuses(
    guarded: Guarded,
    questions: Questions,
    octets: bytes,
    act: Callable[[Guarded], None],
    status: int,
) -> None:
    """502, or 504 after the read timeout; nothing is written."""
    client = send(guarded, octets)
    questions.next()
    act(guarded)

    check_failed(guarded.answer_of(client, b"PUT"), status)
    assert not questions.waiting


@pytest.mark.parametrize(("why", "status"), [(refused(), 502), (ConnectTimeout(), 504)])
def test_a_registry_that_is_not_there_is_asked_in_vain(
    guarded: Guarded, why: Exception, status: int
) -> None:
    """And nobody's turn stays taken."""
    guarded.registry.failure = why
    client = send(guarded, put(NEW))

    check_failed(guarded.answer_of(client, b"PUT"), status)


# -- long manifests --------------------------------------------------------------------------


@pytest.mark.parametrize("lines", [(), (b"Expect: 100-continue",)])
def test_a_length_beyond_the_limit_is_refused_at_once(
    guarded: Guarded, lines: tuple[bytes, ...]
) -> None:
    """413 before the body, without 100 Continue; nothing upstream, and the client may go."""
    length = b"Content-Length: %d" % (LARGEST_MANIFEST + 1)
    client = send(guarded, put(b"", V1, length, *lines))

    answer = guarded.answer_of(client, b"PUT")
    assert (answer.status, answer[b"connection"]) == (413, b"close")
    assert json.loads(answer.body)["errors"][0]["code"] == "SIZE_INVALID"
    client.send(bytes(100_000))
    client.end()
    assert guarded.registry.connections == []
    assert guarded.world.site.channels == set()


def test_a_chunked_body_beyond_the_limit_is_refused(guarded: Guarded) -> None:
    """As soon as it is; who goes on sending is not waited for."""
    client = send(guarded, put(b"", V1, b"Transfer-Encoding: chunked"))
    chunk = b"%x\r\n%b\r\n" % (1024 * 1024, bytes(1024 * 1024))
    for _ in range(4):
        client.send(chunk)
        assert client.take() == b""
    client.send(b"1\r\nx")

    assert guarded.answer_of(client, b"PUT").status == 413
    client.send(chunk)
    guarded.world.reactor.pass_time(120)
    assert guarded.registry.connections == []
    assert guarded.world.site.channels == set()


def test_a_manifest_as_long_as_may_be_goes_on(guarded: Guarded, questions: Questions) -> None:
    """4 MiB."""
    body = bytes(LARGEST_MANIFEST)
    client = send(guarded, put(body))
    questions.answer(MISSING)

    check_written(guarded, questions, client, body)


# -- which tags ------------------------------------------------------------------------------

BY_DIGEST = APP + b"manifests/" + digest(NEW)


def test_every_tag_of_a_list_is_looked_up(guarded: Guarded, questions: Questions) -> None:
    """Those that are immutable, by whatever way they stand in the request; each once."""
    target = BY_DIGEST + b"?tag=v1&tag=latest&tag=release-2&x=v7&tag=v1"
    client = send(guarded, put(NEW, target))
    asked = [questions.answer(MISSING).target, questions.answer(stands_for(digest(NEW))).target]

    assert asked == [APP + b"manifests/v1", APP + b"manifests/release-2"]
    write = questions.next()
    assert (write.target, write.body) == (target, NEW)
    questions.peer.send(CREATED)
    assert guarded.answer_of(client, b"PUT").status == 201


@pytest.mark.parametrize(
    "target", [BY_DIGEST + b"?tag=v1&tag=v2", V1 + b"?tag=v2", V1 + b"?a&tag=v2&tag=latest"]
)
def test_one_tag_of_a_list_is_enough_for_a_refusal(
    guarded: Guarded, questions: Questions, target: bytes
) -> None:
    """It is named, and nothing is written."""
    client = send(guarded, put(NEW, target))
    questions.answer(MISSING)
    questions.answer(stands_for(digest(OLD)))

    check_denied(guarded.answer_of(client, b"PUT"), "team/app:v2", digest(OLD).decode())
    assert not questions.waiting


@pytest.mark.parametrize(
    "target",
    [
        BY_DIGEST,
        BY_DIGEST + b"?tag=latest",
        APP + b"manifests/latest",
        APP + b"manifests/V1",
        APP + b"manifests/av1",
        b"/v2/elsewhere/manifests/v1",
    ],
)
def test_other_writes_stream_as_ever(guarded: Guarded, questions: Questions, target: bytes) -> None:
    """Nothing is asked, and the body goes on as it comes."""
    client = send(guarded, put(b"", target, b"Content-Length: 32"))
    client.send(NEW[:5])
    write = questions.next()
    assert (write.method, write.body, write.whole) == (b"PUT", NEW[:5], False)
    client.send(NEW[5:])
    assert guarded.registry.last.take() == NEW[5:]
    guarded.registry.last.send(CREATED)

    assert guarded.answer_of(client, b"PUT").status == 201
    assert len(guarded.registry.connections) == 1


@pytest.mark.parametrize("method", [b"POST", b"PATCH", b"PUT", b"DELETE"])
def test_uploads_are_nobodys_tags(guarded: Guarded, questions: Questions, method: bytes) -> None:
    """They go on without a question."""
    target = APP + (b"blobs/uploads/" if method == b"POST" else b"blobs/uploads/v1")
    client = send(guarded, request(method, target, b"Content-Length: 0", user="writer"))

    assert questions.answer(ACCEPTED).method == method
    assert guarded.answer_of(client, method).status == 202


# -- deletion --------------------------------------------------------------------------------

THAT = APP + b"manifests/" + digest(OLD)
TAGS = APP + b"tags/list?n=1000"


@pytest.mark.parametrize("target", [V1, V1 + b"?x=y", THAT + b"?tag=v1", APP + b"manifests/v"])
def test_d11_an_immutable_tag_is_not_deleted(guarded: Guarded, target: bytes) -> None:
    """403, and nobody is asked."""
    answer = guarded.ask(delete(target))

    check_denied(answer, "user writer may not delete team/app:v", "the tag is immutable")
    assert guarded.registry.connections == []


def test_another_tag_is_deleted(guarded: Guarded, questions: Questions) -> None:
    """It is the tag that goes, not its manifest (OCI end-9), whatever else there is."""
    client = send(guarded, delete(APP + b"manifests/latest"))
    write = questions.answer(ACCEPTED)

    assert (write.method, write.target) == (b"DELETE", APP + b"manifests/latest")
    assert guarded.answer_of(client, b"DELETE").status == 202


def test_a_blob_is_not_deleted(guarded: Guarded) -> None:
    """An immutable tag may need it."""
    answer = guarded.ask(delete(APP + b"blobs/" + digest(OLD)))

    check_denied(answer, "user writer may not delete a blob of team/app")
    assert guarded.registry.connections == []


def test_d11_what_an_immutable_tag_stands_for_is_not_deleted(
    guarded: Guarded, questions: Questions
) -> None:
    """All immutable tags are looked at, no other ones."""
    client = send(guarded, delete(THAT))
    question = questions.answer(tag_list(["latest", "v1", "v2", "v3"]))
    assert (question.method, question.target) == (b"GET", TAGS)
    question = questions.answer(manifest(NEW))
    assert (question.method, question.target) == (b"GET", V1)
    assert b"application/vnd.oci.image.manifest.v1+json" in question[b"accept"]
    assert questions.answer(manifest(OLD)).target == APP + b"manifests/v2"

    answer = guarded.answer_of(client, b"DELETE")
    check_denied(answer, f"team/app@{digest(OLD).decode()}", "immutable tag v2 stands for it")
    assert not questions.waiting


@pytest.mark.parametrize(
    "spelling",
    [digest(OLD), digest(OLD).replace(b":", b"\\u003a"), b"\\u0073\\u0068" + digest(OLD)[2:]],
)
def test_a_manifest_of_an_immutable_index_is_not_deleted(
    guarded: Guarded, questions: Questions, spelling: bytes
) -> None:
    """In every spelling of JSON: without it the tag would be there, and nobody could pull it."""
    index = b'{"schemaVersion":2,"manifests":[{"digest":"' + spelling + b'"}]}'
    client = send(guarded, delete(THAT))
    questions.answer(tag_list(["v1"]))
    questions.answer(manifest(index))

    check_denied(guarded.answer_of(client, b"DELETE"), "the immutable tag v1 needs it")
    assert not questions.waiting


@pytest.mark.parametrize(
    "answers",
    [
        [tag_list(["latest", "v1", "v2"]), manifest(NEW), MISSING],
        [tag_list(["latest"])],
        [tag_list([])],
        [tag_list(None)],
        [MISSING],
    ],
)
def test_what_no_immutable_tag_stands_for_is_deleted(
    guarded: Guarded, questions: Questions, answers: list[bytes]
) -> None:
    """A tag that went meanwhile is no hindrance, nor a registry without a list."""
    client = send(guarded, delete(THAT))
    for octets in answers:
        questions.answer(octets)
    write = questions.answer(ACCEPTED)

    assert (write.method, write.target, write.body) == (b"DELETE", THAT, b"")
    assert guarded.answer_of(client, b"DELETE").status == 202


@pytest.mark.parametrize(
    "link",
    [
        b'Link: </v2/team/app/tags/list?last=a9&n=1000>; rel="next"',
        b'Link: </v2/team/app/tags/list?next_page=A-b_c%3D&n=1000>; rel="next"',
        b"link: <http://127.0.0.1:5000/v2/team/app/tags/list?n=1000&last=a9>;rel=next",
    ],
)
def test_the_tags_are_read_page_by_page(
    guarded: Guarded, questions: Questions, link: bytes
) -> None:
    """As the registry leads, in whatever order it has them."""
    client = send(guarded, delete(THAT))
    questions.answer(tag_list(["z", "a9"], link))
    query = link.partition(b"?")[2].partition(b">")[0]
    assert questions.answer(tag_list(["a1", "v1"])).target == APP + b"tags/list?" + query
    questions.answer(manifest(OLD))

    check_denied(guarded.answer_of(client, b"DELETE"), "the immutable tag v1 stands for it")


@pytest.mark.parametrize(
    "octets",
    [
        text(b"[]"),
        text(b"{}"),
        text(b"{"),
        text(b'"tags"'),
        text(b'{"tags":"v1"}'),
        text(b'{"tags":[1]}'),
        text(b'{"tags":[null]}'),
        text(b"\xff"),
        text(b'{"tags":["v1/../../../secret/manifests/v1"]}'),
        text(b'{"tags":["v1 HTTP/1.1\\r\\nX: y"]}'),
        text(b'{"tags":["v\\u00e9"]}'),
        text(b'{"tags":[""]}'),
        text(b"[" * 100_000),
        tag_list(["v1"], b"Link: </elsewhere>; rel=next"),
        tag_list(["v1"], b"Link: <>; rel=next"),
        tag_list(["v1"], b"Link: <?a b>; rel=next"),
        tag_list(["v1"], b"Link: nonsense"),
        b"HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 405 X\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 302 X\r\nLocation: /v2/other/tags/list\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 401 X\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 900000000\r\n\r\n" + bytes(4 * 1024 * 1024 + 1),
    ],
)
def test_tags_that_are_not_understood_are_a_refusal(
    guarded: Guarded, questions: Questions, octets: bytes
) -> None:
    """502, and nothing is deleted."""
    client = send(guarded, delete(THAT))
    questions.answer(octets)

    check_failed(guarded.answer_of(client, b"DELETE"), 502)
    assert not questions.waiting


@pytest.mark.parametrize(("octets", "status"), GARBAGE)
def test_a_manifest_that_is_not_told_is_a_refusal(
    guarded: Guarded, questions: Questions, octets: bytes, status: int
) -> None:
    """As for a push."""
    client = send(guarded, delete(THAT))
    questions.answer(tag_list(["v1"]))
    questions.answer(octets + bytes(700 if b"Length: 700" in octets else 0))

    check_failed(guarded.answer_of(client, b"DELETE"), status)
    assert not questions.waiting


@pytest.mark.parametrize("algorithm", [b"sha512", b"blake3"])
def test_another_algorithms_digest_may_name_the_same(
    guarded: Guarded, questions: Questions, algorithm: bytes
) -> None:
    """Nobody can say, so it is refused while there is an immutable tag."""
    client = send(guarded, delete(APP + b"manifests/" + algorithm + b":" + b"0" * 64))
    questions.answer(tag_list(["v1"]))
    questions.answer(manifest(NEW))

    check_denied(guarded.answer_of(client, b"DELETE"), "immutable tag v1")


def test_too_many_immutable_tags_are_a_refusal(guarded: Guarded, questions: Questions) -> None:
    """Rather than a minute of questions; one less is looked through."""
    client = send(guarded, delete(THAT))
    questions.answer(tag_list([f"v{number}" for number in range(MOST_TAGS + 1)]))
    check_denied(guarded.answer_of(client, b"DELETE"), "too many immutable tags")
    assert not questions.waiting

    client = send(guarded, delete(THAT))
    questions.answer(tag_list([f"v{number}" for number in range(MOST_TAGS)] + ["latest"]))
    for _ in range(MOST_TAGS):
        questions.answer(MISSING)
    questions.answer(ACCEPTED)
    assert guarded.answer_of(client, b"DELETE").status == 202


def test_a_list_without_an_end_is_a_refusal(guarded: Guarded, questions: Questions) -> None:
    """A registry that leads in a circle."""
    client = send(guarded, delete(THAT))
    for _ in range(MOST_PAGES):
        questions.answer(tag_list(["latest"], b"Link: <?last=latest&n=1000>; rel=next"))

    check_failed(guarded.answer_of(client, b"DELETE"), 502)
    assert not questions.waiting


def test_a_slow_body_of_a_deletion_keeps_nobody_waiting(
    guarded: Guarded, questions: Questions
) -> None:
    """It is read before its turn, as a manifest is."""
    slow = send(guarded, delete(THAT, b"Content-Length: 5") + b"1234")
    client = send(guarded, put(NEW))
    questions.answer(MISSING)
    check_written(guarded, questions, client, NEW)
    slow.send(b"5")
    questions.answer(tag_list([]))
    write = questions.answer(ACCEPTED)

    assert (write.method, write.body) == (b"DELETE", b"12345")
    assert guarded.answer_of(slow, b"DELETE").status == 202


def test_who_may_not_pull_is_not_told_what_a_tag_stands_for(logged: list[Any]) -> None:
    """HEAD of the tag would be refused; a push or a deletion must not tell in its stead."""
    rule = Rule(("team/**",), pull=Who.parse("nobody"), immutable=("v*", "release-*"), said=SAID)
    guarded = Guarded(Policy(rules=[rule]))
    questions = Questions(guarded)
    client = send(guarded, put(NEW))
    questions.answer(stands_for(digest(OLD)))
    pushed = guarded.answer_of(client, b"PUT")
    client = send(guarded, delete(THAT))
    questions.answer(tag_list(["v2"]))
    questions.answer(manifest(OLD))
    deleted = guarded.answer_of(client, b"DELETE")

    check_denied(pushed, "team/app:v1: the tag is immutable and stands for another manifest")
    assert digest(OLD) not in pushed.body
    check_denied(deleted, "an immutable tag stands for it")
    assert b"v2" not in deleted.body
    guarded.world.close()


# -- turns -----------------------------------------------------------------------------------


def test_of_two_first_pushes_one_wins(guarded: Guarded, questions: Questions) -> None:
    """The second one is compared with what the first one made."""
    first, second = send(guarded, put(OLD)), send(guarded, put(NEW))
    questions.answer(MISSING)
    write = questions.next()
    assert write.body == OLD
    assert len(guarded.registry.open) == 2  # the first one's question, kept, and its write
    questions.peer.send(CREATED)
    assert guarded.answer_of(first, b"PUT").status == 201

    assert questions.answer(stands_for(digest(OLD))).method == b"HEAD"
    check_denied(guarded.answer_of(second, b"PUT"), digest(OLD).decode())
    assert not questions.waiting


def test_a_write_whose_client_has_left_keeps_its_turn(
    guarded: Guarded, questions: Questions
) -> None:
    """The registry has it: it may still set the tag, behind the back of the next one."""
    first, second = send(guarded, put(OLD)), send(guarded, put(NEW))
    questions.answer(MISSING)
    assert questions.next().body == OLD
    at = questions.peer
    first.reset()
    assert not questions.waiting
    assert at.is_open
    at.send(CREATED)

    questions.answer(stands_for(digest(OLD)))
    check_denied(guarded.answer_of(second, b"PUT"), digest(OLD).decode())


@pytest.mark.parametrize(
    "ending",
    [
        lambda guarded, at: at.end(),
        lambda guarded, at: at.reset(),
        lambda guarded, at: at.send(b"nonsense"),
        lambda guarded, at: at.send(CREATED.replace(b": 0", b": 5") + b"half"),
        lambda guarded, at: guarded.world.reactor.pass_time(102),
    ],
)
@pytest.mark.parametrize("leaves", [True, False])
def test_a_write_that_fails_gives_its_turn_back(
    guarded: Guarded, questions: Questions, ending: Callable[[Guarded, Peer], None], leaves: bool
) -> None:
    """Whether its client waits for it or not; the next one is asked for then."""
    first = send(guarded, put(OLD))
    questions.answer(MISSING)
    questions.next()
    at = questions.peer
    second = send(guarded, put(NEW))
    if leaves:
        first.reset()
    ending(guarded, at)

    questions.answer(MISSING)
    check_written(guarded, questions, second, NEW)


def test_a_write_that_was_not_sent_is_given_up_with_its_client(
    guarded: Guarded, questions: Questions
) -> None:
    """While the registry does not accept connections nothing can have happened."""
    first = send(guarded, put(OLD))
    second = send(guarded, put(NEW))
    guarded.registry.accepting = False
    questions.answer(MISSING)
    assert guarded.registry.cancelled == 0
    first.reset()
    assert guarded.registry.cancelled == 1
    guarded.registry.accepting = True
    questions.answer(MISSING)

    check_written(guarded, questions, second, NEW)


def test_an_answer_that_nobody_reads_keeps_nobody_waiting(
    guarded: Guarded, questions: Questions
) -> None:
    """The registry is done when it begins to answer."""
    first = guarded.world.client(capacity=16)
    first.reading = False
    first.send(put(OLD))
    second = send(guarded, put(NEW))
    questions.answer(MISSING)
    questions.next()
    length = 10_000_000
    questions.peer.send(b"HTTP/1.1 400 X\r\nContent-Length: %d\r\n\r\n" % length + bytes(200_000))
    [reading] = [each for each in guarded.world.relay.exchanges if "streaming" in repr(each)]
    assert reading._octets == b""  # nor does its manifest stay

    questions.answer(MISSING)
    check_written(guarded, questions, second, NEW)
    first.reset()


def test_no_room_for_the_write_gives_the_turn_back(
    guarded: Guarded, questions: Questions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """503: there was room for the question, and then none."""
    client = send(guarded, put(NEW))
    questions.next()
    monkeypatch.setattr("regguard.relay.exchange.MAX_EXCHANGES", 0)
    questions.peer.send(MISSING)

    check_failed(guarded.answer_of(client, b"PUT"), 503)
    check_no_turns(guarded)


@pytest.mark.parametrize(
    ("octets", "how", "status"),
    [
        (put(NEW)[:-1], "reset", 0),
        (put(NEW)[:-1], "end", 400),
        (chunked(NEW)[:-2], "reset", 0),
        (chunked(NEW)[:-2], "end", 400),
        (put(NEW), "reset", 0),
        (delete(THAT), "reset", 0),
    ],
)
def test_who_leaves_gives_the_turn_back(
    guarded: Guarded, questions: Questions, octets: bytes, how: str, status: int
) -> None:
    """With the body half sent, or while the registry is asked; nothing is written or logged."""
    client = send(guarded, octets)
    if questions.waiting:
        questions.next()
    getattr(client, how)()

    check_no_turns(guarded)
    assert not questions.waiting
    assert guarded.world.relay.exchanges == set()
    assert [each.status for each in guarded.world.ended] == [status]


def test_who_has_closed_his_side_only_is_served(guarded: Guarded, questions: Questions) -> None:
    """He may still read."""
    client = send(guarded, put(NEW))
    client.end()
    questions.answer(MISSING)

    check_written(guarded, questions, client, NEW)


def test_who_leaves_while_waiting_for_the_turn_is_skipped(
    guarded: Guarded, questions: Questions
) -> None:
    """And no turn is lost."""
    clients = [send(guarded, put(NEW)) for _ in range(4)]
    clients[1].reset()
    clients[3].reset()
    questions.answer(MISSING)
    check_written(guarded, questions, clients[0], NEW)
    questions.answer(stands_for(digest(NEW)))
    check_written(guarded, questions, clients[2], NEW)

    check_no_turns(guarded)
    assert not questions.waiting


@pytest.mark.parametrize(
    ("octets", "status"), [(b"x\r\n", 400), (b"", 408)], ids=["broken", "silent"]
)
def test_a_body_that_breaks_is_answered_once(guarded: Guarded, octets: bytes, status: int) -> None:
    """As any other one, and it is nobody's fault here."""
    client = send(guarded, put(b"", V1, b"Transfer-Encoding: chunked"))
    client.send(octets)
    guarded.world.reactor.pass_time(70)

    assert guarded.answer_of(client, b"PUT").status == status
    assert guarded.registry.connections == []


def test_other_repositories_do_not_wait(guarded: Guarded, questions: Questions) -> None:
    """A turn is one repository's."""
    first = send(guarded, put(NEW))
    questions.next()
    at = questions.peer
    second = send(guarded, put(OLD, OTHER))
    assert questions.answer(MISSING).target == OTHER
    check_written(guarded, questions, second, OLD)
    at.send(MISSING)

    check_written(guarded, questions, first, NEW)


def test_too_many_writes_are_put_off(guarded: Guarded, questions: Questions) -> None:
    """503 with Retry-After; those who wait lose nothing by it."""
    clients = [send(guarded, put(NEW)) for _ in range(MOST_WAITING + 1)]
    late = guarded.ask(put(NEW))
    check_failed(late, 503)
    assert late[b"retry-after"] == b"5"
    for client in clients:
        questions.answer(MISSING)
        check_written(guarded, questions, client, NEW)


def test_h03_too_many_manifests_at_once_are_put_off(guarded: Guarded, questions: Questions) -> None:
    """503 with Retry-After while a user holds as much as one may: read, waiting, or on its way."""
    body = bytes(LARGEST_MANIFEST)
    count = MOST_OCTETS_OF_ONE // LARGEST_MANIFEST
    clients = [send(guarded, put(body)) for _ in range(count)]
    late = guarded.ask(put(NEW))
    check_failed(late, 503)
    assert late[b"retry-after"] == b"5"
    questions.answer(MISSING)
    check_failed(guarded.ask(put(NEW)), 503)
    check_written(guarded, questions, clients[0], body)
    last = send(guarded, put(NEW))
    for client in clients[1:]:
        questions.answer(stands_for(digest(body)))
        check_written(guarded, questions, client, body)
    questions.answer(stands_for(digest(body)))

    check_denied(guarded.answer_of(last, b"PUT"))


def test_when_regguard_stops_everybody_is_answered(guarded: Guarded, questions: Questions) -> None:
    """However many wait, each of whom would begin when the one before ends."""
    clients = [send(guarded, put(NEW)) for _ in range(MOST_WAITING + 1)]
    questions.next()
    _stops(guarded)

    for client in clients:
        check_failed(guarded.answer_of(client, b"PUT"), 503)
    check_no_turns(guarded)


def test_a_failure_in_a_row_of_turns_lets_nobody_in_twice(
    guarded: Guarded, questions: Questions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whose turn ends at once may be followed, on its connection, by who begins the next."""
    first = send(guarded, put(OLD))
    questions.answer(MISSING)
    questions.next()
    at = questions.peer
    second = send(guarded, put(NEW) + put(NEW, V1, b"X-Second: 1"))
    fail_once = iter([True])

    async def check(*arguments: Any) -> Any:
        if next(fail_once, False):
            raise UpstreamFailure(503, "no room")
        return await check_tags(*arguments)

    monkeypatch.setattr(resource, "check_tags", check)
    at.send(CREATED)
    assert guarded.answer_of(first, b"PUT").status == 201
    assert questions.next()[b"x-forwarded-user"] == b"writer"
    asked = questions.peer
    third = send(guarded, put(OLD))
    assert not questions.waiting, "two have the turn at once"
    asked.send(MISSING)
    questions.answer(CREATED)
    found = list(read_answers(second.take(), b"PUT", b"PUT"))
    assert [each.status for each in found] == [503, 201]
    questions.answer(stands_for(digest(NEW)))
    check_denied(guarded.answer_of(third, b"PUT"))


@pytest.mark.parametrize(
    ("method", "what"),
    [
        *((b"PUT", what) for what in ("read_whole", "take", "check_tags", "send", "start")),
        *((b"DELETE", what) for what in ("read_whole", "take", "check_deletion", "send", "start")),
    ],
)
def test_a_fault_is_a_refusal_and_keeps_no_turn(
    guarded: Guarded,
    questions: Questions,
    logged: list[Any],
    monkeypatch: pytest.MonkeyPatch,
    method: bytes,
    what: str,
) -> None:
    """Wherever it happens on the way: 500, a logged failure, and nothing written."""

    def fault(*_: Any, **__: Any) -> Any:
        raise RuntimeError("injected")

    places: dict[str, Any] = {"take": Turns, "send": Relay, "start": Exchange}
    monkeypatch.setattr(places.get(what, resource), what, fault)
    client = send(guarded, put(NEW) if method == b"PUT" else delete(THAT))
    if what in places and what != "take":
        questions.answer(MISSING)

    answer = guarded.answer_of(client, method)
    assert answer.status == 500
    assert [each.type for each in logged] == [RuntimeError]
    logged.clear()
    check_no_turns(guarded)
    assert not questions.waiting
    monkeypatch.undo()
    again = send(guarded, put(NEW))
    questions.answer(MISSING)
    check_written(guarded, questions, again, NEW)


def test_turns_are_taken_in_order_and_end_once() -> None:
    """One at a time, none lost, none left, and none given to two."""
    turns = Turns()
    had: list[Turn] = []
    first = turns.take("a")
    first.addCallback(had.append)
    second, third, last = (turns.take("a") for _ in range(3))
    for each in (second, third):
        each.addCallback(had.append)
    last.addErrback(lambda failure: failure.trap(CancelledError))
    assert len(had) == 1
    last.cancel()
    had[0].end()
    had[0].end()
    assert len(had) == 2
    had[1].end()
    had[0].end()
    assert len(had) == 3
    had[2].end()
    assert turns._queues == {}
    turns.take("a").addCallback(had.append)
    had[2].end()
    assert set(turns._queues) == {"a"}


def test_freeze_comes_before_every_question() -> None:
    """403 with the reason; reading goes on."""
    guarded = Guarded(
        Policy(
            rules=[Rule(match=("team/**",), immutable=("v*",))],
            freeze=Freeze("we move house", "regguard.toml:3: freeze"),
        )
    )
    for octets in (put(NEW), delete(THAT), delete(V1), request(b"POST", APP + b"blobs/uploads/")):
        answer = guarded.ask(octets)
        assert answer.status == 403
        [error] = json.loads(answer.body)["errors"]
        assert "frozen: we move house" in error["message"]
        assert error["detail"]["rule"] == "regguard.toml:3: freeze"
    assert guarded.registry.connections == []
    client = send(guarded, request(b"GET", V1))
    assert read_request(guarded.registry.last.take()).target == V1
    client.reset()
    guarded.world.close()
