"""regguard.front.admission: how many connections there may be, and what happens to one more."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.task import Clock
from twisted.logger import capturedLogs

from regguard.addresses import TrustedProxies
from regguard.front.admission import Admission, connections_for, files_for, share_of
from tests.front.wire import Door

TRUSTED = TrustedProxies.parse(["10.0.0.0/8"])
GET = b"GET /now HTTP/1.1\r\nHost: a\r\n\r\n"


class Port:
    """A listening port that says whether it accepts."""

    accepts = True

    def pauseProducing(self) -> None:
        self.accepts = False

    def resumeProducing(self) -> None:
        self.accepts = True


def door_for(total: int, per_network: int | None = None, **words: Any) -> Door:
    """A door for so many."""
    return Door(admission=Admission(Clock(), total, per_network, TRUSTED), trusted=TRUSTED, **words)


def warnings(events: list[Any]) -> list[str]:
    """What was logged, filled in."""
    return [event["log_format"].format(**event) for event in events]


def test_h05_all_ports_stop_accepting_when_there_are_enough() -> None:
    """Who comes then waits in the kernel; the next place is for one of them."""
    door = door_for(3, 100)
    admission = door.site.admission
    ports = [Port(), Port()]
    for port in ports:
        admission.watch(port)
    wires = [door.connect() for _ in range(2)]
    assert all(port.accepts for port in ports)
    assert admission.room == 1
    with capturedLogs() as events:
        wires.append(door.connect())
    assert not any(port.accepts for port in ports)
    assert warnings(list(events)) == [
        "3 connections are there: more wait until one leaves (--max-connections)"
    ]
    for wire in wires:
        wire.vanish()
        assert all(port.accepts for port in ports)

    door.check_and_close()


def test_h05_one_network_has_a_share() -> None:
    """A /24; others come in, and it again when one of its own has left."""
    door = door_for(100, 2)
    first = door.connect("192.0.2.1")
    door.connect("192.0.2.2")
    with capturedLogs() as events:
        assert door.knock("192.0.2.3") is None
        assert door.knock("192.0.2.4") is None
    assert warnings(list(events)) == ["192.0.2.0/24 has 2 connections already: more are closed"]
    door.connect("198.51.100.1")
    first.vanish()
    assert door.knock("192.0.2.3") is not None

    door.check_and_close()


def test_h05_a_share_is_a_quarter_unless_it_is_told() -> None:
    """And never nothing."""
    assert Admission(Clock(), 100).per_network == 25
    assert Admission(Clock(), 3).per_network == 1
    assert Admission(Clock(), 100, 90).per_network == 90


def test_h05_ipv6_counts_by_64_bits() -> None:
    """That is what one subscriber has."""
    admission = Admission(Clock(), 100, 1)

    assert admission.network_of("2001:db8::1") == admission.network_of("2001:db8::ffff:1")
    assert admission.network_of("2001:db8::1") != admission.network_of("2001:db8:0:1::1")


@pytest.mark.parametrize("host", ["10.0.0.5", "unix:"])
def test_h05_who_brings_others_counts_in_all_only(host: str) -> None:
    """Behind a balancer everybody has its address."""
    admission = Admission(Clock(), 100, 1, TRUSTED)
    network = admission.network_of(host)
    for _ in range(5):
        assert admission.admits(network)
        admission.enter(network)

    assert admission.room == 95


def test_a_network_that_left_is_forgotten() -> None:
    """A table of all who ever came would grow."""
    admission = Admission(Clock(), 100, 1)
    for number in range(1000):
        network = admission.network_of(f"192.0.{number % 256}.1")
        admission.admits(network)
        admission.enter(network)
        admission.leave(network)

    assert not admission._networks


def test_a_flood_is_a_line_a_minute() -> None:
    """With how many there were."""
    clock = Clock()
    admission = Admission(clock, 100)
    with capturedLogs() as events:
        for _ in range(120):
            admission.say("flood", "{what} happened", what="something")
            admission.say("other", "other")
            clock.advance(1)
    texts = [text for text in warnings(list(events)) if text.startswith("something")]

    assert texts[0] == "something happened"
    assert texts[1].startswith("something happened (59 more of that")
    assert len(texts) == 2


# -- connections that a PROXY header introduces ------------------------------------------------


def test_nobody_but_a_trusted_proxy_may_introduce() -> None:
    """Others are closed before anything is read, and the operator reads why."""
    door = door_for(100, introduced=True)
    with capturedLogs() as events:
        assert door.knock("192.0.2.7") is None
    assert door.knock("10.0.0.5") is not None
    assert warnings(list(events))[0].startswith(
        "closed a connection from 192.0.2.7: it is no --trusted-proxy, and --listen haproxy: takes"
    )
    door.check_and_close()


def test_an_introduced_client_counts_for_its_own_network() -> None:
    """It is known only after the connection was accepted, and closed then."""
    door = door_for(100, 2, introduced=True)
    wires = []
    for host in ("192.0.2.1", "192.0.2.2", "192.0.2.3", "198.51.100.1"):
        wire = door.connect("10.0.0.5")
        wire.peerAddr = wire.peerAddr.__class__("TCP", host, 1)
        door.channel(wire).client_named()
        wire.turn()
        wires.append(wire)
    assert [wire.state for wire in wires] == ["open", "open", "aborted", "open"]
    wires[0].send(GET)
    assert door.logged[0].client == "192.0.2.1"

    door.check_and_close()


@pytest.mark.parametrize("introduced", [False, True])
def test_b07_a_client_whom_the_balancer_cannot_name_speaks_for_nobody(introduced: bool) -> None:
    """What it writes passes a balancer for TCP untouched; a proxy behind that one is named."""
    door = door_for(100, introduced=True)
    wire = door.connect("10.0.0.5")
    if introduced:
        wire.peerAddr = wire.peerAddr.__class__("TCP", "10.0.0.6", 1)
        door.channel(wire).client_named()
    wire.send(b"GET /now HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 198.51.100.1\r\n\r\n")

    assert door.logged[0].client == ("198.51.100.1" if introduced else "10.0.0.5")
    door.check_and_close()


# -- file descriptors --------------------------------------------------------------------------


@pytest.mark.parametrize("files", [256, 1024, 2192, 4096, 65536])
def test_h06_file_descriptors_are_enough_for_as_many_as_come_in(files: int) -> None:
    """With one to the registry for each, as far as there may be so many."""
    connections = connections_for(files, 1000, 64)

    assert files_for(connections, 1000, 64) <= files
    assert files_for(connections + 1, 1000, 64) > files


def test_h06_one_connection_there_is_always() -> None:
    """With too few file descriptors for anything, too."""
    assert connections_for(10, 1000, 64) == 1


@pytest.mark.parametrize(
    ("limits", "workers", "share"),
    [
        ((20_000, None), 1, (20_000, None)),
        ((20_000, 5_000), 4, (5_000, 1_250)),
        ((5, 1), 4, (2, 1)),
        ((1, None), 256, (1, None)),
    ],
)
def test_each_worker_has_its_part_of_both_limits(
    limits: tuple[int, int | None], workers: int, share: tuple[int, int | None]
) -> None:
    """Rounded up: nobody has none."""
    assert share_of(limits, workers) == share
