"""Behind a balancer: a real haproxy, as a TCP balancer and as one that terminates TLS.

Every address of 127.0.0.0/8 is this machine, so each part has one of its own: haproxy comes from
127.0.0.2, the only one that is trusted, and clients from 127.0.7.7.
"""

from __future__ import annotations

import contextlib
import re
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest

from regguard.demo.image import random_image
from tests.canary import secret
from tests.e2e.clients import Skopeo, curl
from tests.e2e.programs import (
    PATIENCE,
    Ground,
    Guard,
    Program,
    Registry,
    StartGuard,
    accepts,
    binary,
    free_port,
    run,
    twist,
)
from tests.e2e.recorder import Recorder

BALANCER = "127.0.0.2"
CLIENT = "127.0.7.7"
TRUST = ("--trusted-proxy", f"{BALANCER}/32")

CONFIGURATION = """\
global
    maxconn 200
defaults
    timeout connect 5s
    timeout client 60s
    timeout server 60s
frontend front
    bind 127.0.0.1:{port} {bind}
    {front}
    default_backend guard
backend guard
    {back}
    server guard 127.0.0.1:{guard} source {balancer} {server}
"""
TLS_TERMINATES = {
    "bind": "ssl crt {pem}",
    # As an ELB: the client's own words stay in front of what it adds, and X-Real-IP as it is.
    "front": (
        "mode http\n    option forwardfor\n    http-request set-header X-Forwarded-Proto https"
    ),
    "back": "mode http",
    "server": "",
}


@dataclass(frozen=True)
class Balanced:
    """What clients see of a guard behind a balancer."""

    ground: Ground
    port: int

    @property
    def host(self) -> str:
        return f"localhost:{self.port}"

    @property
    def url(self) -> str:
        return f"https://{self.host}"


Balance = Callable[..., Guard]


@pytest.fixture
def balance(ground: Ground, tmp_path: Path) -> Iterator[Balance]:
    """Starts haproxy in front of a port of a guard; what it returns is for curl and skopeo."""
    started: list[Program] = []

    def start(guard: int, bind: str = "", **words: str) -> Guard:
        pem = tmp_path / "both.pem"
        pem.write_bytes(
            ground.certificate.read_bytes() + ground.certificate.with_suffix(".key").read_bytes()
        )
        port = free_port()
        file = tmp_path / f"haproxy-{port}.cfg"
        file.write_text(
            CONFIGURATION.format(
                port=port, guard=guard, balancer=BALANCER, bind=bind.format(pem=pem), **words
            )
        )
        program = Program(
            [binary("/usr/sbin/haproxy"), "-db", "-f", str(file)],
            tmp_path / f"haproxy-{port}.log",
            tmp_path,
        )
        started.append(program)
        program.wait_until("haproxy to listen", lambda: accepts(port))
        return cast(Guard, Balanced(ground, port))

    yield start
    for program in started:
        program.stop()


def introduced(start_guard: StartGuard, upstream: str, *words: str) -> tuple[Guard, int]:
    """A guard that wants a PROXY header on the port that is returned with it."""
    port = free_port()
    guard = start_guard(
        upstream, "--listen", f"haproxy:tcp:{port}:interface=127.0.0.1", *TRUST, *words
    )
    guard.program.wait_until("the second port", lambda: accepts(port))
    return guard, port


def fields(recorder: Recorder) -> dict[bytes, list[bytes]]:
    """The header fields of the last request that the registry got."""
    head = bytes(recorder.received).rstrip().rpartition(b"HTTP/1.1\r\n")[2]
    found: dict[bytes, list[bytes]] = {}
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b": ")
        found.setdefault(name.lower(), []).append(value)
    return found


FORGED = (
    *("--header", "X-Forwarded-For: 198.51.100.1"),
    *("--header", "X-Real-IP: 198.51.100.2"),
    *("--header", "X-Forwarded-User: root"),
)


# -- a TCP balancer with the PROXY protocol --------------------------------------------------------


@pytest.mark.parametrize("version", ["send-proxy", "send-proxy-v2", "send-proxy-v2-ssl-cn"])
@pytest.mark.parametrize("tls", [True, False])
def test_the_proxy_header_says_who_the_client_is(
    balance: Balance, start_guard: StartGuard, version: str, tls: bool
) -> None:
    """Before TLS and without it; to log, throttle and registry alike."""
    with Recorder() as recorder:
        words = () if tls else ("--no-tls", "--public-url", "https://registry.example")
        guard, port = introduced(start_guard, recorder.url, *words)
        bind = "" if tls else "ssl crt {pem}"
        front = balance(port, bind, front="mode tcp", back="mode tcp", server=version)

        wrong = f"eve:{secret('wrong')}"
        assert curl(front, "/v2/", "--interface", CLIENT, credentials=wrong).status == 401
        answer = curl(
            front, "/v2/", "--interface", CLIENT, *FORGED, credentials=guard.ground.as_reader
        )

        assert answer.status == 200
        seen = fields(recorder)
        assert seen[b"x-forwarded-for"] == seen[b"x-real-ip"] == [CLIENT.encode()]
        assert seen[b"x-forwarded-proto"] == [b"https"]
        assert seen[b"x-forwarded-user"] == [b"testuser"]
        guard.wait_for_line(f"{CLIENT} - testuser", "GET /v2/")
        guard.wait_for_line("refused eve from 127.0.7.0/24")


def test_a_push_and_a_pull_behind_a_proxy_header(
    balance: Balance, start_guard: StartGuard, registry: Registry, tmp_path: Path
) -> None:
    """Megabytes both ways, with OpenSSL on the socket behind the header."""
    guard, port = introduced(start_guard, registry.url)
    front = balance(port, front="mode tcp", back="mode tcp", server="send-proxy-v2")
    skopeo = Skopeo(front, tmp_path)
    random_image((1_000, 5_000_000)).write_layout(tmp_path / "image", "v1")

    assert not skopeo.push(tmp_path / "image", "v1", "behind/header:v1", guard.ground.as_pusher)
    assert not skopeo.pull("behind/header:v1", tmp_path / "back", "v1", guard.ground.as_reader)
    assert "through memory" not in guard.program.output()


def knock(port: int, *octets: bytes, source: str = BALANCER) -> bytes:
    """Connect, send, and read until the guard closes; a reset is a close, too."""
    with socket.create_connection(("127.0.0.1", port), PATIENCE, (source, 0)) as client:
        received = b""
        with contextlib.suppress(ConnectionError):
            for piece in octets:
                client.sendall(piece)
            while data := client.recv(65536):
                received += data
        return received


def test_who_may_not_introduce_anybody_is_closed(
    start_guard: StartGuard, registry: Registry
) -> None:
    """Whatever it says; and so is a trusted one that says nothing."""
    guard, port = introduced(start_guard, registry.url, "--no-tls")
    get = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    header = b"PROXY TCP4 192.0.2.1 127.0.0.1 1 2\r\n"
    assert b"200 OK" in knock(port, header + get)
    assert b"200 OK" in knock(guard.port, get, source="127.0.0.3")

    assert not knock(port, header + get, source="127.0.0.3")
    guard.wait_for_line("closed a connection from 127.0.0.", "it is no --trusted-proxy")
    assert not knock(port, get)
    guard.wait_for_line("closed a connection without a PROXY header: let the balancer send one")
    assert not knock(port, b"\x16\x03\x01\x02\x00" * 200)
    assert not knock(port, b"PROXY TCP4 evil 127.0.0.1 1 2\r\n" + get)
    guard.wait_for_line("192.0.2.1 - -", '"GET / HTTP/1.1" 200')


def test_h01_a_slow_proxy_header_has_the_deadline_of_the_first_octet(
    start_guard: StartGuard, registry: Registry
) -> None:
    """However it trickles."""
    _, port = introduced(start_guard, registry.url)
    with socket.create_connection(("127.0.0.1", port), PATIENCE, (BALANCER, 0)) as client:
        client.settimeout(1)
        for octet in b"PROXY TCP4 192.0.2.1 127.0.0.1 1 2":
            try:
                client.send(bytes([octet]))
                assert not client.recv(1)
            except TimeoutError:
                continue
            except ConnectionError:
                pass
            return
    raise AssertionError("half a minute for a header")


def test_a_listener_that_would_trust_nobody_does_not_start(ground: Ground, tmp_path: Path) -> None:
    """It could serve nobody, or everybody who writes a header."""
    done = run(twist("--listen", "haproxy:tcp:0", "--tls-cert", str(ground.certificate)), tmp_path)

    assert done.returncode == 64
    assert done.stderr == (
        "regguard: --listen: haproxy:tcp:0: a PROXY header may come from trusted proxies only, and "
        "there are none; name the balancer's address with --trusted-proxy\n"
    )


# -- a balancer that terminates TLS, and says so: the ELB of the nginx recipe ---------------------


def test_the_elb_of_the_nginx_recipe(
    balance: Balance, start_guard: StartGuard, registry: Registry, tmp_path: Path
) -> None:
    """Plain HTTP to us, https in every Location, so that clients get on; the client in the log."""
    guard = start_guard(registry.url, "--no-tls", *TRUST)
    front = balance(guard.port, **TLS_TERMINATES)
    started = curl(
        front,
        "/v2/behind/elb/blobs/uploads/",
        *("--request", "POST", "--interface", CLIENT),
        credentials=guard.ground.as_pusher,
    )

    assert started.status == 202
    (location,) = started.headers("Location")
    assert re.match(rf"https://localhost:{cast(Balanced, front).port}/v2/behind/elb/", location)
    guard.wait_for_line(f"{CLIENT} - testuserpush", "POST /v2/behind/elb/blobs/uploads/")
    skopeo = Skopeo(front, tmp_path)
    random_image((1_000, 2_000_000)).write_layout(tmp_path / "image", "v1")
    assert not skopeo.push(tmp_path / "image", "v1", "behind/elb:v1", guard.ground.as_pusher)
    assert not skopeo.pull("behind/elb:v1", tmp_path / "back", "v1", guard.ground.as_reader)


def test_b04_b07_what_a_client_forges_gets_no_further_than_the_elb(
    balance: Balance, start_guard: StartGuard
) -> None:
    """It stands left of what the balancer wrote, or in fields that count only without that."""
    with Recorder() as recorder:
        guard = start_guard(recorder.url, "--no-tls", *TRUST)
        front = balance(guard.port, **TLS_TERMINATES)
        answer = curl(
            front,
            "/v2/",
            *("--interface", CLIENT, *FORGED, "--header", "X-Forwarded-Proto: http"),
            credentials=guard.ground.as_reader,
        )

        assert answer.status == 200
        seen = fields(recorder)
        assert seen[b"x-forwarded-for"] == seen[b"x-real-ip"] == [CLIENT.encode()]
        assert seen[b"x-forwarded-proto"] == [b"https"]
        assert seen[b"x-forwarded-user"] == [b"testuser"]
        assert seen[b"x-forwarded-host"] == seen[b"host"]


def test_b04_a_balancer_that_nobody_named_is_not_believed(
    balance: Balance, start_guard: StartGuard
) -> None:
    """Its clients are it, and they come in plain HTTP."""
    with Recorder() as recorder:
        guard = start_guard(recorder.url, "--no-tls", "--trusted-proxy", "127.0.0.3")
        front = balance(guard.port, **TLS_TERMINATES)
        curl(front, "/v2/", "--interface", CLIENT, *FORGED, credentials=guard.ground.as_reader)

        seen = fields(recorder)
        assert seen[b"x-forwarded-for"] == seen[b"x-real-ip"] == [BALANCER.encode()]
        assert seen[b"x-forwarded-proto"] == [b"http"]


def test_one_connection_of_the_elb_brings_many_clients(
    start_guard: StartGuard, registry: Registry
) -> None:
    """Each of its requests has one of its own."""
    guard = start_guard(registry.url, "--no-tls", *TRUST)
    get = b"GET /v2/ HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 198.51.100.9, %s\r\n%s\r\n"
    knock(
        guard.port,
        get % (b"192.0.2.1", b"") + get % (b"[2001:db8::1]:443", b"Connection: close\r\n"),
    )

    guard.wait_for_line("192.0.2.1 - -", '"GET /v2/ HTTP/1.1" 401')
    guard.wait_for_line("2001:db8::1 - -", '"GET /v2/ HTTP/1.1" 401')
