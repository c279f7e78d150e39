"""regguard.service: what a running guard takes over from changed files, and what it says of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import LogEvent, LogLevel, capturedLogs, eventAsJSON, formatEvent
from twisted.python.failure import Failure
from twisted.python.usage import UsageError

from regguard import options, parts, service
from regguard.access import Denial, Grant, parse_access
from regguard.auth.hashes import StoredHash
from regguard.files import POLL_INTERVAL
from regguard.front.admission import RESERVED_FILES
from regguard.relay.upstream import MAX_IDLE
from tests.certificates import Authority

# Of checkers that Twisted brings, and we do not use.
pytestmark = pytest.mark.filterwarnings("ignore:'(spwd|crypt)' is deprecated")

CANARY = "canary-7f3a"
START = f"""\
no-tls = true
upstream = "http://rg:{CANARY}@registry"
push = "group:devs"
[[repository]]
match = "open/*"
push = "valid-user"
"""


class Reactor(MemoryReactorClock):
    """One whose threads run in this one, at once."""

    def getThreadPool(self) -> Reactor:
        return self

    def callInThreadWithCallback(
        self, onResult: Callable[[bool, Any], object], function: Callable[[], Any]
    ) -> None:
        try:
            outcome = function()
        except Exception:
            onResult(False, Failure())
        else:
            onResult(True, outcome)

    def callFromThread(self, function: Callable[..., object], *args: Any) -> None:
        function(*args)


class Running:
    """A guard that looks at its files, in an own folder."""

    def __init__(self, *words: str) -> None:
        self.reactor = Reactor()  # type: ignore[no-untyped-call]
        self.logs: list[LogEvent] = []
        given = service.Options()
        given.parseOptions(["-c", "r.toml", *words])
        self.guard = service.Guard(given.parts, self.reactor)
        self.guard._watcher.startService()

    def look(self) -> list[tuple[LogLevel, str]]:
        """Let a tick pass; what was logged meanwhile."""
        with capturedLogs() as logs:
            self.reactor.advance(POLL_INTERVAL)
        self.logs += logs
        return [(event["log_level"], formatEvent(event)) for event in logs]

    def changes(self, text: str) -> list[tuple[LogLevel, str]]:
        """The configuration holds this now; what was logged."""
        Path("r.toml").write_text(text)
        return self.look()

    def may(self, method: str, path: str, *groups: str) -> str:
        """The rule by which alice may do this, or may not."""
        verdict = self.guard._resource.policy.decide(
            "alice", frozenset(groups), parse_access(method.encode(), path.encode())
        )
        return f"{'not ' if isinstance(verdict, Denial) else ''}{verdict.rule}"

    def close(self) -> None:
        self.guard._watcher.stopService()


Start = Callable[..., Running]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Start guards in a folder with users, groups, and a configuration with a secret in it.

    Wherever it ends: no log line of theirs, in no format, tells the secret.
    """
    monkeypatch.chdir(tmp_path)
    Path("auth").mkdir()
    Path("auth/htpasswd").write_text(f"alice:{StoredHash.make(b'x', 10).text}\n")
    Path("auth/groups").write_text("devs: alice\npusher: alice\n")
    Path("r.toml").write_text(START)
    started: list[Running] = []

    def start(*words: str) -> Running:
        started.append(Running(*words))
        return started[-1]

    yield start
    for running in started:
        running.close()
        for event in running.logs:
            assert CANARY not in formatEvent(event) + eventAsJSON(event)


LOADED = (LogLevel.info, "r.toml: loaded anew, 1 [[repository]] table")
PUT = ("PUT", "/v2/open/x/manifests/v1")
KEEPS = "the version read before stays in force"


def test_a_changed_rule_counts_without_a_restart(start: Start) -> None:
    """Rules, global words, and the lines on which they stand."""
    running = start()
    assert running.may(*PUT) == "r.toml:6: push = valid-user"
    assert running.may("PUT", "/v2/x/manifests/v1") == "not r.toml:3: push = group:devs"

    changed = START.replace("valid-user", "nobody").replace('"group:devs"', '"valid-user"')
    assert running.changes("\n" + changed) == [LOADED]
    assert running.may(*PUT) == "not r.toml:7: push = nobody"
    assert running.may("PUT", "/v2/x/manifests/v1") == "r.toml:4: push = valid-user"

    assert running.changes(START) == [LOADED]
    assert running.may(*PUT) == "r.toml:6: push = valid-user"


def test_the_admin_port_is_told_of_and_stays_where_it_is(start: Start) -> None:
    """In the lines of the start and of ``--check``; another one takes a restart."""
    running = start("--admin", "tcp:127.0.0.1:9180")
    assert running.guard._parts.lines()[-1] == "health and metrics on tcp:9180:interface=127.0.0.1"
    assert not any("health" in line for line in start().guard._parts.lines())

    quiet = start()
    assert quiet.changes('admin = "tcp:9181"\n' + START) == [
        LOADED,
        (LogLevel.warn, "r.toml: admin changed; that takes a restart"),
    ]


def test_the_command_line_wins_after_a_reload_too(start: Start) -> None:
    """The words of the call stay."""
    running = start("--push", "nobody", "--hide")
    running.changes(START + "# changed")

    assert running.may("PUT", "/v2/x/manifests/v1") == "not command line: push = nobody"
    assert running.guard._resource.policy.hides


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (START + "[[repository]]\nmatch = 'A'", "r.toml:8: match: 'A': repository names have no"),
        (START + "[[repository", "r.toml: is no TOML: "),
        (START.replace("group:devs", "devs"), "r.toml:3: push: 'devs' is not understood: "),
        (START.replace("group:devs", CANARY + " "), f"r.toml:3: push: '{CANARY}' is not und"),
        ("tls-cert = 'x'\n" + START, "r.toml:2: no-tls: contradicts r.toml:1: tls-cert; say one"),
        # What is missing has no line.
        ("# nothing", "r.toml: --tls-cert: missing; name the certificate chain"),
        ("", "r.toml: empty; if that is meant"),
    ],
)
def test_a_broken_configuration_changes_nothing_and_is_told_once(
    start: Start, text: str, fault: str
) -> None:
    """File, line and cure in one line, however often it is looked at."""
    running = start()
    running.look()
    [(level, line)] = running.changes(text)
    running.logs.clear()

    assert level == LogLevel.error
    assert line.startswith(fault)
    assert line.endswith(f"; {KEEPS}")
    assert line.isprintable()
    assert [running.look() for _ in range(5)] == [[]] * 5
    assert running.may(*PUT) == "r.toml:6: push = valid-user"

    assert running.changes(START) == [LOADED]


def test_what_takes_a_restart_is_named(start: Start) -> None:
    """Once, by the option's name, and without its value; the rest counts."""
    running = start()
    changed = START.replace("registry", "other").replace("valid-user", "nobody")
    changed = f'realm = "{CANARY}"\nthrottle = "off"\nhtpasswd = "{CANARY}"\n{changed}'

    assert running.changes(changed) == [
        LOADED,
        *(
            (LogLevel.warn, f"r.toml: {name} changed; that takes a restart")
            for name in ("auth", "realm", "throttle", "upstream")
        ),
    ]
    assert running.may(*PUT) == "not r.toml:9: push = nobody"
    assert running.changes(changed.replace("nobody", "valid-user")) == [LOADED]


def test_what_was_changed_back_takes_no_restart(start: Start) -> None:
    """It is what the guard runs with."""
    running = start()
    running.changes('realm = "x"\n' + START)

    assert running.changes(START) == [LOADED]


def test_certificates_are_named_by_their_option(start: Start) -> None:
    """As an operator knows them."""
    running = start()
    Path("r.toml").write_text(START.replace("no-tls = true", 'tls-cert = "x"'))

    assert (LogLevel.warn, "r.toml: tls-cert changed; that takes a restart") in running.look()


# -- certificates ----------------------------------------------------------------------------


def test_g08_certificates_and_the_authority_of_clients_are_watched(start: Start) -> None:
    """By the same watcher as everything else; what is in force is what connections begin with."""
    authority = Authority("users")
    Authority().issue("old.example").write(Path())
    Path("clients.pem").write_bytes(authority.certificate)
    words = ("--tls-cert", "domain.crt", "--tls-client-ca", "clients.pem")
    Path("r.toml").write_text(START.replace("no-tls = true\n", ""))
    running = start(*words)
    certificates = running.guard._certificates
    assert certificates is not None
    before = certificates.context
    Authority().issue("new.example").write(Path())
    [(level, line)] = running.look()
    assert (level, line[:40]) == (LogLevel.info, "domain.crt: loaded anew, new.example; un")
    assert certificates.context is not before

    Path("clients.pem").write_bytes(b"nonsense")
    [(level, line)] = running.look()
    assert (level, line[:44]) == (LogLevel.error, "clients.pem: holds no PEM certificate; it st")


# -- groups that nobody knows ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "text", "complaint"),
    [
        (
            (),
            START.replace("valid-user", "group:ops"),
            "r.toml:6: push group:ops: no such group in auth/groups; add a line 'ops: USER' to it",
        ),
        (
            (),
            START.replace("group:devs", "group:ops"),
            "r.toml:3: push group:ops: no such group in auth/groups; add a line 'ops: USER' to it",
        ),
        (
            ("--delete", "group:ops"),
            START,
            "--delete group:ops: no such group in auth/groups; add a line 'ops: USER' to it",
        ),
    ],
)
def test_a_group_that_nobody_knows_stops_the_start(
    start: Start,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    text: str,
    complaint: str,
) -> None:
    """With the place and the cure."""
    Path("r.toml").write_text(text)
    with pytest.raises(SystemExit) as caught:
        start(*words)

    assert caught.value.code == service.USAGE_STATUS
    assert capsys.readouterr().err == f"regguard: {complaint}\n"


def test_a_group_that_nobody_knows_yet_is_a_warning_at_a_reload(start: Start) -> None:
    """The line in the groups file may come a moment later."""
    running = start()

    assert running.changes(START.replace("valid-user", "group:ops")) == [
        LOADED,
        (
            LogLevel.warn,
            (
                "r.toml:6: push group:ops: no such group in auth/groups, so nobody may push by it; "
                "add a line 'ops: USER' to it"
            ),
        ),
    ]
    assert running.may(*PUT, "ops") == "r.toml:6: push = group:ops"


def test_groups_are_not_judged_where_a_directory_has_its_own(start: Start) -> None:
    """Nobody can say which ones there are."""
    pytest.importorskip("ldap")
    Path("r.toml").write_text(START.replace("valid-user", "group:ops"))
    ldap = "ldap:ldap://127.0.0.1:1/ou=people,dc=x?uid"

    assert start("--auth", ldap).may(*PUT) == "not r.toml:6: push = group:ops"


def test_no_groups_file_is_told_with_the_cure(start: Start) -> None:
    """By default there need not be one."""
    Path("auth/groups").unlink()
    words = options.Options()
    words.parseOptions(["-c", "r.toml"])

    with pytest.raises(UsageError, match=r"r\.toml:3: push group:devs: there is no groups file; w"):
        parts.load(words.settings)


# -- a freeze --------------------------------------------------------------------------------


def frozen(rule: str, reason: str) -> tuple[LogLevel, str]:
    return (LogLevel.warn, f"frozen by {rule}: nobody may push or delete: {reason}")


THAWED = (LogLevel.info, "no longer frozen: who may push or delete by the rules may do it again")


def test_a_freeze_in_the_configuration_comes_and_goes(start: Start) -> None:
    """It counts at once, and is told once."""
    running = start()

    assert running.changes('freeze = "moving"\n' + START) == [
        LOADED,
        frozen("r.toml:1: freeze", "moving"),
    ]
    assert running.may(*PUT) == "not r.toml:1: freeze"
    assert running.may("GET", "/v2/open/x/manifests/v1") == "pull = valid-user"
    assert running.changes(START) == [LOADED, THAWED]
    assert running.may(*PUT) == "r.toml:6: push = valid-user"


def test_a_freeze_file_comes_and_goes(start: Start) -> None:
    """With its text, or without one; a change of it is told."""
    running = start("--freeze-file", "frozen")
    rule = "freeze-file frozen"
    assert running.look() == []

    Path("frozen").touch()
    assert running.look() == [frozen(rule, "no reason given")]
    assert running.may(*PUT) == f"not {rule}"

    Path("frozen").write_text("moving\n")
    assert running.look() == [frozen(rule, "moving")]
    assert running.look() == []
    assert running.guard._resource.policy.freeze is not None
    assert running.guard._resource.policy.freeze.reason == "moving"

    running.changes(START.replace("valid-user", "nobody"))
    assert running.may(*PUT) == f"not {rule}"

    Path("frozen").unlink()
    assert running.look() == [THAWED]
    assert running.may(*PUT) == "not r.toml:6: push = nobody"


def test_a_freeze_file_that_is_there_at_start_counts(start: Start) -> None:
    """It is told among what is guarded."""
    Path("frozen").touch()
    running = start("--freeze-file", "frozen")

    assert running.may(*PUT) == "not freeze-file frozen"
    assert "frozen: nobody may push or delete" in running.guard._parts.lines()


def test_no_rule_is_compiled_in_the_reactors_thread(start: Start) -> None:
    """A thousand take long: they are ready when a file was read, and stay through a freeze."""
    running = start("--freeze-file", "frozen")
    compiled = running.guard._settings.policy._matcher

    Path("frozen").touch()
    running.look()
    assert running.guard._resource.policy._matcher is compiled
    Path("frozen").unlink()
    running.changes(START + "# changed")
    assert running.guard._settings.policy._matcher is not compiled
    assert running.guard._resource.policy is running.guard._settings.policy


def test_of_two_freezes_each_holds_alone(start: Start) -> None:
    """The registry thaws when both are gone."""
    running = start("--freeze-file", "frozen")
    running.changes('freeze = "moving"\n' + START)
    Path("frozen").write_text("counting")
    assert running.look() == []

    assert running.changes(START) == [LOADED, frozen("freeze-file frozen", "counting")]
    Path("frozen").unlink()
    assert running.look() == [THAWED]


def test_another_freeze_file_takes_a_restart(start: Start) -> None:
    """The one named at start is looked at, and named."""
    Path("r.toml").write_text('freeze-file = "a"\n' + START)
    running = start()
    assert running.changes('freeze-file = "b"\n' + START) == [
        LOADED,
        (LogLevel.warn, "r.toml: freeze-file changed; that takes a restart"),
    ]
    Path("b").touch()
    assert running.look() == []
    Path("a").touch()
    assert running.look() == [frozen("freeze-file a", "no reason given")]


# -- what can't be read twice ----------------------------------------------------------------


def test_a_configuration_from_a_pipe_is_read_once(start: Start) -> None:
    """As the shell's <(...) gives it."""
    reader, writer = os.pipe()
    os.write(writer, START.encode())
    os.close(writer)
    given = service.Options()
    given.parseOptions(["-c", f"/dev/fd/{reader}"])
    os.close(reader)

    assert given.parts.config is None
    assert f"repositories by rules: {given.parts.settings}" in given.parts.lines()
    running = service.Guard(given.parts, Reactor())  # type: ignore[no-untyped-call]
    verdict = running._resource.policy.decide(
        "alice", frozenset(), parse_access(*map(str.encode, PUT))
    )
    assert isinstance(verdict, Grant)


@pytest.mark.parametrize("registries", [1, 3])
def test_h06_each_registry_may_keep_idle_connections(
    start: Start, monkeypatch: pytest.MonkeyPatch, registries: int
) -> None:
    """Their file descriptors are not for clients."""
    limit = 1024
    monkeypatch.setattr("resource.getrlimit", lambda which: (limit, limit))
    monkeypatch.setattr("resource.setrlimit", lambda which, limits: None)
    upstreams = [word for n in range(registries - 1) for word in ("--upstream", f"http://r{n}")]
    running = start("--upstream", "http://registry", *upstreams)
    room = running.guard._admission().room

    assert room == (limit - RESERVED_FILES - registries * MAX_IDLE) // 2
