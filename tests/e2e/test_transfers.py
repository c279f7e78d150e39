"""Group I of the cases over real sockets: transfers over bad lines, past restarts, of any size.

``REGGUARD_LARGE=1`` adds the bodies around 2 and 4 GiB.
"""

from __future__ import annotations

import hashlib
import os
import random
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.e2e.asking import AT_ONCE, BLOB, UPLOAD, Connect, ask, error_code, wait_until
from tests.e2e.faults import Cut, FaultProxy, Faults, Peer, Scripted, Way
from tests.e2e.programs import Guard, Registry, StartGuard
from tests.e2e.wire import RECEIVE, Message, Octets

# -- a registry that goes and comes back -------------------------------------------------------


class Push:
    """The requests of one upload to a repository, over a connection each."""

    def __init__(self, connect: Connect, guard: Guard, repository: str) -> None:
        self._connect = connect
        self._guard = guard
        self.repository = repository
        self.location = ""

    def _ask(self, method: str, target: str, *lines: str, body: bytes = b"") -> Message:
        answer = ask(self._connect(self._guard), method, target, *lines, body=body)
        for location in answer.values("location"):
            self.follow(location)
        return answer

    def follow(self, location: str) -> None:
        """Go on there: an absolute URL."""
        self.location = "/" + location.split("/", 3)[3]

    def start(self) -> None:
        assert self._ask("POST", f"/v2/{self.repository}/blobs/uploads/").status == 202

    def patch(self, octets: bytes, at: int) -> Message:
        last = at + len(octets) - 1
        return self._ask("PATCH", self.location, f"Content-Range: {at}-{last}", body=octets)

    def go_on(self, octets: bytes, known: int) -> None:
        """Send what the registry does not have; it had ``known`` octets when it last answered.

        Of a PATCH that was cut, registry 2.8 keeps some octets but not their number, and then
        refuses the upload for ever ("upload resumed at wrong offset" in its log), with or
        without a guard.  Clients start another one; so does this.
        """
        answer = self._ask("GET", self.location)
        if answer.status == 404:
            assert error_code(answer) == "BLOB_UPLOAD_INVALID"
            self.start()
            known = 0
        else:
            assert (answer.status, answer.values("range")) == (204, [f"0-{known - 1}"])
        assert self.patch(octets[known:], known).status == 202

    def finish(self, octets: bytes) -> Message:
        digest = "sha256:" + hashlib.sha256(octets).hexdigest()
        return self._ask("PUT", f"{self.location}&digest={digest}")

    def pull(self, octets: bytes) -> bytes:
        digest = "sha256:" + hashlib.sha256(octets).hexdigest()
        return self._ask("GET", f"/v2/{self.repository}/blobs/{digest}").body


def test_i10_upload_goes_on_after_a_cut(
    start_guard: StartGuard, registry: Registry, connect: Connect
) -> None:
    """The next attempt ends well, and the blob is whole."""
    octets = random.Random(10).randbytes(5_000_000)
    with FaultProxy(registry.port) as line:
        push = Push(connect, start_guard(line.url), "cut/resumed")
        push.start()
        assert push.patch(octets[:1_000_000], 0).status == 202
        line.arm(Faults(up=Way(cut_after=2_000_000, cut=Cut.RST)))
        assert push.patch(octets[1_000_000:], 1_000_000).status == 502
        line.arm()
        push.go_on(octets, 1_000_000)
        assert push.finish(octets).status == 201

        assert push.pull(octets) == octets


@pytest.mark.parametrize("within_a_request", [False, True])
def test_i12_registry_restarts_in_the_middle_of_an_upload(
    start_guard: StartGuard, tmp_path: Path, connect: Connect, within_a_request: bool
) -> None:
    """The client hears 502 at once; with the registry back it goes on, and the blob is whole."""
    octets = random.Random(12).randbytes(6_000_000)
    with (
        Registry(tmp_path / "registry").running() as registry,
        FaultProxy(registry.port) as line,
        ThreadPoolExecutor(1) as elsewhere,
    ):
        push = Push(connect, start_guard(line.url), "restarted/app")
        push.start()
        assert push.patch(octets[:1_000_000], 0).status == 202
        slow = line.arm(Faults(up=Way(piece=10_000, rate=2_000_000)))
        if within_a_request:
            answering = elsewhere.submit(push.patch, octets[1_000_000:], 1_000_000)
            wait_until(lambda: any(len(passage.up) > 1_000_000 for passage in slow.passages))
            registry.stop(signal.SIGKILL)
        else:
            registry.stop()
            answering = elsewhere.submit(push.patch, octets[1_000_000:], 1_000_000)
        stopped = time.monotonic()
        assert answering.result().status == 502
        assert time.monotonic() - stopped < AT_ONCE
        line.arm()
        registry.start()
        push.go_on(octets, 1_000_000)
        assert push.finish(octets).status == 201
        assert push.pull(octets) == octets


# -- bad lines, small and large bodies ---------------------------------------------------------

LINES = [
    pytest.param(Way(piece=1), 20_000, id="one-octet-pieces"),
    pytest.param(Way(latency=0.02, jitter=0.05), 3_000_000, id="latency-jitter"),
    pytest.param(Way(piece=1_399, rate=4_000_000), 3_000_000, id="narrow"),
]


@pytest.mark.parametrize(("way", "size"), LINES)
def test_i24_bad_lines_on_both_sides(
    start_guard: StartGuard, registry: Registry, way: Way, size: int, connect: Connect
) -> None:
    """What goes through comes out, octet by octet."""
    octets = random.Random(24).randbytes(size)
    faults = Faults(up=way, down=way)
    with FaultProxy(registry.port, lambda _: faults) as back:
        guard = start_guard(back.url)
        with FaultProxy(guard.port, lambda _: faults) as front:
            push = Push(connect, guard, f"bad/lines{size}")
            push.start()
            client = connect(guard, front.port)
            body = client.head("PATCH", push.location, f"Content-Length: {size}") + octets
            answer = client.ask("PATCH", body)
            assert answer.status == 202
            push.follow(answer.values("location")[0])
            assert push.finish(octets).status == 201
            digest = hashlib.sha256(octets).hexdigest()
            pulled = client.ask(
                "GET", client.head("GET", f"/v2/{push.repository}/blobs/sha256:{digest}")
            )

    assert pulled.body == octets


@pytest.mark.parametrize("size", [0, 1])
@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_i25_smallest_blobs(
    start_guard: StartGuard, registry: Registry, size: int, framing: str, connect: Connect
) -> None:
    """Nothing and one octet, by length and in chunks."""
    octets = b"x" * size
    guard = start_guard(registry.url)
    push = Push(connect, guard, f"smallest/{framing}")
    push.start()
    client = connect(guard)
    target = f"{push.location}&digest=sha256:{hashlib.sha256(octets).hexdigest()}"
    if framing == "length":
        answer = ask(client, "PUT", target, body=octets)
    else:
        chunks = (b"%x\r\n%b\r\n" % (size, octets) if size else b"") + b"0\r\n\r\n"
        head = client.head("PUT", target, "Transfer-Encoding: chunked")
        answer = client.ask("PUT", head + chunks)

    assert answer.status == 201
    assert push.pull(octets) == octets


ZEROS = bytes(1 << 20)


def zeros(size: int) -> Iterator[bytes]:
    """So many zeros, in pieces."""
    while size > 0:
        yield ZEROS[:size]
        size -= len(ZEROS)


def count(octets: Octets, size: int) -> int:
    """Take so many octets; how many of them were zeros."""
    found = 0
    while size:
        piece = octets.exactly(min(size, RECEIVE))
        found += piece.count(0)
        size -= len(piece)
    return found


@pytest.mark.skipif("REGGUARD_LARGE" not in os.environ, reason="a minute; REGGUARD_LARGE=1 runs it")
@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("size", [2**31, 2**32 + 1])
def test_i25_largest_blobs(
    start_guard: StartGuard, size: int, framing: str, connect: Connect
) -> None:
    """Beyond 31 and 32 bits nothing is lost, up and down."""
    came = 0
    rest = "" if framing == "length" else "chunked"
    line = f"Content-Length: {size}" if framing == "length" else "Transfer-Encoding: chunked"
    start = b"" if framing == "length" else b"%x\r\n" % size
    end = b"" if framing == "length" else b"\r\n0\r\n\r\n"

    def body_of(octets: Octets) -> int:
        if rest:
            # However it was cut into chunks.
            found = 0
            while length := int(octets.until(b"\r\n"), 16):
                found += count(octets, length)
                assert octets.exactly(2) == b"\r\n"
            assert octets.exactly(2) == b"\r\n"
            return found
        return count(octets, size)

    def serve(peer: Peer) -> None:
        nonlocal came
        if peer.head().startswith("PATCH"):
            came = body_of(peer.octets)
            peer.send(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")
            peer.head()
        peer.send(f"HTTP/1.1 200 OK\r\n{line}\r\n\r\n".encode() + start)
        for piece in zeros(size):
            peer.send(piece)
        peer.send(end)
        peer.wait_for_end()

    with Scripted(serve) as upstream:
        client = connect(start_guard(upstream.url))
        client.send(client.head("PATCH", UPLOAD, line) + start)
        for piece in zeros(size):
            client.send(piece)
        assert client.ask("PATCH", end).status == 202
        client.send(client.head("GET", BLOB))
        assert client.octets.until(b"\r\n\r\n").startswith(b"HTTP/1.1 200 ")
        pulled = body_of(client.octets)

    assert (came, pulled) == (size, size)
