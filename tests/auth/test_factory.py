"""regguard.auth.factory: --auth htpasswd:FILE."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.strcred import ICheckerFactory, InvalidAuthArgumentString
from twisted.plugin import IPlugin
from zope.interface.verify import verifyObject

import regguard
from regguard.auth.factory import HtpasswdCheckerFactory

Write = Callable[..., str]


def test_interfaces() -> None:
    """It is a plugin and a checker factory."""
    verifyObject(IPlugin, HtpasswdCheckerFactory())
    verifyObject(ICheckerFactory, HtpasswdCheckerFactory())


def test_it_makes_a_checker(write: Write) -> None:
    """The argument is the file's path, colons and all."""
    path = write("ci:{SHA}GpHWL3ymc5liWkNopqtdSjuqYHM=\n", "a:b")

    checker = HtpasswdCheckerFactory().generateChecker(path)

    assert ICredentialsChecker.providedBy(checker)
    assert tuple(checker.credentialInterfaces) == HtpasswdCheckerFactory.credentialInterfaces


@pytest.mark.parametrize(
    ("content", "reason"), [("ci:x", ":1: user ci: not a password hash"), (None, "No such file")]
)
def test_a_bad_file_is_a_bad_argument(write: Write, content: str | None, reason: str) -> None:
    """strcred's own exception says file, line and cure."""
    path = "/nonexistent/htpasswd" if content is None else write(content)

    with pytest.raises(InvalidAuthArgumentString, match=reason) as caught:
        HtpasswdCheckerFactory().generateChecker(path)

    assert path in str(caught.value)


def test_without_a_file_it_says_what_to_write() -> None:
    """A bare --auth htpasswd is answered with the whole form."""
    with pytest.raises(InvalidAuthArgumentString, match="--auth htpasswd:FILE"):
        HtpasswdCheckerFactory().generateChecker("")


def test_it_is_import_light() -> None:
    """Every twist program loads plugins: no hash library, no reactor comes with this one."""
    check = (
        "import sys, regguard.auth.factory; "
        "heavy = {'passlib', 'bcrypt', 'twisted.internet.reactor', 'regguard.auth.htpasswd'}; "
        "sys.exit(', '.join(heavy & set(sys.modules)) or None)"
    )
    root = Path(regguard.__path__[0]).parent

    done = subprocess.run(
        [sys.executable, "-c", check], cwd=root, capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stderr) == (0, "")
