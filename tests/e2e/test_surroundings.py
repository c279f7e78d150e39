"""What the machine does to the guard: its clock jumps, its temporary folders take nothing."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import threading
import time
from pathlib import Path

import pytest

from regguard.demo.image import digest
from tests.canary import secret
from tests.e2e.clients import Answer, curl
from tests.e2e.faults import Peer, Scripted
from tests.e2e.programs import Ground, Guard, Registry, binary
from tests.e2e.raw import Door
from tests.e2e.wire import Client, read_response

DAY = 86_400

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"

# As `sitecustomize` Python runs it first of all: nobody has asked for the time before.
SHIFTED = """\
import os, time
from pathlib import Path

def shifted(real, unit):
    return lambda: real() + int(Path(os.environ["CLOCK_IS_AHEAD"]).read_text()) * unit

time.time, time.time_ns = shifted(time.time, 1), shifted(time.time_ns, 10**9)
"""


class WallClock:
    """The daemon's: as many seconds ahead of everybody else's as it is told."""

    def __init__(self, folder: Path) -> None:
        (folder / "sitecustomize.py").write_text(SHIFTED)
        self._ahead = folder / "ahead"
        self.jump_to(0)
        path = os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))
        self.environment = {**os.environ, "PYTHONPATH": path, "CLOCK_IS_AHEAD": str(self._ahead)}

    def jump_to(self, ahead: int) -> None:
        """So many seconds from the true time."""
        new = self._ahead.with_suffix(".new")
        new.write_text(str(ahead))
        new.replace(self._ahead)


class Silence:
    """A registry that answers, but what is asked of ``late`` only when it is told to."""

    def __init__(self) -> None:
        self.speak = threading.Event()

    def __call__(self, peer: Peer) -> None:
        while True:
            asked = peer.request()
            if "/late/" in asked.target:
                assert self.speak.wait(60)
            peer.send(OK)


@pytest.fixture
def clock(tmp_path: Path) -> WallClock:
    folder = tmp_path / "clock"
    folder.mkdir()
    return WallClock(folder)


def day_of(seconds: float) -> str:
    """As the access log has it."""
    return time.strftime("[%d/%b/%Y:", time.localtime(seconds))


def test_i21_the_wall_clock_jumps(ground: Ground, clock: WallClock, tmp_path: Path) -> None:
    """A day on nobody's time is up; a day back it ends all the same.  Only the log believes it."""
    htpasswd = tmp_path / "htpasswd"
    htpasswd.write_bytes(ground.htpasswd.read_bytes())
    words = ("--read-timeout", "8", "--auth", f"htpasswd:{htpasswd}", "--throttle", "2/5m")
    with contextlib.ExitStack() as leaving:
        silence = Silence()
        upstream = leaving.enter_context(Scripted(silence))
        leaving.callback(silence.speak.set)
        guard = Guard(
            ground, tmp_path / "guard", upstream.url, *words, environment=clock.environment
        )
        leaving.callback(guard.stop)

        def enter() -> Client:
            client = Client(guard.port, ground.ca, ground.pusher)
            leaving.callback(client.close)
            return client

        def guess(word: str) -> Answer:
            return curl(guard, "/v2/", credentials=f"eve:{secret(word)}")

        def go_on(seconds: float) -> None:
            """Every watch of the daemon looks at least once meanwhile."""
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                assert curl(guard, "/v2/", credentials=ground.as_reader).status == 200
                time.sleep(0.1)

        assert [guess(word).status for word in ("one", "two", "three")] == [401, 401, 429]
        kept, waiting, pushing, asking = enter(), enter(), enter(), enter()
        assert kept.ask("GET", kept.head("GET", "/v2/")).status == 200
        waiting.send(waiting.head("GET", "/v2/late/tags/list"))
        head = pushing.head(
            "PATCH", "/v2/a/blobs/uploads/0f0e0d0c-1111-2222-3333-444455556666", "Content-Length: 9"
        )
        pushing.send(head + b"12345")
        asking.send(asking.head("GET", "/v2/")[:40])

        clock.jump_to(DAY)
        go_on(2.5)
        assert day_of(time.time() + DAY) in guard.program.output()
        assert guess("four").status == 429
        assert kept.ask("GET", kept.head("GET", "/v2/")).status == 200
        assert asking.ask("GET", asking.head("GET", "/v2/")[40:]).status == 200
        assert pushing.ask("PATCH", b"6789").status == 200
        assert b"123456789" in [each.body for each in upstream.seen]
        silence.speak.set()
        assert read_response(waiting.octets, "GET").status == 200

        silence.speak.clear()
        clock.jump_to(-DAY)
        go_on(2.5)
        assert day_of(time.time() - DAY) in guard.program.output()
        (wait,) = guess("five").headers("Retry-After")
        assert int(wait) <= 300
        assert kept.ask("GET", kept.head("GET", "/v2/late/tags/list")).status == 504
        line = htpasswd.read_text().splitlines()[0]
        with htpasswd.open("a") as file:
            file.write(f"third:{line.partition(':')[2]}\n")
        guard.wait_for_line(str(htpasswd), "3 users")


# Read-only for the program behind it alone, in a mount namespace of its own; $1 is a folder in
# which nothing has room any more, or empty.
NO_ROOM = """\
set -e
mount --make-rprivate /
[ -z "$1" ] || mount -t tmpfs -o size=16k full "$1"
for folder in /tmp /var/tmp /dev/shm "$PWD"; do
    mount --bind "$folder" "$folder"
    mount -o remount,bind,ro "$folder"
done
if [ -n "$1" ]; then
    mount -t tmpfs -o size=16k full "$1"
    cat /dev/zero > "$1/everything" 2> /dev/null || true
    export TMPDIR="$1"
fi
shift
exec "$@"
"""


@pytest.mark.root
@pytest.mark.parametrize("kind", ["read-only", "full"])
def test_i23_temporary_folders_take_nothing(
    kind: str, ground: Ground, registry: Registry, tmp_path: Path
) -> None:
    """Neither they nor the working directory: pushes, pulls and a new password file go on."""
    htpasswd = tmp_path / "htpasswd"
    htpasswd.write_bytes(ground.htpasswd.read_bytes())
    full = tmp_path / "full"
    full.mkdir()
    room = str(full) if kind == "full" else ""
    guard = Guard(
        ground,
        tmp_path / "guard",
        registry.url,
        *("--auth", f"htpasswd:{htpasswd}"),
        through=(binary("unshare"), "--mount", "sh", "-c", NO_ROOM, "sh", room),
    )
    try:
        for folder, error in {
            "/tmp": errno.EROFS,
            "/var/tmp": errno.EROFS,
            str(tmp_path / "guard"): errno.EROFS,
            **({room: errno.ENOSPC} if room else {}),
        }.items():
            file = Path(f"/proc/{guard.program.pid}/root{folder}/anything")
            with pytest.raises(OSError, match=re.escape(f"[Errno {error}]")):
                file.write_bytes(bytes(4096))
        door = Door(guard, ground.pusher)
        content = os.urandom(8 << 20)
        door.upload("surroundings/app", content)
        pulled = door.send("GET", f"/v2/surroundings/app/blobs/{digest(content)}")
        assert (pulled.status, hashlib.sha256(pulled.body).digest()) == (
            200,
            hashlib.sha256(content).digest(),
        )
        line = htpasswd.read_text().splitlines()[0]
        with htpasswd.open("a") as out:
            out.write(f"third:{line.partition(':')[2]}\n")
        guard.wait_for_line(str(htpasswd), "3 users")
    finally:
        guard.stop()
