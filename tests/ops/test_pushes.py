"""regguard.ops.pushes: what requests make up a push, and what it took."""

from __future__ import annotations

import json
from typing import Any

import pytest

from regguard.access import parse_access
from regguard.ops import PushLedger, push_event
from regguard.ops.pushes import LIFETIME, MOST_PUSHES, MOST_TAGS, in_words
from tests.ops.requests import Request, answered, head

DIGEST = "sha256:" + "a" * 64
OTHER = "sha256:" + "b" * 64
UPLOAD = "/v2/team/app/blobs/uploads/"


def event_of(
    method: str, target: str, status: int, *fields: bytes, answer: str | None = DIGEST
) -> dict[str, Any] | None:
    """The event of a request of ci's that ran from second 5 to 7 and had 1000 octets of body."""
    says = [f"Docker-Content-Digest: {answer}".encode()] if answer else []
    request = Request(
        head(*fields, method=method.encode(), target=target.encode()),
        user_name="ci",
        access=parse_access(method.encode(), target.encode()),
        answered=answered(*says, status=status),
        status=status,
        began=5.0,
        body_bytes_in=1000,
    )
    event = push_event(request, lambda: 7.0)
    # It travels between processes.
    assert event == json.loads(json.dumps(event))
    return event


EVENT = {"user": "ci", "repository": "team/app", "bytes": 1000, "began": 5.0, "at": 7.0}


@pytest.mark.parametrize(
    ("method", "target", "status", "kind"),
    [
        ("POST", UPLOAD, 202, "received"),
        ("POST", f"{UPLOAD}?mount={DIGEST}&from=team/base", 201, "mounted"),
        ("POST", f"{UPLOAD}?mount={DIGEST}&from=team/base", 202, "received"),
        ("POST", f"{UPLOAD}?digest={DIGEST}", 201, "uploaded"),
        ("POST", f"{UPLOAD}?digest={DIGEST}", 202, "received"),
        ("PATCH", f"{UPLOAD}1", 202, "received"),
        ("PUT", f"{UPLOAD}1?digest={DIGEST}", 201, "uploaded"),
    ],
)
def test_an_uploads_steps_are_events(method: str, target: str, status: int, kind: str) -> None:
    """In one piece, in chunks, and mounted: 201 says that the blob is there."""
    assert event_of(method, target, status) == {"kind": kind, **EVENT}


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        ("HEAD", f"/v2/team/app/blobs/{DIGEST}", 200),
        ("GET", f"{UPLOAD}1", 204),
        ("DELETE", f"{UPLOAD}1", 204),
        ("PATCH", f"{UPLOAD}1", 416),
        ("PUT", f"{UPLOAD}1?digest={DIGEST}", 400),
        ("PUT", "/v2/team/app/manifests/v1", 0),
        ("PUT", "/v2/team/app/manifests/v1", 202),
        ("PUT", "/v2/team/app/manifests/v1", 403),
        ("DELETE", "/v2/team/app/manifests/v1", 202),
        ("GET", "/v2/team/app/manifests/v1", 200),
        ("GET", "/v2/", 200),
    ],
)
def test_everything_else_is_none(method: str, target: str, status: int) -> None:
    """Reading, giving up, deleting, and whatever failed."""
    assert event_of(method, target, status) is None


def test_a_request_that_asked_for_nothing_is_none() -> None:
    """No head, or a target that nobody understood."""
    assert push_event(Request(None, status=400), lambda: 0.0) is None


@pytest.mark.parametrize(
    ("target", "answer", "tags", "digest"),
    [
        ("v1", DIGEST, ["v1"], DIGEST),
        ("v1", None, ["v1"], None),
        (OTHER, OTHER, [], OTHER),
        (OTHER, None, [], OTHER),
        (f"{OTHER}?tag=a&tag=b", OTHER, ["a", "b"], OTHER),
    ],
)
def test_a_manifest_has_its_tags_and_digest(
    target: str, answer: str | None, tags: list[str], digest: str | None
) -> None:
    """By tag, by digest, and by both."""
    media_type = "application/vnd.oci.image.manifest.v1+json"
    event = event_of(
        "PUT",
        f"/v2/team/app/manifests/{target}",
        201,
        f"Content-Type: {media_type}".encode(),
        answer=answer,
    )

    assert event == {
        **EVENT,
        "kind": "manifest",
        "tags": tags,
        "digest": digest,
        "media_type": media_type,
    }


def test_what_others_say_of_a_manifest_is_bounded() -> None:
    """Tags by the hundred, and a type and a digest of any length."""
    tags = "&".join(f"tag=t{number}" for number in range(100))
    event = event_of(
        "PUT",
        f"/v2/team/app/manifests/{DIGEST}?{tags}",
        201,
        b"Content-Type: " + b"x" * 9000,
        answer="sha256:" + "a" * 9000,
    )

    assert event is not None
    assert len(event["tags"]) == MOST_TAGS
    assert len(event["digest"]) == len(event["media_type"]) == 200


# -- the ledger ------------------------------------------------------------------------------


def event(kind: str, at: float, octets: int = 0, **more: Any) -> dict[str, Any]:
    """An event of ci's that took a second."""
    rest = {"tags": ["v1"], "digest": DIGEST, "media_type": None} if kind == "manifest" else {}
    return {
        "kind": kind,
        "user": "ci",
        "repository": "team/app",
        "bytes": octets,
        "began": at - 1.0,
        "at": at,
        **rest,
        **more,
    }


def test_a_push_is_what_came_before_its_manifest() -> None:
    """Octets of all steps, blobs by how they came, and time from the first request's begin."""
    ledger = PushLedger()
    for each in (
        event("received", 10.0),
        event("received", 11.0, 700),
        event("received", 11.5, 300),
        event("uploaded", 12.0, 50),
        event("uploaded", 12.5, 10),
        event("mounted", 13.0),
    ):
        assert ledger.note(each) is None

    assert ledger.note(event("manifest", 14.5, 999)) == {
        "user": "ci",
        "repository": "team/app",
        "tags": ["v1"],
        "digest": DIGEST,
        "media_type": None,
        "blobs_uploaded": 2,
        "blobs_mounted": 1,
        "bytes": 1060,
        "seconds": 5.5,
    }


def test_blobs_count_once() -> None:
    """The next manifest (a new tag, or the index over several) brought none."""
    ledger = PushLedger()
    ledger.note(event("uploaded", 10.0, 5))
    first = ledger.note(event("manifest", 11.0))
    second = ledger.note(event("manifest", 12.0))

    assert first is not None
    assert second is not None
    assert (first["blobs_uploaded"], first["bytes"], first["seconds"]) == (1, 5, 2.0)
    assert (second["blobs_uploaded"], second["bytes"], second["seconds"]) == (0, 0, 1.0)


def test_users_and_repositories_are_told_apart() -> None:
    """One user pushes here and there, and two push here."""
    ledger = PushLedger()
    ledger.note(event("uploaded", 10.0))
    ledger.note(event("uploaded", 10.0, repository="team/other"))
    ledger.note(event("mounted", 10.0, user="alice"))
    ledger.note(event("uploaded", 10.0))

    def counts(**more: str) -> tuple[int, int]:
        record = ledger.note(event("manifest", 11.0, **more))
        assert record is not None
        return record["blobs_uploaded"], record["blobs_mounted"]

    assert counts() == (2, 0)
    assert counts(repository="team/other") == (1, 0)
    assert counts(user="alice") == (0, 1)


def test_requests_at_once_begin_with_the_first_of_them() -> None:
    """The one that began first need not end first."""
    ledger = PushLedger()
    ledger.note(event("uploaded", 10.0))
    ledger.note(event("uploaded", 20.0, began=2.0))
    record = ledger.note(event("manifest", 21.0))

    assert record is not None
    assert record["seconds"] == 19.0


def test_a_push_that_was_given_up_is_forgotten_after_a_while() -> None:
    """Whoever comes hours later begins anew; a slow one is remembered from step to step."""
    ledger = PushLedger()
    ledger.note(event("uploaded", 0.0))
    ledger.note(event("uploaded", LIFETIME))
    record = ledger.note(event("manifest", 2 * LIFETIME))
    assert record is not None
    assert record["blobs_uploaded"] == 2

    ledger.note(event("uploaded", 0.0))
    record = ledger.note(event("manifest", LIFETIME + 0.1))
    assert record is not None
    assert (record["blobs_uploaded"], record["seconds"]) == (0, 1.0)


def test_forgotten_pushes_take_no_memory() -> None:
    """They go when somebody else comes."""
    ledger = PushLedger()
    for number in range(100):
        ledger.note(event("uploaded", float(number), repository=f"r{number}"))
    assert len(ledger) == 100
    ledger.note(event("uploaded", LIFETIME + 90.5, repository="last"))

    assert len(ledger) == 10


def test_there_is_a_limit_to_pushes_at_once() -> None:
    """The one without an event for the longest time gives way."""
    ledger = PushLedger()
    for number in range(MOST_PUSHES):
        ledger.note(event("uploaded", 10.0, repository=f"r{number}"))
    ledger.note(event("uploaded", 10.0, repository="r0"))
    ledger.note(event("uploaded", 10.0, repository="one more"))

    def count(repository: str) -> int:
        record = ledger.note(event("manifest", 11.0, repository=repository))
        assert record is not None
        return int(record["blobs_uploaded"])

    assert len(ledger) == MOST_PUSHES
    assert [count(name) for name in ("r0", "r1", "r2", "one more")] == [2, 0, 1, 1]


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {},
            f"pushed team/app:v1 {DIGEST} by ci: 3 blobs uploaded (12.3 MB), 2 mounted, 4.1 s",
        ),
        (
            {"tags": ["a", "b"], "blobs_uploaded": 1, "blobs_mounted": 0, "bytes": 999},
            f"pushed team/app:a,b {DIGEST} by ci: 1 blob uploaded (999 B), 0 mounted, 4.1 s",
        ),
        (
            {"tags": [], "digest": None, "bytes": 999_960, "seconds": 0.04},
            "pushed team/app - by ci: 3 blobs uploaded (1.0 MB), 2 mounted, 0.0 s",
        ),
        (
            {"bytes": 2_500_000_000_000},
            f"pushed team/app:v1 {DIGEST} by ci: 3 blobs uploaded (2.5 TB), 2 mounted, 4.1 s",
        ),
    ],
)
def test_a_record_in_words(changes: dict[str, Any], line: str) -> None:
    """One line for people."""
    record = {
        "user": "ci",
        "repository": "team/app",
        "tags": ["v1"],
        "digest": DIGEST,
        "blobs_uploaded": 3,
        "blobs_mounted": 2,
        "bytes": 12_345_678,
        "seconds": 4.123,
    }

    assert in_words(record | changes) == line
