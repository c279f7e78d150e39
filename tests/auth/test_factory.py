"""regguard.auth.factory: --auth htpasswd:FILE and --auth ldap:URL."""

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
from regguard.auth.factory import DirectoryCheckerFactory, HtpasswdCheckerFactory

Write = Callable[..., str]


def test_interfaces() -> None:
    """They are plugins and checker factories."""
    for factory in (HtpasswdCheckerFactory(), DirectoryCheckerFactory()):
        verifyObject(IPlugin, factory)
        verifyObject(ICheckerFactory, factory)


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
        "heavy = {'passlib', 'bcrypt', 'ldap', 'twisted.internet.reactor', "
        "'regguard.auth.htpasswd', 'regguard.auth.directory'}; "
        "sys.exit(', '.join(heavy & set(sys.modules)) or None)"
    )
    root = Path(regguard.__path__[0]).parent

    done = subprocess.run(
        [sys.executable, "-c", check], cwd=root, capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stderr) == (0, "")


def test_ldap_makes_a_checker() -> None:
    """No server is asked for that."""
    checker = DirectoryCheckerFactory().generateChecker("ldaps://ldap.example.org/dc=x")

    assert ICredentialsChecker.providedBy(checker)


def test_ldap_with_bad_words_is_a_bad_argument() -> None:
    """strcred's own exception says the cure."""
    with pytest.raises(InvalidAuthArgumentString, match="write ldaps://HOST/BASE"):
        DirectoryCheckerFactory().generateChecker("")


def test_ldap_without_its_library_says_what_to_install() -> None:
    """One line: the extra, and what building it takes."""
    check = (
        "import sys; sys.modules['ldap'] = None\n"
        "from regguard.auth.factory import DirectoryCheckerFactory as F\n"
        "try: F().generateChecker('ldaps://a/dc=x')\n"
        "except Exception as error: print(type(error).__name__, error)"
    )

    done = subprocess.run(
        [sys.executable, "-c", check],
        cwd=Path(regguard.__path__[0]).parent,
        capture_output=True,
        text=True,
        check=True,
    )

    (line,) = done.stdout.splitlines()
    assert line.startswith("InvalidAuthArgumentString needs python-ldap")
    assert "pip install 'regguard[ldap]'" in line
