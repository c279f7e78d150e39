"""Group F of the cases: what a daemon's logs and answers say when somebody wants them to say more.

That no password is in them is searched for in all tests (``tests/canary.py``, ``test_canary.py``).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import bcrypt
import pytest

from tests.canary import secret
from tests.e2e.clients import curl
from tests.e2e.conftest import BCRYPT_COST
from tests.e2e.programs import FAULTS, PATIENCE, Ground, Guard, accepts, free_port, twist
from tests.e2e.recorder import Recorder
from tests.e2e.stage import Stage, basic, staging
from tests.front.wire import replies
from tests.malformed import AUTHORIZATION, CREDENTIAL, TARGET, head

CLOSE = b"Connection: close"
RIGHT_TO_LEFT = "\u202e"
ODD = f'x"\\<b>\x1b[2J{RIGHT_TO_LEFT}'
"""What terminals, browsers and parsers of logs would act on."""
NAME = 'mark-name"\\<b>\u00e9'
"""A user's: no control or format character comes into a password file."""


def log_of(stage: Stage) -> bytes:
    """All that the guard wrote."""
    return stage.guard.program.log.read_bytes()


def lines_with(stage: Stage, mark: str) -> list[bytes]:
    """The log lines that hold ``mark``, as soon as there is one."""
    stage.guard.wait_for_line(mark)
    return [line for line in log_of(stage).splitlines() if mark.encode() in line]


@pytest.fixture(params=["text", "json"])
def logging(request: pytest.FixtureRequest, ground: Ground, tmp_path: Path) -> Iterator[Stage]:
    """A guard with a user of an odd name, in both formats of the daemon's log."""
    htpasswd = tmp_path / "htpasswd"
    hashed = bcrypt.hashpw(secret("odd").encode(), bcrypt.gensalt(BCRYPT_COST)).decode()
    htpasswd.write_text(ground.htpasswd.read_text() + f"{NAME}:{hashed}\n")
    htpasswd.chmod(0o600)
    words = ("--auth", f"htpasswd:{htpasswd}", "--throttle", "off")
    with staging(ground, tmp_path / "guard", *words, log_format=request.param) as stage:
        yield stage
        stage.check()


def test_f02_what_a_client_sends_is_one_escaped_bounded_line(logging: Stage) -> None:
    """User, agent, referer and path: ASCII, no quote or control octet of a client's, bounded."""
    agent = b'mark-agent"\\' + RIGHT_TO_LEFT.encode() + b"\t<b>" + b"a" * 16_000
    (answer,) = logging.ask(
        head(
            *(CLOSE, b"User-Agent: " + agent, b'Referer: mark-referer\t"'),
            method=b"GET",
            target=TARGET + b"?mark-target=" + b"t" * 14_000,
        )
    )
    assert answer.status == 200

    (line,) = lines_with(logging, "mark-agent")
    assert line.isascii()
    assert not re.search(rb"[\x00-\x1f\x7f]", line)
    assert len(line) < 3 * 2048 + 500
    for mark in (b"mark-referer", b"mark-target", rb"\xe2\x80\xae"):
        assert line.count(mark) == 1
    quoted = re.findall(rb'(?<!\\)"((?:[^"\\]|\\.)*)"', line)
    assert len(quoted) == 3


def test_f02_names_are_one_word_whoever_claims_them(logging: Stage) -> None:
    """A user with an odd name, and people who claim odder ones: one line each, in ASCII."""
    user = basic((NAME, secret("odd")))
    (answer,) = logging.ask(head(CLOSE, method=b"GET").replace(AUTHORIZATION, user))
    assert answer.status == 200
    line = logging.guard.wait_for_line("mark-name", "GET /v2/")
    assert line.isascii()
    assert re.match(r"127\.0\.0\.1 - mark-name\S* \[\d\d/", line)

    before = log_of(logging).count(b"\n")
    claims = ["mark-claim\r\n127.0.0.1 - root [", f"mark-claim{ODD}", "mark-claim" + "n" * 9000]
    for claim in claims:
        wrong = basic((claim, secret("wrong")))
        (answer,) = logging.ask(head(CLOSE, method=b"GET").replace(AUTHORIZATION, wrong))
        assert answer.status == 401
    (answer,) = logging.ask(head(CLOSE, method=b"GET", target=TARGET + b"?mark-last"))
    logging.guard.wait_for_line("mark-last")
    new = log_of(logging).splitlines()[before:]
    assert all(line.isascii() for line in new)
    assert not any(re.search(rb"[\x00-\x09\x0b-\x1d\x1f\x7f]", line) for line in new)
    assert not any(line.startswith(b"127.0.0.1 - root") for line in new)
    assert max(map(len, new)) < 4096


def test_f03_a26_secrets_in_urls_are_not_logged(logging: Stage) -> None:
    """Who has an upload's signed state can go on with the upload."""
    state, token, password = (secret(f"f03-{kind}") for kind in ("state", "token", "userinfo"))
    upload = b"/v2/team/app/blobs/uploads/12345678-1234-1234-1234-123456789012"
    (answer,) = logging.ask(
        head(
            *(CLOSE, f"Referer: https://u:{password}@mark-f03/?access_token={token}".encode()),
            *(b"Content-Length: 0",),
            method=b"PATCH",
            target=upload + f"?_state={state}&access_token={token}".encode(),
        )
    )
    assert answer.status == 200
    (asked,) = logging.recorder.requests
    assert state.encode() in asked.target
    # It has to go up; the search over all that went up is for passwords.
    logging.recorder.received.clear()

    (line,) = lines_with(logging, "mark-f03")
    assert b"_state=..." in line
    assert b"access_token=..." in line
    # A26: a URL as the target is refused, and logged without its password.
    url = f"http://u:{password}@h/mark-url".encode()
    (answer,) = logging.ask(head(CLOSE, method=b"GET", target=url))
    assert answer.status == 400
    assert "//...@h/mark-url" in logging.guard.wait_for_line("mark-url")
    assert b"f03-" not in log_of(logging).replace(b"mark-f03", b"")


SCRIPT = b"<script>alert(1)</script>"


@pytest.mark.parametrize(
    ("octets", "status"),
    [
        (head(CLOSE, method=b"GET", target=b"/v2/" + SCRIPT + b"/manifests/v1"), 400),
        (head(CLOSE, method=b"GET", target=b"/" + SCRIPT), 400),
        (head(CLOSE, method=b"GET", target=b"/v2/a/manifests/v1?" + SCRIPT), 400),
        (head(CLOSE, method=b"GET", target=b"/v2/_catalog?n=" + SCRIPT), 400),
        (head(CLOSE, method=b"GET", host=(b"Host: " + SCRIPT,)), 400),
        (head(CLOSE, SCRIPT, method=b"GET"), 400),
        (head(CLOSE, start=SCRIPT + b" / HTTP/1.1"), 400),
        (head(CLOSE, b"Expect: " + SCRIPT, b"Content-Length: 1"), 417),
        (head(CLOSE, method=b"GET", target=b"/script"), 404),
        (head(CLOSE, method=b"TRACE", target=b"/v2/"), 405),
        (head(CLOSE, method=b"GET").replace(CREDENTIAL, b"Authorization: " + SCRIPT), 401),
    ],
)
def test_f04_a_refusal_is_json_and_reflects_nothing(
    stage: Stage, octets: bytes, status: int
) -> None:
    """Whatever a browser makes of it, it is not what somebody had put into the request."""
    (answer,) = stage.ask(octets)

    assert answer.status == status
    assert answer["Content-Type"] == [b"application/json"]
    assert answer["X-Content-Type-Options"] == [b"nosniff"]
    assert b"<" not in answer.body
    assert json.loads(answer.body)["errors"]
    assert not any(b"script>" in value for _, value in answer.fields)


def test_f04_a_denial_names_the_user_in_json(ground: Ground, tmp_path: Path) -> None:
    """A name may hold anything; in JSON of ASCII it is text and nothing else."""
    htpasswd = tmp_path / "htpasswd"
    pair = ('<img src=x>"\u00e9', secret("odd"))
    hashed = bcrypt.hashpw(pair[1].encode(), bcrypt.gensalt(BCRYPT_COST)).decode()
    htpasswd.write_text(f"{pair[0]}:{hashed}\n")
    htpasswd.chmod(0o600)
    with staging(ground, tmp_path / "guard", "--auth", f"htpasswd:{htpasswd}") as stage:
        octets = head(CLOSE, b"Content-Length: 0").replace(AUTHORIZATION, basic(pair))
        (answer,) = stage.ask(octets)

    assert answer.status == 403
    assert answer["Content-Type"] == [b"application/json"]
    assert answer["X-Content-Type-Options"] == [b"nosniff"]
    assert answer.body.isascii()
    assert pair[0] in json.loads(answer.body)["errors"][0]["message"]


def test_f05_a_full_disk_under_the_access_log_stops_nobody(ground: Ground, tmp_path: Path) -> None:
    """Requests go on; the lines are lost."""
    config = tmp_path / "regguard.toml"
    config.write_text('access-log = "/dev/full"')
    with staging(ground, tmp_path / "guard", "--config", str(config)) as stage:
        for _ in range(20):
            (answer,) = stage.ask(head(CLOSE, method=b"GET"))
            assert answer.status == 200


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_the_journal_gets_printable_lines_with_priorities(
    ground: Ground, tmp_path: Path, log_format: str
) -> None:
    """As under systemd, which names the stream: no line without, and none without end."""
    folder = tmp_path / "guard"
    folder.mkdir()
    journal = folder / "guard.log"
    journal.touch()
    status = journal.stat()
    environment = {**os.environ, "JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
    access_log = ("--access-log", str(tmp_path / "access.log"))
    gone = f"http://127.0.0.1:{free_port()}"
    guard = Guard(ground, folder, gone, *access_log, log_format=log_format, environment=environment)
    assert curl(guard, "/v2/", credentials=ground.as_reader).status == 502
    assert curl(guard, "/v2/", credentials=f"testuser:{secret('wrong')}").status == 401
    down = guard.wait_for_line("Connection refused")
    refused = guard.wait_for_line("wrong user name or password")
    guard.stop()
    lines = journal.read_text().splitlines()

    assert [line[:3] for line in (down, refused)] == ["<4>", "<6>"]
    for line in lines:
        assert line.isprintable()
        if log_format == "json":
            assert re.match("<[2-7]>", line)
            json.loads(line[3:])
        else:
            assert re.match(r"<[2-7]>\[", line)


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_f05_an_output_that_nobody_reads_stops_nobody(
    ground: Ground, tmp_path: Path, log_format: str
) -> None:
    """journald stands still, or a shipper does: the pipe is full, and requests go on.

    Both the access log and the daemon's own words go there; a refused log-in is one of these.
    """
    port = free_port()
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    with Recorder() as recorder, contextlib.ExitStack() as stack:
        stack.callback(os.close, reading)
        process = subprocess.Popen(
            twist(
                *("--listen", f"tcp:{port}:interface=127.0.0.1", "--no-tls"),
                *("--upstream", recorder.url, "--throttle", "off"),
                *("--htpasswd", str(ground.htpasswd), "--groups", str(ground.groups)),
                log_format=log_format,
            ),
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            stdout=writing,
            stderr=writing,
        )
        os.close(writing)
        stack.callback(process.wait, PATIENCE)
        stack.callback(process.kill)
        while not accepts(port):
            assert process.poll() is None
        stage = OutOfSight(port, ground)
        for number in range(60):
            assert stage.status(basic(ground.pusher)) == 200
            wrong = (f"f05-{number}", secret("wrong"))
            assert stage.status(basic(wrong)) == 401
        assert process.poll() is None
        assert not FAULTS.search(os.read(reading, 1 << 20).decode())


class OutOfSight:
    """A guard whose output nobody can read."""

    def __init__(self, port: int, ground: Ground) -> None:
        self._port = port
        self._ground = ground

    def status(self, credential: bytes) -> int:
        """What a request with this credential is answered."""
        with socket.create_connection(("127.0.0.1", self._port), 8) as connection:
            connection.sendall(head(CLOSE, method=b"GET").replace(AUTHORIZATION, credential))
            received = b""
            while octets := connection.recv(65536):
                received += octets
        (answer,) = replies(received)
        return answer.status
