"""The formats of Apache, beside Apache itself; and what programs that read them make of ours."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.programs import PATIENCE, Ground, Program, accepts, binary, free_port
from tests.e2e.recorder import Recorder
from tests.e2e.stage import basic, read_to_end, staging
from tests.malformed import AUTHORIZATION, head

APACHE = "/usr/sbin/apache2"
MODULES = "mpm_event authn_anon authn_core authz_user authz_core auth_basic proxy proxy_http"
# As Apache's documentation defines them (mod_log_config, mod_logio).
LOG_FORMATS = {
    "common": r"%h %l %u %t \"%r\" %>s %b",
    "combined": r"%h %l %u %t \"%r\" %>s %b \"%{Referer}i\" \"%{User-Agent}i\"",
    "combinedio": r"%h %l %u %t \"%r\" %>s %b \"%{Referer}i\" \"%{User-Agent}i\" %I %O",
}

CLOSE = b"Connection: close"
UPLOAD = b"/v2/team/app/blobs/uploads/"
ASKED = [
    head(CLOSE, method=b"GET"),
    head(CLOSE, method=b"HEAD"),
    head(CLOSE, method=b"GET", version=b"HTTP/1.0"),
    head(CLOSE, method=b"GET", target=b"/v2/?a=%22%5C&b=~!$'()*"),
    head(
        CLOSE, method=b"POST", target=UPLOAD + b"?digest=x", host=(b"Host: a", b"Content-Length: 0")
    ),
    head(CLOSE, b"Content-Length: 5", method=b"PATCH", target=UPLOAD + b"1") + b"12345",
    *(
        head(CLOSE, b"User-Agent: " + value, b"Referer: " + value, method=b"GET")
        for value in (
            b"docker/20.10.24 go/go1.19.8 UpstreamClient(Docker-Client/20.10.24 \\(linux\\))",
            b'a"b',
            b"a\\b\\",
            b"a\tb",
            b'\\" 200 5 "',
            "\u00fc \U0001f433 \u202e".encode(),
            bytes(range(0x80, 0x100)),
            b"",
            b"-",
        )
    ),
    # Nobody, and nothing but what must be.
    head(CLOSE, method=b"GET").replace(b"Authorization: " + AUTHORIZATION + b"\r\n", b""),
]
LINE = re.compile(
    r"(?P<host>\S+) (?P<identity>\S+) (?P<user>\S+) \[(?P<time>[^]]+)\] "
    r'(?P<request>"(?:[^"\\]|\\.)*") (?P<status>\d+) (?P<octets>\S+)'
    r'(?P<agents>(?: "(?:[^"\\]|\\.)*"){2})?(?: (?P<octets_in>\d+) (?P<octets_out>\d+))?'
)


class Apache:
    """Apache httpd in front of an upstream, with its three logs; whoever has a name may come in."""

    def __init__(self, folder: Path, upstream: str) -> None:
        folder.mkdir()
        self.port = free_port()
        self._folder = folder
        lines = [
            *(f"LoadModule {name}_module {_modules()}/mod_{name}.so" for name in MODULES.split()),
            # Built in on Debian.
            "<IfModule !logio_module>",
            f"LoadModule logio_module {_modules()}/mod_logio.so",
            "</IfModule>",
            f"PidFile {folder}/pid",
            f"DefaultRuntimeDir {folder}",
            "ServerName localhost",
            # Nobody, if it is root who starts it: files are opened before.
            "User #65534",
            "Group #65534",
            f"ErrorLog {folder}/error.log",
            f"Listen 127.0.0.1:{self.port}",
            *(f'LogFormat "{words}" {name}' for name, words in LOG_FORMATS.items()),
            *(f"CustomLog {folder}/{name}.log {name}" for name in LOG_FORMATS),
            f"ProxyPass / {upstream}/",
            "<Location />",
            "AuthType basic",
            "AuthName x",
            "AuthBasicProvider anon",
            "Anonymous *",
            "Anonymous_MustGiveEmail Off",
            "Anonymous_LogEmail Off",
            "Require valid-user",
            "</Location>",
        ]
        (folder / "httpd.conf").write_text("\n".join(lines) + "\n")
        self._program = Program(
            [APACHE, "-d", str(folder), "-f", str(folder / "httpd.conf"), "-DFOREGROUND"],
            folder / "output",
            folder,
        )
        self._program.wait_until("Apache to listen", lambda: accepts(self.port))

    def lines(self, name: str, number: int) -> list[str]:
        """A log, as soon as it has so many lines; looks whether it listens are in no log."""
        return wait_for_lines(self._program, self._folder / f"{name}.log", number)

    def stop(self) -> None:
        self._program.stop()


def _modules() -> Path:
    """Where the modules stand: Debian's place, or that of httpd's own build."""
    places = (Path("/usr/lib/apache2/modules"), Path("/usr/lib64/httpd/modules"))
    return next(place for place in places if place.is_dir())


def wait_for_lines(program: Program, log: Path, number: int) -> list[str]:
    """The lines of a log, as soon as there are so many."""
    program.wait_until("the access log", lambda: log.read_bytes().count(b"\n") >= number)
    return log.read_text("ascii").splitlines()


def ask(port: int, ground: Ground) -> None:
    """Send the requests, one after the other, each with a connection of its own."""
    for octets in ASKED:
        with socket.create_connection(("127.0.0.1", port), PATIENCE) as connection:
            connection.sendall(octets.replace(AUTHORIZATION, basic(ground.pusher)))
            read_to_end(connection)


@pytest.fixture(scope="module")
def apache(ground: Ground, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Apache]:
    """Apache, after it was asked."""
    folder = tmp_path_factory.mktemp("apache")
    with Recorder() as recorder:
        apache = Apache(folder / "httpd", recorder.url)
        ask(apache.port, ground)
        yield apache
        # Apache passes Authorization on, which is one of the reasons for regguard.
        recorder.received.clear()
        apache.stop()


@pytest.mark.parametrize("log_format", LOG_FORMATS)
def test_the_lines_are_apaches(
    ground: Ground, tmp_path: Path, apache: Apache, log_format: str
) -> None:
    """The same requests make the same lines, but for the time and for what was answered."""
    log = tmp_path / "access.log"
    words = ("--access-log", str(log), "--access-log-format", log_format)
    with staging(ground, tmp_path / "guard", *words, secure=False) as stage:
        ask(stage.guard.port, ground)
        ours = wait_for_lines(stage.guard.program, log, len(ASKED))
    theirs = apache.lines(log_format, len(ASKED))

    assert len(ours) == len(theirs) == len(ASKED)
    for ours_one, theirs_one in zip(ours, theirs, strict=True):
        mine, apaches = (LINE.fullmatch(line) for line in (ours_one, theirs_one))
        assert mine is not None, ours_one
        assert apaches is not None, theirs_one
        # In the same words; and an answer of ours has other fields, and a refusal another body.
        differs = {"time", "octets_out"} | ({"octets"} if mine["status"] == "401" else set())
        assert known(mine, differs) == known(apaches, differs)
        for match in (mine, apaches):
            stamp = time.strptime(match["time"], "%d/%b/%Y:%H:%M:%S %z")
            assert stamp.tm_gmtoff == time.localtime().tm_gmtoff
            assert (match["octets_out"] is None) == (log_format != "combinedio")
    statuses = {line.split('"')[2].split()[0] for line in ours}
    assert statuses == {"200", "401"}


def known(match: re.Match[str], differs: set[str]) -> dict[str, str | None]:
    """A line's parts, but for some."""
    return {name: value for name, value in match.groupdict().items() if name not in differs}


@pytest.mark.parametrize(("log_format", "words"), [("common", "COMMON"), ("combined", "COMBINED")])
def test_goaccess_reads_every_line(
    ground: Ground, tmp_path: Path, log_format: str, words: str
) -> None:
    """By its own names for these formats."""
    log, report = tmp_path / "access.log", tmp_path / "report.json"
    options = ("--access-log", str(log), "--access-log-format", log_format)
    with staging(ground, tmp_path / "guard", *options, secure=False) as stage:
        ask(stage.guard.port, ground)
        wait_for_lines(stage.guard.program, log, len(ASKED))
    subprocess.run(
        [
            *(binary("goaccess"), str(log), f"--log-format={words}", "--no-global-config"),
            *("--output", str(report), "--no-progress"),
        ],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=PATIENCE,
        check=True,
    )
    general = json.loads(report.read_text())["general"]

    assert general["valid_requests"] == general["total_requests"] == len(ASKED)
    assert general["failed_requests"] == 0
