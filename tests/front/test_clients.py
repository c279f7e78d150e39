"""regguard.front.clients: which certificates of clients stand, and which users they name."""

from __future__ import annotations

import contextlib
import gc
import warnings
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from OpenSSL import SSL
from twisted.internet.task import Clock

from regguard.files import POLL_INTERVAL, FileError, FileWatcher
from regguard.front.certificates import Certificates
from regguard.front.clients import NoUser, WatchedClientAuthority, fault_of, parse, user_of
from tests.certificates import Authority, Issued, common_name
from tests.front.tls import certificate, client_context, finish_handshake, pump, shake_hands

VERSIONS = [SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION]


@pytest.fixture(scope="module")
def authority() -> Authority:
    """Who signs the certificates of users."""
    return Authority("client CA", path_length=None)


class Served:
    """A door that takes the certificates of an authority, with one or two of its own."""

    def __init__(self, folder: Path, *pems: bytes, names: int = 1) -> None:
        self.path = folder / "clients.pem"
        self.path.write_bytes(b"".join(pems))
        self.clients = WatchedClientAuthority(str(self.path))
        self.certificates = Certificates(
            [certificate(folder, name) for name in ("a.example", "b.example")[:names]],
            self.clients,
        )

    def meet(
        self, shown: Issued | None, version: int | None = None, name: bytes = b"a.example"
    ) -> SSL.Connection:
        """The door's side of a connection after the handshake, refused or not."""
        context = client_context(version)
        if shown is not None:
            chain = x509.load_pem_x509_certificates(shown.certificate)
            context.use_certificate(chain[0])
            for issuer in chain[1:]:
                context.add_extra_chain_cert(issuer)
            context.use_privatekey(load_pem_private_key(shown.key, None))  # type: ignore[arg-type]
        client = SSL.Connection(context, None)
        client.set_tlsext_host_name(name)
        server = self.certificates.serverConnectionForTLS(None)  # type: ignore[arg-type]
        with contextlib.suppress(SSL.Error):
            shake_hands(client, server)
        return server

    def refusal(self, shown: Issued, version: int | None = None, name: bytes = b"a.example") -> str:
        """Why a certificate does not stand: an alert for the client, and a word for the log."""
        server = self.meet(shown, version, name)
        with pytest.raises(NoUser):
            user_of(server)
        with pytest.raises(SSL.Error):
            server.do_handshake()
        fault = fault_of(server)
        assert fault is not None
        return fault


# -- G07: what stands and what does not ---------------------------------------------------------


@pytest.mark.parametrize("names", [1, 2])
@pytest.mark.parametrize("version", VERSIONS)
def test_g07_a_certificate_names_a_user(
    tmp_path: Path, authority: Authority, version: int, names: int
) -> None:
    """By its common name, whichever of our certificates was asked for."""
    served = Served(tmp_path, authority.certificate, names=names)
    for name in (b"a.example", b"b.example"):
        server = served.meet(authority.issue_client("ci"), version, name)
        assert user_of(server) == "ci"
        assert fault_of(server) is None


@pytest.mark.parametrize("version", VERSIONS)
def test_g07_without_a_certificate_there_is_a_connection_and_no_user(
    tmp_path: Path, authority: Authority, version: int
) -> None:
    """It is asked for a password, as ever."""
    server = Served(tmp_path, authority.certificate).meet(None, version)

    assert user_of(server) is None
    assert fault_of(server) is None


def test_g07_who_is_asked_for_none_names_no_user(tmp_path: Path, authority: Authority) -> None:
    """Without --tls-client-ca a client does not even get to show one."""
    served = Served(tmp_path, authority.certificate)
    served.certificates = Certificates([certificate(tmp_path, "a.example")])

    assert user_of(served.meet(authority.issue_client("ci"))) is None


def of_a_namesake(_: Authority) -> Issued:
    return Authority("client CA", path_length=None).issue_client("ci")


def too_deep(authority: Authority) -> Issued:
    chain = b""
    for number in range(5):
        authority = Authority(f"CA {number}", authority, path_length=None)
        chain = authority.certificate + chain
    issued = authority.issue_client("ci")
    return Issued(issued.certificate + chain, issued.key)


def below_a_leaf(authority: Authority) -> Issued:
    """Signed with the key of a server's certificate, which may sign nothing."""
    leaf = authority.issue_client("middle")
    impostor = Authority("middle")
    impostor._key = load_pem_private_key(leaf.key, None)  # type: ignore[assignment]
    issued = impostor.issue_client("admin")
    return Issued(issued.certificate + leaf.certificate, issued.key)


BAD: dict[str, tuple[Callable[[Authority], Issued], str]] = {
    "expired": (lambda ca: ca.issue_client("ci", days=-1), "cert has expired"),
    "wrong-ca": (of_a_namesake, "cert signature failure|unable to get issuer cert locally"),
    "unknown-ca": (lambda _: Authority("other").issue_client("ci"),
                   "unable to get issuer cert locally"),
    "wrong-eku": (lambda ca: ca.issue_client("ci", usage=ExtendedKeyUsageOID.SERVER_AUTH),
                  "invalid purpose"),
    "too-deep": (too_deep, "cert chain too long"),
    "below-a-leaf": (below_a_leaf, "invalid ca|unable to get issuer|purpose|error"),
}  # fmt: skip


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(("issue", "fault"), BAD.values(), ids=BAD)
def test_g07_a_bad_certificate_ends_in_the_handshake(
    tmp_path: Path,
    authority: Authority,
    issue: Callable[[Authority], Issued],
    fault: str,
    version: int,
) -> None:
    """Never a connection without a user; whichever of our certificates was asked for."""
    served = Served(tmp_path, authority.certificate, names=2)
    for name in (b"a.example", b"b.example"):
        refusal = served.refusal(issue(authority), version, name)
        assert any(words in refusal for words in fault.split("|")), refusal


def test_g07_a_certificate_without_usage_stands(tmp_path: Path, authority: Authority) -> None:
    """RFC 5280: what names no extended usage is for all of them."""
    issued = authority.issue_client("ci", usage=None)

    assert user_of(Served(tmp_path, authority.certificate).meet(issued)) == "ci"


def test_g07_an_authority_between_is_followed(tmp_path: Path, authority: Authority) -> None:
    """The client sends it along."""
    middle = Authority("middle", authority)
    issued = middle.issue_client("ci")
    chain = Issued(issued.certificate + middle.certificate, issued.key)

    assert user_of(Served(tmp_path, authority.certificate).meet(chain)) == "ci"


@pytest.mark.parametrize("version", VERSIONS)
def test_g07_a_revoked_certificate_ends_in_the_handshake(
    tmp_path: Path, authority: Authority, version: int
) -> None:
    """By the list in the authority's file; who is not on it stands."""
    revoked, other = authority.issue_client("ci"), authority.issue_client("cd")
    served = Served(tmp_path, authority.certificate, authority.revoke(revoked), names=2)

    assert str(served.clients.content).endswith("; 1 revoked")
    for name in (b"a.example", b"b.example"):
        assert served.refusal(revoked, version, name) == "cert revoked"
        assert user_of(served.meet(other, version, name)) == "cd"


def test_g07_an_outdated_revocation_list_stops_everybody(
    tmp_path: Path, authority: Authority
) -> None:
    """Who knows who was revoked since? It is warned of a day ahead."""
    served = Served(tmp_path, authority.certificate, authority.revoke(days=-1))

    assert served.refusal(authority.issue_client("ci")) == "crl has expired"
    authority_ends, list_ends = served.certificates.expiring()[1:]
    assert not list_ends.counts
    assert "all client certificates are refused" in str(list_ends.warning(list_ends.at))
    assert authority_ends.counts
    assert [path for path, _ in served.certificates.expires()] == [
        str(tmp_path / "a.example.crt"),
        str(served.path),
    ]


def test_g06_nothing_is_resumed_past_the_look_at_a_certificate(
    tmp_path: Path, authority: Authority
) -> None:
    """CVE-2025-23419: the second time it is shown and looked at again."""
    served = Served(tmp_path, authority.certificate)
    issued = authority.issue_client("ci")
    context = client_context(SSL.TLS1_2_VERSION)
    first = SSL.Connection(context, None)
    first.use_certificate(x509.load_pem_x509_certificate(issued.certificate))
    first.use_privatekey(load_pem_private_key(issued.key, None))  # type: ignore[arg-type]
    server = served.certificates.serverConnectionForTLS(None)  # type: ignore[arg-type]
    shake_hands(first, server)
    assert user_of(server) == "ci"
    server.shutdown()
    session = first.get_session()
    assert session is not None
    # Somebody who has got the session, and no certificate.
    second = SSL.Connection(context, None)
    second.set_session(session)
    server = served.certificates.serverConnectionForTLS(None)  # type: ignore[arg-type]
    shake_hands(second, server)

    assert user_of(server) is None
    assert second.master_key() != first.master_key()


def too_long(name: str) -> x509.Name:
    """A common name beyond X.520's 64 characters, of which only the library warns."""
    with warnings.catch_warnings(action="ignore"):
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name, _validate=False)])


# -- names --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ci", "Ünïcode", "a b", "x@example.org", "a" * 64])
def test_a_common_name_is_a_user_name(tmp_path: Path, authority: Authority, name: str) -> None:
    """Blanks within and letters of all alphabets among it."""
    server = Served(tmp_path, authority.certificate).meet(authority.issue_client(name))

    assert user_of(server) == name


@pytest.mark.parametrize(
    "subject",
    [
        common_name("ci:admin"),
        common_name("ci\r\nX-Forwarded-User: admin"),
        common_name("ci\0"),
        common_name("ci\x7f"),
        common_name("ci\u2028"),
        common_name("\u202eic"),
        common_name(" ci"),
        common_name("ci "),
        common_name(" "),
        common_name("ci", "admin"),
        x509.Name([]),
        x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "ci")]),
        too_long("c" * 65),
    ],
)
def test_a_certificate_that_names_no_sane_user_names_none(
    tmp_path: Path, authority: Authority, subject: x509.Name
) -> None:
    """A name stands in rules, headers and logs; the connection asks for a password then."""
    server = Served(tmp_path, authority.certificate).meet(authority.issue_client(subject))

    assert fault_of(server) is None
    with pytest.raises(NoUser):
        user_of(server)


# -- several certificates -----------------------------------------------------------------------


def test_what_a_handshake_began_with_lives_until_its_end(
    tmp_path: Path, authority: Authority, watcher: FileWatcher
) -> None:
    """OpenSSL calls back to the context it began with, also when another one was chosen by name.

    All contexts are replaced, and collected, while the client's certificate is on its way.
    """
    served = Served(tmp_path, authority.certificate, names=2)
    watcher.watch(served.clients)
    for version in VERSIONS:
        for issued, user in ((authority.issue_client("ci"), "ci"), (of_a_namesake(authority), "")):
            client = SSL.Connection(client_context(version), None)
            client.use_certificate(x509.load_pem_x509_certificate(issued.certificate))
            client.use_privatekey(load_pem_private_key(issued.key, None))  # type: ignore[arg-type]
            client.set_tlsext_host_name(b"b.example")
            client.set_connect_state()
            server = served.certificates.serverConnectionForTLS(None)  # type: ignore[arg-type]
            server.set_accept_state()
            for near, far in ((client, server), (server, client)):
                with pytest.raises(SSL.WantReadError):
                    near.do_handshake()
                pump(near, far)
            began_with = weakref.ref(served.certificates.context)
            with served.path.open("ab") as file:
                file.write(Authority("one more").certificate)
            watcher.reload()
            gc.collect()
            assert began_with() not in (None, served.certificates.context)
            with contextlib.suppress(SSL.Error):
                finish_handshake(client, server)
            assert (user and user_of(server)) == user
            assert (fault_of(server) is None) is bool(user)


# -- the file -----------------------------------------------------------------------------------


def test_a_changed_file_counts_from_the_next_handshake_on(
    tmp_path: Path, authority: Authority, watcher: FileWatcher, clock: Clock
) -> None:
    """Who showed a certificate is told to show it again; a bad file changes nothing."""
    served = Served(tmp_path, authority.certificate, names=2)
    watcher.watch(served.clients)
    changes: list[str] = []
    served.certificates.when_clients_change(lambda: changes.append("changed"))
    issued = authority.issue_client("ci")
    watcher.reload()
    assert changes == []

    served.path.write_bytes(b"nonsense")
    clock.advance(POLL_INTERVAL)
    assert served.clients.fault is not None
    assert user_of(served.meet(issued)) == "ci"
    assert changes == []

    served.path.write_bytes(authority.certificate + authority.revoke(issued))
    clock.advance(POLL_INTERVAL)
    assert served.refusal(issued) == "cert revoked"
    assert changes == ["changed"]


def test_what_the_file_holds_is_said(authority: Authority) -> None:
    """Subject and end; not the certificate."""
    assert str(parse(authority.certificate, "ca.pem")).startswith("CN=client CA; until 20")


def middle_alone(authority: Authority) -> bytes:
    return Authority("middle", authority).certificate


def one_list_of_two(authority: Authority) -> bytes:
    middle = Authority("middle", authority)
    return authority.certificate + middle.certificate + authority.revoke()


FAULTS: dict[str, tuple[Callable[[Authority], bytes], str]] = {
    "no-pem": (lambda _: b"\x30\x82", "ca.pem: holds no PEM certificate; it starts with -----BEG"),
    "truncated": (lambda ca: ca.certificate[:200], "ca.pem: holds no PEM certificate"),
    "no-ca": (lambda ca: ca.issue().certificate, "ca.pem: CN=localhost is no CA; name the cert"),
    "no-root": (middle_alone, "ca.pem: holds no root; add the certificate of CN=client CA"),
    "list-missing": (one_list_of_two, "ca.pem: holds revocation lists, and none of CN=middle; add"),
    "list-truncated": (lambda ca: ca.certificate + ca.revoke()[:150],
                       "ca.pem: ends within a revocation list; write the file whole"),
    "list-damaged": (lambda ca: ca.certificate + ca.revoke().replace(b"MI", b"!!", 1),
                     "ca.pem: holds a damaged revocation list"),
}  # fmt: skip


@pytest.mark.parametrize(("content", "fault"), FAULTS.values(), ids=FAULTS)
def test_a_file_that_would_refuse_everybody_is_refused(
    authority: Authority, content: Callable[[Authority], bytes], fault: str
) -> None:
    """Where an operator sees it, and not only who is refused."""
    with pytest.raises(FileError) as caught:
        parse(content(authority), "ca.pem")
    assert str(caught.value).startswith(fault)
    assert "\n" not in str(caught.value)


def test_pump_carries_alerts(tmp_path: Path, authority: Authority) -> None:
    """The client is told why, and by nothing else than TLS."""
    served = Served(tmp_path, authority.certificate)
    context = client_context(SSL.TLS1_2_VERSION)
    issued = authority.issue_client("ci", days=-1)
    context.use_certificate(x509.load_pem_x509_certificate(issued.certificate))
    context.use_privatekey(load_pem_private_key(issued.key, None))  # type: ignore[arg-type]
    client = SSL.Connection(context, None)
    server = served.certificates.serverConnectionForTLS(None)  # type: ignore[arg-type]
    with pytest.raises(SSL.Error):
        shake_hands(client, server)
    pump(server, client)
    with pytest.raises(SSL.Error, match="expired"):
        client.do_handshake()
