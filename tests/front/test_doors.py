"""regguard.front.doors: from ``--listen`` to what listens, here or in other processes."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest
from twisted.internet import tcp
from twisted.internet.endpoints import AdoptedStreamServerEndpoint
from twisted.internet.interfaces import IStreamServerEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.testing import MemoryReactorClock
from zope.interface.verify import verifyObject

from regguard.front import doors
from regguard.front.doors import Door, DoorError
from regguard.front.listening import is_tcp
from regguard.transport import InheritedEndpoint, leave_to_others


@pytest.fixture
def reactor() -> Any:
    """Opens nothing."""
    return MemoryReactorClock()


@pytest.mark.parametrize(
    ("description", "introduced"),
    [("tcp:5043", False), ("haproxy:tcp:5043", True), ("unix:/door", False)],
)
def test_a_door_is_what_its_description_says(
    reactor: Any, description: str, introduced: bool
) -> None:
    """With or without a header before everything."""
    door = Door.found(description, reactor)

    assert (door.said, door.introduced) == (f"--listen {description}", introduced)
    assert is_tcp(door.endpoint) == ("tcp" in description)


@pytest.mark.parametrize(
    "description", ["5043", "tcp:", "nowhere:1", "systemd:domain=INET:index=0", "tcp:many"]
)
def test_what_is_no_endpoint_is_told_with_the_cure(reactor: Any, description: str) -> None:
    """systemd's, too, when it gave none."""
    with pytest.raises(DoorError) as caught:
        Door.found(description, reactor)

    assert str(caught.value).startswith(f"--listen {description}: is no endpoint (")
    assert str(caught.value).endswith("write tcp:5043 or tcp:443:interface=10.0.0.1")


def test_what_systemd_gives_is_what_the_kernel_says_it_is(
    reactor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever ``domain`` says: addresses of another family would be nonsense."""
    with socket.socket(socket.AF_INET6) as held:
        adopted = AdoptedStreamServerEndpoint(reactor, held.fileno(), socket.AF_INET)
        monkeypatch.setattr(doors, "serverFromString", lambda *_: adopted)
        door = Door.found("systemd:domain=INET:index=0", reactor)

    assert isinstance(door.endpoint, InheritedEndpoint)
    assert verifyObject(IStreamServerEndpoint, door.endpoint)
    assert door.endpoint.addressFamily == socket.AF_INET6
    assert is_tcp(door.endpoint)


def test_an_inherited_unix_socket_is_left_as_it_is(
    reactor: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither its mode nor its path is ours, and who waits in it can still be taken."""
    monkeypatch.chdir(tmp_path)  # paths of sockets are short
    with socket.socket(socket.AF_UNIX) as held, socket.socket(socket.AF_UNIX) as client:
        held.bind("door")
        held.listen()
        Path("door").chmod(0o640)
        door = Door.inherited("unix:door", os.dup(held.fileno()), reactor)
        opened: list[Any] = []
        door.endpoint.listen(Factory()).addCallback(opened.append)
        opened[0].stopListening()
        reactor.advance(0)

        assert Path("door").stat().st_mode & 0o777 == 0o640
        client.connect("door")
        held.accept()[0].close()


def test_who_waits_at_a_door_that_others_hold_is_not_turned_away(reactor: Any) -> None:
    """The parent accepts nobody, and closes it for itself alone."""
    port = tcp.Port(0, Factory(), interface="127.0.0.1", reactor=reactor)
    port.startListening()
    leave_to_others(port)
    assert port not in reactor.getReaders()
    with port.socket.dup() as theirs, socket.socket() as client:
        client.connect(theirs.getsockname())
        port.stopListening()
        reactor.advance(0)
        theirs.setblocking(True)

        theirs.accept()[0].close()


def test_a_door_that_cannot_be_shared_is_told(reactor: Any) -> None:
    """One whose port is none of the kernel's."""
    with pytest.raises(DoorError, match=r"--listen tcp:1: cannot be shared by workers; listen on"):
        Door.found("tcp:1", reactor).hold(reactor)
