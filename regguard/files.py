"""Files of the operator's: parsed whole, watched, and replaced by good versions only.

A version is told by (dev, inode, size, mtime, ctime) of what the path leads to, so a rename, a
symlink swap (Kubernetes) and ``cp -p`` are all noticed. Reading happens off the reactor thread; the
reactor thread then swaps the content in one assignment. A version that cannot be read or parsed
is logged once, and the content before it stays in force. Where several files make one content (a
certificate and its key), a change of any one of them makes a new version of all.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

T = TypeVar("T")

# A change takes effect within a second. One stat of a few files costs microseconds.
POLL_INTERVAL = 0.5

# 100,000 users are 8 MB; a greater file is a mistake and would eat the memory.
SIZE_LIMIT = 64 * 1024 * 1024

# A file that was changed so shortly before it was read can be changed again without any trace in
# its stat: some file systems keep whole seconds, FAT two of them, and Linux 4 ms at best.
_RACY = 2_000_000_000


class FileError(ValueError):
    """A file that cannot be used; the message names file, line (if one is to blame) and cure."""


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file as it was read, or why it was not.

    ``mode`` holds its permission bits; ``fault`` is None where ``data`` is the whole file.
    """

    path: str
    signature: tuple[int, ...] | str
    settled: bool = True
    mode: int = 0
    data: bytes = field(default=b"", repr=False)
    fault: str | None = None
    missing: bool = False


def read_file(path: str) -> FoundFile:
    """Read a regular file of at most SIZE_LIMIT; never raises, blocks as long as the disk does."""
    try:
        with open(path, "rb", opener=_open_at_once) as file:
            status = os.fstat(file.fileno())
            signature, mode = _signature(status), stat.S_IMODE(status.st_mode)
            if not stat.S_ISREG(status.st_mode):
                return FoundFile(path, signature, fault="not a regular file")
            data = file.read(SIZE_LIMIT + 1)
    except (OSError, ValueError) as error:
        why = _reason(error)
        return FoundFile(path, why, fault=why, missing=isinstance(error, FileNotFoundError))
    age = abs(time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns))
    settled = age > _RACY
    if len(data) > SIZE_LIMIT:
        fault = f"larger than {SIZE_LIMIT >> 20} MiB"
        return FoundFile(path, signature, settled, mode, fault=fault)
    return FoundFile(path, signature, settled, mode, data)


@dataclass(frozen=True, slots=True)
class _Version:
    """What the paths led to: stat signatures, or the reasons why there were none."""

    signatures: tuple[tuple[int, ...] | str, ...]
    settled: bool
    digest: bytes


@dataclass(frozen=True, slots=True)
class Reading(Generic[T]):
    """The outcome of one look at changed files, made in a thread, adopted in the reactor's."""

    version: _Version
    content: T | None = None
    fault: str | None = None


class WatchedFiles(Generic[T]):
    """What some files hold together, always that of the last good version.

    :param parse: makes content of the files, in the order of ``paths``, or raises
        :exc:`FileError`. It runs in a thread.
    :param replaced: called with the content before and the new one, each time it changes.
    :raises FileError: when the first version is no good.
    """

    _log = Logger()

    def __init__(
        self,
        paths: Sequence[str],
        parse: Callable[[Sequence[FoundFile]], T],
        replaced: Callable[[T, T], object] | None = None,
    ) -> None:
        self.path = paths[0]
        self._paths = paths
        self._parse = parse
        self.replaced = replaced
        reading = self._read()
        if reading.content is None:
            raise FileError(reading.fault)
        self.content: T = reading.content
        #: Why the version that the paths lead to is not in force; None while it is.
        self.fault: str | None = None
        self._seen = reading.version

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.path}>"

    def look(self, *, anew: bool = False) -> Reading[T] | None:
        """Read the files if one changed (or in any case, ``anew``); blocks, for a thread."""
        seen = self._seen
        if not anew and seen.settled and self._signatures() == seen.signatures:
            return None
        reading = self._read()
        same = reading.version.signatures == seen.signatures
        if not anew and same and reading.version.digest == seen.digest:
            # Nothing happened, but now it may have been long enough ago.
            return Reading(reading.version)
        return reading

    def adopt(self, reading: Reading[T] | None) -> None:
        """Take over what :meth:`look` brought; for the thread that uses the content."""
        if reading is None:
            return
        self._seen = reading.version
        if reading.fault is not None:
            self.fault = reading.fault
            self._log.error("{fault}; the version read before stays in force", fault=reading.fault)
        elif reading.content is not None:
            self.fault = None
            before, self.content = self.content, reading.content
            self._log.info("{path}: loaded anew, {content}", path=self.path, content=self.content)
            if self.replaced is not None:
                self.replaced(before, self.content)

    def _signatures(self) -> tuple[tuple[int, ...] | str, ...]:
        return tuple(_signature_of(path) for path in self._paths)

    def _read(self) -> Reading[T]:
        found = [read_file(path) for path in self._paths]
        version = _Version(
            tuple(each.signature for each in found),
            all(each.settled for each in found),
            b"".join(blake2b(each.data).digest() for each in found),
        )
        try:
            return Reading(version, content=self._parse(found))
        except FileError as error:
            return Reading(version, fault=str(error))


class WatchedFile(WatchedFiles[T]):
    """One file's content, always that of the last good version.

    :param parse: makes content of the bytes (given the path for its errors), or raises
        :exc:`FileError`. It runs in a thread.
    :param replaced: called with the content before and the new one, each time it changes.
    :raises FileError: when the first version is no good.
    """

    def __init__(
        self,
        path: str,
        parse: Callable[[bytes, str], T],
        replaced: Callable[[T, T], object] | None = None,
    ) -> None:
        super().__init__([path], lambda found: parse(_octets(found[0]), path), replaced)


def _octets(file: FoundFile) -> bytes:
    if file.fault is not None:
        raise FileError(f"{file.path}: {file.fault}")
    if not file.data:
        # Most often the first half of a rewrite; who means it can say so.
        raise FileError(f"{file.path}: empty; if that is meant, leave a # comment in it")
    return file.data


class MarkerFile:
    """A file that says something by being there, and why by its text.

    What is there and cannot be read counts, too: who put it there meant it.

    :param changed: called with each new text, or None when the file is gone.
    """

    # More is no reason but a mistake.
    _LIMIT = 1000

    def __init__(self, path: str, changed: Callable[[str | None], object] | None = None) -> None:
        self.path = path
        self.changed = changed
        #: The text in one line, empty for an empty file; None while there is no file.
        self.text = self.look()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.path}>"

    def look(self, *, anew: bool = False) -> str | None:
        """What stands in the file now; blocks, for a thread."""
        try:
            with open(self.path, "rb", opener=_open_at_once) as file:
                # None of a FIFO to which nobody wrote yet.
                text = (file.read(self._LIMIT) or b"").decode("utf-8", "replace")
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            return f"{self.path}: {_reason(error)}"
        return " ".join("".join(c if c.isprintable() else " " for c in text).split())

    def adopt(self, text: str | None) -> None:
        """Take over what :meth:`look` brought; for the thread that uses the text."""
        if text != self.text:
            self.text = text
            if self.changed is not None:
                self.changed(text)


def _open_at_once(path: str, flags: int) -> int:
    """Open without blocking: a FIFO would otherwise wait for somebody who writes into it."""
    return os.open(path, flags | os.O_NONBLOCK)


def _signature(status: os.stat_result) -> tuple[int, ...]:
    return (
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )


def _signature_of(path: str) -> tuple[int, ...] | str:
    try:
        return _signature(Path(path).stat())
    except (OSError, ValueError) as error:
        return _reason(error)


def _reason(error: OSError | ValueError) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def text_lines(data: bytes, path: str) -> list[tuple[int, str]]:
    """Number and decode a text file's lines, without blank lines and ``#`` comments.

    Lines end with LF or CR LF, the last one need not end. Anything that an editor hides (a byte
    order mark, NUL) or that is not UTF-8 is refused rather than made part of a name.
    """
    if data.startswith(b"\xef\xbb\xbf"):
        raise FileError(f"{path}:1: starts with a byte order mark: save it without")
    lines = []
    for number, raw in enumerate(data.split(b"\n"), 1):
        try:
            line = raw.removesuffix(b"\r").decode("utf-8")
        except UnicodeDecodeError:
            raise FileError(f"{path}:{number}: not UTF-8: save it as UTF-8") from None
        if "\0" in line:
            raise FileError(f"{path}:{number}: a NUL byte: the file is damaged")
        stripped = line.strip()
        if stripped and not stripped.startswith("#"):
            lines.append((number, line))
    return lines


def counted(number: int, noun: str) -> str:
    """Say what a file holds: ``1 user``, ``2 users``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


class InThread(Protocol):
    """Calls a function in some other thread; ``twisted.internet.threads.deferToThread`` is one."""

    def __call__(self, function: Callable[[], T], /) -> Deferred[T]: ...


class Watched(Protocol):
    """What a :class:`FileWatcher` looks at: :meth:`look` in a thread, then :meth:`adopt`."""

    path: str

    def look(self, *, anew: bool = False) -> Any: ...

    def adopt(self, reading: Any, /) -> None: ...


class FileWatcher(Service):
    """Keeps files up to date while it runs.

    :param in_thread: where files are read; not the threads that hash passwords, which an attack
        keeps busy while the file that ends it waits to be read.
    """

    _log = Logger()

    def __init__(self, clock: IReactorTime, in_thread: InThread) -> None:
        self._in_thread = in_thread
        self._files: list[Watched] = []
        # A file on a network may answer late: one look at a time.
        self._one_at_a_time = DeferredLock()
        self._loop = LoopingCall(self._look)
        self._loop.clock = clock

    def watch(self, file: Watched) -> None:
        """Keep this file up to date, too."""
        self._files.append(file)

    def faults(self) -> list[str]:
        """Why the newest version of a file is not in force, a line for each such file."""
        faults = (getattr(file, "fault", None) for file in self._files)
        return [fault for fault in faults if fault is not None]

    def startService(self) -> None:
        super().startService()  # type: ignore[no-untyped-call]
        self._loop.start(POLL_INTERVAL, now=False).addErrback(
            lambda failure: self._log.failure("the file watcher stopped", failure)
        )

    def stopService(self) -> None:
        super().stopService()  # type: ignore[no-untyped-call]
        if self._loop.running:
            self._loop.stop()

    def reload(self) -> Deferred[None]:
        """Read every file anew (SIGHUP); fires when that is done. Never fails."""
        return self._look(anew=True)

    def _look(self, *, anew: bool = False) -> Deferred[None]:
        return self._one_at_a_time.run(lambda: Deferred.fromCoroutine(self._look_at_all(anew=anew)))

    async def _look_at_all(self, *, anew: bool) -> None:
        for file in tuple(self._files):
            try:
                file.adopt(await self._in_thread(partial(file.look, anew=anew)))
            except Exception:
                # A fault in one parser must not end the watch over the other files.
                self._log.failure("cannot look at {path}", path=file.path)
