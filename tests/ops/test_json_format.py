"""regguard.ops.json_format: one object a line, valid whatever was sent."""

from __future__ import annotations

import dataclasses
import json
import re
from typing import Any

import pytest
from twisted.internet.task import Clock

from regguard.access import parse_access
from regguard.ops import AccessLog
from regguard.ops.texts import MAX_TEXT
from tests.ops.requests import PIPE_BUF, Request, answered, head

# 2026-10-07 21:46:40.9 in UTC
NOW = 1_791_409_600.9
DIGEST = "sha256:" + "a" * 64
OTHER = "sha256:" + "b" * 64


def lines(*requests: Request, now: float = NOW) -> list[bytes]:
    """The lines of some requests that end at a time."""
    batches: list[bytes] = []
    clock = Clock()
    clock.advance(100.0)
    log = AccessLog(batches.append, clock, lambda: now, "json")
    for request in requests:
        log.log(request)
    log.flush()
    return b"".join(batches).splitlines(keepends=True)


def parse(line: bytes) -> dict[str, Any]:
    """A line as a strict reader sees it: ASCII, one object, no member twice, an end."""

    def members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        assert len(found) == len(pairs)
        return found

    assert re.fullmatch(rb"\{[ -~]*\}\n", line)
    found = json.loads(line, object_pairs_hook=members)
    assert isinstance(found, dict)
    return found


def logged(request: Request) -> dict[str, Any]:
    """The members of one request's line."""
    [line] = lines(request)
    return parse(line)


def put() -> Request:
    """A manifest's push, with everything that can be there."""
    target = b"/v2/team/app/manifests/v1"
    return Request(
        head(*(b"User-Agent: docker/20.10", b"Referer: https://x/"), method=b"PUT", target=target),
        user_name="alice",
        access=parse_access(b"PUT", target),
        answered=answered(f"Docker-Content-Digest: {DIGEST}".encode(), status=201),
        status=201,
        began=99.75,
        upstream_seconds=0.125,
        incident="00c0ffee",
        refused_by="regguard.toml:7: push = nobody",
        head_bytes_in=300,
        body_bytes_in=40,
        head_bytes_out=200,
        body_bytes_out=5,
    )


def test_a_line_has_everything_that_is_known() -> None:
    """By these names, which others' queries hold."""
    assert logged(put()) == {
        "event": "request",
        "time": "2026-10-07T21:46:40.900Z",
        "client": "192.0.2.7",
        "user": "alice",
        "method": "PUT",
        "target": "/v2/team/app/manifests/v1",
        "http_version": "1.1",
        "action": "push",
        "repository": "team/app",
        "reference": "v1",
        "digest": DIGEST,
        "status": 201,
        "bytes_in": 340,
        "bytes_out": 205,
        "upstream_seconds": 0.125,
        "total_seconds": 0.25,
        "incident": "00c0ffee",
        "rule": "regguard.toml:7: push = nobody",
        "user_agent": "docker/20.10",
        "referer": "https://x/",
    }


def test_what_is_not_there_has_no_member() -> None:
    """A request without a head is the least that there is."""
    assert logged(Request(None, status=400, began=100.0)) == {
        "event": "request",
        "time": "2026-10-07T21:46:40.900Z",
        "client": "192.0.2.7",
        "status": 400,
        "bytes_in": 0,
        "bytes_out": 0,
        "total_seconds": 0,
    }


@pytest.mark.parametrize("target", [b"/v2/", b"/v2/_catalog"])
def test_no_repository_is_no_member(target: bytes) -> None:
    """A log-in, and the catalog."""
    line = logged(Request(head(target=target), access=parse_access(b"GET", target)))

    assert line["action"] in ("login", "catalog")
    assert not {"repository", "reference", "digest"} & line.keys()


@pytest.mark.parametrize(
    ("reference", "said", "digest"),
    [
        ("v1", DIGEST, DIGEST),
        (OTHER, DIGEST, DIGEST),
        (OTHER, None, OTHER),
        ("v1", None, None),
    ],
)
def test_the_digest_is_the_registrys_or_else_the_one_that_was_asked_for(
    reference: str, said: str | None, digest: str | None
) -> None:
    """What was pulled by its tag has one only in the answer."""
    target = f"/v2/a/manifests/{reference}".encode()
    fields = [f"docker-content-digest: {said}".encode()] if said else []
    request = Request(
        head(target=target), access=parse_access(b"GET", target), answered=answered(*fields)
    )

    assert logged(request).get("digest") == digest


def test_a_client_that_left_before_its_answer_is_499() -> None:
    """As in the other formats."""
    assert logged(Request(head(), status=0))["status"] == 499


def test_a_short_time_is_no_time() -> None:
    """Microseconds are enough, and no other notation comes of less."""
    line = logged(Request(head(), began=100.0 - 1e-6, upstream_seconds=1e-9))

    assert (line["total_seconds"], line["upstream_seconds"]) == (1e-6, 0)


@pytest.mark.parametrize(
    ("now", "stamp"),
    [
        (NOW, "2026-10-07T21:46:40.900Z"),
        (NOW + 0.0999, "2026-10-07T21:46:40.999Z"),
        (NOW + 0.1001, "2026-10-07T21:46:41.000Z"),
    ],
)
def test_the_time_is_utc_to_the_millisecond(now: float, stamp: str) -> None:
    """RFC 3339, and never a thousandth millisecond."""
    [line] = lines(Request(head()), now=now)

    assert parse(line)["time"] == stamp


@pytest.mark.parametrize(
    ("octets", "text"),
    [
        (b'a"b\\', 'a"b\\'),
        (b"\r\n\t\0\x1b[2J\x7f", "\r\n\t\0\x1b[2J\x7f"),
        ("a\u202eb \u00fc \U0001f433".encode(), "a\u202eb \u00fc \U0001f433"),
        (b"\xff\xfe\x80", r"\xff\xfe\x80"),
        (b"</script>\xed\xa0\x80", r"</script>\xed\xa0\x80"),
    ],
)
def test_f02_any_octets_are_valid_json_and_ascii(octets: bytes, text: str) -> None:
    """And come back as what was sent, where that was UTF-8."""
    request = Request(head(b"User-Agent: x", b"Referer: x"), user_name=octets.decode("latin-1"))
    assert request.head is not None
    request.head.user_agent = request.head.referer = octets
    request.head.target = b"/" + octets
    line = logged(request)

    assert line["user_agent"] == line["referer"] == text
    assert line["target"] == "/" + text
    assert line["user"] == octets.decode("latin-1")


def test_f02_every_octet_is_valid_json() -> None:
    """One after the other, alone and in company."""
    for octet in range(256):
        request = Request(head(b"User-Agent: x"))
        assert request.head is not None
        request.head.user_agent = b"x" + bytes([octet]) + b"y"
        assert logged(request)["user_agent"].startswith("x")


def test_f02_half_a_character_of_a_name_is_valid_json() -> None:
    """A lone surrogate, should one ever be in a name."""
    assert logged(Request(head(), user_name="a\udc80b"))["user"] == "a\udc80b"


@pytest.mark.parametrize(
    "octets", [b"x", b"\xff", b'"', b"\0", "\U0001f433".encode(), b"\xff" * 99]
)
def test_f02_f06_no_line_is_longer_than_a_pipe_takes_whole(octets: bytes) -> None:
    """Whoever may say something says as much as can be, of what costs most in a line."""
    long = octets * 16_384
    repository = "/".join(["a" * 84] * 3)
    name = long.decode("utf-8", "replace")
    target = f"/v2/{repository}/manifests/sha256:{'a' * 9000}".encode()
    request = dataclasses.replace(
        put(),
        access=parse_access(b"PUT", target),
        client="x" * 39 + "%" + "y" * 15,
        user_name=name,
        refused_by=name,
        answered=answered(b"Docker-Content-Digest: " + b"\xff" * 9000),
        upstream_seconds=1e9,
        began=-1e9,
        head_bytes_in=10**18,
        head_bytes_out=10**18,
    )
    assert request.head is not None
    request.head.user_agent = request.head.referer = request.head.target = long
    [line] = lines(request)

    assert len(line) <= PIPE_BUF
    # Cut, not dropped.
    assert len(json.dumps(parse(line)["user_agent"])) > MAX_TEXT - 12


def test_f03_secrets_are_not_logged() -> None:
    """The registry's upload state, tokens, and passwords in a URL."""
    request = Request(
        head(
            b"Referer: https://u:canary@h/u?access_token=canary",
            b"Authorization: Basic canary",
            target=b"/v2/a/blobs/uploads/1?_state=canary",
        )
    )
    [line] = lines(request)

    assert b"canary" not in line
    assert parse(line)["target"] == "/v2/a/blobs/uploads/1?_state=..."
    assert parse(line)["referer"] == "https://...@h/u?access_token=..."


RECORD = {
    "user": "ci",
    "repository": "team/app",
    "tags": ["v1"],
    "digest": DIGEST,
    "media_type": None,
    "blobs_uploaded": 3,
    "blobs_mounted": 2,
    "bytes": 12_300_000,
    "seconds": 4.125,
}


def pushed(record: dict[str, Any], log_format: str = "json") -> bytes:
    """What the log writes for a push record."""
    batches: list[bytes] = []
    log = AccessLog(batches.append, Clock(), lambda: NOW, log_format)
    log.log_push(record)
    log.flush()
    return b"".join(batches)


def test_a_push_is_a_line_of_its_own() -> None:
    """Told from a request's by its event."""
    expected = {"event": "push", "time": "2026-10-07T21:46:40.900Z", **RECORD}
    del expected["media_type"]

    assert parse(pushed(RECORD)) == expected


@pytest.mark.parametrize("log_format", ["common", "combined", "combinedio"])
def test_apaches_formats_have_no_push(log_format: str) -> None:
    """Whoever reads them knows requests only."""
    assert pushed(RECORD, log_format) == b""


def test_f06_no_push_is_longer_than_a_pipe_takes_whole() -> None:
    """With the longest of everything that an event can hold."""
    long = RECORD | {
        "user": "\U0001f433" * 9000,
        "repository": "a" * 255,
        "tags": ["t" * 128] * 10,
        "digest": "d" * 200,
        "media_type": "\\xff" * 200,
        "bytes": 10**18,
        "seconds": 1e9,
    }

    assert len(pushed(long)) <= PIPE_BUF
    assert parse(pushed(long))["tags"] == ["t" * 128] * 10
