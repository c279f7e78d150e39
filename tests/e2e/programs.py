"""Real programs for end-to-end tests: started, waited for, watched, and stopped by their id.

Passwords are searched for in all that they write and show of themselves.
"""

from __future__ import annotations

import contextlib
import http.client
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple, Protocol

from tests.canary import CANARY, ON_ARGV, SEARCH, secret

# Waiting ends when the awaited thing is there; this only bounds a wait for what never comes.
PATIENCE = 30.0


def binary(name: str) -> str:
    """The program's path.  A missing one fails the test: skipping would hide the main job."""
    found = shutil.which(name)
    assert found is not None, f"{name} is not installed; 'make test' installs it on Debian"
    return found


def free_port() -> int:
    """A TCP port of 127.0.0.1 that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def accepts(port: int) -> bool:
    """Whether something listens on this port of 127.0.0.1."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


class Program:
    """A running program whose output goes into a file; ``more_logs`` it writes itself."""

    def __init__(
        self,
        argv: list[str],
        log: Path,
        folder: Path,
        environment: Mapping[str, str] | None = None,
        more_logs: Sequence[Path] = (),
        descriptors: Sequence[int] = (),
    ) -> None:
        self.log = log
        self._logs = (log, *more_logs)
        with log.open("ab") as out:
            self._process = subprocess.Popen(
                argv,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=environment,
                pass_fds=descriptors,
            )
        process = Path("/proc") / str(self.pid)
        #: What it shows of itself while it runs, by place: read at the start, and again before it
        #: is stopped. Pages that a program serves about itself belong here, too.
        self.shown: dict[str, Callable[[], bytes]] = {
            place: (process / place).read_bytes for place in ("cmdline", "environ")
        }
        self._look_at_what_is_shown()

    def _look_at_what_is_shown(self) -> None:
        for place, read in self.shown.items():
            with contextlib.suppress(OSError):  # it ended by itself
                words = (CANARY,) if place == "cmdline" else (CANARY, ON_ARGV)
                SEARCH.look(f"{place} of the program behind {self.log}", read(), words)

    def _look_at_logs(self) -> None:
        for log in self._logs:
            if log.exists():
                SEARCH.look(str(log), log.read_bytes())

    @property
    def pid(self) -> int:
        return self._process.pid

    def output(self) -> str:
        """All that it wrote so far."""
        return self.log.read_text(errors="replace")

    def wait_until(self, what: str, ready: Callable[[], bool]) -> None:
        """Return as soon as ``ready``; fail when it never is, at once if the program ended.

        A program that failed its test is of no further use: it is ended, and its output shown.
        """
        deadline = time.monotonic() + PATIENCE
        while not ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self._kill()
                raise AssertionError(f"waited in vain for {what}:\n{self.output()}")
            time.sleep(0.02)

    def _kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._look_at_logs()

    def ended(self) -> int:
        """Wait for its end; return its exit status."""
        try:
            status = self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._kill()
            raise AssertionError(f"did not end in {PATIENCE:.0f} s:\n{self.output()}") from None
        self._look_at_logs()
        return status

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send the signal and wait for the end; return the exit status."""
        if self._process.poll() is None:
            self._look_at_what_is_shown()
            self._process.send_signal(number)
        return self.ended()


def run(argv: Sequence[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a program that ends by itself, whatever its exit status."""
    done = subprocess.run(
        argv, cwd=folder, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    SEARCH.look(f"output of {argv}", (done.stdout + done.stderr).encode())
    return done


# As gorilla/handlers' CombinedLoggingHandler writes a request.
HANDLED = re.compile(r'"([A-Z]+) (\S+) HTTP/1\.1" (\d{3}) ')


class Handled(NamedTuple):
    """A request that the registry has answered."""

    method: str
    target: str
    status: int


class Registry:
    """The real registry on a port of its own, its blobs in a folder of its own.

    ``storage`` is a folder to share; with ``certificate`` it speaks TLS; with ``path`` it listens
    on a socket there instead.
    """

    def __init__(
        self,
        folder: Path,
        *,
        access_log: bool = False,
        storage: Path | None = None,
        certificate: Path | None = None,
        path: Path | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self._path = path
        self._scheme = "http" if certificate is None else "https"
        http = f'addr: "127.0.0.1:{self.port}"' if path is None else f'addr: "{path}", net: unix'
        if certificate is not None:
            key = certificate.with_suffix(".key")
            http += f", tls: {{certificate: {certificate}, key: {key}}}"
        self._folder = folder
        self._settings = folder / "registry.yml"
        self._settings.write_text(
            f"""\
version: 0.1
log: {{level: error, accesslog: {{disabled: {str(not access_log).lower()}}}}}
storage:
  filesystem: {{rootdirectory: {storage or folder / "data"}}}
  delete: {{enabled: true}}
http: {{{http}, secret: a-secret-for-tests}}
health: {{storagedriver: {{enabled: false}}}}
"""
        )

    @property
    def url(self) -> str:
        if self._path is not None:
            return f"http+unix://{self._path}"
        return f"{self._scheme}://127.0.0.1:{self.port}"

    def _accepts(self) -> bool:
        return accepts(self.port) if self._path is None else self._path.exists()

    def start(self) -> None:
        self._program = Program(
            [binary("docker-registry"), "serve", str(self._settings)],
            self._folder / "registry.log",
            self._folder,
        )
        self._program.wait_until("the registry to listen", self._accepts)

    @property
    def pid(self) -> int:
        return self._program.pid

    def handled(self) -> list[Handled]:
        """The requests that it has answered, as its access log tells."""
        return [
            Handled(method, target, int(status))
            for method, target, status in HANDLED.findall(self._program.output())
        ]

    def wait_until_handled(
        self, what: str, enough: Callable[[list[Handled]], bool]
    ) -> list[Handled]:
        """What it has answered, as soon as that is ``enough``: a line comes after its answer."""
        self._program.wait_until(f"the registry to log {what}", lambda: enough(self.handled()))
        return self.handled()

    def stop(self, number: int = signal.SIGTERM) -> None:
        self._program.stop(number)

    @contextlib.contextmanager
    def running(self) -> Iterator[Registry]:
        """Up from here on; whatever happens to it meanwhile, it is stopped at the end."""
        self.start()
        try:
            yield self
        finally:
            self.stop()


@dataclass(frozen=True)
class Ground:
    """The files that guards of these tests read, and what clients need to know."""

    folder: Path
    ca: Path
    trust: Path
    certificate: Path
    rsa_certificate: Path
    htpasswd: Path
    groups: Path
    reader: tuple[str, str] = ("testuser", secret("reader's"))
    pusher: tuple[str, str] = ("testuserpush", secret("pusher's"))

    @property
    def as_reader(self) -> str:
        return ":".join(self.reader)

    @property
    def as_pusher(self) -> str:
        return ":".join(self.pusher)


def twist(*words: str, log_format: str = "text") -> list[str]:
    """The words of ``twist regguard`` under the Python that runs the tests."""
    return [sys.executable, "-m", "twisted", f"--log-format={log_format}", "regguard", *words]


# As systemd starts the service of a socket: it has descriptor 3, and the variables name its pid.
ACTIVATE = """\
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_FDS="1", LISTEN_FDNAMES="regguard.socket", LISTEN_PID=str(os.getpid()))
os.execv(sys.argv[2], sys.argv[2:])
"""

# What a fault that nobody handled leaves in a log.
FAULTS = re.compile(r"Traceback|Unhandled|Exception ignored|never awaited", re.IGNORECASE)


class Guard:
    """``twist regguard`` on a free port, in front of ``upstream`` (a URL).

    ``files``: how many it may open; ``through``: the program, with its words, that becomes it;
    ``inherited``: a listening socket that it gets as systemd would give it.
    """

    def __init__(
        self,
        ground: Ground,
        folder: Path,
        upstream: str,
        *words: str,
        log_format: str = "text",
        environment: Mapping[str, str] | None = None,
        files: int | None = None,
        through: Sequence[str] = (),
        inherited: socket.socket | None = None,
    ) -> None:
        self.ground = ground
        self.port = free_port() if inherited is None else inherited.getsockname()[1]
        self._looked_at = 0
        folder.mkdir(parents=True, exist_ok=True)
        rest = list(words)
        if not {"--tls-cert", "--no-tls"} & set(rest):
            rest += ["--tls-cert", str(ground.certificate)]
        if "--auth" not in rest:
            rest += ["--htpasswd", str(ground.htpasswd)]
        listen = f"tcp:{self.port}:interface=127.0.0.1"
        if inherited is not None:
            listen = f"systemd:domain={inherited.family.name.removeprefix('AF_')}:index=0"
        argv = twist(
            *("--listen", listen),
            *("--groups", str(ground.groups)),
            *("--upstream", upstream),
            *rest,
            log_format=log_format,
        )
        if files is not None:
            argv = [binary("prlimit"), f"--nofile={files}:{files}", *argv]
        descriptors = [] if inherited is None else [inherited.fileno()]
        if inherited is not None:
            argv = [sys.executable, "-c", ACTIVATE, str(inherited.fileno()), *argv]
        argv = [*through, *argv]
        self.program = Program(
            argv,
            folder / "guard.log",
            folder,
            environment,
            [folder / file for option, file in pairwise(words) if option == "--access-log"],
            descriptors,
        )
        if inherited is None:
            self.program.wait_until("the guard to listen", lambda: accepts(self.port))
        admin = dict(pairwise(words)).get("--admin", "")
        self.admin_port = int(admin.rpartition(":")[2]) if admin.startswith("tcp:") else 0
        if self.admin_port:
            for path in ("/healthz", "/readyz", "/metrics"):
                self.program.shown[path] = lambda path=path: self.ask_admin(path)[1].encode()

    def ask_admin(self, path: str, method: str = "GET") -> tuple[int, str]:
        """Status and body of an admin page (``--admin tcp:127.0.0.1:PORT`` was said)."""
        connection = http.client.HTTPConnection("127.0.0.1", self.admin_port, timeout=PATIENCE)
        with contextlib.closing(connection):
            connection.request(method, path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()

    @property
    def host(self) -> str:
        return f"localhost:{self.port}"

    @property
    def url(self) -> str:
        return f"https://{self.host}"

    @contextlib.contextmanager
    def connection(self) -> Iterator[ssl.SSLSocket]:
        """A raw TLS connection, for what no client would send."""
        context = ssl.create_default_context(cafile=self.ground.ca)
        with (
            socket.create_connection(("127.0.0.1", self.port), PATIENCE) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as secured,
        ):
            yield secured

    def check_log(self) -> None:
        """Fail if a fault was logged since the last look."""
        text = self.program.output()
        new, self._looked_at = text[self._looked_at :], len(text)
        assert not FAULTS.search(new), f"the guard logged a fault:\n{new}"

    def wait_for_line(self, *parts: str) -> str:
        """The first log line with all ``parts``."""

        def matches() -> list[str]:
            lines = self.program.output().splitlines()
            return [line for line in lines if all(part in line for part in parts)]

        self.program.wait_until(f"a log line with {parts}", lambda: bool(matches()))
        return matches()[0]

    def stop(self) -> None:
        self.program.stop()
        self.check_log()


class StartGuard(Protocol):
    """The fixture ``start_guard``: a guard of the test's own, stopped at its end."""

    def __call__(self, upstream: str, *words: str) -> Guard: ...
