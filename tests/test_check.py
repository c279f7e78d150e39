"""The ``regguard check`` command: the same words and findings as ``twist regguard --check``."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from regguard.auth.hashes import StoredHash
from tests.test_passwd import CALL_SECONDS, environment

Check = Callable[..., subprocess.CompletedProcess[str]]

SHA = "{SHA}GpHWL3ymc5liWkNopqtdSjuqYHM="
APR1 = "$apr1$yyYZxrSA$KHjLChlaSzJUE83dzwr971"
STRONG = StoredHash.make(b"x", 10).text


@pytest.fixture
def check(tmp_path: Path) -> Check:
    """Call it in a folder with a usual password file and groups file."""
    (tmp_path / "auth").mkdir()
    (tmp_path / "auth" / "htpasswd").write_text(
        f"alice:{STRONG}\nbob:{SHA}\ncarol:{STRONG}\neve:{APR1}\ndave:{SHA}\n"
    )
    (tmp_path / "auth" / "htpasswd").chmod(0o640)
    (tmp_path / "auth" / "groups").write_text("pusher: alice ghost bob\nempty:\n")

    def check(
        *words: str, program: tuple[str, ...] = ("regguard.cli", "check")
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", *program, *words],
            cwd=tmp_path,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=CALL_SECONDS,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done

    return check


def test_it_says_what_twist_check_says(check: Check) -> None:
    """One parser, one report; warnings leave the status at 0."""
    words = ("--no-tls", "--push", "group:pusher", "-l", "tcp:1", "--listen=tcp:2")
    ours = check(*words)
    theirs = check(*words, "--check", program=("twisted", "regguard"))

    assert (ours.returncode, ours.stderr) == (0, "")
    assert ours.stdout == theirs.stdout
    assert "users by auth/htpasswd: 5 users\n" in ours.stdout
    (warning,) = (line for line in ours.stdout.splitlines() if line.startswith("warning: "))
    assert "bob ({SHA}), dave ({SHA}), eve (apr1); make them anew with" in warning


def test_a_configuration_file_is_read(check: Check, tmp_path: Path) -> None:
    """By -c, as by the daemon."""
    (tmp_path / "regguard.toml").write_text('no-tls = true\nupstream = "http://127.0.0.1:7"\n')

    assert "guarding http://127.0.0.1:7\n" in check("-c", "regguard.toml").stdout

    (tmp_path / "regguard.toml").write_text('no-tls = true\nminimum-hash = "strong"\n')
    assert "regguard.toml:2: minimum-hash: 'strong' is none of any, bcrypt" in (
        check("-c", "regguard.toml").stderr
    )


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--no-tls", "--push", "group:nobody-knows"], "--push group:nobody-knows: no such group"),
        (["--no-tls", "--htpasswd", "nowhere"], "make it with regguard passwd nowhere USER"),
        (
            ["--no-tls", "--minimum-hash", "bcrypt"],
            "--minimum-hash bcrypt: auth/htpasswd:2: user bob: {SHA} is weaker than --minimum-hash",
        ),
        (["--no-tls", "--minimum-hash", "md5"], "--minimum-hash: 'md5' is none of any, bcrypt"),
        (
            ["--no-tls", "--minimum-hash", "bcrypt", "--auth", "memory:a:b"],
            "--minimum-hash bcrypt: holds for --htpasswd files, and there is none; leave it out",
        ),
        (["-c", "nowhere.toml"], "--config nowhere.toml: cannot be read"),
    ],
)
def test_what_is_wrong_is_one_line_and_status_1(
    check: Check, words: list[str], reason: str
) -> None:
    """With option, file and cure, as at the daemon's start."""
    done = check(*words)

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("regguard: ")
    assert reason in done.stderr
    assert done.stderr.count("\n") == 1


def test_passwords_are_reported(check: Check) -> None:
    """Costs and weak schemes by file, then how users and groups fit together."""
    done = check("--no-tls", "--passwords")
    _, _, report = done.stdout.partition("passwords in ")

    assert done.returncode == 0
    assert report == (
        "auth/htpasswd\n"
        "  bcrypt cost 10: 2\n"
        "  apr1 (weak): eve\n"
        "  {SHA} (weak): bob, dave\n"
        "groups\n"
        "  in no group: carol, dave, eve\n"
        "  pusher names users without a password: ghost\n"
    )


def test_users_of_two_files_are_reported(check: Check, tmp_path: Path) -> None:
    """Both passwords work then, which is seldom meant."""
    other = tmp_path / "other"
    other.write_text(f"alice:{STRONG}\nghost:{STRONG}\nzoe:{STRONG}\n")
    other.chmod(0o604)
    lines = check(
        *("--no-tls", "--passwords", "--auth", "htpasswd:auth/htpasswd", "--htpasswd", "other")
    ).stdout.splitlines()

    assert "  alice stands in auth/htpasswd, too, and both passwords are right" in lines
    assert "  anybody on this machine may read it (mode 604): chmod o= other" in lines
    assert "  in no group: carol, dave, eve, zoe" in lines
    assert not any("ghost" in line for line in lines)


@pytest.mark.parametrize(
    ("mode", "line"),
    [
        (0o604, "anybody on this machine may read it (mode 604): chmod o= {}"),
        (0o602, "anybody on this machine may write it (mode 602): chmod o= {}"),
        (0o666, "anybody on this machine may read and write it (mode 666): chmod o= {}"),
    ],
)
def test_files_that_are_open_to_anybody_are_reported(
    check: Check, tmp_path: Path, mode: int, line: str
) -> None:
    """Reading lets guess passwords at leisure; writing lets in whom one likes."""
    (tmp_path / "auth" / "htpasswd").chmod(mode)
    (tmp_path / "auth" / "groups").chmod(0o646)
    report = check("--no-tls", "--passwords").stdout

    assert f"  {line.format('auth/htpasswd')}\n" in report
    assert "  anybody on this machine may write it (mode 646): chmod o-w auth/groups\n" in report


def test_other_checkers_users_are_not_judged(check: Check) -> None:
    """A group may name somebody whom another checker knows."""
    both = ("--auth", "htpasswd:auth/htpasswd", "--auth", "memory:ghost:x")
    assert "ghost" not in check("--no-tls", "--passwords", *both).stdout

    none = check("--no-tls", "--passwords", "--auth", "memory:ghost:x").stdout
    assert none.endswith("\nno password files\n")


def test_users_twice_in_a_file_are_an_error(check: Check, tmp_path: Path) -> None:
    """With both lines' numbers."""
    with (tmp_path / "auth" / "htpasswd").open("a") as file:
        file.write(f"bob:{SHA}\n")
    done = check("--no-tls", "--passwords")

    assert done.returncode == 1
    assert "auth/htpasswd:6: user bob stands in line 2 already" in done.stderr


def test_an_empty_table_and_no_groups(check: Check, tmp_path: Path) -> None:
    """Nobody is reported as nobody."""
    (tmp_path / "auth" / "groups").unlink()
    (tmp_path / "auth" / "htpasswd").write_text("# nobody\n")

    assert check("--no-tls", "--passwords").stdout.endswith(
        "passwords in auth/htpasswd\n  no users\ngroups\n  in no group: nobody\n"
    )


def test_help_names_the_command_and_all_options(check: Check) -> None:
    """The help is that of the daemon's options, under this command's name."""
    done = check("--help")

    assert done.returncode == 0
    assert done.stdout.startswith("Usage: regguard check [options]\n")
    for word in ("--passwords", "--tls-cert=", "--minimum-hash=", "starts nothing"):
        assert word in done.stdout
