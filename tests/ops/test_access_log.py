"""regguard.ops.access_log: Apache's formats, byte for byte, and never in anybody's way."""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Iterator

import pytest
from twisted.internet.task import Clock

from regguard.ops import AccessLog
from regguard.ops.access_log import FLUSH_DELAY, FLUSH_LINES
from regguard.ops.apache_format import APACHE_FORMATS
from regguard.ops.texts import MAX_TEXT
from tests.ops.requests import PIPE_BUF, Request, head

# Apache: LogFormat "%h %l %u %t \"%r\" %>s %b", what its docs say that combined and combinedio
# add, and its escapes (ap_escape_logitem of server/util.c).
ESCAPED = r'(?:[ !#-\[\]-~]|\\["\\bnrtv]|\\x[0-9a-f]{2})*'
LINE = re.compile(
    r"(?P<host>\S+) (?P<incident>-|[0-9a-f]+) "
    r"(?P<user>(?:[!#-\[\]-~]|\\[\"\\bnrtv]|\\x[0-9a-f]{2})+) "
    r"\[(?P<time>\d\d/(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)/\d{4}"
    r":\d\d:\d\d:\d\d [+-]\d{4})\] "
    rf'"(?P<request>{ESCAPED})" (?P<status>\d{{3}}) (?P<octets>-|[1-9]\d*)'
    rf'(?: "(?P<referer>{ESCAPED})" "(?P<agent>{ESCAPED})")?'
    r"(?: (?P<octets_in>\d+) (?P<octets_out>\d+))?\n"
)
# 2026-10-07 21:46:40 in UTC
NOW = 1_791_409_600.9


def parse(line: bytes) -> dict[str, str]:
    """A line by Apache's definition; there must be exactly one."""
    match = LINE.fullmatch(line.decode("ascii"))
    assert match is not None, line
    return match.groupdict()


@pytest.fixture
def _utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    yield from zone("UTC", monkeypatch)


def zone(name: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Live in a time zone."""
    monkeypatch.setenv("TZ", name)
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def logged(request: Request, log_format: str = "combined", now: float = NOW) -> bytes:
    """The line of one request."""
    lines: list[bytes] = []
    log = AccessLog(lines.append, Clock(), lambda: now, log_format)
    log.log(request)
    log.flush()
    [line] = lines
    return line


FULL = Request(
    head(b"Referer: http://a/b", b"User-Agent: docker/20.10 (linux)", target=b"/v2/a/tags/list"),
    user_name="alice",
    head_bytes_in=300,
    body_bytes_in=40,
    head_bytes_out=200,
    body_bytes_out=5,
)
COMMON = b'192.0.2.7 - alice [07/Oct/2026:21:46:40 +0000] "GET /v2/a/tags/list HTTP/1.1" 200 5'
COMBINED = COMMON + b' "http://a/b" "docker/20.10 (linux)"'


@pytest.mark.usefixtures("_utc")
@pytest.mark.parametrize(
    ("log_format", "line"),
    [("common", COMMON), ("combined", COMBINED), ("combinedio", COMBINED + b" 340 205")],
)
def test_the_formats_are_apaches(log_format: str, line: bytes) -> None:
    """Byte for byte, so that whatever reads Apache's logs reads ours."""
    assert logged(FULL, log_format) == line + b"\n"


@pytest.mark.parametrize("log_format", APACHE_FORMATS)
def test_what_is_not_there_is_a_dash(log_format: str) -> None:
    """No user, no octets, no referer, no agent."""
    line = parse(logged(Request(head()), log_format))

    assert line["incident"] == line["user"] == line["octets"] == "-"
    assert line["request"] == "GET /v2/ HTTP/1.1"
    assert line["referer"] == line["agent"] == (None if log_format == "common" else "-")


@pytest.mark.parametrize("log_format", APACHE_FORMATS)
def test_a_denial_has_its_incident_where_identd_had_its_say(log_format: str) -> None:
    """The one field that nobody uses: whatever reads Apache's logs reads on."""
    request = dataclasses.replace(FULL, incident="00c0ffee", status=403)
    line = logged(request, log_format)

    assert parse(line)["incident"] == "00c0ffee"
    assert line.replace(b" 00c0ffee ", b" - ") == logged(
        dataclasses.replace(request, incident=None), log_format
    )


def test_an_empty_agent_is_empty() -> None:
    """There and empty is no dash, as Apache has it."""
    line = parse(logged(Request(head(b"User-Agent:", b"Referer: "))))

    assert (line["agent"], line["referer"]) == ("", "")


def test_a_request_without_a_head_is_a_dash() -> None:
    """Nobody could say what it wanted; nothing of it is shown."""
    line = parse(logged(Request(None, status=400, body_bytes_out=9), "combinedio"))

    assert (line["request"], line["status"], line["octets"]) == ("-", "400", "9")
    assert (line["referer"], line["agent"]) == ("-", "-")


def test_a_client_that_left_before_its_answer_is_499() -> None:
    """As nginx has it."""
    assert parse(logged(Request(head(), status=0)))["status"] == "499"


def test_the_version_of_http_is_the_clients() -> None:
    """1.0 stays 1.0."""
    assert parse(logged(Request(head(version=b"1.0"))))["request"] == "GET /v2/ HTTP/1.0"


@pytest.mark.parametrize(
    ("name", "stamp"),
    [
        ("UTC", "07/Oct/2026:21:46:40 +0000"),
        ("Asia/Kolkata", "08/Oct/2026:03:16:40 +0530"),
        ("America/New_York", "07/Oct/2026:17:46:40 -0400"),
    ],
)
def test_the_time_is_local_with_its_offset(
    name: str, stamp: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Apache's %t."""
    for _ in zone(name, monkeypatch):
        assert parse(logged(FULL))["time"] == stamp


def test_the_time_goes_on() -> None:
    """It is made once a second, and no less often."""
    lines: list[bytes] = []
    now = [NOW]
    log = AccessLog(lines.append, Clock(), lambda: now[0])
    for _ in range(3):
        log.log(FULL)
        now[0] += 0.6
    log.flush()

    times = [parse(line)["time"][-8:-6] for line in lines[0].splitlines(keepends=True)]
    assert times == ["40", "41", "42"]


@pytest.mark.parametrize("client", ["2001:db8::1", "fe80::1%eth0", "unix:"])
def test_any_kind_of_client_has_an_address(client: str) -> None:
    """IPv6, zones and UNIX sockets."""
    assert parse(logged(Request(head(), client=client)))["host"] == client


# -- F02: one escaped, bounded line ----------------------------------------------------------


@pytest.mark.parametrize(
    ("agent", "shown"),
    [
        (b'a"b', r"a\"b"),
        (b"a\\b", r"a\\b"),
        (b"a\tb", r"a\tb"),
        (b'\\" 200 5', r"\\\" 200 5"),
        ("a\u202eb".encode(), r"a\xe2\x80\xaeb"),
        ("ü".encode("latin-1"), r"\xfc"),
        (b"x" * 16_384, "x" * MAX_TEXT),
        (b"\xff" * 16_384, r"\xff" * (MAX_TEXT // 4)),
    ],
)
def test_f02_an_agent_is_escaped_and_bounded(agent: bytes, shown: str) -> None:
    """As ap_escape_logitem does it."""
    assert parse(logged(Request(head(b"User-Agent: " + agent))))["agent"] == shown
    assert parse(logged(Request(head(b"Referer: " + agent))))["referer"] == shown


@pytest.mark.parametrize(
    ("octets", "shown"),
    [
        (b"a\r\nb", r"a\r\nb"),
        (b"\x1b[2J", r"\x1b[2J"),
        (b"\b\v\f\0\x7f", r"\b\v\x0c\x00\x7f"),
        (bytes(range(0x80, 0x84)), r"\x80\x81\x82\x83"),
    ],
)
def test_f02_octets_that_no_head_lets_through_are_escaped_all_the_same(
    octets: bytes, shown: str
) -> None:
    """The log does not lean on the parser."""
    request = Request(head())
    assert request.head is not None
    request.head.user_agent = request.head.referer = octets
    request.head.target = b"/" + octets
    line = parse(logged(request))

    assert line["agent"] == line["referer"] == shown
    assert line["request"] == f"GET /{shown} HTTP/1.1"


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a b", r"a\x20b"),
        ('a"b\\', r"a\"b\\"),
        ("a\r\nb", r"a\r\nb"),
        ("jürgen", r"j\xc3\xbcrgen"),
        ("\u202e", r"\xe2\x80\xae"),
        ("x" * 16_384, "x" * MAX_TEXT),
    ],
)
def test_f02_a_user_name_is_one_word(name: str, shown: str) -> None:
    """So that a name can't forge the fields behind it."""
    assert parse(logged(Request(head(), user_name=name)))["user"] == shown


def test_f02_a_target_is_bounded() -> None:
    """16 KiB may come in; a log line stays a line."""
    line = logged(Request(head(target=b"/" + b'"' * 16_000)), "combinedio")

    assert parse(line)["request"] == "GET /" + r"\"" * (MAX_TEXT // 2 - 1) + " HTTP/1.1"


@pytest.mark.parametrize("octets", [b"x", b"\xff", b'"', b"\xff" * 200 + b"x", b'x"'])
def test_f06_no_line_is_longer_than_a_pipe_takes_whole(octets: bytes) -> None:
    """Whoever may say something says as much as can be, of what costs most in a line."""
    long = octets * 16_384
    request = Request(
        head(b"User-Agent: " + long, b"Referer: " + long, target=b"/" + b'"' * 16_000),
        client="x" * 39 + "%" + "y" * 15,
        user_name=octets.decode("latin-1") * 5000,
        incident="f" * 8,
        **dict.fromkeys(
            ("head_bytes_in", "body_bytes_in", "head_bytes_out", "body_bytes_out"), 10**18
        ),
    )
    assert request.head is not None
    request.head.target = b"/" + long
    line = logged(request, "combinedio")

    parse(line)
    assert len(line) <= PIPE_BUF


# -- F03: secrets ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "shown"),
    [
        (b"/v2/a/blobs/uploads/1?_state=canary", "/v2/a/blobs/uploads/1?_state=..."),
        (b"/u?_state=canary&digest=sha256:1", "/u?_state=...&digest=sha256:1"),
        (b"/u?digest=sha256:1&_state=canary", "/u?digest=sha256:1&_state=..."),
        (b"/u?_state=canary&_state=canary", "/u?_state=...&_state=..."),
        (b"/u?a=1&access_token=canary", "/u?a=1&access_token=..."),
        (b"/u?my_state=shown", "/u?my_state=shown"),
        (b"http://u:canary@h/v2/", "http://...@h/v2/"),
        (b"http://u:canary@h@i/v2/", "http://...@i/v2/"),
        (b"http://u:canary@h", "http://...@h"),
        (b"//u:canary@h/?_state=canary", "//...@h/?_state=..."),
        (b"/v2/?x=@", "/v2/?x=@"),
        (b"/u?" + b"a" * 3000 + b"&_state=canary", "/u?" + "a" * (MAX_TEXT - 3)),
    ],
)
def test_f03_secrets_in_a_target_are_not_logged(target: bytes, shown: str) -> None:
    """The registry's upload state, tokens, and passwords in an absolute target."""
    line = parse(logged(Request(head(target=target))))

    assert line["request"] == f"GET {shown} HTTP/1.1"
    assert "canary" not in str(line)


def test_f03_secrets_in_a_referer_are_not_logged() -> None:
    """A page that was reached with a password in its address."""
    line = parse(logged(Request(head(b"Referer: https://u:canary@h/u?_state=canary"))))

    assert line["referer"] == "https://...@h/u?_state=..."


def test_f01_the_credential_is_not_logged() -> None:
    """Nor any field but the two."""
    assert b"canary" not in logged(
        Request(head(b"Authorization: Basic canary", b"Cookie: canary")), "combinedio"
    )


# -- batches ---------------------------------------------------------------------------------


def test_lines_wait_for_company() -> None:
    """One write for what comes within the delay; no timer stays behind."""
    batches: list[bytes] = []
    clock = Clock()
    log = AccessLog(batches.append, clock, lambda: NOW)
    for _ in range(3):
        log.log(FULL)
        clock.advance(FLUSH_DELAY / 4)
    assert batches == []
    clock.advance(FLUSH_DELAY / 4)

    assert [batch.count(b"\n") for batch in batches] == [3]
    assert clock.getDelayedCalls() == []
    log.log(FULL)
    clock.advance(FLUSH_DELAY)
    assert [batch.count(b"\n") for batch in batches] == [3, 1]


def test_many_lines_do_not_wait() -> None:
    """What waits is bounded."""
    batches: list[bytes] = []
    clock = Clock()
    log = AccessLog(batches.append, clock, lambda: NOW)
    for _ in range(2 * FLUSH_LINES + 1):
        log.log(FULL)

    assert [batch.count(b"\n") for batch in batches] == [FLUSH_LINES, FLUSH_LINES]
    log.flush()
    assert batches[2].count(b"\n") == 1
    assert clock.getDelayedCalls() == []


def test_flushing_nothing_writes_nothing() -> None:
    """And does no harm twice."""
    batches: list[bytes] = []
    log = AccessLog(batches.append, Clock(), lambda: NOW)
    log.flush()
    log.flush()

    assert batches == []


def test_an_unknown_format_is_refused() -> None:
    """Whoever composes the parts made a mistake."""
    with pytest.raises(ValueError, match="fancy"):
        AccessLog(lambda _: None, Clock(), log_format="fancy")
