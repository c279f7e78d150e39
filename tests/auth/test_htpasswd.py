"""regguard.auth.htpasswd: the password file, and the checker on it."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from passlib.hash import bcrypt
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import UsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs
from zope.interface.verify import verifyObject

from regguard.auth.hashes import StoredHash
from regguard.auth.htpasswd import HtpasswdChecker, parse_htpasswd
from regguard.auth.interfaces import (
    IHostedChecker,
    IStoredHashChecker,
    IVersionedChecker,
    Overloaded,
)
from regguard.auth.threads import WAITING_PER_THREAD
from regguard.files import POLL_INTERVAL, FileError, FileWatcher

Write = Callable[..., str]
Outcome = Callable[[Any], Any]

ONE = bcrypt.using(rounds=4).hash("one")
TWO = bcrypt.using(rounds=4).hash("two")
STRONG = bcrypt.using(rounds=5).hash("strong")
SHA = "{SHA}GpHWL3ymc5liWkNopqtdSjuqYHM="


def ask(checker: HtpasswdChecker, name: str, password: str) -> Any:
    return checker.requestAvatarId(UsernamePassword(name.encode(), password.encode()))


def test_interfaces(write: Write) -> None:
    """It is a checker that has versions and can be hosted."""
    checker = HtpasswdChecker(write(f"ci:{ONE}"))

    for interface in (
        ICredentialsChecker,
        IVersionedChecker,
        IHostedChecker,
        IStoredHashChecker,
    ):
        verifyObject(interface, checker)


def test_e14_a_usual_file_is_read() -> None:
    """Comments, blank lines, CR LF, a missing last line end and odd names are all fine."""
    data = (
        f"# users\r\nci:{ONE}\r\n\n a#b :x\n".replace(" a#b :x", f"a#b c:{TWO}") + f"jürgen:{SHA}"
    )

    table = parse_htpasswd(data.encode(), "auth/htpasswd")

    assert set(table.users) == {b"ci", b"a#b c", "jürgen".encode()}
    assert repr(table) == "3 users"
    assert repr(parse_htpasswd(f"ci:{ONE}".encode(), "auth/htpasswd")) == "1 user"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("ci", "auth/htpasswd:2: no colon: write user:hash"),
        (f":{ONE}", "auth/htpasswd:2: no user name"),
        (f"bob:{ONE}\nci:{ONE}\nbob:{TWO}", "auth/htpasswd:4: user bob stands in line 2 already"),
        (f"ci :{ONE}", "auth/htpasswd:2: blanks around"),
        (f" ci:{ONE}", "auth/htpasswd:2: blanks around"),
        (f"ci:{ONE} ", "auth/htpasswd:2: blanks around"),
        (f"ci: {ONE}", "auth/htpasswd:2: blanks around"),
        (f"c\u202ei:{ONE}", "auth/htpasswd:2: a character in the user name"),
        (f"c\x1bi:{ONE}", "auth/htpasswd:2: a character in the user name"),
        ("ci:", "auth/htpasswd:2: user ci: no hash behind the colon; make the line anew: regg"),
        ("ci:!", "auth/htpasswd:2: user ci: a locked password"),
        ("ci:*", "auth/htpasswd:2: user ci: a locked password"),
        (f"ci:{ONE[:40]}", "auth/htpasswd:2: user ci: not a password hash"),
        (f"ci:{ONE}:1000", "auth/htpasswd:2: user ci: not a password hash"),
        (f"ci:{ONE.replace('$04$', '$31$')}", "auth/htpasswd:2: user ci: bcrypt cost 31"),
        (f"ci:{ONE}\0", "auth/htpasswd:2: a NUL byte"),
    ],
)
def test_e14_e15_a_bad_line_is_refused_with_its_number(text: str, reason: str) -> None:
    """Errors name file, line, user and cure."""
    with pytest.raises(FileError) as caught:
        parse_htpasswd(f"# line one\n{text}".encode(), "auth/htpasswd")

    assert str(caught.value).startswith(reason)


def test_f01_a_password_in_plain_text_is_not_repeated() -> None:
    """Who wrote a password instead of a hash does not find it in the log."""
    with pytest.raises(FileError) as caught:
        parse_htpasswd(b"ci:canary", "f")

    assert "canary" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_e14_a_large_file_is_read() -> None:
    """A hundred thousand users are no more than a moment's work."""
    data = "".join(f"user{number}:{SHA}\n" for number in range(100_000))

    assert len(parse_htpasswd(data.encode(), "f").users) == 100_000


def test_a_file_of_comments_locks_everybody_out(write: Write, outcome: Outcome) -> None:
    """No user is a legal number of users, and no password is right then."""
    checker = HtpasswdChecker(write("# closed\n"))

    assert isinstance(outcome(ask(checker, "ci", "one")), UnauthorizedLogin)


def test_e10_decoys_are_mixed_as_the_file_is() -> None:
    """Unknown users are refused at the prices that known ones have, each one always at its own."""
    table = parse_htpasswd(f"a:{SHA}\nb:{STRONG}\nc:{ONE}\nd:{STRONG}\n".encode(), "f")
    drawn = [table.decoy(lot / 400) for lot in range(400)]

    assert Counter(stored and (stored.scheme, stored.cost) for stored in drawn) == {
        ("bcrypt", 4): 100,
        ("bcrypt", 5): 200,
        ("{SHA}", 0): 100,
    }
    assert parse_htpasswd(b"#", "f").decoy(0.5) is None


def test_e10_an_unknown_name_keeps_its_decoy(
    write: Write, outcome: Outcome, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither repeating a name nor a reload shows that it is made up; names differ."""
    tried: list[str] = []

    def trying(self: StoredHash, password: bytes) -> bool:
        tried.append(self.scheme)
        return False

    monkeypatch.setattr(StoredHash, "matches", trying)
    checker = HtpasswdChecker(write(f"a:{SHA}\nb:{ONE}\n"))

    for _ in range(3):
        for number in range(40):
            outcome(ask(checker, f"nobody{number}", "x"))
        write(f"# as before\nb:{TWO}\na:{SHA}\n")

    assert tried[:40] == tried[40:80] == tried[80:]
    assert set(tried) == {"{SHA}", "bcrypt"}


def test_e02_the_hash_of_an_empty_password_is_never_accepted(
    write: Write, outcome: Outcome
) -> None:
    """Even where the file holds one."""
    checker = HtpasswdChecker(write(f"ci:{bcrypt.using(rounds=4).hash('')}"))

    assert isinstance(outcome(ask(checker, "ci", "")), UnauthorizedLogin)


@pytest.mark.parametrize(
    ("name", "password"),
    [("ci", "two"), ("ci", "ONE"), ("CI", "one"), ("ci ", "one"), ("eve", "one"), ("", "one"),
     ("ci", ""), ("ci", ONE)],
)  # fmt: skip
def test_wrong_credentials_are_unauthorized(
    write: Write, outcome: Outcome, name: str, password: str
) -> None:
    """Only the very name and the very password log in (an empty one never does)."""
    checker = HtpasswdChecker(write(f"ci:{ONE}\nbob:{TWO}\n"))

    assert isinstance(outcome(ask(checker, name, password)), UnauthorizedLogin)
    assert outcome(ask(checker, "ci", "one")) == b"ci"


def test_e10_an_unknown_user_costs_what_a_wrong_password_costs(
    write: Write, outcome: Outcome, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are one verification; even the decoy's own password lets nobody in."""
    checker = HtpasswdChecker(write(f"ci:{ONE}\n"))
    tried: list[StoredHash] = []
    matches = StoredHash.matches

    def counting(self: StoredHash, password: bytes) -> bool:
        tried.append(self)
        return matches(self, password)

    monkeypatch.setattr(StoredHash, "matches", counting)

    assert isinstance(outcome(ask(checker, "ci", "wrong")), UnauthorizedLogin)
    assert isinstance(outcome(ask(checker, "eve", "one")), UnauthorizedLogin)
    assert [stored.cost for stored in tried] == [4, 4]


def test_by_itself_it_notices_a_change_at_the_next_login(write: Write, outcome: Outcome) -> None:
    """In a program that never attaches it, the file is looked at for each log-in."""
    checker = HtpasswdChecker(write(f"ci:{ONE}\n"))
    write(f"ci:{TWO}\n")

    assert outcome(ask(checker, "ci", "two")) == b"ci"
    assert isinstance(outcome(ask(checker, "ci", "one")), UnauthorizedLogin)


def test_attached_it_hashes_in_threads_and_is_watched(
    write: Write, threads: Any, watcher: FileWatcher, clock: Clock, outcome: Outcome
) -> None:
    """The reactor's thread neither hashes nor reads the file."""
    checker = HtpasswdChecker(write(f"ci:{ONE}\n"))
    checker.attach(threads.service, watcher)
    write(f"ci:{TWO}\n")

    answer = ask(checker, "ci", "one")
    assert not answer.called
    threads.pool.run_all()
    assert outcome(answer) == b"ci"

    clock.advance(POLL_INTERVAL)
    answer = ask(checker, "ci", "one")
    threads.pool.run_all()
    assert isinstance(outcome(answer), UnauthorizedLogin)


def test_e11_a_full_queue_is_no_verdict(
    write: Write, threads: Any, watcher: FileWatcher, outcome: Outcome
) -> None:
    """Who finds the queue full is neither let in nor told that the password is wrong."""
    checker = HtpasswdChecker(write(f"ci:{ONE}\n"))
    checker.attach(threads.service, watcher)
    for _ in range(2 + 2 * WAITING_PER_THREAD):
        threads.service.run(int)

    assert isinstance(outcome(ask(checker, "ci", "one")), Overloaded)
    assert isinstance(outcome(ask(checker, "eve", "one")), Overloaded)


def test_e13_the_version_is_the_stored_hash(
    write: Write, threads: Any, watcher: FileWatcher, clock: Clock
) -> None:
    """It changes with the user's line, goes with it, and survives other changes."""
    checker = HtpasswdChecker(write(f"ci:{ONE}\nbob:{TWO}\n"))
    checker.attach(threads.service, watcher)
    before = checker.version_of(b"ci"), checker.version_of(b"bob")

    write(f"# moved\nbob:{TWO}\nci:{STRONG}\n")
    clock.advance(POLL_INTERVAL)
    assert checker.version_of(b"ci") != before[0]
    assert checker.version_of(b"bob") == before[1]

    write(f"bob:{TWO}\n")
    clock.advance(POLL_INTERVAL)
    assert checker.version_of(b"ci") is None
    assert checker.version_of(b"eve") is None


def test_f01_nothing_prints_a_hash(write: Write) -> None:
    """Checker, file, table and version print names and numbers only."""
    checker = HtpasswdChecker(write(f"ci:{ONE}\n"))
    printed = f"{checker!r} {checker.file!r} {checker.file.content!r} {checker.version_of(b'ci')!r}"

    assert "$2" not in printed
    assert ONE[-20:] not in printed


def warned(logs: Sequence[dict[str, Any]]) -> list[str]:
    return [event["warning"] for event in logs if event["log_level"] is LogLevel.warn]


def test_e15_weak_hashes_are_named_once_at_start_and_when_new(
    write: Write, threads: Any, watcher: FileWatcher, clock: Clock
) -> None:
    """A reload warns of those only whose hash was not weak before."""
    safe = StoredHash.make(b"safe", 10).text
    path = write(f"ci:{ONE}\nbob:{SHA}\nsafe:{safe}\n")
    checker = HtpasswdChecker(path)
    checker.attach(threads.service, watcher)
    warning = checker.warning()
    assert warning is not None
    assert warning.startswith(f"{path}: weak hashes")
    assert "bob ({SHA}), ci (bcrypt cost 4); " in warning
    assert f"'regguard passwd {path} USER'" in warning
    assert "safe" not in warning

    write(f"ci:{TWO}\nbob:{SHA}\nsafe:{safe}\n# changed\n")
    with capturedLogs() as logs:
        clock.advance(POLL_INTERVAL)
    assert warned(logs) == []

    write(f"ci:{TWO}\nbob:{SHA}\nsafe:{SHA}\nnew:{ONE}\n")
    with capturedLogs() as logs:
        clock.pump([POLL_INTERVAL] * 4)
    (line,) = warned(logs)
    assert ": new (bcrypt cost 4), safe ({SHA}); " in line

    write(f"safe:{safe}\n")
    clock.advance(POLL_INTERVAL)
    assert checker.warning() is None


def test_a_warning_stays_a_line(write: Write) -> None:
    """Ten names and a number, however many there are."""
    checker = HtpasswdChecker(write("".join(f"user{n:02}:{SHA}\n" for n in range(30))))
    warning = checker.warning()

    assert warning is not None
    assert "user09 ({SHA}), and 20 more; " in warning
    assert "user10" not in warning


def test_e15_weak_hashes_are_refused_where_that_is_said(
    write: Write, threads: Any, watcher: FileWatcher, clock: Clock
) -> None:
    """With file, line, user and cure: at once, and at a reload, which keeps the old version."""
    safe = StoredHash.make(b"safe", 10).text
    path = write(f"safe:{safe}\nbob:{SHA}\n")
    with pytest.raises(FileError) as caught:
        HtpasswdChecker(path).refuse_weak()
    assert str(caught.value) == (
        f"{path}:2: user bob: {{SHA}} is weaker than --minimum-hash bcrypt takes; "
        f"make the line anew: regguard passwd {path} bob"
    )

    write(f"safe:{safe}\n")
    checker = HtpasswdChecker(path)
    checker.refuse_weak()
    checker.attach(threads.service, watcher)
    assert checker.warning() is None
    write(f"safe:{safe}\nci:{ONE}\n")
    clock.advance(POLL_INTERVAL)
    assert set(checker.file.content.users) == {b"safe"}
    assert f"{path}:2: user ci: bcrypt cost 4 is weaker" in str(checker.file.fault)


@pytest.mark.parametrize("name", ["it's", "a b", "$HOME"])
def test_the_cure_is_a_line_to_paste(name: str) -> None:
    """Names and paths are quoted for a shell."""
    with pytest.raises(FileError) as caught:
        parse_htpasswd(f"{name}:x".encode(), "auth/my file")

    _, _, command = str(caught.value).rpartition("anew: ")
    assert shlex.split(command) == ["regguard", "passwd", "auth/my file", name]
