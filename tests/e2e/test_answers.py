"""regguard's own answers on the wire, and how early they come."""

from __future__ import annotations

import base64
import json
import re
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.canary import CANARY, secret
from tests.e2e.clients import CALL_SECONDS, curl
from tests.e2e.programs import Ground, Guard, StartGuard, binary
from tests.e2e.recorder import Recorder

GIBIBYTE = 1 << 30


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    """An upstream that remembers every byte."""
    with Recorder() as recorder:
        yield recorder


def upload_head(credentials: str, length: int, *lines: str) -> bytes:
    """The head of a PATCH of ``length`` bytes."""
    token = base64.b64encode(credentials.encode()).decode()
    return "\r\n".join(
        [
            "PATCH /v2/team/app/blobs/uploads/12345678-1234-1234-1234-123456789012 HTTP/1.1",
            "Host: localhost",
            f"Authorization: Basic {token}",
            f"Content-Length: {length}",
            *lines,
            "\r\n",
        ]
    ).encode()


def read_head(connection: ssl.SSLSocket) -> str:
    """Read up to the end of the next head; what came, as text."""
    received = b""
    while b"\r\n\r\n" not in received:
        chunk = connection.recv(65536)
        assert chunk, f"closed after {received!r}"
        received += chunk
    return received.decode()


CREDENTIALS = [
    pytest.param(f"testuser:{secret('wrong')}", 401, "UNAUTHORIZED", id="wrong-password"),
    pytest.param(":".join(Ground.reader), 403, "DENIED", id="reader"),
]


def test_d24_no_credentials(guard: Guard) -> None:
    """401 with one challenge, the registry's JSON, and each header exactly once."""
    answer = curl(guard, "/v2/")

    assert answer.status == 401
    assert answer.headers("WWW-Authenticate") == ['Basic realm="Registry", charset="UTF-8"']
    assert answer.headers("Docker-Distribution-Api-Version") == ["registry/2.0"]
    assert answer.headers("Content-Type") == ["application/json"]
    assert answer.headers("X-Content-Type-Options") == ["nosniff"]
    assert answer.headers("Content-Length") == [str(len(answer.body))]
    (error,) = json.loads(answer.body)["errors"]
    assert error["code"] == "UNAUTHORIZED"
    assert error["message"]


def test_d24_the_same_bytes_for_what_exists_and_what_does_not(guard: Guard) -> None:
    """Without credentials nobody learns which repositories there are."""
    target = "/v2/team/known/blobs/uploads/"
    started = curl(guard, target, "--request", "POST", credentials=guard.ground.as_pusher)
    assert started.status == 202

    seen = {
        (answer.status, tuple(sorted(_undated(answer.header_lines))), answer.body)
        for answer in (
            curl(guard, "/v2/team/known/tags/list"),
            curl(guard, "/v2/team/unknown/tags/list"),
            curl(guard, "/v2/"),
        )
    }
    assert len(seen) == 1


def _undated(lines: tuple[str, ...]) -> list[str]:
    return [line for line in lines if not line.lower().startswith("date:")]


def test_api_version_stands_once_on_relayed_answers(guard: Guard) -> None:
    """The registry sends it already; it is not doubled."""
    answer = curl(guard, "/v2/", credentials=guard.ground.as_reader)

    assert answer.headers("Docker-Distribution-Api-Version") == ["registry/2.0"]


def test_head_answers_like_get_without_a_body(guard: Guard) -> None:
    """HEAD: the same status and headers, and nothing after them."""
    got = curl(guard, "/v2/")
    headed = curl(guard, "/v2/", "--head")

    assert (headed.status, headed.body) == (401, "")
    assert _undated(headed.header_lines) == _undated(got.header_lines)


@pytest.mark.parametrize("expect", [(), ("Expect: 100-continue",)], ids=["plain", "expect"])
@pytest.mark.parametrize(("credentials", "status", "code"), CREDENTIALS)
def test_d10_a23_refused_before_the_body(
    start_guard: StartGuard,
    recorder: Recorder,
    credentials: str,
    status: int,
    code: str,
    expect: tuple[str, ...],
) -> None:
    """A refusal of 1 GiB comes before its first byte is sent, and the registry hears nothing."""
    guard = start_guard(recorder.url)
    with guard.connection() as connection:
        connection.sendall(upload_head(credentials, GIBIBYTE, *expect))
        answer = read_head(connection)

    assert answer.startswith(f"HTTP/1.1 {status} ")
    assert "100 Continue" not in answer
    assert code in answer
    assert bytes(recorder.received) == b""


@pytest.mark.parametrize(("credentials", "status", "code"), CREDENTIALS)
def test_e19_refusal_reaches_a_client_that_goes_on_sending(
    start_guard: StartGuard,
    recorder: Recorder,
    tmp_path: Path,
    credentials: str,
    status: int,
    code: str,
) -> None:
    """curl, told not to wait, sends at once: it hears the refusal all the same, and stops."""
    guard = start_guard(recorder.url)
    sparse = tmp_path / "sparse"
    with sparse.open("wb") as file:
        file.truncate(GIBIBYTE)
    done = subprocess.run(
        [
            *(binary("curl"), "--silent", "--include", "--http1.1", "--header", "Expect:"),
            *("--cacert", str(guard.ground.ca), "--user", credentials),
            *("--request", "PATCH", "--upload-file", str(sparse)),
            f"{guard.url}/v2/team/app/blobs/uploads/12345678-1234-1234-1234-123456789012",
        ],
        capture_output=True,
        timeout=CALL_SECONDS,
        check=False,
        text=True,
    )

    assert done.stdout.startswith(f"HTTP/1.1 {status} ")
    assert code in done.stdout
    assert bytes(recorder.received) == b""


def test_a23_continue_comes_after_authorization(
    start_guard: StartGuard, recorder: Recorder, ground: Ground
) -> None:
    """Who may push gets 100 Continue, and then the body goes on to the registry."""
    guard = start_guard(recorder.url)
    with guard.connection() as connection:
        connection.sendall(upload_head(ground.as_pusher, 5, "Expect: 100-continue"))
        assert read_head(connection).startswith("HTTP/1.1 100 ")
        connection.sendall(b"hello")
        assert read_head(connection).startswith("HTTP/1.1 200 ")

    assert bytes(recorder.received).endswith(b"\r\n\r\nhello")
    assert recorder.received.lower().count(b"x-forwarded-user: testuserpush\r\n") == 1
    for word in (b"authorization", CANARY.encode(), b"expect"):
        assert word not in recorder.received.lower()


def test_f01_access_log_names_the_user_and_no_password(guard: Guard) -> None:
    """One line in Apache's combined format for each request, with the user who was verified."""
    curl(
        guard,
        "/v2/team/logged/tags/list",
        *("--user-agent", "a-test/1.0"),
        credentials=guard.ground.as_reader,
    )
    line = guard.wait_for_line("/v2/team/logged/tags/list")

    combined = (
        r"127\.0\.0\.1 - testuser \[\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\] "
        r'"GET /v2/team/logged/tags/list HTTP/1\.1" 404 \d+ "-" "a-test/1\.0"'
    )
    assert re.search(combined, line), line
    assert CANARY not in guard.program.output()


def test_plain_http_on_the_tls_port_is_closed_at_once(guard: Guard) -> None:
    """G04: no TLS, no answer, no traceback."""
    with socket.create_connection(("127.0.0.1", guard.port), 5) as plain:
        plain.sendall(b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\n\r\n")
        while chunk := plain.recv(65536):
            assert b"HTTP/1.1 2" not in chunk


@pytest.mark.parametrize(
    "target",
    ["/v2/secret%2Frepo/tags/list", "/v2/a/../secret/tags/list", "//v2/", "/v2/a//tags/list"],
)
def test_c_target_that_is_not_canonical_is_refused(
    start_guard: StartGuard, recorder: Recorder, ground: Ground, target: str
) -> None:
    """C01, C04, C05: 400 NAME_INVALID, and nothing goes upstream."""
    guard = start_guard(recorder.url)
    answer = curl(guard, target, "--path-as-is", credentials=ground.as_pusher)

    assert answer.status == 400
    assert json.loads(answer.body)["errors"][0]["code"] == "NAME_INVALID"
    assert bytes(recorder.received) == b""
