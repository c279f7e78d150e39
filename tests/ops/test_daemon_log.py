"""regguard.ops.daemon_log: one printable line for an event, as the journal likes it."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from twisted.logger import FileLogObserver, ILogObserver, Logger, LogLevel
from twisted.python.failure import Failure
from zope.interface.verify import verifyObject

from regguard.ops.daemon_log import complain, is_journal, json_log, settle, text_log

Factory = Callable[[Any], FileLogObserver]


def said(factory: Factory, stream: Any, say: Callable[[Logger], None]) -> list[str]:
    """The lines that come of what is said to a logger."""
    say(Logger(namespace="regguard.x", observer=factory(stream)))
    stream.seek(0)
    text = stream.read()
    assert text.endswith("\n") or not text
    return str(text).split("\n")[:-1]


def in_file(factory: Factory, say: Callable[[Logger], None]) -> list[str]:
    """The same, where the stream is no journal's."""
    return said(factory, io.StringIO(), say)


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A stream that the service manager says is the journal's."""
    stream = (tmp_path / "journal").open("w+")
    status = (tmp_path / "journal").stat()
    monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
    yield stream
    stream.close()


def fault(log: Logger) -> None:
    """A failure, with a traceback of two lines and what it says."""
    try:
        raise ValueError("one\x1b[2J\ntwo")
    except ValueError:
        log.failure("it failed: {what}", Failure(), what="a\nb")


@pytest.mark.parametrize("factory", [text_log, json_log])
def test_these_are_observers(factory: Factory) -> None:
    """As twist wants them."""
    assert verifyObject(ILogObserver, factory(io.StringIO()))


def test_text_is_a_time_a_place_and_what_was_said() -> None:
    """One line for one event."""
    [line] = in_file(text_log, lambda say: say.warn("{a} and {b}", a=1, b="two"))

    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4} \[regguard\.x#warn\] 1 and two", line
    )


def test_an_event_without_words_is_no_line() -> None:
    """There is nothing to say."""
    assert in_file(text_log, lambda say: say.info("")) == []


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\r\nb", r"a\r\nb"),
        ("\x1b[2J\0\x7f\x9b", r"\x1b[2J\x00\x7f\x9b"),
        ("a\u202eb\u2028c", r"a\u202eb\u2028c"),
        ("a\udc80b", r"a\udc80b"),
        ("\u00fc \U0001f433 \\n", "\u00fc \U0001f433 \\n"),
    ],
)
def test_f02_what_is_not_printable_is_escaped(text: str, shown: str) -> None:
    """No event makes two lines, and none moves a terminal's cursor."""
    [line] = in_file(text_log, lambda say: say.info("{text}.", text=text))

    assert line.endswith(f"[regguard.x#info] {shown}.")


def test_f02_a_traceback_is_lines_that_look_like_no_event() -> None:
    """They begin with a tab, and what an error says is escaped."""
    first, *others = in_file(text_log, fault)

    assert first.endswith(r"[regguard.x#critical] it failed: a\nb")
    assert others[0] == "\tTraceback (most recent call last):"
    assert others[-2:] == ["\tbuiltins.ValueError: one\\x1b[2J", "\ttwo"]
    assert all(line.startswith("\t") for line in others)


def test_a_traceback_that_fails_is_told() -> None:
    """A log line must not fail for what it is about."""

    class Broken:
        def getTraceback(self) -> str:
            raise RuntimeError("no")

    lines = in_file(text_log, lambda say: say.error("x", log_failure=Broken()))

    assert lines[1:] == ["\t(no traceback: RuntimeError)"]


@pytest.mark.parametrize(
    ("level", "priority"),
    [("debug", 7), ("info", 6), ("warn", 4), ("error", 3), ("critical", 2)],
)
def test_the_journal_gets_priorities_and_no_time(journal: Any, level: str, priority: int) -> None:
    """sd-daemon(3); it has the time itself."""
    level_ = LogLevel.levelWithName(level)

    assert said(text_log, journal, lambda say: say.emit(level_, "words")) == [
        f"<{priority}>[regguard.x#{level}] words"
    ]


def test_in_the_journal_each_line_of_a_traceback_keeps_the_priority(journal: Any) -> None:
    """Each of them is an entry of its own there."""
    first, *others = said(text_log, journal, fault)

    assert first == r"<2>[regguard.x#critical] it failed: a\nb"
    assert others[0] == "<2>Traceback (most recent call last):"
    assert others[-1] == "<2>two"
    assert all(line.startswith("<2>") for line in others)


def test_json_is_twists(journal: Any) -> None:
    """Records as RFC 7464 has them; the journal, which calls them blobs, gets lines."""
    [line] = in_file(json_log, lambda say: say.warn("{a}", a="\x1b"))
    assert line[0] == "\x1e"
    assert json.loads(line[1:])["a"] == "\x1b"
    [line] = said(json_log, journal, lambda say: say.warn("{a}", a="\x1b"))
    assert line.startswith('<4>{"')
    assert json.loads(line[3:])["a"] == "\x1b"


def test_only_the_stream_itself_is_the_journal(
    journal: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A redirected output has the variable, too; and what is no file is none."""
    assert is_journal(journal)
    with (tmp_path / "other").open("w") as other:
        assert not is_journal(other)
    assert not is_journal(other)
    assert not is_journal(io.StringIO())
    monkeypatch.delenv("JOURNAL_STREAM")
    assert not is_journal(journal)


def test_a_complaint_is_one_line_and_an_error_to_the_journal(
    journal: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """``journalctl -p err`` shows why the daemon did not start."""
    complain("it is so")
    assert capsys.readouterr().err == "regguard: it is so\n"
    monkeypatch.setattr("sys.stderr", journal)
    complain("it is so")
    journal.seek(0)
    assert journal.read() == "<3>regguard: it is so\n"


@pytest.mark.parametrize(("log_format", "factory"), [("text", text_log), ("json", json_log)])
def test_twists_options_hold_our_factory(log_format: str, factory: Factory) -> None:
    """In place of the one for the format that was chosen (the real ``twist``: tests/e2e)."""
    options = {"logFormat": log_format, "fileLogObserverFactory": object()}
    settle(options)

    assert options["fileLogObserverFactory"] is factory


@pytest.mark.parametrize("options", [{}, {"logFormat": "text"}, {"logFormat": "other"}])
def test_another_programs_options_stay_as_they_are(options: dict[str, Any]) -> None:
    """twistd has its own logging."""
    settle(before := dict(options))

    assert before == options
