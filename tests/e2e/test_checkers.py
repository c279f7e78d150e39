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

from tests.canary import ON_ARGV, secret
from tests.e2e.clients import curl
from tests.e2e.programs import Ground, Guard, Registry, StartGuard, run, twist

README = Path(__file__).parents[2] / "README.rst"


def logins(guard: Guard, *credentials: str) -> list[int]:
    """What each of them is told."""
    return [curl(guard, "/v2/", credentials=each).status for each in credentials]


def test_twisteds_memory_checker(registry: Registry, start_guard: StartGuard) -> None:
    """It works like any other, and is warned of: the process list shows the password."""
    alice, bob = f"alice:1-{ON_ARGV}", f"bob:2-{ON_ARGV}"
    guard = start_guard(registry.url, "--auth", f"memory:{alice}:{bob}")

    told = logins(guard, alice, bob, f"alice:2-{ON_ARGV}", f"nobody:2-{ON_ARGV}")
    assert told == [200, 200, 401, 401]
    guard.wait_for_line("everybody on this machine sees the passwords")


def test_twisteds_file_checker_with_others(
    ground: Ground, registry: Registry, start_guard: StartGuard, tmp_path: Path
) -> None:
    """It works, is warned of, and others are asked before and behind it."""
    alice, carol = f"alice:{ON_ARGV}", f"carol:{secret('in a file')}"
    file = tmp_path / "plain"
    file.write_text(f"{carol}\n")
    guard = start_guard(
        registry.url,
        *("--auth", f"memory:{alice}", "--auth", f"file:{file}"),
        *("--auth", f"htpasswd:{ground.htpasswd}"),
    )

    told = logins(guard, alice, carol, ground.as_pusher, f"carol:{secret('wrong')}")
    assert told == [200, 200, 200, 401]
    guard.wait_for_line(f"passwords stand in {file} as they are")


def test_the_checker_of_the_readme(ground: Ground, registry: Registry, tmp_path: Path) -> None:
    """Dropped into a folder on PYTHONPATH it works as the README says."""
    example = README.read_text().partition("\nYour own checker\n")[2]
    match = re.search(r"\.\. code-block:: python\n\n(.*?)\n(?=\S)", example, re.DOTALL)
    assert match is not None
    plugins = tmp_path / "mine" / "twisted" / "plugins"
    plugins.mkdir(parents=True)
    (plugins / "registry_tokens.py").write_text(textwrap.dedent(match[1]))
    tokens = tmp_path / "tokens"
    token = secret("a long random token")
    tokens.write_text("ci " + hashlib.sha256(token.encode()).hexdigest() + "\n")
    path = os.pathsep.join(filter(None, (str(tmp_path / "mine"), os.environ.get("PYTHONPATH"))))

    guard = Guard(
        ground,
        tmp_path / "guard",
        registry.url,
        *("--auth", f"tokens:{tokens}", "--auth", f"htpasswd:{ground.htpasswd}"),
        environment={**os.environ, "PYTHONPATH": path},
    )
    try:
        told = logins(guard, f"ci:{token}", f"ci:{secret('wrong')}", ground.as_reader)
        assert told == [200, 401, 200]
    finally:
        guard.stop()


def start(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run ``twist regguard`` with words that make it end by itself."""
    return run(twist(*words), folder)


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
        (f"ldap:ldaps://a/dc=x;bind-password={ON_ARGV}", "--auth ldap: bind-password: unknown;"),
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
    assert ON_ARGV not in done.stdout + done.stderr


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
