"""F01: a password is nowhere but where it must be."""

from __future__ import annotations

import contextlib
import os
from base64 import b64encode
from pathlib import Path

import bcrypt
import pytest

from tests.e2e.clients import curl
from tests.e2e.programs import Ground, Guard
from tests.e2e.recorder import Recorder

CANARY = "c4n4ry-S3cret-c4n4ry"
NAME = "testuser"
# Plain, and as it stands in base64 wherever it begins within three octets.
SPELLINGS = (
    CANARY.encode(),
    *(b64encode(b"x" * shift + CANARY.encode() + b"xx")[4:-8] for shift in range(3)),
)

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


def found(octets: bytes) -> list[bytes]:
    return [spelling for spelling in SPELLINGS if spelling in octets]


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
            log_format=log_format,
            environment={**os.environ, "PYTHONPATH": path},
        )
        try:
            ask_in_every_way(guard)
            process = Path(f"/proc/{guard.program.pid}")
            shown = {name: (process / name).read_bytes() for name in ("cmdline", "environ")}
        finally:
            guard.program.stop()

    log = guard.program.log.read_bytes()
    seen = {
        **shown,
        "log": log,
        "access log": access_log.read_bytes(),
        "upstream": recorder.received,
    }
    assert {where: found(octets) for where, octets in seen.items() if found(octets)} == {}
    # All of it did happen: the log-in, its refusals, the checker's faults of both kinds.
    assert f"x-forwarded-user: {NAME}".encode() in recorder.received.lower()
    assert b"wrong user name or password" in log
    assert b"whose text held the password" in log
    assert log.count(b"failed to check a user") >= 2
    assert (b"ConnectionError: cannot bind\n" in log) == (log_format == "text")


def test_found_finds() -> None:
    """The search itself would find the password, plain and in a header's base64."""
    for text in (CANARY, f"['{CANARY}']", HEADERS[0], basic(f"longer-name:{CANARY}")):
        assert found(b"..." + text.encode() + b"...")
