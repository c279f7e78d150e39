"""``regguard demo``: a real registry, a guard in front of it, and lines to try.

A command, not part of the daemon: plain standard library, processes and blocking calls.

=============  ================================================================
``stage``      the throw-away folder: certificate, users, registry's settings
``image``      a small image of random bytes
``processes``  a program that was started: its last lines, its end
``client``     the registry API over HTTPS, as far as a push and a pull need it
``smoke``      the steps of ``regguard demo --smoke``
``page``       what ``regguard demo`` prints
=============  ================================================================
"""

from __future__ import annotations

import contextlib
import http.client
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

from regguard.demo import page, smoke
from regguard.demo.client import Client, UnexpectedAnswer, answers
from regguard.demo.image import random_image
from regguard.demo.processes import Program
from regguard.demo.stage import Stage, prepare

# Starting takes under 2 s on a small machine; a busy one gets ten times that.
START_SECONDS = 20.0
# How often a waiting demo looks whether it was told to stop or a program ended.
LOOK_SECONDS = 0.1

# The guard's access log is at most this late: what the demo asks itself stays off the page.
LOG_SECONDS = 0.5

REGISTRY_COMMANDS = ("docker-registry", "registry")


class DemoError(Exception):
    """The demo cannot run, or cannot go on; the message says why and what to do."""


class _Stopped(Exception):
    """The user asked for the end (Ctrl-C, SIGTERM or a closed terminal)."""


class _Signals:
    """Remembers that SIGINT, SIGTERM or SIGHUP came.

    The demo looks at it where it waits.  An exception thrown from a handler could hit between
    the start of a program and the note that it has to be stopped.
    """

    def __init__(self) -> None:
        self.came = False

    def _remember(self, _number: int, _frame: FrameType | None) -> None:
        self.came = True

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Within this block the three signals are remembered instead of being deadly."""
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        before = [(number, signal.signal(number, self._remember)) for number in numbers]
        try:
            yield
        finally:
            for number, handler in before:
                signal.signal(number, handler)


def serve(port: int) -> int:
    """Run the demo on https://localhost:``port`` (0: any free one) until Ctrl-C.

    Returns the exit status: 0 when the user ended it, 1 when it could not start or go on.
    """
    return _reporting(lambda signals: _serve(port, signals))


def smoke_test() -> int:
    """Push and pull through a guard on a free port; return 0 when every step went well, else 1."""
    return _reporting(_smoke_test)


def _reporting(act: Callable[[_Signals], int]) -> int:
    signals = _Signals()
    with signals.watched():
        try:
            return act(signals)
        except _Stopped:
            return 0
        except DemoError as error:
            print(f"regguard demo: {error}", file=sys.stderr)
            return 1


def _serve(port: int, signals: _Signals) -> int:
    with _running(_listening_port(port), signals) as (stage, programs):
        _push_hello(stage, programs)
        print(page.welcome(stage), flush=True)
        _registry, guard = programs
        guard.echo = True
        try:
            while True:
                _look(signals, programs)
                time.sleep(LOOK_SECONDS)
        except _Stopped:
            print("\nStopping the guard and the registry.", flush=True)
            raise


def _push_hello(stage: Stage, programs: list[Program]) -> None:
    """So that the lines that pull work at once; and so that no page promises what fails."""
    with contextlib.closing(Client(stage, stage.pusher)) as client:
        try:
            client.push("demo/hello", "v1", random_image())
            time.sleep(LOG_SECONDS)
        except (UnexpectedAnswer, http.client.HTTPException, OSError) as error:
            logs = "\n".join(program.last_lines() for program in programs)
            raise DemoError(f"the first push failed: {error}\n{logs}") from None


def _smoke_test(signals: _Signals) -> int:
    with _running(_free_port(), signals) as (stage, programs):
        print(page.smoke_heading(stage), flush=True)
        passed = smoke.run(stage, before_each=lambda: _look(signals, programs))
        if not passed:
            for program in programs:
                print(program.last_lines(), file=sys.stderr)
        return 0 if passed else 1


@contextlib.contextmanager
def _running(port: int, signals: _Signals) -> Iterator[tuple[Stage, list[Program]]]:
    """A guard on ``port`` and a registry behind it, both serving; both gone after the block."""
    command = _registry_command()
    with contextlib.ExitStack() as leaving:
        folder = Path(tempfile.mkdtemp(prefix="regguard-demo-"))
        leaving.callback(shutil.rmtree, folder, ignore_errors=True)
        stage = prepare(folder, port=port, registry_port=_free_port())
        programs: list[Program] = []
        for name, argv, url in (
            ("registry", [command, "serve", str(stage.registry_settings)], stage.registry_url),
            ("guard", stage.guard_command(), stage.url),
        ):
            program = Program(name, argv, folder)
            leaving.callback(program.stop)
            programs.append(program)
            _wait_until_serving(stage, url, signals, programs)
        yield stage, programs


def _wait_until_serving(stage: Stage, url: str, signals: _Signals, programs: list[Program]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not answers(url, stage.ca):
        _look(signals, programs)
        if time.monotonic() > deadline:
            raise DemoError(
                f"nothing answers at {url} after {START_SECONDS:.0f} s\n{programs[-1].last_lines()}"
            )
        time.sleep(LOOK_SECONDS)


def _look(signals: _Signals, programs: list[Program]) -> None:
    """Raise if the user asked for the end, or if a program came to its own."""
    if signals.came:
        raise _Stopped
    for program in programs:
        status = program.ended()
        if status is not None:
            raise DemoError(f"the {program.name} ended ({status})\n{program.last_lines()}")


def _registry_command() -> str:
    for command in REGISTRY_COMMANDS:
        found = shutil.which(command)
        if found:
            return found
    raise DemoError(page.INSTALL_A_REGISTRY)


def _listening_port(port: int) -> int:
    """``port`` if the guard can listen there; any free one for 0."""
    with socket.socket() as probe:
        # As Twisted does: a port whose last connections are only just closed is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise DemoError(
                f"port {port} cannot be used ({error.strerror}); choose another with --port"
            ) from None
        chosen: int = probe.getsockname()[1]
        return chosen


def _free_port() -> int:
    return _listening_port(0)
