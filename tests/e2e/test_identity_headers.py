"""Group B of the cases: what clients and registries say about who they are, octet for octet.

Trusted proxies (B07) have tests of their own.
"""

from __future__ import annotations

import pytest

from tests.e2e.stage import Stage, basic
from tests.malformed import CREDENTIAL, SECRET, TARGET, head

CLOSE = b"Connection: close"


def own(stage: Stage) -> list[bytes]:
    """The lines that the guard adds to a request for r.example."""
    return [
        b"X-Real-IP: 127.0.0.1",
        b"X-Forwarded-For: 127.0.0.1",
        b"X-Forwarded-Proto: " + (b"https" if stage.secure else b"http"),
        b"X-Forwarded-Host: r.example",
        b"X-Forwarded-User: " + stage.guard.ground.pusher[0].encode(),
    ]


def sent_up(stage: Stage, *lines: bytes, method: bytes = b"GET", body: bytes = b"") -> list[bytes]:
    """The lines of the request that reached the registry, in their order."""
    stage.recorder.forget()
    (answer,) = stage.ask(head(*lines, method=method) + body, method.decode())
    assert answer.status == 200
    (_,) = stage.recorder.requests
    request_head, _, rest = bytes(stage.recorder.received).partition(b"\r\n\r\n")
    assert rest == body
    return request_head.split(b"\r\n")


START = [b"GET /v2/team/app/manifests/v1 HTTP/1.1", b"Host: r.example"]


def test_a_plain_request_goes_up_octet_for_octet(stage: Stage) -> None:
    """Its own lines as they are, the credential away, and who is asking."""
    assert sent_up(stage, CLOSE, b"User-Agent: t/1", b"aCCept:  */* ") == [
        *START,
        b"User-Agent: t/1",
        b"aCCept: */*",
        *own(stage),
    ]


@pytest.mark.parametrize(
    "options",
    [
        b"close, X-Forwarded-For, X-Forwarded-Proto, X-Real-IP, X-Forwarded-User",
        b"close ,\tx-forwarded-host,x-forwarded-user",
    ],
)
def test_b01_connection_takes_no_line_of_ours_away(stage: Stage, options: bytes) -> None:
    """Clients' lines are stripped first, ours are added last (CVE-2022-31813)."""
    lines = sent_up(stage, b"X-Forwarded-For: evil", b"Connection: " + options)

    assert lines == [*START, *own(stage)]


@pytest.mark.parametrize(
    "option",
    [b"Authorization", b"Host", b"Content-Length", b"Content-Range", b"Content-Type", b"Cookie"],
)
def test_b02_connection_does_not_touch_login_or_framing(stage: Stage, option: bytes) -> None:
    """Who lists Authorization is logged in all the same, and who lists nothing else is refused."""
    framing = (b"Content-Length: 5", b"Connection: close, " + option)
    lines = sent_up(stage, *framing, method=b"PUT", body=b"hello")
    assert lines == [
        b"PUT /v2/team/app/manifests/v1 HTTP/1.1",
        b"Host: r.example",
        b"Content-Length: 5",
        *own(stage),
    ]

    stage.recorder.forget()
    nobody = head(*framing).replace(CREDENTIAL + b"\r\n", b"") + b"hello"
    (answer,) = stage.ask(nobody)
    assert answer.status == 401
    assert bytes(stage.recorder.received) == b""


def test_b02_connection_does_not_touch_a_chunked_body(stage: Stage) -> None:
    """It goes on in chunks."""
    chunks = b"5\r\nhello\r\n0\r\n\r\n"
    lines = sent_up(
        stage,
        b"Transfer-Encoding: chunked",
        b"Connection: Transfer-Encoding, close",
        method=b"PUT",
        body=chunks,
    )

    assert b"Transfer-Encoding: chunked" in lines


def test_b03_hop_by_hop_lines_end_here(stage: Stage) -> None:
    """Those of RFC 9110 section 7.6.1, and what Connection lists, in all its lines."""
    lines = sent_up(
        stage,
        b"TE: trailers",
        b"Trailer: X",
        b"Keep-Alive: timeout=5",
        b"Proxy-Authorization: Basic YTpi",
        b"Proxy-Authenticate: Basic",
        b"Proxy-Connection: keep-alive",
        b"Upgrade: h2c",
        b"X-A: 1",
        b"X-B: 1",
        b"X-C: 1",
        b"Connection: close, x-a",
        b"connection: keep-alive,, X-B",
    )

    assert lines == [*START, b"X-C: 1", *own(stage)]


FORGED = [
    *(b"X-Forwarded-For", b"X-Forwarded-Host", b"X-Forwarded-Proto", b"X-Forwarded-Port"),
    *(b"X-Forwarded-Prefix", b"X-Forwarded-Uri", b"X-Forwarded-User", b"X-Forwarded-Server"),
    *(b"Forwarded", b"X-Real-IP", b"X-Remote-User", b"Remote-User", b"X-Original-URL"),
    *(b"X-Rewrite-URL", b"Via"),
]
DOUBLES = [
    *(b"X_Forwarded_User", b"X-Forwarded_For", b"x.forwarded.user", b"X_Real_IP"),
    *(b"Content_Length", b"Transfer_Encoding"),
]
OVERRIDES = [b"X-HTTP-Method-Override", b"X-HTTP-Method", b"X-Method-Override"]


def test_b04_b05_b06_what_a_client_says_of_itself_is_dropped(stage: Stage) -> None:
    """In any case, by any double of a name, once or three times: one line each goes up, ours."""
    forged = [
        change(name) + b": evil"
        for name in (*FORGED, *DOUBLES)
        for change in (bytes, bytes.lower, bytes.upper)
    ]

    assert sent_up(stage, CLOSE, *forged[:45]) == [*START, *own(stage)]
    assert sent_up(stage, CLOSE, *forged[45:]) == [*START, *own(stage)]


@pytest.mark.parametrize("query", [b"", b"?_method=DELETE"])
def test_b08_the_method_is_the_one_of_the_request_line(stage: Stage, query: bytes) -> None:
    """Whatever else a field or a query asks for."""
    lines = [name + b": DELETE" for name in OVERRIDES]
    (answer,) = stage.ask(head(CLOSE, *lines, method=b"GET", target=TARGET + query))

    assert answer.status == 200
    (asked,) = stage.recorder.requests
    assert (asked.method, asked.target) == (b"GET", TARGET + query)
    assert b"override" not in stage.recorder.received.lower()


def test_b08_a_reader_gets_nothing_deleted_by_an_override(stage: Stage) -> None:
    """The other way round: a DELETE that calls itself GET is a DELETE."""
    reader = head(CLOSE, b"X-HTTP-Method-Override: GET", method=b"DELETE").replace(
        CREDENTIAL, b"Authorization: " + basic(stage.guard.ground.reader)
    )
    (answer,) = stage.ask(reader)

    assert answer.status == 403
    assert bytes(stage.recorder.received) == b""


def test_b09_the_credential_does_not_go_up(stage: Stage) -> None:
    """In no spelling of its name."""
    sent_up(stage, CLOSE, b"Proxy-Authorization: Basic YTpi")

    assert b"uthorization" not in stage.recorder.received
    assert b"Basic" not in stage.recorder.received


@pytest.mark.parametrize("status", [b"401 Unauthorized", b"407 Proxy Authentication Required"])
def test_b09_d23_a_challenge_of_the_registry_does_not_come_down(
    stage: Stage, status: bytes
) -> None:
    """It would send a client's password to whom it names: 502 instead."""
    stage.recorder.answer = lambda asked: (
        b"HTTP/1.1 " + status + b'\r\nWWW-Authenticate: Bearer realm="https://evil/"\r\n'
        b'Proxy-Authenticate: Basic realm="evil"\r\nContent-Length: 4\r\n\r\nevil'
    )
    received = stage.talk(stage.as_pusher(head(CLOSE, method=b"GET")))

    assert received.startswith(b"HTTP/1.1 502 ")
    assert b"evil" not in received
    assert b"authenticate" not in received.lower()


def test_b03_b09_b10_what_comes_down(stage: Stage) -> None:
    """Everything that clients act on, as it is; nothing that belongs to the connection."""
    kept = [
        b"Docker-Content-Digest: sha256:" + b"0" * 64,
        b"Docker-Upload-UUID: 12345678-1234-1234-1234-123456789012",
        b"Range: 0-1023",
        b"Content-Range: bytes 0-1/2",
        b"OCI-Subject: sha256:" + b"1" * 64,
        b"OCI-Filters-Applied: artifactType",
        b'ETag: "e"',
        b"Content-Type: application/vnd.oci.image.manifest.v1+json",
        b'Warning: 299 - "old"',
        b"X-Content-Type-Options: nosniff",
    ]
    dropped = [
        b"Keep-Alive: timeout=5",
        b"Proxy-Authenticate: Basic",
        b"WWW-Authenticate: Basic",
        b"Trailer: X",
        b"Upgrade: h2c",
        b"X-Private: 1",
        b"Connection: keep-alive, X-Private",
        b"Docker-Distribution-Api-Version: registry/2.0",
    ]
    stage.recorder.answer = lambda asked: b"\r\n".join(
        [
            b"HTTP/1.1 206 Partial Content",
            *kept,
            *dropped,
            b"Location: %s/v2/team/app/blobs/uploads/1?_state=x" % stage.recorder.url.encode(),
            b'Link: <%s/v2/team/app/tags/list?last=b&n=1>; rel="next"'
            % stage.recorder.url.encode(),
            b"Content-Length: 2",
            b"",
            b"ok",
        ]
    )
    received = stage.talk(stage.as_pusher(head(CLOSE, method=b"GET")))

    lines, _, body = received.partition(b"\r\n\r\n")
    assert body == b"ok"
    assert lines.split(b"\r\n") == [
        b"HTTP/1.1 206 Partial Content",
        b"Docker-Distribution-Api-Version: registry/2.0",
        *kept,
        b"Location: /v2/team/app/blobs/uploads/1?_state=x",
        b'Link: </v2/team/app/tags/list?last=b&n=1>; rel="next"',
        b"Content-Length: 2",
        b"Connection: close",
    ]


def test_b10_what_goes_up_as_it_is(stage: Stage) -> None:
    """Ranges, conditions, types, and twenty media types in lines of their own, in order."""
    kept = [
        *[b"Accept: application/vnd.test.%d+json" % number for number in range(20)],
        b"Range: bytes=5-",
        b'If-None-Match: "e"',
        b"Accept-Encoding: zstd, gzip",
        b"Content-Range: 0-4",
        b"Content-Type: application/vnd.oci.image.manifest.v1+json",
        b"OCI-Chunk-Min-Length: 1",
    ]
    lines = sent_up(stage, CLOSE, *kept, b"Content-Length: 2", method=b"PUT", body=b"{}")

    assert lines[2:] == [*kept, b"Content-Length: 2", *own(stage)]


def test_d02_d03_an_upload_is_never_a_form(stage: Stage) -> None:
    """distribution would read a mount out of the body."""
    body = b"mount=sha256:" + b"0" * 64 + b"&from=secret/repo"
    for kind in (b"application/x-www-form-urlencoded", b"multipart/form-data; boundary=b"):
        stage.recorder.forget()
        (answer,) = stage.ask(
            head(
                *(CLOSE, b"Content-Type: " + kind, b"Content-Length: %d" % len(body)),
                method=b"POST",
                target=b"/v2/team/app/blobs/uploads/",
            )
            + body
        )
        (asked,) = stage.recorder.requests
        assert asked.all("Content-Type") == [b"application/octet-stream"]
        assert asked.body == body
        assert answer.status == 200


def test_two_users_on_one_upstream_connection_are_two(stage: Stage) -> None:
    """What goes up names the user of the request, not of the connection."""
    reader = head(method=b"GET").replace(
        CREDENTIAL, b"Authorization: " + basic(stage.guard.ground.reader)
    )
    stage.ask(reader + head(CLOSE, method=b"GET", target=SECRET))

    assert [asked.all("X-Forwarded-User") for asked in stage.recorder.requests] == [
        [stage.guard.ground.reader[0].encode()],
        [stage.guard.ground.pusher[0].encode()],
    ]
