"""regguard.front.certificates: what loads, what does not and why, and who gets which."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from zope.interface.verify import verifyObject

from regguard.files import FileError
from regguard.front.certificates import (
    RESUMABLE,
    Certificates,
)
from tests.certificates import Authority, Issued, rsa_key
from tests.front.tls import (
    certificate,
    client_context,
    context_of,
    load,
    pump,
    shake_hands,
    subjects,
)


@pytest.fixture(scope="module")
def issued() -> Issued:
    """A certificate for a registry."""
    return Authority().issue("registry.example", "localhost")


def refusal(chain: Path, key: Path | None = None) -> str:
    """Why the files do not load."""
    with pytest.raises(FileError) as caught:
        load(chain, key)
    message = str(caught.value)
    assert "\n" not in message
    return message


def presented(certificates: Certificates, name: bytes | None) -> str:
    """Whose certificate a client gets who asks for ``name``."""
    client = SSL.Connection(client_context(), None)
    if name is not None:
        client.set_tlsext_host_name(name)
    server = certificates.serverConnectionForTLS(None)  # type: ignore[arg-type]
    shake_hands(client, server)
    return subjects(client)[0]


# -- loading --------------------------------------------------------------------------------


def test_a_key_beside_the_chain_is_found(issued: Issued, tmp_path: Path) -> None:
    """domain.crt and domain.key are a complete call."""
    loaded = load(issued.write(tmp_path))

    assert loaded.content.names == {"registry.example", "localhost"}
    assert loaded.path == str(tmp_path / "domain.crt")


def test_a_key_inside_the_chain_wins_over_one_beside_it(issued: Issued, tmp_path: Path) -> None:
    """HAProxy's way; the file says what belongs together."""
    path = issued.write(tmp_path)
    (tmp_path / "domain.key").write_bytes(b"something else")
    path.write_bytes(issued.key + issued.certificate)
    path.chmod(0o600)

    assert load(path).content.names


def test_a_named_key_wins_over_all(issued: Issued, tmp_path: Path) -> None:
    """--tls-key."""
    path = issued.write(tmp_path)
    (tmp_path / "domain.key").rename(tmp_path / "elsewhere")
    other = Authority().issue("other")
    path.write_bytes(issued.certificate + other.key)

    assert load(path, tmp_path / "elsewhere").content.names


@pytest.mark.parametrize("kind", ["ecdsa", "rsa"])
def test_ecdsa_and_rsa_keys_serve(kind: str, tmp_path: Path) -> None:
    """What certificates have today, and what the recipes' readers have."""
    key = rsa_key() if kind == "rsa" else None
    loaded = load(Authority().issue("a.example", key=key).write(tmp_path))

    assert presented(Certificates([loaded]), b"a.example") == "a.example"


def test_the_whole_chain_is_sent(tmp_path: Path) -> None:
    """The leaf first, then who issued it."""
    authority = Authority()
    issued = authority.issue("a.example")
    path = issued.write(tmp_path)
    path.write_bytes(issued.certificate + authority.certificate)
    client = SSL.Connection(client_context(), None)
    shake_hands(client, SSL.Connection(load(path).content.new_context(), None))

    assert subjects(client) == ["a.example", "regguard test CA"]


def test_a_missing_chain_is_named(tmp_path: Path) -> None:
    """Option, file, cause and cure."""
    message = refusal(tmp_path / "domain.crt")

    assert message.startswith(f"--tls-cert {tmp_path}/domain.crt: cannot be read (No such file")
    assert "check the path" in message


def test_a_chain_that_is_no_file_is_named(tmp_path: Path) -> None:
    """A directory stands for everything that can't be read."""
    assert "cannot be read (Is a directory)" in refusal(tmp_path)


def test_a_missing_key_is_named(issued: Issued, tmp_path: Path) -> None:
    """Where it was looked for, and what to do."""
    path = issued.write(tmp_path)
    (tmp_path / "domain.key").unlink()

    message = refusal(path)
    assert message.startswith(f"--tls-cert {path}: no private key in the file")
    assert f"no {tmp_path}/domain.key beside it" in message
    assert "--tls-key" in message
    assert refusal(path, tmp_path / "x").startswith(f"--tls-key {tmp_path}/x: cannot be read")


def test_a_key_that_is_no_file_is_named(issued: Issued, tmp_path: Path) -> None:
    """By the option that leads there."""
    path = issued.write(tmp_path)
    (tmp_path / "domain.key").unlink()
    (tmp_path / "domain.key").mkdir()

    assert refusal(path).startswith(f"--tls-key {tmp_path}/domain.key: cannot be read")


@pytest.mark.parametrize("content", [b"", b"hello", b"\x30\x82\x01\x0a", b"-----BEGIN CERT"])
def test_g08_a_chain_without_a_certificate_is_named(tmp_path: Path, content: bytes) -> None:
    """DER, nothing, something else."""
    path = tmp_path / "domain.crt"
    path.write_bytes(content)

    message = refusal(path)
    assert message.startswith(f"--tls-cert {path}: holds no PEM certificate")
    assert "-----BEGIN CERTIFICATE-----" in message


def test_g08_a_truncated_chain_is_named(issued: Issued, tmp_path: Path) -> None:
    """Half a file, as a crash leaves it."""
    path = issued.write(tmp_path)
    path.write_bytes(issued.certificate[:300])

    assert refusal(path).startswith(f"--tls-cert {path}: holds no PEM certificate")


def test_g08_a_truncated_key_is_named(issued: Issued, tmp_path: Path) -> None:
    """By its own option."""
    path = issued.write(tmp_path)
    (tmp_path / "domain.key").write_bytes(issued.key[:100])

    message = refusal(path)
    assert message.startswith(f"--tls-key {tmp_path}/domain.key: holds no PEM private key")


def test_g08_an_encrypted_key_is_named(issued: Issued, tmp_path: Path) -> None:
    """With the command that decrypts it."""
    path = issued.write(tmp_path)
    key = load_pem_private_key(issued.key, None)
    (tmp_path / "domain.key").write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x"))
    )

    message = refusal(path)
    assert message.startswith(f"--tls-key {tmp_path}/domain.key: the key is encrypted")
    assert f"openssl pkey -in {tmp_path}/domain.key" in message


def test_g08_a_damaged_rsa_key_is_named(tmp_path: Path) -> None:
    """It has the certificate's public half, and signs nothing that holds."""
    key = rsa.generate_private_key(65537, 2048)
    path = Authority().issue("a.example", key=key).write(tmp_path)
    numbers = key.private_numbers()
    # OpenSSL does without one of the two.
    d, dmp1 = numbers.d ^ 1 << 500, numbers.dmp1 ^ 1 << 500
    damaged = rsa.RSAPrivateNumbers(
        *(numbers.p, numbers.q, d, dmp1, numbers.dmq1, numbers.iqmp, numbers.public_numbers)
    ).private_key(unsafe_skip_rsa_key_validation=True)
    (tmp_path / "domain.key").write_bytes(
        damaged.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )

    message = refusal(path)
    assert message.startswith(f"--tls-key {tmp_path}/domain.key: the key is damaged")


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP256R1()),
        rsa.generate_private_key(65537, 2048),
        ed25519.Ed25519PrivateKey.generate(),
    ],
)
def test_g08_a_key_that_does_not_match_is_named(
    issued: Issued, tmp_path: Path, key: ec.EllipticCurvePrivateKey
) -> None:
    """Of the same kind or another."""
    path = issued.write(tmp_path)
    (tmp_path / "domain.key").write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )

    message = refusal(path)
    assert message.startswith(f"--tls-key {tmp_path}/domain.key: the key does not belong to")
    assert str(path) in message


def test_g01_a_certificate_that_openssl_finds_weak_is_named(tmp_path: Path) -> None:
    """The key does belong to it; to look for another one would not help."""
    weak = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    path = Authority().issue("a.example", key=weak).write(tmp_path)

    message = refusal(path)
    assert message.startswith(f"--tls-cert {path}: ")
    assert "key too small" in message
    assert "does not belong" not in message


# -- serving ----------------------------------------------------------------------------------


def test_certificates_keep_the_contract_they_name(tmp_path: Path) -> None:
    """Twisted's memory-BIO TLS asks for it."""
    certificates = Certificates([certificate(tmp_path, "a.example")])

    verifyObject(IOpenSSLServerConnectionCreator, certificates)


def test_g05_the_certificate_is_chosen_by_name(tmp_path: Path) -> None:
    """Exactly, by wildcard for one label, and the first for everybody else."""
    certificates = Certificates(
        [
            certificate(tmp_path, "first.example"),
            certificate(tmp_path, "second.example", "alias.example"),
            certificate(tmp_path, "*.wild.example"),
        ]
    )

    for asked, shown in [
        (b"first.example", "first.example"),
        (b"second.example", "second.example"),
        (b"SECOND.example", "second.example"),
        (b"second.example.", "second.example"),
        (b"alias.example", "second.example"),
        (b"a.wild.example", "*.wild.example"),
        (b"a.b.wild.example", "first.example"),
        (b"wild.example", "first.example"),
        (b"unknown.example", "first.example"),
        (b"\xff\xfe", "first.example"),
        (b"x" * 255, "first.example"),
        (None, "first.example"),
    ]:
        assert presented(certificates, asked) == shown, asked


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        ([b"http/1.1"], b"http/1.1"),
        ([b"h2", b"http/1.1"], b"http/1.1"),
        ([b"h2"], b""),
        ([b"spdy/3", b"h2c"], b""),
    ],
)
@pytest.mark.parametrize("count", [1, 2])
def test_a31_http_2_is_never_chosen(
    tmp_path: Path, offered: list[bytes], chosen: bytes, count: int
) -> None:
    """Whatever packages are installed, and behind each certificate."""
    names = ["a.example", "b.example"][:count]
    certificates = Certificates([certificate(tmp_path, name) for name in names])
    context = client_context()
    context.set_alpn_protos(offered)
    client = SSL.Connection(context, None)
    client.set_tlsext_host_name(names[-1].encode())
    shake_hands(client, SSL.Connection(certificates.context, None))

    assert client.get_alpn_proto_negotiated() == chosen


@pytest.mark.parametrize("version", [SSL.TLS1_VERSION, SSL.TLS1_1_VERSION])
def test_g01_old_protocols_are_refused(tmp_path: Path, version: int) -> None:
    """Even where the client's library would."""
    context = client_context(version)
    context.set_cipher_list(b"ALL:@SECLEVEL=0")
    server = SSL.Connection(context_of(tmp_path, "a.example"), None)

    with pytest.raises(SSL.Error) as caught:
        shake_hands(SSL.Connection(context, None), server)
    assert "version" in str(caught.value) or "protocol" in str(caught.value)


@pytest.mark.parametrize("version", [SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION])
def test_g01_today_s_protocols_are_spoken(tmp_path: Path, version: int) -> None:
    """With forward secrecy and authenticated encryption."""
    client = SSL.Connection(client_context(version), None)
    shake_hands(client, SSL.Connection(context_of(tmp_path, "a.example"), None))

    name = client.get_cipher_name()
    assert name is not None
    assert "GCM" in name or "CHACHA20" in name


@pytest.mark.parametrize(
    "ciphers", [b"AES128-GCM-SHA256", b"ECDHE-ECDSA-AES128-SHA", b"ECDHE-ECDSA-AES256-SHA384"]
)
def test_g01_weak_suites_are_refused(tmp_path: Path, ciphers: bytes) -> None:
    """Static RSA and CBC."""
    context = client_context(SSL.TLS1_2_VERSION)
    context.set_cipher_list(ciphers + b":@SECLEVEL=0")
    server = SSL.Connection(context_of(tmp_path, "a.example"), None)

    with pytest.raises(SSL.Error):
        shake_hands(SSL.Connection(context, None), server)


def resume(context: SSL.Context, session: SSL.Session, server: SSL.Context) -> bool:
    """Come again with a session; whether the server took it up."""
    client, accepted = SSL.Connection(context, None), SSL.Connection(server, None)
    client.set_session(session)
    shake_hands(client, accepted)
    reused = SSL._lib.SSL_session_reused(accepted._ssl)  # type: ignore[attr-defined]
    accepted.shutdown()
    return bool(reused)


def session_of(context: SSL.Context, server: SSL.Context) -> SSL.Session:
    """What a client keeps of a connection that ended well."""
    client, accepted = SSL.Connection(context, None), SSL.Connection(server, None)
    shake_hands(client, accepted)
    accepted.send(b"x")
    pump(accepted, client)
    client.recv(1)  # TLS 1.3's ticket came before it
    for each in (accepted, client):
        each.shutdown()  # a connection that just breaks would take its session with it
    session = client.get_session()
    assert session is not None
    return session


@pytest.mark.parametrize("version", [SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION])
def test_g06_a_session_is_resumed(tmp_path: Path, version: int) -> None:
    """For a minute."""
    server = context_of(tmp_path, "a.example")
    client = client_context(version)
    session = session_of(client, server)

    assert resume(client, session, server)
    assert server.get_timeout() == RESUMABLE


@pytest.mark.parametrize("version", [SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION])
def test_g06_no_session_outlives_a_reload(tmp_path: Path, version: int) -> None:
    """Where the same certificate is loaded anew, neither."""
    server = context_of(tmp_path, "a.example")
    client = client_context(version)
    session = session_of(client, server)

    assert not resume(client, session, load(tmp_path / "a.example.crt").content.new_context())


@pytest.mark.parametrize("ours", ["AES-128 first", "ChaCha20 only"])
def test_the_suite_of_tls_13_is_the_servers_choice(tmp_path: Path, ours: str) -> None:
    """AES-128, which costs least, wherever the client takes it."""
    context = client_context(SSL.TLS1_3_VERSION)
    if ours == "ChaCha20 only":
        context.set_tls13_ciphersuites(b"TLS_CHACHA20_POLY1305_SHA256")
    client = SSL.Connection(context, None)
    shake_hands(client, SSL.Connection(context_of(tmp_path, "a.example"), None))

    wanted = "TLS_AES_128_GCM_SHA256" if ours == "AES-128 first" else "TLS_CHACHA20_POLY1305_SHA256"
    assert client.get_cipher_name() == wanted


def test_g02_renegotiation_is_refused(tmp_path: Path) -> None:
    """A client could keep our CPU busy with it."""
    client = SSL.Connection(client_context(SSL.TLS1_2_VERSION), None)
    server = SSL.Connection(context_of(tmp_path, "a.example"), None)
    shake_hands(client, server)
    assert client.renegotiate()

    with pytest.raises(SSL.Error, match="no renegotiation"):
        shake_hands_again(client, server)
    assert server.total_renegotiations() == 0


def shake_hands_again(client: SSL.Connection, server: SSL.Connection) -> None:
    """What follows ``renegotiate``."""
    for _ in range(5):
        with contextlib.suppress(SSL.WantReadError):
            client.do_handshake()
        pump(client, server)
        with contextlib.suppress(SSL.WantReadError):
            server.recv(1)
        pump(server, client)
