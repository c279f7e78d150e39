"""regguard.ops.log_file: whole lines, into files and pipes, and never in anybody's way."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from zope.interface import implementer

from regguard.ops import LogFile, never_wait_for
from tests.ops.requests import PIPE_BUF


@pytest.fixture
def said() -> Iterator[list[str]]:
    """What the daemon's own log says."""
    lines: list[str] = []

    @implementer(ILogObserver)
    def observe(event: LogEvent) -> None:
        lines.append(formatEvent(event))

    globalLogPublisher.addObserver(observe)
    yield lines
    globalLogPublisher.removeObserver(observe)


def test_a_file_is_appended_to(tmp_path: Path) -> None:
    """Never truncated, and not for everybody to read."""
    path = tmp_path / "access.log"
    for line in (b"one\n", b"two\n"):
        file = LogFile(str(path))
        file.write(line)
        file.close()

    assert path.read_bytes() == b"one\ntwo\n"
    assert stat.S_IMODE(path.stat().st_mode) & 0o007 == 0


def test_standard_output_stays_open(capfd: pytest.CaptureFixture[str]) -> None:
    """Others print there, too."""
    file = LogFile("-")
    file.write(b"one\n")
    file.close()
    print("two", flush=True)  # noqa: T201

    assert capfd.readouterr().out == "one\ntwo\n"


def test_a_file_that_cannot_be_opened_is_an_oserror(tmp_path: Path) -> None:
    """At the start, where the operator sees it."""
    with pytest.raises(OSError, match="No such file"):
        LogFile(str(tmp_path / "nowhere" / "access.log"))


def test_f05_a_full_disk_costs_lines_only(said: list[str]) -> None:
    """No exception, whatever goes wrong."""
    file = LogFile("/dev/full")
    for _ in range(3):
        file.write(b"line\n" * 1000)
    file.close()

    assert said == []


def test_f05_a_closed_pipe_costs_lines_only() -> None:
    """A log shipper that died must not end the daemon."""
    reading, writing = os.pipe()
    file = LogFile(f"/dev/fd/{writing}")
    os.close(reading)
    file.write(b"line\n")
    file.close()
    os.close(writing)


def test_f05_a_fifo_that_nobody_reads_does_not_block(tmp_path: Path) -> None:
    """Neither the start nor a turn of the reactor."""
    path = tmp_path / "fifo"
    os.mkfifo(path)

    with pytest.raises(OSError) as caught:  # noqa: PT011
        LogFile(str(path))
    assert caught.value.errno == errno.ENXIO


def test_f05_a_full_pipe_costs_lines_and_says_how_many(
    said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Standard output blocks, as its owner has it: yet no write waits, and none tears a line."""
    reading, writing = os.pipe()
    file = standard_output(writing, monkeypatch)
    assert os.get_blocking(writing)
    line = b"x" * 149 + b"\n"
    for _ in range(2):
        file.write(line * 1000)
    read = drained(reading)
    kept = read.count(b"\n")
    assert read == line * kept
    assert 0 < kept < 1000
    file.write(line * 2)

    assert drained(reading) == line * 2
    assert said == [f"{2000 - kept} lines of the access log were lost"]
    os.close(reading)
    os.close(writing)


def test_f06_a_line_that_was_torn_after_all_ends_before_the_next_one(
    said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A socket takes what it has room for; what came of the line is not made up to another."""
    reading, writing = os.pipe()
    file = standard_output(writing, monkeypatch)
    really = os.write
    monkeypatch.setattr("os.write", lambda fd, data: really(fd, data[:3]))
    polls = iter([True, False])
    monkeypatch.setattr(file, "_poll", Poll(lambda: next(polls)))
    file.write(b"first\nsecond\n")
    monkeypatch.undo()
    file.write(b"third\n")

    assert drained(reading) == b"fir\nthird\n"
    assert said == ["2 lines of the access log were lost"]
    os.close(reading)
    os.close(writing)


@dataclass
class Poll:
    """Says whether there is room."""

    has_room: Callable[[], bool]

    def poll(self, timeout: int) -> bool:
        return self.has_room()


def standard_output(descriptor: int, monkeypatch: pytest.MonkeyPatch) -> LogFile:
    """The log of a daemon that has this as its standard output."""

    class Output:
        @staticmethod
        def fileno() -> int:
            return descriptor

    with monkeypatch.context() as patch:
        patch.setattr("sys.stdout", Output)
        return LogFile("-")


def drained(descriptor: int) -> bytes:
    """All that is in a pipe."""
    os.set_blocking(descriptor, False)
    read = bytearray()
    with contextlib.suppress(BlockingIOError):
        while data := os.read(descriptor, 65536):
            read += data
    return bytes(read)


# -- F06: whole lines, and rotation ----------------------------------------------------------


@pytest.mark.parametrize("length", [1, 99, 4095, 4096])
def test_f06_a_pipe_gets_pieces_that_end_with_a_line(
    length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each no longer than what a pipe takes whole: another process's lines come in between."""
    reading, writing = os.pipe()
    file = standard_output(writing, monkeypatch)
    pieces: list[bytes] = []
    monkeypatch.setattr("os.write", lambda _, data: pieces.append(data) or len(data))
    lines = (b"x" * (length - 1) + b"\n") * 50
    file.write(lines)
    monkeypatch.undo()

    assert b"".join(pieces) == lines
    assert all(piece.endswith(b"\n") and len(piece) <= PIPE_BUF for piece in pieces)
    assert len(pieces) == math.ceil(50 / (PIPE_BUF // length))
    os.close(reading)
    os.close(writing)


def test_f06_what_no_pipe_takes_whole_comes_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """No format writes such a line; if one did, the lines around it are whole."""
    reading, writing = os.pipe()
    file = standard_output(writing, monkeypatch)
    lines = b"short\n" + b"x" * 10_000 + b"\nshort\n"
    file.write(lines)

    assert drained(reading) == lines
    os.close(reading)
    os.close(writing)


def test_f06_after_a_rotation_lines_go_into_the_new_file(tmp_path: Path, said: list[str]) -> None:
    """logrotate renames, and sends SIGHUP; until then the old file gets them."""
    path, rotated = tmp_path / "access.log", tmp_path / "access.log.1"
    file = LogFile(str(path))
    file.write(b"one\n")
    path.rename(rotated)
    file.write(b"two\n")
    file.reopen()
    file.write(b"three\n")
    file.reopen()
    file.write(b"four\n")
    file.close()

    assert rotated.read_bytes() == b"one\ntwo\n"
    assert path.read_bytes() == b"three\nfour\n"
    assert said == []


def test_f06_a_file_that_was_copied_and_truncated_begins_anew(tmp_path: Path) -> None:
    """logrotate's copytruncate: no hole of zeros where the old lines were."""
    path = tmp_path / "access.log"
    file = LogFile(str(path))
    file.write(b"one\n")
    os.truncate(path, 0)
    file.write(b"two\n")
    file.close()

    assert path.read_bytes() == b"two\n"


def test_f06_a_file_that_cannot_be_opened_anew_leaves_the_old_one(
    tmp_path: Path, said: list[str]
) -> None:
    """Nothing is lost, and one line names option, file and cure."""
    path, rotated = tmp_path / "access.log", tmp_path / "access.log.1"
    file = LogFile(str(path))
    path.rename(rotated)
    path.mkdir()
    file.reopen()
    file.write(b"one\n")
    file.close()

    assert rotated.read_bytes() == b"one\n"
    [line] = said
    assert line == (
        f"--access-log {path}: cannot be opened anew (Is a directory); the file that is open "
        "stays: check the path and its mode, then send SIGHUP again"
    )


def test_f06_reopening_leaves_nothing_open(tmp_path: Path) -> None:
    """One file it is, however often."""
    file = LogFile(str(tmp_path / "access.log"))
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(10):
        file.reopen()

    assert len(list(Path("/proc/self/fd").iterdir())) == before
    file.close()


def test_f06_standard_output_is_not_opened_anew(capfd: pytest.CaptureFixture[str]) -> None:
    """There is no name to open."""
    file = LogFile("-")
    file.reopen()
    file.write(b"one\n")

    assert capfd.readouterr().out == "one\n"


WRITER = """
import sys
from regguard.ops import LogFile, never_wait_for
never_wait_for(1)
file = LogFile(sys.argv[1])
for _ in range(50):
    file.write((sys.argv[2].encode() * 149 + b"\\n") * 400)
"""


@pytest.mark.parametrize("into", ["file", "pipe"])
def test_f06_lines_of_several_processes_are_whole(into: str, tmp_path: Path) -> None:
    """Workers share a file, or standard output: nobody's line is torn by another's."""
    path = tmp_path / "access.log"
    reading, output = os.pipe()
    target = "-" if into == "pipe" else str(path)
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, target, letter], stdout=output)
        for letter in "abc"
    ]
    os.close(output)
    with os.fdopen(reading, "rb") as pipe:
        read = pipe.read()
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    lines = (path.read_bytes() if into == "file" else read).splitlines()

    # A pipe that is full costs lines, and may cost all of one's.
    assert lines
    assert set(lines) <= {letter * 149 for letter in (b"a", b"b", b"c")}
    if into == "file":
        assert len(lines) == 3 * 50 * 400


def test_f06_a_short_write_to_a_file_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file takes part of a write when the disk is nearly full, or by a limit."""
    really = os.write
    monkeypatch.setattr("os.write", lambda fd, data: really(fd, data[:7]))
    file = LogFile(str(tmp_path / "access.log"))
    file.write(b"first line\nsecond line\n")
    file.close()

    assert (tmp_path / "access.log").read_bytes() == b"first line\nsecond line\n"


def test_f05_a_pipe_is_made_to_fail_for_us_alone() -> None:
    """Others who hold it, a shell's other programs for instance, may wait for its reader."""
    reading, writing = os.pipe()
    shared = os.dup(writing)
    never_wait_for(writing)

    assert os.get_blocking(shared)
    with contextlib.suppress(BlockingIOError):
        while os.write(writing, b"x" * 4096):
            pass
    with pytest.raises(BlockingIOError):
        os.write(writing, b"x" * 4096)
    assert os.read(reading, 10) == b"x" * 10
    for descriptor in (reading, writing, shared):
        os.close(descriptor)


def test_f05_a_socket_is_made_to_fail(tmp_path: Path) -> None:
    """The journal's; a file stays as it is, and what is closed is no error."""
    ours, journal = socket.socketpair()
    never_wait_for(ours.fileno())
    with (tmp_path / "log").open("wb") as file:
        never_wait_for(file.fileno())
        assert os.get_blocking(file.fileno())
    number = ours.fileno()

    assert not os.get_blocking(number)
    ours.close()
    journal.close()
    never_wait_for(number)
