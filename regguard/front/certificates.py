"""Certificates: from PEM files to the OpenSSL contexts that new connections use.

Protocol policy: TLS 1.2 and 1.3, forward-secret AEAD suites only, HTTP/1.1 by ALPN only, no
renegotiation, no compression, no session cache and no tickets (a resumed session would outlive
a reload; registry clients do not resume).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import implementer

CIPHERS = b"ECDHE+AESGCM:ECDHE+CHACHA20"
"""TLS 1.2 suites: Mozilla's "intermediate" list without finite-field DH.  TLS 1.3 has only
such suites and keeps OpenSSL's list."""


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """One ``--tls-cert`` with its ``--tls-key``; ``key`` None: beside or inside the chain."""

    chain: Path
    key: Path | None = None


class CertificateError(Exception):
    """A certificate or key can't be used; the text names option, file and cure."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """A loaded chain: its context, the DNS names it serves, and where it came from."""

    context: SSL.Context
    names: frozenset[str]
    expires: datetime
    path: Path

    def __str__(self) -> str:
        names = ", ".join(sorted(self.names)) or "no DNS name"
        return f"{self.path}: {names}; until {self.expires:%Y-%m-%d}"


def load(files: CertificateFiles) -> Certificate:
    """Load and check one chain and its key; raises CertificateError."""
    pem = _read("--tls-cert", files.chain)
    try:
        chain = x509.load_pem_x509_certificates(pem)
    except ValueError:
        raise CertificateError(
            f"--tls-cert {files.chain}: holds no PEM certificate; it starts with "
            "-----BEGIN CERTIFICATE-----"
        ) from None
    option, key_path, key_pem = _find_key(files, pem)
    try:
        key = load_pem_private_key(key_pem, password=None)
    except TypeError:
        raise CertificateError(
            f"{option} {key_path}: the key is encrypted; decrypt it with: "
            f"openssl pkey -in {key_path} -out plain.key"
        ) from None
    except ValueError:
        raise CertificateError(
            f"{option} {key_path}: holds no PEM private key; it starts with "
            "-----BEGIN PRIVATE KEY-----"
        ) from None

    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.set_options(
        SSL.OP_NO_RENEGOTIATION
        | SSL.OP_NO_COMPRESSION
        | SSL.OP_NO_TICKET
        | SSL.OP_CIPHER_SERVER_PREFERENCE
    )
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    context.set_cipher_list(CIPHERS)
    context.set_alpn_select_callback(_select_http11)
    try:
        context.use_certificate(chain[0])
        for issuer in chain[1:]:
            context.add_extra_chain_cert(issuer)
    except SSL.Error as error:
        raise CertificateError(
            f"--tls-cert {files.chain}: OpenSSL refuses the certificate ({_phrase(error)}); "
            "get one with an ECDSA key or an RSA key of at least 2048 bits"
        ) from None
    try:
        context.use_privatekey(key)  # type: ignore[arg-type]
        context.check_privatekey()
    except (SSL.Error, TypeError):
        raise CertificateError(
            f"{option} {key_path}: the key does not belong to the certificate "
            f"{files.chain}; name the right one with --tls-key"
        ) from None
    return Certificate(context, _dns_names(chain[0]), chain[0].not_valid_after_utc, files.chain)


@implementer(IOpenSSLServerConnectionCreator)
class Certificates:
    """All chains of the door, chosen by SNI; the first one serves everybody else."""

    def __init__(self, certificates: Sequence[Certificate]) -> None:
        self._certificates = tuple(certificates)
        if len(self._certificates) > 1:
            # The call-back costs some microseconds for each handshake: only where needed.
            self.context.set_tlsext_servername_callback(self._select)

    @property
    def context(self) -> SSL.Context:
        """The context that a new connection starts with."""
        return self._certificates[0].context

    def serverConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """For Twisted's memory-BIO TLS."""
        return SSL.Connection(self.context, None)

    def _select(self, connection: SSL.Connection) -> None:
        name = connection.get_servername()
        if name is not None:
            asked = name.decode("ascii", "replace").lower().rstrip(".")
            parent = "*." + asked.partition(".")[2]
            for certificate in self._certificates:
                if asked in certificate.names or parent in certificate.names:
                    connection.set_context(certificate.context)
                    return


def _select_http11(connection: SSL.Connection, offered: list[bytes]) -> Any:
    """ALPN: HTTP/1.1 or nothing; never h2, whatever packages are installed."""
    return b"http/1.1" if b"http/1.1" in offered else SSL.NO_OVERLAPPING_PROTOCOLS


def _find_key(files: CertificateFiles, chain_pem: bytes) -> tuple[str, Path, bytes]:
    if files.key is not None:
        return "--tls-key", files.key, _read("--tls-key", files.key)
    if b"PRIVATE KEY-----" in chain_pem:
        return "--tls-cert", files.chain, chain_pem
    beside = files.chain.with_suffix(".key")
    if not beside.exists():
        raise CertificateError(
            f"--tls-cert {files.chain}: no private key in the file and no {beside} beside it; "
            "name the key with --tls-key"
        )
    return "--tls-key", beside, _read("--tls-key", beside)


def _read(option: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CertificateError(
            f"{option} {path}: cannot be read ({error.strerror}); check the path and its mode"
        ) from None


def _phrase(error: SSL.Error) -> str:
    """OpenSSL's own words: the last of (library, function, reason)."""
    return "; ".join(reason for _, _, reason in error.args[0]) or "no reason given"


def _dns_names(certificate: x509.Certificate) -> frozenset[str]:
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return frozenset()
    return frozenset(n.lower() for n in extension.value.get_values_for_type(x509.DNSName))
