"""Group I of the cases over real sockets: an upstream, a line or a client that fails.

``REGGUARD_LARGE=1`` adds the bodies around 2 and 4 GiB; ``pytest -rP`` shows the times.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import signal
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import pytest

from tests.e2e.clients import curl
from tests.e2e.faults import Cut, FaultProxy, Faults, Peer, Scripted, Way
from tests.e2e.programs import Ground, Guard, Registry, StartGuard
from tests.e2e.wire import RECEIVE, Broken, Client, Message, Octets, read_response

AT_ONCE = 1.0

UPLOAD = "/v2/team/app/blobs/uploads/12345678-1234-1234-1234-123456789012"
BLOB = "/v2/team/app/blobs/sha256:" + 64 * "a"

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


class Connect(Protocol):
    """The fixture ``connect``: a raw connection of one who may push, closed when the test ends."""

    def __call__(
        self, guard: Guard, port: int | None = None, window: int | None = None
    ) -> Client: ...


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Connects to a guard, or through another port to it."""
    with contextlib.ExitStack() as stack:

        def connect(guard: Guard, port: int | None = None, window: int | None = None) -> Client:
            client = Client(port or guard.port, guard.ground.ca, guard.ground.pusher, window)
            stack.callback(client.close)
            return client

        yield connect


def ask(client: Client, method: str, target: str, *lines: str, body: bytes = b"") -> Message:
    """One request with a whole body."""
    if body or method in ("PUT", "PATCH", "POST"):
        lines = (*lines, f"Content-Length: {len(body)}")
    return client.ask(method, client.head(method, target, *lines) + body)


def error_code(answer: Message) -> str:
    """The code in an answer of regguard's own."""
    (error,) = json.loads(answer.body)["errors"]
    return str(error["code"])


def wait_until(true: Callable[[], object], seconds: float = 10.0) -> None:
    """Return as soon as ``true()`` is."""
    began = time.monotonic()
    while not true():
        assert time.monotonic() - began < seconds, "waited in vain"
        time.sleep(0.002)


# -- the registry does not answer, or nonsense -------------------------------------------------


def test_i01_i13_killed_and_back(start_guard: StartGuard, ground: Ground, tmp_path: Path) -> None:
    """A registry that was killed is told of within a second, and so is one that is back."""
    registry = Registry(tmp_path / "registry")
    guard = start_guard(registry.url)
    began = time.monotonic()
    absent = curl(guard, "/v2/", credentials=ground.as_reader)
    times = [f"absent at boot: 502 in {1000 * (time.monotonic() - began):.0f} ms"]
    assert absent.status == 502

    for _ in range(3):
        registry.start()
        began = time.monotonic()
        assert curl(guard, "/v2/", credentials=ground.as_reader).status == 200
        back = time.monotonic() - began
        registry.stop(signal.SIGKILL)
        began = time.monotonic()
        answer = curl(guard, "/v2/", credentials=ground.as_reader)
        gone = time.monotonic() - began
        assert (answer.status, json.loads(answer.body)["errors"][0]["code"]) == (502, "UNAVAILABLE")
        times.append(f"back: 200 in {1000 * back:.0f} ms; killed: 502 in {1000 * gone:.0f} ms")
        assert back < AT_ONCE
        assert gone < AT_ONCE

    print("\n" + "\n".join(times))  # noqa: T201


def test_i02_no_answer_to_connections(start_guard: StartGuard, connect: Connect) -> None:
    """504 at the end of the time for connecting, where nobody refuses and nobody accepts."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):  # the queue of connections is full then
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        guard = start_guard(f"http://127.0.0.1:{listener.getsockname()[1]}")
        began = time.monotonic()
        answer = ask(connect(guard), "GET", "/v2/")

    assert (answer.status, error_code(answer)) == (504, "UNAVAILABLE")
    assert 4 < time.monotonic() - began < 10


@pytest.mark.parametrize("method", ["GET", "PATCH"])
def test_i03_accepts_and_is_silent(start_guard: StartGuard, method: str, connect: Connect) -> None:
    """504 at the end of the read timeout."""
    with FaultProxy(1, lambda _: Faults(holds=True)) as upstream:
        guard = start_guard(upstream.url, "--read-timeout", "2")
        began = time.monotonic()
        answer = ask(connect(guard), method, UPLOAD)

    assert (answer.status, error_code(answer)) == (504, "UNAVAILABLE")
    assert 1.5 < time.monotonic() - began < 5


GARBAGE = [
    pytest.param(b"\x00\xff\x13" * 50, id="garbage"),
    pytest.param(b"<html>Hello, this is HTTP/0.9</html>\n", id="http-0.9"),
    pytest.param(b"\x15\x03\x01\x00\x02\x02\x46", id="tls-alert"),
    pytest.param(b"SSH-2.0-OpenSSH_9.2p1\r\n", id="ssh"),
    pytest.param(b"HTTP/1.1 200\xa0OK\r\n\r\n", id="status-line"),
    pytest.param(
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}", id="cl-cl"
    ),
    pytest.param(
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}",
        id="cl-te",
    ),
    pytest.param(b"HTTP/1.1 100 Continue\r\n\r\n" * 1_000, id="1xx-flood"),
    pytest.param(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000, id="endless-head"),
]


@pytest.mark.parametrize("garbage", GARBAGE)
@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_i04_garbage(
    start_guard: StartGuard, garbage: bytes, method: str, connect: Connect
) -> None:
    """502 for what is no answer, and the connection it came over is gone."""

    def serve(peer: Peer) -> None:
        peer.request()
        peer.send(garbage)
        peer.wait_for_end()

    with Scripted(serve) as upstream:
        guard = start_guard(upstream.url)
        answer = ask(connect(guard), method, BLOB if method == "GET" else f"{UPLOAD}?digest=x")
        if method == "GET":
            assert (answer.status, error_code(answer)) == (502, "UNAVAILABLE")
        wait_until(lambda: upstream.peers[0].end)


def test_i04_garbage_before_the_answer(
    guard: Guard, start_guard: StartGuard, connect: Connect
) -> None:
    """Octets of something else ahead of the real registry's answer: 502."""
    flood = Way(before=b"HTTP/1.1 103 Early Hints\r\n\r\n" * 100)
    with FaultProxy(int(registry_port(guard)), lambda _: Faults(down=flood)) as line:
        answer = ask(connect(start_guard(line.url)), "GET", "/v2/")

    assert answer.status == 502


def registry_port(guard: Guard) -> str:
    """The port in the command line of a guard's program."""
    words = Path(f"/proc/{guard.program.pid}/cmdline").read_text().split("\0")
    return words[words.index("--upstream") + 1].rpartition(":")[2]


# -- kept connections --------------------------------------------------------------------------


@pytest.mark.parametrize("ends_by", ["FIN", "RST"])
def test_i05_get_on_a_stale_connection_is_sent_once_more(
    start_guard: StartGuard, ends_by: str, connect: Connect
) -> None:
    """It goes over a fresh connection, and if that ends, too, the client hears 502."""
    is_broken = threading.Event()

    def serve(peer: Peer) -> None:
        while True:
            peer.request()
            if len(peer.seen) > 1 or is_broken.is_set():
                peer.reset() if ends_by == "RST" else peer.close()
                return
            peer.send(OK)

    with Scripted(serve) as upstream:
        client = connect(start_guard(upstream.url))
        assert ask(client, "GET", BLOB).status == 200
        assert ask(client, "GET", BLOB).status == 200
        assert [len(peer.seen) for peer in upstream.peers] == [2, 1]

        is_broken.set()
        assert ask(client, "GET", BLOB).status == 502
        assert [len(peer.seen) for peer in upstream.peers] == [2, 2, 1]
        # On a fresh connection there is nothing stale to blame.
        assert ask(client, "GET", BLOB).status == 502
        assert [len(peer.seen) for peer in upstream.peers] == [2, 2, 1, 1]


@pytest.mark.parametrize("body", [b"", b"some octets"], ids=["no-body", "body"])
@pytest.mark.parametrize("method", ["POST", "PATCH", "PUT", "DELETE"])
def test_i05_writes_are_never_sent_twice(
    start_guard: StartGuard, method: str, body: bytes, connect: Connect
) -> None:
    """However the connection ends: who knows what the registry has done by then?"""

    def serve(peer: Peer) -> None:
        while True:
            if peer.request().method != "GET":
                peer.close()
                return
            peer.send(OK)

    target = {"POST": UPLOAD.rpartition("/")[0] + "/", "DELETE": BLOB}.get(method, UPLOAD)
    with Scripted(serve) as upstream:
        client = connect(start_guard(upstream.url))
        assert ask(client, "GET", BLOB).status == 200
        assert ask(client, method, target, body=body).status == 502
        sent = [message for message in upstream.seen if message.method == method]

    assert len(sent) == 1


def test_i26_connections_close_at_the_moment_of_reuse(
    start_guard: StartGuard, connect: Connect
) -> None:
    """Two thousand GETs over connections that end after a few answers: no error for a client."""
    rng = random.Random(26)

    def serve(peer: Peer) -> None:
        for _ in range(rng.randrange(1, 4)):
            peer.request()
            peer.send(OK)
        if rng.random() < 0.5:
            peer.request()  # at the last moment
        if rng.random() < 0.5:
            peer.reset()

    with Scripted(serve) as upstream:
        client = connect(start_guard(upstream.url))
        for _ in range(2_000):
            answer = ask(client, "GET", BLOB)
            assert (answer.status, answer.body) == (200, b"{}")
        connections = len(upstream.peers)

    assert connections > 500


# -- answers that end too early ----------------------------------------------------------------

HALF = 500_000
BEGINNINGS = [
    pytest.param(b"Content-Length: 1000000\r\n\r\n" + bytes(HALF), id="length"),
    pytest.param(b"Transfer-Encoding: chunked\r\n\r\n7a120\r\n" + bytes(HALF), id="in-a-chunk"),
    pytest.param(
        b"Transfer-Encoding: chunked\r\n\r\n7a120\r\n" + bytes(HALF) + b"\r\n", id="chunks"
    ),
    pytest.param(
        b"Transfer-Encoding: chunked\r\n\r\n7a120\r\n" + bytes(HALF) + b"\r\n0\r\n", id="last-chunk"
    ),
]


@pytest.mark.parametrize("minor", [0, 1])
@pytest.mark.parametrize("ends_by", ["FIN", "RST"])
@pytest.mark.parametrize("beginning", BEGINNINGS)
def test_g11_i06_i07_i08_truncated_answers(
    start_guard: StartGuard, beginning: bytes, ends_by: str, minor: int, connect: Connect
) -> None:
    """The client's connection is cut at once, without the end of a body and a close_notify."""

    def serve(peer: Peer) -> None:
        peer.request()
        peer.send(b"HTTP/1.1 200 OK\r\n" + beginning)
        peer.reset() if ends_by == "RST" else peer.close()

    with Scripted(serve) as upstream:
        guard = start_guard(upstream.url)
        client = connect(guard)
        began = time.monotonic()
        with pytest.raises(Broken):
            client.ask("GET", client.head("GET", BLOB, minor=minor))
        assert time.monotonic() - began < AT_ONCE
        assert client.octets.end in ("cut", "reset")
        guard.wait_for_line("cut the answer to testuserpush: the registry cut its answer")


@pytest.mark.parametrize("ends_by", ["close_notify", "FIN"])
def test_g11_close_delimited_answer_of_a_tls_registry(
    start_guard: StartGuard, ground: Ground, ends_by: str, connect: Connect
) -> None:
    """A body that the connection's end delimits is whole after a close_notify only."""

    def serve(peer: Peer) -> None:
        peer.request()
        peer.send(b"HTTP/1.1 200 OK\r\n\r\n" + bytes(HALF))
        if ends_by == "close_notify":
            assert isinstance(peer.sock, ssl.SSLSocket)
            peer.sock.unwrap()
        else:
            peer.sock.close()

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(ground.certificate, ground.certificate.with_suffix(".key"))
    with Scripted(serve, tls=context) as upstream:
        url = f"https://localhost:{upstream.port}"
        client = connect(start_guard(url, "--upstream-ca", str(ground.ca)))
        if ends_by == "close_notify":
            assert ask(client, "GET", BLOB).body == bytes(HALF)
        else:
            with pytest.raises(Broken):
                ask(client, "GET", BLOB)


def test_g11_a_good_end_has_a_close_notify(guard: Guard, connect: Connect) -> None:
    """Who asks for the end of the connection sees a clean one."""
    client = connect(guard)

    assert ask(client, "GET", "/v2/", "Connection: close").status == 200
    assert not client.octets.wait()
    assert client.octets.end == "clean"


# -- one side is done, or goes, while the other is at work -------------------------------------


@pytest.mark.parametrize("status", [b"202 Accepted", b"413 Too Large", b"401 Unauthorized"])
@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_i09_final_answer_while_the_body_flows(
    start_guard: StartGuard, status: bytes, framing: str, connect: Connect
) -> None:
    """It comes at once, the upload stops, and the registry's connection is cut."""

    def serve(peer: Peer) -> None:
        peer.head()
        peer.octets.exactly(100_000)
        peer.send(b"HTTP/1.1 " + status + b"\r\nContent-Length: 2\r\n\r\n{}")
        peer.wait_for_end()

    octets = bytes(50_000_000)
    with Scripted(serve) as upstream:
        client = connect(start_guard(upstream.url))
        line = f"Content-Length: {len(octets)}"
        body = octets
        if framing == "chunked":
            line = "Transfer-Encoding: chunked"
            body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(octets), octets)
        began = time.monotonic()
        answer = client.ask("PATCH", client.head("PATCH", UPLOAD, line) + body)
        assert time.monotonic() - began < AT_ONCE
        # The registry's own challenge would send clients elsewhere.
        assert answer.status == (502 if b"401" in status else int(status[:3]))
        wait_until(lambda: upstream.peers[0].end, AT_ONCE)
        assert upstream.peers[0].end == "reset"
        assert client.sent < len(octets) / 2


@pytest.mark.parametrize("how", ["RST", "FIN", "close_notify"])
@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_i10_client_goes_while_it_pushes(
    start_guard: StartGuard, how: str, framing: str, connect: Connect
) -> None:
    """The registry's connection is cut within a second, never ended."""

    def serve(peer: Peer) -> None:
        peer.wait_for_end()

    with Scripted(serve) as upstream:
        client = connect(start_guard(upstream.url))
        line, start = "Content-Length: 1000000", b""
        if framing == "chunked":
            line, start = "Transfer-Encoding: chunked", b"%x\r\n" % HALF
        client.send(client.head("PATCH", UPLOAD, line) + start + bytes(HALF))
        wait_until(lambda: upstream.peers and upstream.peers[0].octets.received > HALF)
        client.how = how
        client.leave()
        wait_until(lambda: upstream.peers[0].end, AT_ONCE)
        assert upstream.peers[0].end == "reset"


def test_i10_client_goes_while_the_registry_does_not_read(
    start_guard: StartGuard, connect: Connect
) -> None:
    """The registry's connection is cut within a second though nothing more can be passed on.

    A FIN would stand behind the octets that nobody reads; only a RST overtakes them.
    """
    may_read = threading.Event()

    def serve(peer: Peer) -> None:
        peer.head()
        may_read.wait()

    with Scripted(serve) as upstream:
        client = connect(start_guard(upstream.url))
        client.sock.settimeout(0.5)
        client.sock.sendall(client.head("PATCH", UPLOAD, "Content-Length: 1000000000"))
        with contextlib.suppress(TimeoutError):
            while True:
                client.sock.sendall(bytes(16_384))
        client.leave()
        try:
            wait_until(lambda: is_cut(upstream.peers[0].sock), AT_ONCE + 1)
        finally:
            may_read.set()


def is_cut(sock: socket.socket) -> bool:
    """Whether a RST has come, whatever waits to be read."""
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0


@pytest.mark.parametrize("how", ["RST", "FIN", "close_notify"])
def test_i11_client_goes_while_it_pulls(
    start_guard: StartGuard, how: str, connect: Connect
) -> None:
    """The registry's connection is cut within a second, and no descriptor is left."""

    def serve(peer: Peer) -> None:
        peer.request()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        with contextlib.suppress(OSError):
            while True:
                peer.send(bytes(100_000))
        peer.end, peer.ended_at = "reset", time.monotonic()

    with Scripted(serve) as upstream:
        guard = start_guard(upstream.url)
        before = open_files(guard)
        # It does not read: the whole way up to the registry is full then.
        client = connect(guard, window=64 * 1024)
        client.send(client.head("GET", BLOB))
        time.sleep(0.3)
        client.how = how
        client.leave()
        wait_until(lambda: upstream.peers[0].end, AT_ONCE)
        # The look whether the guard listens may be under way, until its handshake's deadline.
        wait_until(lambda: open_files(guard) <= before, 15.0)


def open_files(guard: Guard) -> int:
    """How many descriptors a guard has."""
    return len(list(Path(f"/proc/{guard.program.pid}/fd").iterdir()))


def test_h09_half_close_after_the_request(start_guard: StartGuard, connect: Connect) -> None:
    """Who has said all (close_notify and FIN) gets the whole answer."""

    def serve(peer: Peer) -> None:
        peer.request()
        time.sleep(0.2)
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 3000000\r\n\r\n" + bytes(3_000_000))
        peer.wait_for_end()

    with Scripted(serve) as upstream:
        client = connect(start_guard(upstream.url))
        client.send(client.head("GET", BLOB))
        client.sock.setblocking(False)
        with contextlib.suppress(ssl.SSLWantReadError):
            client.sock.unwrap()
        socket.socket.shutdown(client.sock, socket.SHUT_WR)
        answer = read_response(client.octets, "GET")

    assert len(answer.body) == 3_000_000


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
