"""Client certificates at the door: through every TLS, for each connection, and when they change."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL import SSL
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IStreamServerEndpoint
from twisted.internet.selectreactor import SelectReactor
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from regguard.addresses import TrustedProxies
from regguard.files import POLL_INTERVAL, FileWatcher
from regguard.front.certificates import Certificates
from regguard.front.channel import FIRST_BYTE_TIMEOUT
from regguard.front.clients import WatchedClientAuthority
from regguard.front.listening import listen
from tests.certificates import Authority, Issued
from tests.front.tls import certificate, client_context
from tests.front.wire import Door, replies

CASE = SynchronousTestCase()
NOW = b"GET /now HTTP/1.1\r\nHost: a\r\n\r\n"


class Listening:
    """A door behind TLS on a UNIX socket (``memory``) or on TCP sockets, with an authority."""

    def __init__(self, folder: Path, memory: bool, introduced: bool = False) -> None:
        trusted = TrustedProxies.parse(["127.0.0.1"]) if introduced else None
        self.door = Door(watched=False, introduced=introduced, trusted=trusted)
        self.authority = Authority("client CA")
        self.path = folder / "clients.pem"
        self.path.write_bytes(self.authority.certificate)
        self.clients = WatchedClientAuthority(str(self.path))
        certificates = Certificates([certificate(folder, "a.example")], self.clients)
        self.reactor = SelectReactor()
        self.family = socket.AF_UNIX if memory else socket.AF_INET
        where = f"unix:{folder / 'sock'}" if memory else "tcp:0:interface=127.0.0.1"
        endpoint: IStreamServerEndpoint = serverFromString(self.reactor, where)
        self.introduced = introduced
        self.port: Any = CASE.successResultOf(
            listen(endpoint, self.door.site, certificates, self.reactor)
        )

    def turn(self) -> None:
        for _ in range(5):
            self.reactor.runUntilCurrent()
            self.reactor.doIteration(0)

    @contextlib.contextmanager
    def client(self, shown: Issued | None, version: int | None = None) -> Iterator[SSL.Connection]:
        """A client after its side of the handshake."""
        context = client_context(version)
        if shown is not None:
            context.use_certificate(x509.load_pem_x509_certificate(shown.certificate))
            context.use_privatekey(load_pem_private_key(shown.key, None))  # type: ignore[arg-type]
        with socket.socket(self.family) as plain:
            address = self.port.getHost()
            plain.connect(
                address.name if self.family == socket.AF_UNIX else ("127.0.0.1", address.port)
            )
            if self.introduced:
                plain.sendall(b"PROXY TCP4 198.51.100.7 10.0.0.1 50001 443\r\n")
            plain.setblocking(False)
            client = SSL.Connection(context, plain)
            client.set_connect_state()
            self._until(client.do_handshake)
            yield client

    def _until(self, act: Callable[[], Any]) -> Any:
        for _ in range(200):
            try:
                return act()
            except SSL.WantReadError:
                self.turn()
        raise AssertionError("nothing comes")

    def ask(self, client: SSL.Connection, octets: bytes = NOW) -> int:
        """The status of an answer that comes in one piece."""
        client.send(octets)
        [reply] = replies(self._until(lambda: client.recv(65536)))
        return reply.status

    def is_ended(self, client: SSL.Connection) -> bool:
        """Whether the door has closed; fails where something else comes."""
        with pytest.raises((SSL.ZeroReturnError, SSL.SysCallError)):
            self._until(lambda: client.recv(65536))
        return True

    def close(self) -> None:
        self.turn()
        stopped = self.port.stopListening()
        self.turn()
        if stopped is not None:
            CASE.successResultOf(stopped)
        self.door.site.stop()
        self.turn()
        self.door.check_and_close()


@pytest.fixture(params=["socket", "memory", "introduced"])
def listening(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Listening]:
    """OpenSSL on the socket, in memory, and on the socket behind a PROXY header."""
    listening = Listening(tmp_path, request.param == "memory", request.param == "introduced")
    yield listening
    listening.close()


@pytest.mark.parametrize("version", [SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION])
def test_g07_a_request_carries_the_user_of_its_connection(
    listening: Listening, version: int
) -> None:
    """And one on a connection without a certificate carries none."""
    with (
        listening.client(listening.authority.issue_client("ci"), version) as known,
        listening.client(None, version) as unknown,
    ):
        for client in (known, unknown, known):
            assert listening.ask(client) == 200

    assert [request.certified for request in listening.door.logged] == ["ci", None, "ci"]


def test_g07_the_certificate_is_read_once_for_a_connection(
    listening: Listening, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not for each request."""
    looks: list[object] = []
    certified = listening.door.site.certified
    monkeypatch.setattr(
        listening.door.site,
        "certified",
        lambda transport: looks.append(transport) or certified(transport),
    )
    with listening.client(listening.authority.issue_client("ci")) as client:
        for _ in range(3):
            assert listening.ask(client) == 200

    assert len(looks) == 1


@pytest.mark.parametrize("version", [SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION])
def test_g07_a_refused_certificate_is_an_alert_and_one_line(
    listening: Listening, version: int
) -> None:
    """Also to a client of TLS 1.3 that has sent a request behind it; no traceback."""
    expired = listening.authority.issue_client("ci", days=-1)
    with capturedLogs() as logs:
        with (
            pytest.raises(SSL.Error, match=r"certificate.expired"),
            listening.client(expired, version) as client,
        ):
            listening.ask(client)
        listening.turn()

    [event] = [event for event in logs if event["log_level"] > LogLevel.info]
    assert event["log_level"] == LogLevel.warn
    assert event["fault"] == "cert has expired"
    host = {"socket": "127.0.0.1", "memory": "unix:", "introduced": "198.51.100.7"}
    assert event["host"] in host.values()
    assert (event["host"] == "198.51.100.7") is listening.introduced
    assert listening.door.logged == []


def test_g07_who_was_refused_and_stays_is_put_out(listening: Listening) -> None:
    """The alert can be read for as long as a handshake may take; nothing else is done meanwhile."""
    expired = listening.authority.issue_client("ci", days=-1)
    with listening.client(expired, SSL.TLS1_3_VERSION) as client:
        client.send(NOW)
        listening.turn()
        for _ in range(FIRST_BYTE_TIMEOUT + 1):
            listening.door.clock.advance(1)
            listening.turn()

        assert listening.door.site.channels == set()
        with pytest.raises(SSL.Error, match=r"certificate.expired"):
            client.recv(65536)
    assert listening.door.seen == []


def test_g07_a_certificate_without_a_user_is_told_of_and_serves(listening: Listening) -> None:
    """It stands, so there is a connection; who that is, a password has to say."""
    with (
        capturedLogs() as logs,
        listening.client(listening.authority.issue_client("a:b")) as client,
    ):
        assert listening.ask(client) == 200

    assert listening.door.logged[0].certified is None
    assert [event["why"] for event in logs if event["log_level"] == LogLevel.warn] == [
        "its common name has a colon, a control character, or a blank at an end"
    ]


def test_g04_what_is_no_tls_is_not_told_of(listening: Listening) -> None:
    """Half of the internet says something else than TLS."""
    with capturedLogs() as logs, socket.socket(listening.family) as client:
        address = listening.port.getHost()
        client.connect(
            address.name if listening.family == socket.AF_UNIX else ("127.0.0.1", address.port)
        )
        if listening.introduced:
            client.sendall(b"PROXY TCP4 198.51.100.7 10.0.0.1 50001 443\r\n")
        client.sendall(b"SSH-2.0-x\r\n")
        for _ in range(5):
            listening.turn()

    assert [event for event in logs if event["log_level"] > LogLevel.info] == []


def test_g07_other_authorities_end_connections_that_rest_on_the_old_ones(
    listening: Listening, watcher: FileWatcher, clock: Clock
) -> None:
    """After the request that runs; who has shown no certificate stays."""
    watcher.watch(listening.clients)
    issue = listening.authority.issue_client
    with (
        listening.client(issue("idle")) as idle,
        listening.client(issue("busy")) as busy,
        listening.client(issue("fresh")) as fresh,
        listening.client(None) as other,
    ):
        assert listening.ask(idle) == 200
        assert listening.ask(other) == 200
        busy.send(NOW.replace(b"now", b"later"))
        listening.turn()
        listening.path.write_bytes(Authority("another CA").certificate)
        clock.advance(POLL_INTERVAL)
        listening.turn()

        assert listening.is_ended(idle)
        [seen] = [each for each in listening.door.seen if each.request.live]
        assert seen.request.certified == "busy"
        seen.answer()
        [reply] = replies(listening._until(lambda: busy.recv(65536)))
        assert reply["Connection"] == [b"close"]
        assert listening.is_ended(busy)
        assert listening.ask(fresh) == 200
        assert listening.is_ended(fresh)
        assert listening.ask(other) == 200
    with pytest.raises(SSL.Error), listening.client(issue("late")) as client:
        listening.ask(client)


def test_sighup_without_a_change_ends_nothing(listening: Listening, watcher: FileWatcher) -> None:
    """A hundred of them in a minute must not cost anybody a connection."""
    watcher.watch(listening.clients)
    with listening.client(listening.authority.issue_client("ci")) as client:
        for _ in range(3):
            assert listening.ask(client) == 200
            watcher.reload()
            listening.turn()

    assert [request.certified for request in listening.door.logged] == ["ci"] * 3
