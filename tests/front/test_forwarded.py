"""regguard.front.forwarded: what a trusted proxy says of a request, and what anybody else does."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from regguard.addresses import TrustedProxies
from tests.front.wire import Door

PROXY = "10.0.0.5"


@pytest.fixture
def door() -> Iterator[Door]:
    """One that trusts 10.0.0.0/8."""
    opened = Door(trusted=TrustedProxies.parse(["10.0.0.0/8"]))
    yield opened
    opened.check_and_close()


def asked(door: Door, *lines: bytes, peer: str = PROXY) -> tuple[str, str, bytes]:
    """Client, scheme and host of a request with these lines, by which the log knows it, too."""
    wire = door.connect(peer)
    wire.send(b"\r\n".join([b"GET /now HTTP/1.1", b"Host: r.example", *lines, b"", b""]))
    request = door.logged[-1]
    return request.client, "https" if request.secure else "http", request.authority


def test_an_elb_says_who_asks_and_that_it_was_over_tls(door: Door) -> None:
    """The case of the nginx recipe: the balancer terminates TLS and keeps the host."""
    assert asked(
        door,
        b"X-Forwarded-For: 192.0.2.7",
        b"X-Forwarded-Proto: https",
        b"X-Forwarded-Port: 443",
    ) == ("192.0.2.7", "https", b"r.example")


@pytest.mark.parametrize("peer", ["192.0.2.9", "11.0.0.5"])
def test_b04_from_everybody_else_all_of_it_is_dropped(door: Door, peer: str) -> None:
    """Anyone can write these fields."""
    assert asked(
        door,
        b"X-Forwarded-For: 10.0.0.1",
        b"X-Real-IP: 10.0.0.1",
        b"X-Forwarded-Proto: https",
        b"X-Forwarded-Host: evil.example",
        peer=peer,
    ) == (peer, "http", b"r.example")


def test_requests_of_a_kept_connection_have_clients_of_their_own(door: Door) -> None:
    """A balancer sends those of many over one."""
    wire = door.connect(PROXY)
    for line in (b"X-Forwarded-For: 192.0.2.7", b"X-Forwarded-For: 192.0.2.8", b"A: b"):
        wire.send(b"GET /now HTTP/1.1\r\nHost: a\r\n" + line + b"\r\n\r\n")

    assert [request.client for request in door.logged] == ["192.0.2.7", "192.0.2.8", PROXY]


@pytest.mark.parametrize(
    ("lines", "client"),
    [
        ([b"X-Real-IP: 192.0.2.7"], "192.0.2.7"),
        ([b"X-Real-IP: [2001:db8::1]:4"], "2001:db8::1"),
        ([b"X-Real-IP: me"], PROXY),
        ([b"X-Real-IP: 192.0.2.8", b"X-Forwarded-For: 192.0.2.7"], "192.0.2.7"),
        ([b"X-Forwarded-For: garbage", b"X-Real-IP: 192.0.2.8"], PROXY),
        ([b"X-Forwarded-For: 192.0.2.8", b"X-Forwarded-For: 192.0.2.7"], "192.0.2.7"),
    ],
)
def test_b07_x_real_ip_counts_where_there_is_no_x_forwarded_for(
    door: Door, lines: list[bytes], client: str
) -> None:
    """An ELB writes the latter, and passes on whatever the client says is the former."""
    assert asked(door, *lines)[0] == client


@pytest.mark.parametrize(
    ("values", "scheme"),
    [
        ([b"https"], "https"),
        ([b"HTTPS"], "https"),
        ([b"http"], "http"),
        ([b"javascript"], "http"),
        ([b"https, http"], "http"),
        ([b"https", b"https"], "http"),
        ([b""], "http"),
    ],
)
def test_b07_a_scheme_is_http_or_https(door: Door, values: list[bytes], scheme: str) -> None:
    """And said once: of two the client may have sent one."""
    assert asked(door, *(b"X-Forwarded-Proto: " + value for value in values))[1] == scheme


def test_b07_a_proxy_may_take_tls_away(door: Door) -> None:
    """Clients that reached it in plain HTTP can't follow a Location with https."""
    door.site.secure = True

    assert asked(door)[1] == "https"
    assert asked(door, b"X-Forwarded-Proto: http")[1] == "http"


@pytest.mark.parametrize(
    ("values", "host"),
    [
        ([b"public.example:8443"], b"public.example:8443"),
        ([b"[2001:db8::1]:443"], b"[2001:db8::1]:443"),
        ([b"a.example, b.example"], b"r.example"),
        ([b"a.example", b"a.example"], b"r.example"),
        ([b"a.example/evil"], b"r.example"),
        ([b"u@a.example"], b"r.example"),
        ([b"a.example:99999"], b"r.example"),
        ([b""], b"r.example"),
    ],
)
def test_b07_a_host_has_the_form_of_a_host(door: Door, values: list[bytes], host: bytes) -> None:
    """It goes into every Location that the registry writes."""
    assert asked(door, *(b"X-Forwarded-Host: " + value for value in values))[2] == host


def test_b01_connection_takes_nothing_from_what_a_proxy_says(door: Door) -> None:
    """A client may have listed them (CVE-2022-31813)."""
    assert asked(
        door,
        b"Connection: close, X-Forwarded-For, X-Forwarded-Proto",
        b"X-Forwarded-For: 192.0.2.7",
        b"X-Forwarded-Proto: https",
    )[:2] == ("192.0.2.7", "https")


def test_a_malformed_request_is_the_proxys(door: Door) -> None:
    """Nobody can say what its fields are."""
    wire = door.connect(PROXY)
    wire.send(b"GET / HTTP/1.1\r\nX-Forwarded-For: 192.0.2.7\r\n\r\n")

    assert door.logged[0].client == PROXY
