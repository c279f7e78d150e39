"""Immutable tags: what one of them stands for is not deleted."""

from __future__ import annotations

from typing import Any

import pytest

from regguard.access import Policy, Rule, Who
from regguard.guard.tags import MOST_PAGES, MOST_TAGS
from tests.guard.questions import (
    ACCEPTED,
    MISSING,
    Questions,
    digest,
    manifest,
    stands_for,
    tag_list,
    text,
)
from tests.guard.tags.immutable import (
    APP,
    GARBAGE,
    NEW,
    OLD,
    SAID,
    TAGS,
    THAT,
    V1,
    check_denied,
    check_failed,
    check_written,
    delete,
    put,
    send,
)
from tests.guard.world import Guarded


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
