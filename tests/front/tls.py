"""TLS between two ends of a socket pair, or with no socket at all."""

from __future__ import annotations

import time
from pathlib import Path

from OpenSSL import SSL

from regguard.front.certificates import CertificateFiles, WatchedCertificate
from tests.certificates import Authority


def load(chain: Path, key: Path | None = None) -> WatchedCertificate:
    """A certificate as the daemon loads it."""
    return WatchedCertificate(CertificateFiles(chain, key), time.time)


def certificate(folder: Path, *hosts: str) -> WatchedCertificate:
    """A loaded certificate for ``hosts``."""
    return load(Authority().issue(*hosts).write(folder, hosts[0].strip("*.")))


def context_of(folder: Path, *hosts: str) -> SSL.Context:
    """The context of a loaded certificate for ``hosts``."""
    return certificate(folder, *hosts).content.new_context()


def client_context(version: int | None = None) -> SSL.Context:
    """A client that trusts everybody; ``version`` pins the protocol."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    if version is not None:
        context.set_min_proto_version(version)
        context.set_max_proto_version(version)
    return context


def shake_hands(client: SSL.Connection, server: SSL.Connection) -> None:
    """A handshake of two connections on memory BIOs."""
    client.set_connect_state()
    server.set_accept_state()
    finish_handshake(client, server)


def finish_handshake(client: SSL.Connection, server: SSL.Connection) -> None:
    """What is left of a handshake that has begun."""
    done: set[SSL.Connection] = set()
    for _ in range(10):
        for near, far in ((client, server), (server, client)):
            try:
                near.do_handshake()
                done.add(near)
            except SSL.WantReadError:
                pass
            finally:
                pump(near, far)
        if len(done) == 2:
            return
    raise AssertionError("no end of the handshake")


def pump(near: SSL.Connection, far: SSL.Connection) -> None:
    """Carry what ``near`` wants to send to ``far``."""
    try:
        while True:
            far.bio_write(near.bio_read(65536))
    except SSL.WantReadError:
        pass


def subjects(client: SSL.Connection) -> list[str]:
    """The common names in the chain that the server sent."""
    chain = client.get_peer_cert_chain(as_cryptography=True)
    assert chain is not None
    return [link.subject.rfc4514_string().removeprefix("CN=") for link in chain]
