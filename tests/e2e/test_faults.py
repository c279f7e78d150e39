"""Group I of the cases over real sockets: a registry, a line or a client that fails.

``pytest -rP`` shows the times.
"""

from __future__ import annotations

import contextlib
import json
import random
import signal
import socket
import ssl
import threading
import time
from pathlib import Path

import pytest

from tests.e2e.asking import AT_ONCE, BLOB, OK, UPLOAD, Connect, ask, error_code, wait_until
from tests.e2e.clients import curl
from tests.e2e.faults import FaultProxy, Faults, Peer, Scripted, Way
from tests.e2e.programs import Ground, Guard, Registry, StartGuard
from tests.e2e.wire import Broken, read_response

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
        # Who is answered knows that the reactor runs, and has opened what it needs for that.
        first = connect(guard)
        assert ask(first, "GET", "/").status == 200
        before = open_files(guard) - 1
        first.close()
        # It does not read: the whole way up to the registry is full then.
        client = connect(guard, window=64 * 1024)
        client.send(client.head("GET", BLOB))
        time.sleep(0.3)
        client.how = how
        client.leave()
        wait_until(lambda: upstream.peers[0].end, AT_ONCE)
        wait_until(lambda: open_files(guard) <= before)


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
