"""regguard.files: every change is noticed, and only good versions count."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs

from regguard import files
from regguard.files import (
    POLL_INTERVAL,
    SIZE_LIMIT,
    FileError,
    FileWatcher,
    MarkerFile,
    WatchedFile,
    text_lines,
)

Write = Callable[..., str]


def parse(data: bytes, path: str) -> bytes:
    if data.startswith(b"bad"):
        raise FileError(f"{path}:1: bad: make it good")
    if data.startswith(b"bug"):
        raise ZeroDivisionError
    return data


@pytest.fixture
def watched(write: Write, watcher: FileWatcher) -> WatchedFile[bytes]:
    file = WatchedFile(write("one"), parse)
    watcher.watch(file)
    return file


def levels(logs: Sequence[dict[str, Any]]) -> list[LogLevel]:
    return [event["log_level"] for event in logs]


def rewrite(path: str, content: bytes) -> None:
    Path(path).write_bytes(content)


def rename(path: str, content: bytes) -> None:
    new = Path(path + ".new")
    new.write_bytes(content)
    new.rename(path)


def swap_symlink(path: str, content: bytes) -> None:
    """As Kubernetes does with mounted secrets."""
    folder = Path(path).parent / f"..{content.hex()[:16]}"
    folder.mkdir(exist_ok=True)
    (folder / "file").write_bytes(content)
    link = Path(path + ".link")
    link.symlink_to(folder / "file")
    link.rename(path)


def same_stamp(path: str, content: bytes) -> None:
    """E17: as cp -p does."""
    status = Path(path).stat()
    Path(path).write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def older(path: str, content: bytes) -> None:
    """E17: a version from the past."""
    Path(path).write_bytes(content)
    os.utime(path, (1, 1))


@pytest.mark.parametrize("change", [rewrite, rename, swap_symlink, same_stamp, older])
def test_e16_e17_every_change_is_noticed(
    watched: WatchedFile[bytes], clock: Clock, change: Callable[[str, bytes], None]
) -> None:
    """However a file is replaced, its content is in force a tick later, in one info line."""
    for content in (b"two", b"six", b"and more"):
        change(watched.path, content)
        with capturedLogs() as logs:
            clock.advance(POLL_INTERVAL)

        assert watched.content == content
        assert levels(logs) == [LogLevel.info]


def test_e17_a_change_without_any_trace_is_noticed_while_the_file_is_young(
    watched: WatchedFile[bytes], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two writes within one tick of the file system's clock look the same to stat."""
    frozen = Path(watched.path).stat()
    monkeypatch.setattr("regguard.files._signature", lambda status: (frozen.st_ino,))
    monkeypatch.setattr(os, "fstat", lambda descriptor: frozen)
    rewrite(watched.path, b"two")
    clock.advance(POLL_INTERVAL)
    rewrite(watched.path, b"six")
    clock.advance(POLL_INTERVAL)

    assert watched.content == b"six"


@pytest.mark.parametrize("field", ["st_dev", "st_ino", "st_size", "st_mtime_ns", "st_ctime_ns"])
def test_e17_each_stamp_alone_tells_a_new_version(field: str) -> None:
    """dev, inode, size, mtime and ctime: a change of any one is a change."""
    stamps = dict.fromkeys(("st_dev", "st_ino", "st_size", "st_mtime_ns", "st_ctime_ns"), 1)
    before, after = SimpleNamespace(**stamps), SimpleNamespace(**stamps | {field: 2})

    assert files._signature(cast(os.stat_result, before)) != files._signature(
        cast(os.stat_result, after)
    )


def test_an_old_file_is_not_read_again(
    write: Write, watcher: FileWatcher, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once its stamps are old enough to be trusted, a tick costs one stat."""
    path = write("one")
    real = os.fstat
    later = Path(path).stat().st_ctime_ns + 3_000_000_000
    monkeypatch.setattr("regguard.files.time.time_ns", lambda: later)
    file = WatchedFile(path, parse)
    watcher.watch(file)

    def fail(descriptor: int) -> os.stat_result:
        raise AssertionError("opened")

    monkeypatch.setattr(os, "fstat", fail)
    clock.advance(POLL_INTERVAL)
    monkeypatch.setattr(os, "fstat", real)

    assert file.content == b"one"
    assert file.fault is None


def delete(path: str) -> None:
    Path(path).unlink()


def truncate(path: str) -> None:
    Path(path).write_bytes(b"")


def spoil(path: str) -> None:
    Path(path).write_bytes(b"bad")


def make_directory(path: str) -> None:
    Path(path).unlink()
    Path(path).mkdir()


def make_fifo(path: str) -> None:
    Path(path).unlink()
    os.mkfifo(path)


def make_loop(path: str) -> None:
    Path(path).unlink()
    Path(path).symlink_to(path)


def make_huge(path: str) -> None:
    os.truncate(path, SIZE_LIMIT + 1)


@pytest.mark.parametrize(
    ("change", "reason"),
    [(delete, "No such file"), (truncate, "empty"), (spoil, ":1: bad: make it good"),
     (make_directory, "s a directory"), (make_fifo, "not a regular file"),
     (make_loop, "symbolic links"), (make_huge, "larger than 64 MiB")],
)  # fmt: skip
def test_e16_a_bad_version_is_refused_once_and_the_old_one_stays(
    watched: WatchedFile[bytes],
    watcher: FileWatcher,
    clock: Clock,
    change: Callable[[str], None],
    reason: str,
) -> None:
    """One error line names the file and the reason; nothing else happens until it changes."""
    change(watched.path)
    with capturedLogs() as logs:
        clock.pump([POLL_INTERVAL] * 5)

    assert watched.content == b"one"
    assert levels(logs) == [LogLevel.error]
    assert watched.fault is not None
    assert watched.path in watched.fault
    assert reason in watched.fault
    assert logs[0]["fault"] == watched.fault
    assert watcher.faults() == [watched.fault]


@pytest.mark.parametrize("change", [delete, truncate, spoil, make_directory, make_fifo, make_loop])
def test_e16_a_good_version_after_a_bad_one_counts(
    watched: WatchedFile[bytes],
    watcher: FileWatcher,
    clock: Clock,
    change: Callable[[str], None],
) -> None:
    """What was wrong is over with the next good version, be it the old content."""
    change(watched.path)
    clock.advance(POLL_INTERVAL)
    if change is make_directory:
        Path(watched.path).rmdir()
    rename(watched.path, b"one")
    with capturedLogs() as logs:
        clock.advance(POLL_INTERVAL)

    assert watched.fault is None
    assert watcher.faults() == []
    assert watched.content == b"one"
    assert levels(logs) == [LogLevel.info]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_e16_an_unreadable_file_is_refused(watched: WatchedFile[bytes], clock: Clock) -> None:
    """Mode 0000 is a bad version like another."""
    Path(watched.path).chmod(0)
    clock.advance(POLL_INTERVAL)

    assert watched.content == b"one"
    assert "Permission denied" in str(watched.fault)


@pytest.mark.parametrize(
    ("content", "reason"), [(b"bad", ":1: bad"), (b"", "empty"), (None, "No such file")]
)
def test_a_bad_first_version_is_an_error(write: Write, content: bytes | None, reason: str) -> None:
    """There is nothing to fall back on at start."""
    path = write(b"x")
    if content is None:
        Path(path).unlink()
    else:
        rewrite(path, content)

    with pytest.raises(FileError, match=reason):
        WatchedFile(path, parse)


def test_a_bug_in_a_parser_does_not_end_the_watch(
    watched: WatchedFile[bytes], write: Write, watcher: FileWatcher, clock: Clock
) -> None:
    """An unforeseen exception is logged, and the other files are looked at all the same."""
    other = WatchedFile(write("one", "other"), parse)
    watcher.watch(other)
    rewrite(watched.path, b"bug")
    rewrite(other.path, b"two")
    with capturedLogs() as logs:
        clock.advance(POLL_INTERVAL)

    assert LogLevel.critical in levels(logs)
    assert (watched.content, other.content) == (b"one", b"two")


def test_reload_reads_anew(watched: WatchedFile[bytes], watcher: FileWatcher) -> None:
    """SIGHUP needs no tick, and says again what is wrong."""
    rewrite(watched.path, b"two")
    watcher.reload()
    assert watched.content == b"two"

    rewrite(watched.path, b"bad")
    with capturedLogs() as logs:
        watcher.reload()
        watcher.reload()

    assert levels(logs) == [LogLevel.error] * 2


def test_one_look_at_a_time(write: Write) -> None:
    """A slow file system meets no second reader; what was asked meanwhile happens after."""
    clock = Clock()
    slow: list[tuple[Callable[[], Any], Deferred[Any]]] = []

    def in_thread(function: Callable[[], Any]) -> Deferred[Any]:
        slow.append((function, Deferred()))
        return slow[-1][1]

    watcher = FileWatcher(clock, in_thread)
    file = WatchedFile(write("one"), parse)
    watcher.watch(file)
    watcher.startService()
    clock.advance(POLL_INTERVAL)
    reloaded = watcher.reload()
    clock.pump([POLL_INTERVAL] * 4)
    assert len(slow) == 1

    rewrite(file.path, b"two")
    function, result = slow[0]
    result.callback(function())
    assert len(slow) == 2
    function, result = slow[1]
    result.callback(function())

    assert reloaded.called
    assert file.content == b"two"


def test_a_stopped_watcher_leaves_no_timer(
    watched: WatchedFile[bytes], watcher: FileWatcher, clock: Clock
) -> None:
    """After stopService nothing is scheduled and nothing is read."""
    watcher.stopService()
    rewrite(watched.path, b"two")
    clock.advance(10)

    assert clock.getDelayedCalls() == []
    assert watched.content == b"one"


def test_text_lines_are_numbered_without_comments() -> None:
    """CR LF and a missing last line end are fine, blank lines and comments are skipped."""
    assert text_lines(b"a\r\n\n  # c\n b \n#\nd", "f") == [(1, "a"), (4, " b "), (6, "d")]


@pytest.mark.parametrize(
    ("data", "reason"),
    [(b"\xef\xbb\xbfa:b", "f:1: .*byte order mark"), (b"a\nb\0c", "f:2: a NUL byte"),
     (b"a\n\nb\xe9", "f:3: not UTF-8"), (b"\xff\xfea\0", "f:1: not UTF-8")],
)  # fmt: skip
def test_e14_hidden_bytes_are_refused(data: bytes, reason: str) -> None:
    """What no editor shows never becomes part of a name."""
    with pytest.raises(FileError, match=reason):
        text_lines(data, "f")


# -- a file that says something by being there -----------------------------------------------


class Marker:
    """A watched marker file, and what it said of changes."""

    def __init__(self, path: Path, watcher: FileWatcher) -> None:
        self.path = path
        self.changes: list[str | None] = []
        self.file = MarkerFile(str(path), self.changes.append)
        watcher.watch(self.file)


@pytest.fixture
def marker(tmp_path: Path, watcher: FileWatcher) -> Marker:
    """Nothing is there yet."""
    return Marker(tmp_path / "frozen", watcher)


def test_a_marker_comes_changes_and_goes(marker: Marker, clock: Clock) -> None:
    """Each change is told once, a tick later."""
    texts = [marker.file.text]
    for write in (
        lambda path: path.write_text("moving\n"),
        lambda path: path.write_text("nearly done"),
        Path.unlink,
    ):
        clock.pump([POLL_INTERVAL] * 2)
        write(marker.path)
        clock.pump([POLL_INTERVAL] * 2)
        texts.append(marker.file.text)

    assert texts == [None, "moving", "nearly done", None]
    assert marker.changes == texts[1:]


def test_a_marker_that_is_there_at_start_counts_at_once(marker: Marker, clock: Clock) -> None:
    """It is no change."""
    marker.path.write_text("moving")
    changes: list[str | None] = []

    assert MarkerFile(str(marker.path), changes.append).text == "moving"
    assert changes == []


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (Path.touch, ""),
        (Path.mkdir, "{path}: Is a directory"),
        (os.mkfifo, ""),
        (lambda path: path.symlink_to(path), "{path}: Too many levels of symbolic links"),
        (lambda path: path.symlink_to("/dev/null"), ""),
    ],
)
def test_what_is_there_counts_whatever_it_is(
    marker: Marker, clock: Clock, make: Callable[[Path], object], text: str
) -> None:
    """Who put it there meant it: in doubt, nobody writes."""
    make(marker.path)
    clock.pump([POLL_INTERVAL] * 3)

    assert marker.changes == [text.format(path=marker.path)]
    assert MarkerFile(str(marker.path)).text == text.format(path=marker.path)


def test_a_pipe_to_which_nobody_wrote_yet_counts(marker: Marker, clock: Clock) -> None:
    """There is nothing to read, and no end either."""
    os.mkfifo(marker.path)
    # Both ends: one that only writes would wait for a reader.
    writer = os.open(marker.path, os.O_RDWR | os.O_NONBLOCK)
    clock.advance(POLL_INTERVAL)
    os.close(writer)

    assert marker.changes == [""]


def test_a_marker_that_cannot_be_reached_counts(tmp_path: Path) -> None:
    """Only what is surely not there is not there."""
    (tmp_path / "a").touch()
    path = tmp_path / "a" / "frozen"

    assert MarkerFile(str(path)).text == f"{path}: Not a directory"
    assert MarkerFile(str(tmp_path / "b" / "frozen")).text is None


def test_a_link_that_leads_nowhere_is_no_marker(marker: Marker, clock: Clock) -> None:
    """Until what it leads to is there."""
    marker.path.symlink_to("elsewhere")
    clock.pump([POLL_INTERVAL] * 2)
    assert marker.changes == []

    marker.path.with_name("elsewhere").write_text("moving")
    clock.advance(POLL_INTERVAL)
    assert marker.changes == ["moving"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_marker_that_may_not_be_read_counts(marker: Marker, clock: Clock) -> None:
    """Mode 0000 hides the reason, not the marker."""
    marker.path.touch(0o000)
    clock.advance(POLL_INTERVAL)

    assert marker.changes == [f"{marker.path}: Permission denied"]


@given(st.binary(max_size=3000))
def test_a_markers_text_is_one_bounded_printable_line(data: bytes) -> None:
    """It stands in log lines and in answers, whatever the file holds."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        text = MarkerFile(file.name).text

    assert text is not None
    assert text.isprintable()
    assert len(text) <= 1000
    assert text == " ".join(text.split())


def test_a_markers_text_keeps_its_words(marker: Marker, clock: Clock) -> None:
    """Line ends, tabs and escape sequences become blanks."""
    marker.path.write_bytes("\r\n moving to\n\tZürich\x1b[31m\0\n".encode())
    clock.advance(POLL_INTERVAL)

    assert marker.changes == ["moving to Zürich [31m"]


def test_a_marker_leaves_no_descriptor_open(marker: Marker, clock: Clock) -> None:
    """It is opened twice a second for years."""
    marker.path.mkdir()
    descriptors = Path("/proc/self/fd")
    before = len(list(descriptors.iterdir()))
    clock.pump([POLL_INTERVAL] * 20)
    marker.path.rmdir()
    marker.path.touch()
    clock.pump([POLL_INTERVAL] * 20)

    assert len(list(descriptors.iterdir())) == before


def test_a_fault_of_who_listens_to_a_marker_ends_no_watch(marker: Marker, clock: Clock) -> None:
    """It is logged, and the next change is told again."""
    told: list[str | None] = []

    def fail(text: str | None) -> None:
        told.append(text)
        raise ZeroDivisionError

    marker.file.changed = fail
    marker.path.touch()
    with capturedLogs() as logs:
        clock.advance(POLL_INTERVAL)
    marker.path.unlink()
    with capturedLogs():
        clock.advance(POLL_INTERVAL)

    assert levels(logs) == [LogLevel.critical]
    assert told == ["", None]


def test_sighup_looks_at_a_marker_at_once(marker: Marker, watcher: FileWatcher) -> None:
    """As at every file."""
    marker.path.touch()
    watcher.reload()

    assert marker.changes == [""]
