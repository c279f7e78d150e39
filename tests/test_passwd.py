"""The ``regguard passwd`` command, as a person or a script calls it."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import termios
from collections.abc import Callable
from pathlib import Path

import pytest

from regguard.auth.hashes import StoredHash

ROOT = Path(__file__).parent.parent
CALL_SECONDS = 30

Passwd = Callable[..., subprocess.CompletedProcess[str]]


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "regguard.cli", "passwd", *words]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


@pytest.fixture
def passwd(tmp_path: Path) -> Passwd:
    """Call it in an empty folder, with this on standard input and without a terminal."""

    def passwd(*words: str, given: str | bytes = "") -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            command(*words),
            cwd=tmp_path,
            env=environment(),
            input=given.encode() if isinstance(given, str) else given,
            capture_output=True,
            timeout=CALL_SECONDS,
            start_new_session=True,
            check=False,
        )
        assert b"Traceback" not in done.stderr, done.stderr
        return subprocess.CompletedProcess(
            done.args, done.returncode, done.stdout.decode(), done.stderr.decode()
        )

    return passwd


def hashes(folder: Path) -> dict[str, StoredHash]:
    lines = (folder / "htpasswd").read_text().splitlines()
    return {
        name: StoredHash.parse(text)
        for name, colon, text in (x.partition(":") for x in lines)
        if colon
    }


def test_add_change_verify_and_delete(passwd: Passwd, tmp_path: Path) -> None:
    """The whole life of a user, by a script."""
    added = passwd("htpasswd", "ci", "--stdin", given="first: one\n")
    assert (added.returncode, added.stdout, added.stderr) == (
        0,
        "htpasswd: made, mode 640; user ci added\n",
        "",
    )
    assert (tmp_path / "htpasswd").stat().st_mode & 0o7777 == 0o640
    assert hashes(tmp_path)["ci"].cost == 12
    assert hashes(tmp_path)["ci"].matches(b"first: one")

    assert passwd("htpasswd", "ci", "--verify", "--stdin", given="first: one").returncode == 0

    changed = passwd("htpasswd", "ci", "--stdin", "--cost", "10", given="pässword two\r\n")
    assert changed.stdout == "htpasswd: user ci has a new password\n"
    assert hashes(tmp_path)["ci"].cost == 10
    assert hashes(tmp_path)["ci"].matches("pässword two".encode())

    wrong = passwd("htpasswd", "ci", "--verify", "--stdin", given="first: one\n")
    assert (wrong.returncode, wrong.stdout) == (1, "")
    assert wrong.stderr == "regguard passwd: htpasswd: this is not the password of user ci\n"

    deleted = passwd("htpasswd", "ci", "--delete")
    assert (deleted.returncode, deleted.stdout) == (0, "htpasswd: user ci deleted\n")
    assert hashes(tmp_path) == {}


@pytest.mark.parametrize(
    ("words", "given", "reason"),
    [
        (["htpasswd", "ci", "--stdin"], "", "no password came on standard input"),
        (["htpasswd", "ci", "--stdin"], "\n", "the password is empty"),
        (["htpasswd", "ci", "--stdin"], "canary" * 13, "has 78 bytes, and bcrypt reads only 72"),
        (["htpasswd", "ci", "--stdin"], "canary\0\n", "control character"),
        (["htpasswd", "ci", "--stdin"], b"canary\xe9\n", "not in UTF-8"),
        (["htpasswd", "c:i", "--stdin"], "canary", "no colon"),
        (["htpasswd", "ci"], "canary", "there is no terminal to ask on; use --stdin"),
        (["htpasswd", "ci", "--delete"], "", "htpasswd: No such file"),
        (["htpasswd", "ci", "--verify", "--stdin"], "canary", "htpasswd: No such file"),
        (
            ["nowhere/htpasswd", "ci", "--stdin"],
            "canary",
            "/nowhere: no such folder; make it first",
        ),
    ],
)
def test_a_refusal_is_one_line_without_the_password(
    passwd: Passwd, tmp_path: Path, words: list[str], given: str | bytes, reason: str
) -> None:
    """Status 1, what is wrong on standard error, and nothing done."""
    done = passwd(*words, given=given)

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("regguard passwd: ")
    assert reason in done.stderr
    assert done.stderr.count("\n") == 1
    assert "canary" not in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--verify"], "htpasswd: there is no user eve"),
        (["--delete"], "htpasswd: there is no user eve"),
    ],
)
def test_an_unknown_user_is_named(
    passwd: Passwd, tmp_path: Path, words: list[str], reason: str
) -> None:
    """Status 1, and no password is asked for."""
    (tmp_path / "htpasswd").write_text("ci:x\n")
    done = passwd("htpasswd", "eve", *words)

    assert (done.returncode, done.stderr) == (1, f"regguard passwd: {reason}\n")


@pytest.mark.parametrize(
    "words",
    [[], ["htpasswd"], ["htpasswd", "ci", "a-password"], ["f", "ci", "--delete", "--verify"],
     ["f", "ci", "--cost", "9"], ["f", "ci", "--cost", "15"], ["f", "ci", "--cost", "x"],
     ["f", "ci", "--verify", "--cost", "12"], ["f", "ci", "--delete", "--stdin"]],
)  # fmt: skip
def test_wrong_words_are_answered_with_the_usage(passwd: Passwd, words: list[str]) -> None:
    """Status 2; a password is no word of the command."""
    done = passwd(*words)

    assert done.returncode == 2
    assert "a-password" not in done.stderr
    assert done.stderr.startswith("usage: regguard passwd")


def test_a_bad_line_is_mended_and_another_one_told(passwd: Passwd, tmp_path: Path) -> None:
    """What this is called for works; that the guard still refuses the file is said, too."""
    file = tmp_path / "htpasswd"
    file.write_text("ci:plain\nbob:plain\n")

    for user, lines in (("ci", 1), ("bob", 0)):
        done = passwd("htpasswd", user, "--stdin", "--cost", "10", given="password\n")
        assert done.returncode == 0
        assert done.stderr.count("regguard will not take this file: htpasswd:2: user bob") == lines


def test_a_short_password_is_warned_of(passwd: Passwd, tmp_path: Path) -> None:
    """It is taken all the same: rules for passwords are the operator's."""
    done = passwd("htpasswd", "ci", "--stdin", "--cost", "10", given="1234567\n")

    assert done.returncode == 0
    assert "warning: a password of less than 8 characters is soon guessed" in done.stderr
    assert passwd("htpasswd", "ci", "--stdin", "--cost", "10", given="12345678").stderr == ""


def test_verify_says_what_is_wrong_with_the_line(passwd: Passwd, tmp_path: Path) -> None:
    """A line that no password fits is not the same as a wrong password."""
    (tmp_path / "htpasswd").write_text("ci:!\nbob:{SHA}2jmj7l5rSw0yVb/vlWAYkK/YBwk=\n")

    assert "user ci: a locked password" in passwd("htpasswd", "ci", "--verify").stderr
    # The hash of nothing: the guard refuses an empty password before it is hashed.
    assert passwd("htpasswd", "bob", "--verify", "--stdin", given="\n").returncode == 1


@pytest.mark.parametrize("words", [["--stdin"], [], ["--verify", "--stdin"]])
def test_a_closed_standard_input_is_a_refusal(tmp_path: Path, words: list[str]) -> None:
    """As a service manager or a careless script leaves it."""
    (tmp_path / "htpasswd").write_text(f"ci:{StoredHash.make(b'x', 4).text}\n")
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" <&-', "sh", *command("htpasswd", "ci", *words)],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=CALL_SECONDS,
        start_new_session=True,
        check=False,
    )

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("regguard passwd: ")
    assert done.stderr.count("\n") == 1


def test_a_path_that_cannot_be_is_one_line(passwd: Passwd) -> None:
    """Too long a name is the system's to refuse, like any other."""
    done = passwd("a" * 300, "ci", "--stdin", "--cost", "10", given="password\n")

    assert (done.returncode, done.stdout) == (1, "")
    assert "File name too long" in done.stderr
    assert done.stderr.count("\n") == 1


def test_names_that_the_terminal_cannot_show_are_escaped(
    passwd: Passwd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was done is told as done."""
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    done = passwd("htpässwd", "jürgen", "--stdin", "--cost", "10", given="password\n")

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "htp\\xe4sswd: made, mode 640; user j\\xfcrgen added\n"
    assert (tmp_path / "htpässwd").read_text().startswith("jürgen:$2y$")


class Terminal:
    """The command on a terminal of its own."""

    def __init__(self, folder: Path, *words: str, controls: bool = True) -> None:
        self.shown = b""
        self._descriptor, terminal = pty.openpty()
        self._process = subprocess.Popen(
            ["setsid", *(["--ctty"] if controls else []), *command(*words)],
            cwd=folder,
            env=environment(),
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
        )
        os.close(terminal)

    def until(self, text: bytes) -> None:
        """Read until this is shown."""
        while text not in self.shown:
            self.shown += os.read(self._descriptor, 4096)

    def type(self, text: bytes) -> None:
        """As on the keyboard."""
        os.write(self._descriptor, text)

    @property
    def echoes(self) -> bool:
        """Whether what is typed is shown."""
        return bool(termios.tcgetattr(self._descriptor)[3] & termios.ECHO)

    def status(self) -> int:
        """Read to the end; the exit status."""
        try:
            while data := os.read(self._descriptor, 4096):
                self.shown += data
        except OSError:
            pass  # how Linux says that the other side is closed
        assert self.echoes
        os.close(self._descriptor)
        return self._process.wait(CALL_SECONDS)


def test_on_a_terminal_it_asks_twice_and_shows_nothing(tmp_path: Path) -> None:
    """The password is never on the screen."""
    terminal = Terminal(tmp_path, "htpasswd", "ci", "--cost", "10")
    terminal.until(b"New password of ci: ")
    terminal.type("cänary-1\n".encode())
    terminal.until(b"Once more: ")
    terminal.type("cänary-1\n".encode())

    assert terminal.status() == 0
    assert b"user ci added" in terminal.shown
    assert b"nary" not in terminal.shown
    assert hashes(tmp_path)["ci"].matches("cänary-1".encode())

    terminal = Terminal(tmp_path, "htpasswd", "ci", "--verify")
    terminal.until(b"Password of ci: ")
    terminal.type("cänary-1\n".encode())
    assert terminal.status() == 0
    assert b"nary" not in terminal.shown


def test_two_different_ones_change_nothing(tmp_path: Path) -> None:
    """Who mistyped is not locked out."""
    terminal = Terminal(tmp_path, "htpasswd", "ci")
    terminal.until(b"New password of ci: ")
    terminal.type(b"canary-1\n")
    terminal.until(b"Once more: ")
    terminal.type(b"canary-2\n")

    assert terminal.status() == 1
    assert b"these were two passwords; nothing is changed" in terminal.shown
    assert list(tmp_path.iterdir()) == []


def test_octets_that_are_no_text_are_refused_and_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a terminal of its own, Python passes them on, and names them in its error."""
    monkeypatch.setenv("PYTHONIOENCODING", "ascii:surrogateescape")
    terminal = Terminal(tmp_path, "htpasswd", "ci", controls=False)
    terminal.until(b"New password of ci: ")
    terminal.type(b"canary\xff\n")

    assert terminal.status() == 1
    assert b"the password is not in the terminal's encoding" in terminal.shown
    assert b"udcff" not in terminal.shown
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("key", "status"), [(b"\x03", 130), (b"\x04", 1)])
def test_ctrl_c_and_ctrl_d_end_it_quietly(tmp_path: Path, key: bytes, status: int) -> None:
    """Without a traceback, and without a file."""
    terminal = Terminal(tmp_path, "htpasswd", "ci")
    terminal.until(b"New password of ci: ")
    assert not terminal.echoes
    terminal.type(key)

    assert terminal.status() == status
    assert b"Traceback" not in terminal.shown
    assert list(tmp_path.iterdir()) == []


def test_a_password_is_no_argument_of_the_process(tmp_path: Path) -> None:
    """Every user of the machine reads the arguments of every process."""
    running = subprocess.Popen(
        command("htpasswd", "ci", "--stdin"),
        cwd=tmp_path,
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    )
    assert running.stdin is not None
    try:
        running.stdin.write(b"canary-1")
        running.stdin.flush()
        arguments = Path(f"/proc/{running.pid}/cmdline").read_bytes()
    finally:
        running.send_signal(signal.SIGKILL)
        running.communicate()

    assert b"canary" not in arguments
