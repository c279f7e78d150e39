"""A gigabyte passes through, and nothing of it stays: neither in memory nor on disk."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import re
import socket
import ssl
import threading
import time
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

from regguard.transport.accepting import UNSENT
from tests.e2e.programs import PATIENCE, Guard

MEBIBYTE = 1 << 20
LENGTH = 1 << 30
# "must show": whatever the blob's size.
GROWTH = 32 * MEBIBYTE


class Watched:
    """A process's memory and open files, as /proc shows them."""

    def __init__(self, pid: int) -> None:
        self._proc = Path("/proc") / str(pid)
        self.new_files: set[str] = set()

    def _status(self, field: str) -> int:
        (kibibytes,) = re.findall(rf"^{field}:\s+(\d+) kB$", self._text("status"), re.MULTILINE)
        return int(kibibytes) * 1024

    def _text(self, name: str) -> str:
        return (self._proc / name).read_text()

    def resident(self) -> int:
        """Bytes in memory now."""
        return self._status("VmRSS")

    def peak(self) -> int:
        """The most bytes in memory since ``forget_peak``."""
        return self._status("VmHWM")

    def forget_peak(self) -> None:
        """Start the high-water mark again at what is in memory now (proc(5), clear_refs)."""
        (self._proc / "clear_refs").write_text("5")

    def files(self) -> set[str]:
        """The regular files that are open now, deleted ones included."""
        found = set()
        for link in (self._proc / "fd").iterdir():
            with contextlib.suppress(OSError):
                found.add(str(link.readlink()))
        return {name for name in found if name.startswith("/") and not name.startswith("/dev/")}

    @contextlib.contextmanager
    def files_noted(self) -> Iterator[None]:
        """Note in ``new_files`` what is opened within this block, looking every 10 ms."""
        before, done = self.files(), threading.Event()

        def look() -> None:
            while not done.wait(0.01):
                self.new_files |= self.files() - before

        watcher = threading.Thread(target=look)
        watcher.start()
        try:
            yield
        finally:
            done.set()
            watcher.join()


def connect(guard: Guard) -> tuple[http.client.HTTPSConnection, dict[str, str]]:
    """A connection, and what a pusher's requests carry."""
    connection = http.client.HTTPSConnection(
        "localhost",
        guard.port,
        timeout=PATIENCE,
        context=ssl.create_default_context(cafile=guard.ground.ca),
    )
    token = b64encode(guard.ground.as_pusher.encode()).decode()
    return connection, {"Authorization": f"Basic {token}"}


def test_h03_the_kernel_does_not_keep_much_for_who_reads_nothing(guard: Guard) -> None:
    """Without a limit it keeps 4 MiB for each, and a crowd of them fills what it has for TCP."""
    connection, headers = connect(guard)
    body = os.urandom(16 * MEBIBYTE)
    digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
    connection.request("POST", "/v2/team/unread/blobs/uploads/", headers=headers)
    answer = connection.getresponse()
    answer.read()
    target = answer.headers["Location"].removeprefix(guard.url)
    connection.request("PUT", f"{target}&digest={digest}", body, headers)
    assert connection.getresponse().status == 201
    connection.close()

    reader, headers = connect(guard)
    reader.connect()
    reader.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    ours = reader.sock.getsockname()[1]

    def kept() -> int:
        """Octets in the sending queue of the guard's side, as /proc/net/tcp shows it."""
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            words = line.split()
            if words[1].endswith(f":{guard.port:04X}") and words[2].endswith(f":{ours:04X}"):
                return int(words[4].partition(":")[0], 16)
        raise AssertionError("no such connection")

    reader.request("GET", f"/v2/team/unread/blobs/{digest}", headers=headers)
    guard.program.wait_until("a full queue", lambda: kept() > UNSENT // 2)
    before = -1
    while before < kept():
        before = kept()
        time.sleep(0.2)
    assert kept() <= 2 * UNSENT
    reader.close()


def test_i24_a_gibibyte_leaves_no_trace(guard: Guard) -> None:
    """1 GiB pushed and pulled: the process grows by at most 32 MiB and opens no file."""
    connection, headers = connect(guard)

    def ask(method: str, target: str, body: object = None, **more: str) -> http.client.HTTPResponse:
        connection.request(method, target, body, {**headers, **more})  # type: ignore[arg-type]
        return connection.getresponse()

    def location(answer: http.client.HTTPResponse) -> str:
        answer.read()
        assert answer.status == 202
        return str(answer.headers["Location"]).removeprefix(guard.url)

    # A first small round, so that what is loaded and allocated once is there.
    piece = os.urandom(MEBIBYTE)
    start = "/v2/team/gibibyte/blobs/uploads/"
    location(ask("PATCH", location(ask("POST", start)), piece))

    process = Watched(guard.program.pid)
    process.forget_peak()
    before = process.resident()
    sent, received = hashlib.sha256(), hashlib.sha256()

    def body() -> Iterator[bytes]:
        for number in range(LENGTH // MEBIBYTE):
            # Every piece differs, so that one that is lost, doubled or swapped shows.
            changed = number.to_bytes(8, "big") + piece[8:]
            sent.update(changed)
            yield changed

    with process.files_noted():
        target = location(
            ask("PATCH", location(ask("POST", start)), body(), **{"Content-Length": str(LENGTH)})
        )
        digest = f"sha256:{sent.hexdigest()}"
        stored = ask("PUT", f"{target}&digest={digest}", b"")
        stored.read()
        assert stored.status == 201

        pulled = ask("GET", f"/v2/team/gibibyte/blobs/{digest}")
        assert pulled.status == 200
        while chunk := pulled.read(MEBIBYTE):
            received.update(chunk)
    connection.close()

    assert received.hexdigest() == sent.hexdigest()
    assert process.peak() - before <= GROWTH
    assert process.new_files == set()
