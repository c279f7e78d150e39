"""F01: a password is nowhere but where it must be, and the search for it finds it elsewhere.

The search goes over the whole session (``tests/conftest.py``); here is what provokes leaks most.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from base64 import b64encode
from pathlib import Path

import bcrypt
import pytest

from tests.canary import CANARY, ON_ARGV, SEARCH, Search
from tests.e2e.clients import curl
from tests.e2e.programs import PATIENCE, Ground, Guard, free_port
from tests.e2e.recorder import Recorder

NAME = "testuser"

PLUGIN = '''
"""A third party's checker, of the careless kind: its exception repeats what it was given."""

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.strcred import ICheckerFactory
from twisted.plugin import IPlugin
from zope.interface import implementer


@implementer(ICredentialsChecker)
class Careless:
    credentialInterfaces = (IUsernamePassword,)

    def requestAvatarId(self, credentials):
        if credentials.username == b"careless":
            raise ConnectionError(f"cannot bind with {credentials.password}")
        if credentials.username == b"careful":
            raise ConnectionError("cannot bind")
        raise UnauthorizedLogin


@implementer(ICheckerFactory, IPlugin)
class CarelessFactory:
    authType = "careless"
    authHelp = "Fails."
    argStringFormat = "nothing"
    credentialInterfaces = (IUsernamePassword,)

    def generateChecker(self, argstring):
        return Careless()


factory = CarelessFactory()
'''


def basic(credentials: str) -> str:
    return b64encode(credentials.encode()).decode()


HEADERS = [
    f"Basic {basic(f'{NAME}:{CANARY}')}",
    f"Basic {basic(f'nobody:{CANARY}')}",
    f"Basic {basic(f'{NAME}:{CANARY}x')}",
    f"Basic {basic(f'careless:{CANARY}')}",
    f"Basic {basic(f'careful:{CANARY}')}",
    f"Basic {basic(CANARY)}",
    f"Basic {basic(f':{CANARY}')}",
    f"Basic {basic(f'{NAME}:{CANARY}')}=",
    f"Basic {CANARY}",
    f"Basic {NAME}:{CANARY}",
    f"Basic\t{basic(f'{NAME}:{CANARY}')}",
    f"Bearer {CANARY}",
    f'Digest username="{NAME}", response="{CANARY}"',
    CANARY,
    f"Basic {basic(f'{NAME}:{CANARY}')}, Basic {basic(f'{NAME}:{CANARY}')}",
    f"Basic {CANARY * 1000}",
]


def ask_in_every_way(guard: Guard) -> None:
    """Good and bad credentials, malformed ones, and heads that are no HTTP around them."""
    for header in HEADERS:
        curl(guard, "/v2/", "--header", f"Authorization: {header}")
    good = HEADERS[0]
    for head in (
        f"GET /v2/ HTTP/1.1\r\nAuthorization: {good}\r\n\r\n",
        f"GET /v2/ HTTP/1.1\r\nHost: x\r\nAuthorization: {good}\r\nAuthorization: {good}\r\n\r\n",
        f"GET /v2/ HTTP/1.1\r\nHost: x\r\nAuthorization : {good}\r\n\r\n",
        f"GET /v2/ HTTP/1.1\r\nHost: x\r\nAuthorization: {good}\0\r\n\r\n",
        f"GET /v2/ HTTP/9.9\r\nHost: x\r\nAuthorization: {good}\r\n\r\n",
    ):
        with guard.connection() as connection, contextlib.suppress(OSError):
            connection.sendall(head.encode())
            while connection.recv(65536):
                pass


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_f01_a_password_is_in_no_log_and_goes_nowhere(
    ground: Ground, tmp_path: Path, log_format: str
) -> None:
    """Logs of both formats, the registry's side, and what the system shows of the process."""
    before = dict(SEARCH.found)
    htpasswd, access_log = tmp_path / "htpasswd", tmp_path / "access.log"
    hashed = bcrypt.hashpw(CANARY.encode(), bcrypt.gensalt(5)).decode()
    htpasswd.write_text(f"{NAME}:{hashed}\n")
    plugin = tmp_path / "twisted" / "plugins" / "careless.py"
    plugin.parent.mkdir(parents=True)
    plugin.write_text(PLUGIN)
    path = os.pathsep.join(filter(None, (str(tmp_path), os.environ.get("PYTHONPATH"))))
    with Recorder() as recorder:
        guard = Guard(
            ground,
            tmp_path / "guard",
            recorder.url,
            *("--auth", "careless", "--auth", f"htpasswd:{htpasswd}"),
            *("--access-log", str(access_log), "--throttle", "off"),
            *("--admin", f"tcp:127.0.0.1:{free_port()}"),
            log_format=log_format,
            environment={**os.environ, "PYTHONPATH": path},
        )
        try:
            ask_in_every_way(guard)
        finally:
            guard.program.stop()

    assert SEARCH.found == before
    # All of it did happen: the log-in, its refusals, the checker's faults of both kinds.
    log = guard.program.log.read_bytes()
    assert NAME.encode() in access_log.read_bytes()
    assert f"x-forwarded-user: {NAME}".encode() in recorder.received.lower()
    assert b"wrong user name or password" in log
    assert b"whose text held the password" in log
    assert log.count(b"failed to check a user") >= 2
    assert (b"ConnectionError: cannot bind\n" in log) == (log_format == "text")


@pytest.mark.parametrize("word", [CANARY, ON_ARGV], ids=["canary", "on argv"])
def test_search_finds_a_password_in_plain_and_in_base64(word: str) -> None:
    """Wherever it stands in the credentials; and nothing else."""
    for text in (word, f"['{word}']", *(basic(f"{'name'[:n]}:{word}/x") for n in range(4))):
        search = Search()
        search.look("a place", b"..." + text.encode() + b"...")

        ((where, around),) = search.found.items()
        assert where.startswith("a place, in ")
        assert text.encode() in around
    search = Search()
    search.look("a place", f"{word[1:]} {word[:-1]} {basic(word[:-1])}".encode())
    assert search.found == {}


LEAKS = """
import base64, socket, sys, time

from twisted.logger import Logger

from tests.e2e.programs import Program, run
from tests.e2e.recorder import Recorder

WORD = {word!r}
BASIC = base64.b64encode(b"user:" + WORD.encode())


def script(folder, text):
    (folder / "script.py").write_text(text)
    return [sys.executable, str(folder / "script.py")]


def test_log(tmp_path):
    Program(script(tmp_path, f"print({{BASIC}})"), tmp_path / "leaky.log", tmp_path).ended()


def test_further_log(tmp_path):
    says = script(tmp_path, f"open('access.log', 'w').write({{WORD!r}})")
    log, further = tmp_path / "empty.log", tmp_path / "access.log"
    Program(says, log, tmp_path, more_logs=[further]).ended()


def test_process_list_and_environment(tmp_path):
    argv = [*script(tmp_path, "import time; time.sleep(60)"), WORD]
    Program(argv, tmp_path / "quiet.log", tmp_path, dict(VARIABLE=WORD)).stop()


def test_what_is_shown_later(tmp_path):
    program = Program(script(tmp_path, "import time; time.sleep(60)"), tmp_path / "x", tmp_path)
    program.shown["page"] = WORD.encode
    program.stop()


def test_output(tmp_path):
    run(script(tmp_path, f"raise ValueError({{WORD!r}})"), tmp_path)


def test_upstream():
    with Recorder() as recorder:
        host, port = recorder.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as client:
            client.sendall(b"GET / HTTP/1.1\\r\\nAuthorization: Basic " + BASIC + b"\\r\\n\\r\\n")
            client.recv(1)


def test_event():
    Logger("a.namespace").info("nothing to see", field=WORD)


def test_traceback():
    try:
        raise ValueError(WORD)
    except ValueError:
        Logger("another.namespace").failure("nothing to see")
"""
PLACES = (
    *("leaky.log, in ", "access.log, in ", "quiet.log, in ", "output of ", "octets sent upstream"),
    *("cmdline of ", "environ of ", "page of ", "log of a.namespace", "log of another.namespace"),
)


@pytest.mark.parametrize(("word", "status"), [(CANARY, 1), ("harmless", 0)], ids=["leak", "none"])
def test_session_with_a_leak_fails_and_says_where(tmp_path: Path, word: str, status: int) -> None:
    """Though each test in it passes."""
    leaks = tmp_path / "test_leaks.py"
    leaks.write_text(LEAKS.format(word=word))
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-p", "tests.conftest", "-p", "no:cacheprovider"),
            *("--rootdir", str(tmp_path), "--basetemp", str(tmp_path / "inner"), str(leaks)),
        ],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )

    assert done.returncode == status, done.stdout + done.stderr
    assert "8 passed" in done.stdout
    _, _, told = done.stdout.partition("passwords stand in\n")
    assert [place for place in PLACES if place in told] == (list(PLACES) if status else [])
