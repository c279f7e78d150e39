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
    for word in ("--passwords", "--expect=", "--tls-cert=", "--minimum-hash=", "starts nothing"):
        assert word in done.stdout
    assert "--check" not in done.stdout


# -- a table of what the rules shall say -----------------------------------------------------

RULES = """\
[[repository]]
match = "team-a/**"
pull = "group:devs"
push = 'user:"o, neil", group:devs'
immutable = "v*"
[[repository]]
match = "**"
push = 'group:"cn=devs,dc=example"'
"""


@pytest.fixture
def expect(check: Check, tmp_path: Path) -> Check:
    """``check --expect`` of a table, by these rules, where there is no password file."""
    (tmp_path / "r.toml").write_text(RULES)
    (tmp_path / "auth" / "htpasswd").unlink()

    def expect(table: str | bytes, *words: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "table").write_bytes(table.encode() if isinstance(table, str) else table)
        return check("-c", "r.toml", "--expect", "table", *words)

    return expect


def test_all_lines_are_as_expected(expect: Check) -> None:
    """Comments, empty lines, quotes, groups; neither certificates nor passwords are needed."""
    done = expect(
        "# who may what\n"
        "\n"
        "alice GET /v2/team-a/x/manifests/v1 deny\n"
        "  alice:devs\tGET   /v2/team-a/x/manifests/v1 allow  # by group\r\n"
        "'o, neil' PUT /v2/team-a/x/manifests/v1 allow\n"
        "'bob:\"CN=devs, dc=example\"' PUT /v2/x/manifests/v1 allow\n"
        "bob DELETE /v2/team-a/x/manifests/v1 deny\n"
        "alice DELETE /v2/x/manifests/v1 allow # in group pusher\n"
        'alice GET "/v2/#x" deny\n'
        "alice GET / allow"
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "table: all 8 lines are as expected\n"


def test_lines_that_are_not_as_expected_are_explained(expect: Check) -> None:
    """Each with the verdict below it; then status 1 and how many."""
    done = expect(
        "bob GET /v2/x/manifests/v1 deny\n"
        "bob GET /v2/x/manifests/v1 allow\n"
        "\n"
        "bob:devs TRACE /v2/x/manifests/v1 allow\n"
    )

    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        "table:1: not deny: bob GET /v2/x/manifests/v1 deny",
        "  bob, in the groups pusher",
        "  GET /v2/x/manifests/v1: pull x",
        "  allowed by pull = valid-user",
        "table:4: not allow: bob:devs TRACE /v2/x/manifests/v1 allow",
        "  TRACE /v2/x/manifests/v1",
        "  refused, whoever asks: 405 UNSUPPORTED: allowed here: GET, HEAD, PUT, DELETE",
    ]
    assert done.stderr == "regguard: 2 of 3 lines of table are not as expected\n"


BAD = "write USER METHOD PATH allow, or deny at the end"


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        ("\nbob GET /v2/\n", f"table:2: {BAD}"),
        ("bob GET /v2/ Allow", f"table:1: {BAD}"),
        ("bob GET /v2/ allow deny", f"table:1: {BAD}"),
        ("bob GET /v2/#x deny", f"table:1: {BAD}"),
        ("bob GET '/v2/ deny", "table:1: No closing quotation"),
        (":devs GET /v2/ deny", "table:1: ':devs' has no name: write NAME or NAME:GROUP,GROUP"),
        ("bob:, GET /v2/ deny", "table:1: nothing between two commas: write"),
        ("# nothing\n\n", f"--expect table: no lines; {BAD}"),
        ("", f"--expect table: no lines; {BAD}"),
        (b"\n\xff", "--expect table:2: not UTF-8: save it as UTF-8"),
        (b"\xef\xbb\xbfbob GET /v2/ allow", "--expect table:1: starts with a byte order mark"),
        # A line is what an editor counts as one.
        ("# \x0b \N{LINE SEPARATOR} \x85 \r #\nbob", f"table:2: {BAD}"),
    ],
)
def test_a_line_that_is_none_is_told(expect: Check, table: str | bytes, reason: str) -> None:
    """With file and line, and status 1."""
    done = expect(table)

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"regguard: {reason}")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--expect", "nowhere"], "--expect nowhere: cannot be read (No such file or directory)"),
        (["--expect", "auth"], "--expect auth: cannot be read (Is a directory)"),
        (["--expect", "table", "--passwords"], "--passwords: --expect only tries the rules; say"),
        (["--expect", "table", "--groups", "none"], "--groups none: No such file"),
        (["--expect", "table", "--push", "a"], "--push: 'a' is not understood"),
    ],
)
def test_what_a_table_cannot_be_tried_with_is_told(
    check: Check, tmp_path: Path, words: list[str], reason: str
) -> None:
    """In one line, with status 1."""
    (tmp_path / "table").write_text("bob GET /v2/ allow\n")
    done = check(*words)

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"regguard: {reason}")
    assert done.stderr.count("\n") == 1


def test_rules_are_reported_with_their_number(check: Check, tmp_path: Path) -> None:
    """And that the registry is frozen."""
    (tmp_path / "r.toml").write_text(f"no-tls = true\nfreeze = 'now'\n{RULES}")
    (tmp_path / "auth" / "groups").write_text("devs: alice\npusher: bob\n")
    words = ("-c", "r.toml", "--push", "group:pusher")
    done = check(*words)
    assert done.returncode == 1
    assert done.stderr.startswith(
        "regguard: r.toml:10: push group:cn=devs,dc=example: no such group in auth/groups; "
    )

    (tmp_path / "r.toml").write_text(
        f"no-tls = true\nfreeze = 'now'\n{RULES[: RULES.rindex('[[')]}"
    )
    done = check(*words)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\nrepositories by r.toml: 1 [[repository]] table\n" in done.stdout
    assert "\nfrozen: nobody may push or delete\n" in done.stdout
