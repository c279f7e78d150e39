"""The composition root: loaded parts to running services.

``twist regguard`` finds ``Options`` and ``makeService`` here.  What can be wrong is found before
the service starts, and every complaint is one line with option, file and cure.

``serving``
    one process that serves.
``parent``
    where several workers serve.
``starting``
    what both need for a start: the log, the admin port, and how a start ends that fails.
``pushes``
    push records, out of what one process or several have seen.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from twisted.application.service import IService
from twisted.python import usage

from regguard import options
from regguard.files import FileError, WatchedFile
from regguard.ops.daemon_log import complain, settle
from regguard.ops.lifetime import Lifetime
from regguard.ops.notify import Notify
from regguard.ops.workers import Inheritance, Worker
from regguard.options import Settings
from regguard.parts import Parts, load
from regguard.service.parent import Parent
from regguard.service.serving import Guard
from regguard.service.starting import FAILED_STATUS
from regguard.transport import quicken

USAGE_STATUS = 64
"""Exit status for words or files that can't be used: EX_USAGE of sysexits.h, as twist's own."""


class Options(options.Options):
    """The options of ``twist regguard``, with everything they name loaded.

    A mistake ends the program with one line: twist itself would print its whole help behind it.
    """

    parts: Parts

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """Parse and load; ends the program for a mistake and for ``--check``."""
        try:
            super().parseOptions(options)  # type: ignore[no-untyped-call]
            self.look()
        except usage.UsageError as error:
            complain(str(error))
            raise SystemExit(FAILED_STATUS if self.get("check") else USAGE_STATUS) from None
        if self.settings.check:
            sys.stdout.write("".join(f"{line}\n" for line in self.report()))
            raise SystemExit(0)
        if self.parent is not None:
            settle(self.parent)

    def look(self) -> None:
        """Look at everything that the words name; raises usage.UsageError."""
        config = self._config()
        self.parts = load(config.content if config else self.settings, config)

    def _config(self) -> WatchedFile[Settings] | None:
        """The TOML file for the daemon to watch; a pipe, say, can't be read a second time."""
        path = self["config"]
        if path is None:
            return None
        if not Path(path).is_file():
            if self.settings.workers > 1:
                raise usage.UsageError(
                    f"--config {path}: is no file, and every one of --workers reads it; make it one"
                )
            return None
        try:
            return WatchedFile(path, self._settings_of)
        except FileError as error:
            raise usage.UsageError(f"--config {error}") from None

    def _settings_of(self, data: bytes, path: str) -> Settings:
        try:
            return self.settings_with(data)
        except usage.UsageError as error:
            # What the file lacks has no line in it.
            text = str(error)
            raise FileError(text if text.startswith(path) else f"{path}: {text}") from None

    def report(self) -> list[str]:
        """What ``--check`` says."""
        return [*self.parts.lines(), *(f"warning: {each}" for each in self.parts.warnings)]


def makeService(options: Options) -> IService:
    """The service of ``twist regguard``: one process that serves, the parent of several, or one
    of these."""
    from twisted.internet import reactor

    # Twisted's own is the wall clock: where that jumps, every deadline would be over, or none.
    reactor.seconds = time.monotonic  # type: ignore[method-assign]
    quicken(reactor)
    parts = options.parts
    inheritance = Inheritance.taken_from(os.environ)
    if inheritance is not None:
        guard = Guard(parts, reactor, inheritance)
        worker = Worker(guard, inheritance, reactor)
        guard.answer(worker.line)
        return worker
    notify = Notify.taken_from(os.environ)
    several = parts.settings.workers > 1
    return Lifetime(Parent(parts, reactor) if several else Guard(parts, reactor), reactor, notify)
