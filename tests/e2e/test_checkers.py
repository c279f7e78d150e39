"""Checkers that others wrote, and words about checkers that are wrong."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.clients import curl
from tests.e2e.programs import Ground, Guard, Registry, StartGuard, twist

README = Path(__file__).parents[2] / "README.rst"


def logins(guard: Guard, *credentials: str) -> list[int]:
    """What each of them is told."""
    return [curl(guard, "/v2/", credentials=each).status for each in credentials]


def test_twisteds_memory_checker(registry: Registry, start_guard: StartGuard) -> None:
    """It works like any other, and is warned of: the process list shows the password."""
    guard = start_guard(registry.url, "--auth", "memory:alice:in-memory:bob:also")

    told = logins(guard, "alice:in-memory", "bob:also", "alice:also", "nobody:also")
    assert told == [200, 200, 401, 401]
    guard.wait_for_line("everybody on this machine sees the passwords")


def test_twisteds_file_checker_with_others(
    ground: Ground, registry: Registry, start_guard: StartGuard, tmp_path: Path
) -> None:
    """It works, is warned of, and others are asked before and behind it."""
    file = tmp_path / "plain"
    file.write_text("carol:in-a-file\n")
    guard = start_guard(
        registry.url,
        *("--auth", "memory:alice:in-memory", "--auth", f"file:{file}"),
        *("--auth", f"htpasswd:{ground.htpasswd}"),
    )

    told = logins(guard, "alice:in-memory", "carol:in-a-file", ground.as_pusher, "carol:wrong")
    assert told == [200, 200, 200, 401]
    guard.wait_for_line(f"passwords stand in {file} as they are")
    assert "in-memory" not in guard.program.output()


def test_the_checker_of_the_readme(ground: Ground, registry: Registry, tmp_path: Path) -> None:
    """Dropped into a folder on PYTHONPATH it works as the README says."""
    example = README.read_text().partition("\nYour own checker\n")[2]
    match = re.search(r"\.\. code-block:: python\n\n(.*?)\n(?=\S)", example, re.DOTALL)
    assert match is not None
    plugins = tmp_path / "mine" / "twisted" / "plugins"
    plugins.mkdir(parents=True)
    (plugins / "registry_tokens.py").write_text(textwrap.dedent(match[1]))
    tokens = tmp_path / "tokens"
    tokens.write_text("ci " + hashlib.sha256(b"a long random token").hexdigest() + "\n")
    path = os.pathsep.join(filter(None, (str(tmp_path / "mine"), os.environ.get("PYTHONPATH"))))

    guard = Guard(
        ground,
        tmp_path / "guard",
        registry.url,
        *("--auth", f"tokens:{tokens}", "--auth", f"htpasswd:{ground.htpasswd}"),
        environment={**os.environ, "PYTHONPATH": path},
    )
    try:
        told = logins(guard, "ci:a long random token", "ci:wrong", ground.as_reader)
        assert told == [200, 401, 200]
    finally:
        guard.stop()


def start(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run ``twist regguard`` with words that make it end by itself."""
    return subprocess.run(
        twist(*words), cwd=folder, capture_output=True, text=True, timeout=30, check=False
    )


def test_help_on_ldap(tmp_path: Path) -> None:
    """Settings, and an example each for OpenLDAP and Active Directory."""
    done = start("--help-auth-type", "ldap", folder=tmp_path)

    assert done.returncode == 0
    for part in ("bind-password-file=FILE", "OpenLDAP:", "Active Directory:", "regguard[ldap]"):
        assert part in done.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("ldap", "--auth ldap: write ldaps://HOST/BASE?uid"),
        ("ldap:ldaps://a/dc=x;bind-password=s3cret", "--auth ldap: bind-password: unknown;"),
        ("ldap:ldaps://a/dc=x;ca=/nonexistent", "--auth ldap: ca /nonexistent: cannot be read"),
        ("nonsense:x", "--auth nonsense: no such type"),
    ],
)
def test_wrong_words_end_with_one_line(words: str, said: str, tmp_path: Path) -> None:
    """It names option and cure."""
    done = start("--no-tls", "--auth", words, folder=tmp_path)

    (line,) = done.stderr.splitlines()
    assert done.returncode == 64
    assert line.startswith(f"regguard: {said}")
    assert "s3cret" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("auth", "status"),
    [
        (lambda ground: f"htpasswd:{ground.htpasswd}", 1),
        (lambda ground: "memory:a:b", 1),
        (lambda ground: "ldap:ldaps://ldap.example.org/dc=x", 0),
    ],
)
def test_e18_groups_of_rules_must_be_known_unless_a_directory_supplies_them(
    auth: Callable[[Ground], str], status: int, ground: Ground, tmp_path: Path
) -> None:
    """A rule for a group that nobody can be in is a mistake."""
    words = ("--no-tls", "--auth", auth(ground), "--push", 'group:"cn=devs,dc=x"', "--check")

    done = start(*words, folder=tmp_path)

    assert done.returncode == status, done.stderr
