"""Load on a guard that is reloaded, restarted and upgraded meanwhile: every failure counts.

Of the standard library alone, because it runs in the machine under test, by that machine's Python:
``python3 load.py < task.json``, the fields of ``Task``. Twenty transfers, pulls and pushes in turn,
are slow enough to be under way when something happens. Beside them new connections come at a fixed
rate, whatever became of those before. Each request has a connection of its own, as docker's and
skopeo's have, and none is tried twice.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import ssl
import sys
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field
from urllib.parse import urlsplit

TRANSFERS = 20
BLOB = 4 << 20
CHUNK = 64 << 10
SECONDS = 4.0
"""What a transfer takes at least: under way when something begins, and not for all that follows."""
RATE = 25
"""New connections a second: a gap of a tenth of a second meets some."""
PATIENCE = 60.0
"""Seconds for a request. Who comes during a restart waits until the transfers are through."""
BETWEEN = 3.0
"""Seconds of load between two commands."""


@dataclass(frozen=True)
class Task:
    """Where the guard is, whom it trusts, its certificate, and what to run under load."""

    host: str
    port: int
    certificate: str
    user: str
    password: str
    commands: list[list[str]]


@dataclass
class Outcome:
    """What became of it: failures by their words, and a line for each command."""

    transfers: int = 0
    connections: int = 0
    longest_wait: float = 0.0
    failures: list[str] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)


class Load:
    """The requests under way."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._context = ssl.create_default_context(cafile=task.certificate)
        pair = base64.b64encode(f"{task.user}:{task.password}".encode()).decode()
        self._common = f"Host: {task.host}:{task.port}\r\nAuthorization: Basic {pair}\r\n"
        self._blob = os.urandom(BLOB)
        self._running = 0
        self._stopping = False
        self.outcome = Outcome()

    async def run(self) -> None:
        """Load all the while, and one command after the other."""
        await self._push(self._blob)
        transfers = [asyncio.create_task(self._transfers(n)) for n in range(TRANSFERS)]
        connections = asyncio.create_task(self._connections())
        for command in self._task.commands:
            await asyncio.sleep(BETWEEN)
            while self._running < TRANSFERS:
                await asyncio.sleep(0.01)
            running, began = self._running, asyncio.get_running_loop().time()
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
            said, _ = await process.communicate()
            seconds = asyncio.get_running_loop().time() - began
            line = f"{' '.join(command)}: {running} transfers under way, {seconds:.1f} s"
            self.outcome.commands.append(line)
            if process.returncode:
                self.outcome.failures.append(f"{line}, status {process.returncode}: {said!r}")
        await asyncio.sleep(BETWEEN)
        self._stopping = True
        await asyncio.gather(*transfers, connections)

    async def _transfers(self, number: int) -> None:
        # Not all at the same point.
        await asyncio.sleep(SECONDS * number / TRANSFERS)
        while not self._stopping:
            if number % 2:
                await self._counted(self._pull())
            else:
                await self._counted(self._push(os.urandom(BLOB)))
            self.outcome.transfers += 1

    async def _connections(self) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        pending: set[asyncio.Task[None]] = set()
        while not self._stopping:
            self.outcome.connections += 1
            task = asyncio.create_task(self._counted(self._greet()))
            pending.add(task)
            task.add_done_callback(pending.discard)
            await asyncio.sleep(began + self.outcome.connections / RATE - loop.time())
        await asyncio.gather(*pending)

    async def _counted(self, request: Awaitable[None]) -> None:
        try:
            await request
        except Exception as error:
            # Refused, reset, cut short, too late, another status or digest: all count.
            self.outcome.failures.append(f"{type(error).__name__}: {error}")

    async def _greet(self) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        await self._ask("GET", "/v2/", 200)
        self.outcome.longest_wait = max(self.outcome.longest_wait, loop.time() - began)

    async def _pull(self) -> None:
        digest = _digest(self._blob)
        _, content = await self._ask("GET", f"/v2/load/test/blobs/{digest}", 200)
        if _digest(content) != digest:
            raise ValueError(f"{len(content)} bytes of another digest")

    async def _push(self, blob: bytes) -> None:
        location, _ = await self._ask("POST", "/v2/load/test/blobs/uploads/", 202)
        location, _ = await self._ask("PATCH", location, 202, blob)
        mark = "&" if "?" in location else "?"
        await self._ask("PUT", f"{location}{mark}digest={_digest(blob)}", 201)

    async def _ask(
        self, method: str, target: str, expected: int, body: bytes = b""
    ) -> tuple[str, bytes]:
        """Send and receive, slowly where there is much; the target of Location, and the body."""
        return await asyncio.wait_for(self._asked(method, target, expected, body), PATIENCE)

    async def _asked(
        self, method: str, target: str, expected: int, body: bytes
    ) -> tuple[str, bytes]:
        reader, writer = await asyncio.open_connection(
            self._task.host, self._task.port, ssl=self._context
        )
        try:
            head = (
                f"{method} {target} HTTP/1.1\r\n{self._common}Content-Length: {len(body)}\r\n\r\n"
            )
            writer.write(head.encode())

            async def send(part: slice) -> None:
                writer.write(body[part])
                await writer.drain()

            await self._slowly(len(body), send)
            status, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            if int(status.split()[1]) != expected:
                raise ValueError(f"{method} {target.partition('?')[0]}: {status}")
            fields = {
                name.lower(): value for name, _, value in (line.partition(": ") for line in lines)
            }
            content = bytearray()

            async def receive(part: slice) -> None:
                content.extend(await reader.readexactly(part.stop - part.start))

            await self._slowly(int(fields["content-length"]), receive)
        finally:
            writer.transport.abort()
        location = urlsplit(fields.get("location", ""))
        return f"{location.path}?{location.query}" if location.query else location.path, content

    async def _slowly(self, size: int, act: Callable[[slice], Awaitable[None]]) -> None:
        counts = size == BLOB
        self._running += counts
        try:
            for start in range(0, size, CHUNK):
                await act(slice(start, min(start + CHUNK, size)))
                if counts:
                    await asyncio.sleep(SECONDS * CHUNK / size)
        finally:
            self._running -= counts


def _digest(content: bytes | bytearray) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def main() -> None:
    """Read the task, load, write the outcome as JSON."""
    load = Load(Task(**json.load(sys.stdin)))
    asyncio.run(load.run())
    json.dump(asdict(load.outcome), sys.stdout)


if __name__ == "__main__":
    main()
