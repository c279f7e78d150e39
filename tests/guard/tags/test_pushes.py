"""Immutable tags: no push that regguard lets through takes one from its manifest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable

import pytest
from twisted.internet.error import TimeoutError as ConnectTimeout

from regguard.guard.tags import LARGEST_MANIFEST
from tests.guard.questions import ACCEPTED, CREATED, MISSING, Questions, digest, stands_for
from tests.guard.tags.immutable import (
    APP,
    GARBAGE,
    NEW,
    OLD,
    V1,
    all_stops,
    check_denied,
    check_failed,
    check_written,
    chunked,
    delete,
    put,
    send,
)
from tests.guard.world import Guarded, request
from tests.relay.world import read_answers, refused

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


@pytest.mark.parametrize(
    ("act", "status"), [(_closes, 502), (_resets, 502), (_says_nothing, 504), (all_stops, 503)]
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
