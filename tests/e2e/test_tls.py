"""Group G of the cases: TLS through real sockets, as clients and as attackers speak it.

How long a handshake may take is tested on a clock, in ``tests/front/test_handshakes.py``.
"""

from __future__ import annotations

import contextlib
import random
import select
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.hello import HANDSHAKE, client_hello, extension, records, server_name
from tests.e2e.programs import PATIENCE, Ground, Guard, binary
from tests.e2e.recorder import Asked, Cut
from tests.e2e.stage import Stage, read_to_end, staging
from tests.front.wire import replies
from tests.malformed import CREDENTIAL, head

CLOSE = b"Connection: close"
NOBODY = head(CLOSE, method=b"GET", target=b"/v2/").replace(CREDENTIAL + b"\r\n", b"")

# Below the deadline of a handshake, which is 10 s: what is closed within this is closed at once.
AT_ONCE = 5.0


@pytest.fixture(scope="module")
def _shared_tls(
    ground: Ground, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Stage, Stage]]:
    """A door with an ECDSA key and one with an RSA key: suites need the one or the other.

    The second one has the other certificate, too, and so chooses by the name that it is asked for.
    """
    words = ("--tls-cert", str(ground.rsa_certificate), "--tls-cert", str(ground.certificate))
    with (
        staging(ground, tmp_path_factory.mktemp("tls-ecdsa")) as ecdsa,
        staging(ground, tmp_path_factory.mktemp("tls-rsa"), *words) as rsa,
    ):
        yield ecdsa, rsa


@pytest.fixture
def doors(_shared_tls: tuple[Stage, Stage]) -> Iterator[tuple[Stage, Stage]]:
    """ECDSA and RSA."""
    yield _shared_tls
    for stage in _shared_tls:
        stage.check()


@pytest.fixture
def door(doors: tuple[Stage, Stage]) -> Iterator[Stage]:
    """The one with the ECDSA key; it serves on whatever was done to it."""
    stage, _ = doors
    yield stage
    (answer,) = replies(stage.talk(NOBODY))
    assert answer.status == 401


def client_context() -> ssl.SSLContext:
    """A client without taste: it would take any protocol, any suite and any certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_ciphers("ALL:COMPLEMENTOFALL:@SECLEVEL=0")
    return context


@contextlib.contextmanager
def plain(guard: Guard) -> Iterator[socket.socket]:
    """A TCP connection to the TLS port."""
    with socket.create_connection(("127.0.0.1", guard.port), PATIENCE) as connection:
        connection.settimeout(AT_ONCE)
        yield connection


def shaken(guard: Guard, context: ssl.SSLContext) -> tuple[str, str] | None:
    """Protocol and suite of a handshake, or None where the guard refuses."""
    with plain(guard) as connection:
        try:
            with context.wrap_socket(connection) as secured:
                suite = secured.cipher()
                assert suite is not None
                return secured.version() or "", suite[0]
        except (ssl.SSLError, ConnectionError):
            return None


# -- G01, G02, G06: what is spoken ------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1")
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
def test_g01_old_protocols_are_refused(doors: tuple[Stage, Stage], version: ssl.TLSVersion) -> None:
    """TLS 1.0 and 1.1, with every suite they have."""
    for stage in doors:
        context = client_context()
        context.minimum_version = context.maximum_version = version
        assert shaken(stage.guard, context) is None


def test_g01_ssl_3_is_refused(door: Stage) -> None:
    """A hello of SSL 3.0, which no library makes any more: an alert, and the end."""
    message = bytearray(client_hello())
    message[4:6] = b"\x03\x00"
    with plain(door.guard) as connection:
        connection.sendall(records(bytes(message)).replace(b"\x16\x03\x01", b"\x16\x03\x00", 1))
        assert read_to_end(connection)[:1] in (b"", b"\x15")


def test_g01_of_all_suites_of_tls_1_2_only_the_forward_secret_aeads_are_spoken(
    doors: tuple[Stage, Stage],
) -> None:
    """Each suite that OpenSSL knows is tried alone: no CBC, RC4, 3DES, NULL, static RSA, DHE."""
    spoken = set()
    suites = [each["name"] for each in client_context().get_ciphers()]
    for suite in (name for name in suites if not name.startswith("TLS_")):
        for stage in doors:
            context = client_context()
            context.maximum_version = ssl.TLSVersion.TLSv1_2
            context.set_ciphers(f"{suite}:@SECLEVEL=0")
            found = shaken(stage.guard, context)
            if found is not None:
                spoken.add(found)

    assert len(suites) > 50
    assert spoken == {
        ("TLSv1.2", f"ECDHE-{key}-{cipher}")
        for key in ("ECDSA", "RSA")
        for cipher in ("AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305")
    }


def test_g01_tls_1_3_is_what_is_spoken_by_default(doors: tuple[Stage, Stage]) -> None:
    """With who has no wishes."""
    for stage in doors:
        found = shaken(stage.guard, client_context())
        assert found is not None
        assert found[0] == "TLSv1.3"


def s_client(guard: Guard, *words: str, said: str = "") -> str:
    """What ``openssl s_client`` reports of one connection."""
    done = subprocess.run(
        [binary("openssl"), "s_client", "-connect", f"127.0.0.1:{guard.port}", *words],
        input=said,
        capture_output=True,
        timeout=PATIENCE,
        check=False,
        text=True,
    )
    return done.stdout + done.stderr


def test_g02_renegotiation_is_refused(door: Stage) -> None:
    """By an alert that says so; in TLS 1.3 there is none to ask for."""
    report = s_client(door.guard, "-tls1_2", said="R\n")

    assert "RENEGOTIATING" in report
    assert "no renegotiation" in report
    assert "Secure Renegotiation IS supported" in report  # else others could splice theirs in


def test_g06_what_is_resumed_stands_in_our_memory(door: Stage) -> None:
    """No ticket in TLS 1.2, and in TLS 1.3 one that is only a number: no key opens a recording.

    Where it ends is tested in tests/front: with a reload, and where clients show certificates.
    """
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context = client_context()
        context.minimum_version = context.maximum_version = version
        session = None
        for reused in (False, True, True):
            with (
                plain(door.guard) as connection,
                context.wrap_socket(connection, session=session) as secured,
            ):
                secured.sendall(NOBODY)
                assert read_to_end(secured).startswith(b"HTTP/1.1 401 ")
                assert secured.session_reused is reused
                session = secured.session
                assert session is not None
                assert version is ssl.TLSVersion.TLSv1_3 or not session.has_ticket


def test_g06_there_is_no_early_data(door: Stage) -> None:
    """What is sent before the handshake could be sent again by others."""
    report = s_client(door.guard, "-tls1_3", "-ign_eof", said=NOBODY.decode())

    assert "HTTP/1.1 401 " in report
    assert "Max Early Data: 0" in report


def test_a31_alpn_is_http_1_1_or_nothing(door: Stage) -> None:
    """h2 is never chosen, and who offers nothing else is served as if it had offered nothing."""
    for offered, chosen in ([["h2"], None], [["h2", "http/1.1"], "http/1.1"], [["spdy/3"], None]):
        context = client_context()
        context.set_alpn_protocols(offered or [])
        with plain(door.guard) as connection, context.wrap_socket(connection) as secured:
            assert secured.selected_alpn_protocol() == chosen
            secured.sendall(NOBODY)
            assert read_to_end(secured).startswith(b"HTTP/1.1 401 ")


# -- G04: what is no TLS ----------------------------------------------------------------------

GARBAGE = {
    "http": b"GET /v2/ HTTP/1.1\r\nHost: a\r\n\r\n",
    "ssh": b"SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3\r\n",
    "smtp": b"EHLO example.org\r\n",
    "zeros": bytes(65_536),
    "random": random.Random(4).randbytes(65_536),
    "records": (b"\x16\x03\x01\x40\x00" + b"\x01" * 16_384) * 5,
    "record-too-long": b"\x16\x03\x01\xff\xff" + bytes(65_535),
    "alerts": b"\x15\x03\x01\x00\x02\x01\x00" * 9000,
    "sslv2": b"\x80\x2e\x01\x00\x02" + bytes(43),
    "application-data": b"\x17\x03\x03\x00\x10" + bytes(16),
}


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE)
def test_g04_what_is_no_tls_is_closed_at_once(door: Stage, garbage: bytes) -> None:
    """An alert at most; and no word of HTTP."""
    with plain(door.guard) as connection, contextlib.suppress(ConnectionError):
        connection.sendall(garbage)
        assert read_to_end(connection)[:1] in (b"", b"\x15")


def test_g04_tls_on_the_plain_port_is_closed_at_once(ground: Ground, tmp_path: Path) -> None:
    """400 in plain text; a TLS client calls that a wrong version, and a person sees why."""
    with staging(ground, tmp_path / "guard", secure=False) as stage:
        with plain(stage.guard) as connection:
            connection.sendall(records(client_hello()))
            (answer,) = replies(read_to_end(connection))
        assert answer.status == 400
        assert bytes(stage.recorder.received) == b""


# -- G05, G10: odd handshakes -----------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        None,
        b"localhost",
        b"unknown.example",
        b"127.0.0.1",
        b"[::1]",
        b"x" * 255,
        b"x" * 256,
        b"x" * 16_000,
        b"local\0host",
        b"\0",
        b"",
        b"\xff\xfe",
        b"../../etc/passwd",
    ],
)
def test_g05_any_server_name_is_served_or_gets_an_alert(
    doors: tuple[Stage, Stage], name: bytes | None
) -> None:
    """With one certificate and with two, of which it chooses; never silence, never a fault."""
    names = () if name is None else (server_name(name),)
    for stage in doors:
        with plain(stage.guard) as connection:
            connection.sendall(records(client_hello(*names)))
            assert connection.recv(1) in (bytes([HANDSHAKE]), b"\x15")
        assert replies(stage.talk(NOBODY))[0].status == 401


def test_g05_the_server_name_gives_no_rights(door: Stage) -> None:
    """Host decides nothing but where Location leads: names differ, the verdict does not."""
    context = client_context()
    for name in ("localhost", "other.example"):
        with (
            plain(door.guard) as connection,
            context.wrap_socket(connection, server_hostname=name) as secured,
        ):
            secured.sendall(NOBODY.replace(b"r.example", b"third.example"))
            assert read_to_end(secured).startswith(b"HTTP/1.1 401 ")


class Handshake:
    """A client's TLS on memory BIOs: what it sends goes through the test's hands."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = client_context().wrap_bio(self._incoming, self._outgoing)

    def hello(self) -> bytes:
        """The first flight."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.do_handshake()
        return self._outgoing.read()

    def go_on(self) -> None:
        """The rest of the handshake, as it comes."""
        while True:
            try:
                self.tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self._incoming.write(self._connection.recv(65536))
        self._connection.sendall(self._outgoing.read())

    def ask(self, octets: bytes) -> bytes:
        """The beginning of an answer."""
        self.tls.write(octets)
        self._connection.sendall(self._outgoing.read())
        while True:
            try:
                return self.tls.read(65536)
            except ssl.SSLWantReadError:
                self._incoming.write(self._connection.recv(65536))


@pytest.mark.parametrize("size", [1, 2, 7])
def test_g10_a_hello_in_tiny_records_is_a_hello(door: Stage, size: int) -> None:
    """Record borders mean nothing (RFC 8446 section 5.1)."""
    with plain(door.guard) as connection:
        handshake = Handshake(connection)
        connection.sendall(records(handshake.hello()[5:], size))
        handshake.go_on()
        assert handshake.ask(NOBODY).startswith(b"HTTP/1.1 401 ")


def test_g10_a_request_in_records_of_one_octet_is_a_request(door: Stage) -> None:
    """The same after the handshake."""
    context = client_context()
    with plain(door.guard) as connection, context.wrap_socket(connection) as secured:
        for octet in NOBODY:
            secured.sendall(bytes([octet]))
        assert read_to_end(secured).startswith(b"HTTP/1.1 401 ")


@pytest.mark.parametrize("size", [1_200, 16_000, 60_000])
def test_g10_a_large_hello_is_a_hello(door: Stage, size: int) -> None:
    """Post-quantum key shares make it as large as that; padding stands for them."""
    with plain(door.guard) as connection:
        connection.sendall(records(client_hello(extension(21, bytes(size)))))
        assert connection.recv(1) == bytes([HANDSHAKE])


# -- G11: honest ends -------------------------------------------------------------------------


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize(
    ("answer", "is_whole"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", True),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok", False),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n", False),
    ],
)
def test_g11_a_good_end_says_so_and_a_cut_does_not(
    door: Stage, version: ssl.TLSVersion, answer: bytes, is_whole: bool
) -> None:
    """close_notify behind what is whole; behind what is not no last chunk, no close_notify."""

    def answer_then_close(asked: Asked) -> bytes:
        raise Cut(answer)

    door.recorder.answer = answer_then_close
    context = client_context()
    context.minimum_version = context.maximum_version = version
    received = b""
    with (
        plain(door.guard) as connection,
        context.wrap_socket(connection, suppress_ragged_eofs=False) as secured,
    ):
        secured.sendall(door.as_pusher(head(CLOSE, method=b"GET")))
        try:
            while octets := secured.recv(65536):
                received += octets
            ended_well = True
        except (ssl.SSLEOFError, ConnectionError):
            ended_well = False

    assert ended_well is is_whole
    if is_whole:
        (whole,) = replies(received)
        assert (whole.status, whole.body) == (200, b"ok")
    else:
        assert not received.endswith(b"0\r\n\r\n")


def test_g02_g04_a_crowd_that_shakes_no_hands_stops_nobody(door: Stage) -> None:
    """A hundred silent ones and a hundred that talk nonsense: the next client is served."""
    with contextlib.ExitStack() as stack:
        crowd = [stack.enter_context(plain(door.guard)) for _ in range(200)]
        for connection in crowd[:100]:
            connection.sendall(GARBAGE["ssh"])
        (answer,) = replies(door.talk(NOBODY))
        assert answer.status == 401
        for connection in crowd[:100]:
            with contextlib.suppress(ConnectionError):
                read_to_end(connection)
        still_open = crowd[100:]
        assert not select.select(still_open, [], [], 0)[0]
