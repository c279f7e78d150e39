"""Certificates: from PEM files to the OpenSSL contexts that new connections use.

Protocol policy: TLS 1.2 and 1.3, forward-secret AEAD suites only, HTTP/1.1 by ALPN only, no
renegotiation, no compression.

A client may resume its session for a minute, which spares both sides the signature.  The
sessions stand in the memory of this process only; there is no ticket whose key would open what was
recorded, and no early data.  They go with their context, so none outlives a reload; and where
clients show certificates there are none at all, since who resumes shows none (CVE-2025-23419).

A connection keeps the context that it began with. When a file changes, all contexts are made anew
from what is loaded, and the next handshake begins with them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import InternalError, InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import implementer

from regguard.files import FileError, FoundFile, Reading, WatchedFiles
from regguard.front.clients import ClientAuthority, WatchedClientAuthority
from regguard.front.expiry import Expiring

CIPHERS = b"ECDHE+AESGCM:ECDHE+CHACHA20"
"""TLS 1.2 suites: Mozilla's "intermediate" list without finite-field DH.  TLS 1.3 has only
such suites; its list is below."""

TLS13_CIPHERS = b":".join(
    (b"TLS_AES_128_GCM_SHA256", b"TLS_AES_256_GCM_SHA384", b"TLS_CHACHA20_POLY1305_SHA256")
)
"""OpenSSL's list, but with AES-128 first, as RFC 8446 section 9.1 and Go have it: nobody breaks
either, and a handshake hashes with what processors have instructions for."""

RESUMABLE = 60
"""Seconds for which a session can be resumed: in a push or a pull by Java or .NET one connection
follows the other.  Each session takes a kilobyte, and two come with each TLS 1.3 handshake; OpenSSL
keeps 20,480 at most."""


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """One ``--tls-cert`` with its ``--tls-key``; ``key`` None: beside or inside the chain."""

    chain: Path
    key: Path | None = None


class CertificateError(FileError):
    """A certificate or key can't be used; the text names option, file and cure."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """A checked chain with its key, and the DNS names that it serves.

    Two of them are equal if their chains are: the key belongs to the chain.
    """

    chain: tuple[x509.Certificate, ...]
    key: Any = field(repr=False, compare=False)
    names: frozenset[str]

    def __str__(self) -> str:
        names = ", ".join(sorted(self.names)) or "no DNS name"
        return f"{names}; until {self.expires:%Y-%m-%d}"

    @property
    def expires(self) -> datetime:
        """When the leaf does; roots and cross-signed links behind it may be out of date."""
        return self.chain[0].not_valid_after_utc

    def untimely(self, now: datetime) -> str | None:
        """Why it is of no use at this time, with the cure."""
        begins = self.chain[0].not_valid_before_utc
        if now > self.expires:
            return f"expired on {self.expires:%Y-%m-%d}; get a new one"
        if now < begins:
            return (
                f"not valid before {begins:%Y-%m-%d %H:%M} UTC; check this machine's clock, or "
                "send SIGHUP then"
            )
        return None

    def new_context(self, clients: ClientAuthority | None = None) -> SSL.Context:
        """A context with this certificate; ``clients`` may show one of theirs.

        :raises SSL.Error: TypeError, too: if OpenSSL does not take chain and key.
        """
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        context.set_min_proto_version(SSL.TLS1_2_VERSION)
        context.set_options(
            SSL.OP_NO_RENEGOTIATION
            | SSL.OP_NO_COMPRESSION
            | SSL.OP_NO_TICKET
            | SSL.OP_CIPHER_SERVER_PREFERENCE
        )
        context.set_session_cache_mode(
            SSL.SESS_CACHE_SERVER if clients is None else SSL.SESS_CACHE_OFF
        )
        context.set_timeout(RESUMABLE)
        context.set_mode(SSL.MODE_RELEASE_BUFFERS)
        context.set_cipher_list(CIPHERS)
        context.set_tls13_ciphersuites(TLS13_CIPHERS)
        context.set_alpn_select_callback(_select_http11)
        context.use_certificate(self.chain[0])
        for issuer in self.chain[1:]:
            context.add_extra_chain_cert(issuer)
        context.use_privatekey(self.key)
        if clients is not None:
            clients.look_at_clients_of(context)
        return context


class WatchedCertificate(WatchedFiles[Certificate]):
    """A chain and its key, always the last good pair.

    One that is out of date is refused when it would replace another one. At the start there is
    no other one, and a restart must not make of an expired certificate, which some clients may be
    told to take, a registry that is down.

    :param wall_clock: gives seconds since the epoch.
    :raises CertificateError: when the first pair is no good.
    """

    def __init__(self, files: CertificateFiles, wall_clock: Callable[[], float]) -> None:
        self._wall_clock = wall_clock
        paths = (files.chain, files.key or files.chain.with_suffix(".key"))
        super().__init__([str(path) for path in paths], partial(_pair, named=bool(files.key)))

    def look(self, *, anew: bool = False) -> Reading[Certificate] | None:
        """As ``WatchedFiles.look``."""
        reading = super().look(anew=anew)
        if reading is not None and reading.content is not None:
            now = datetime.fromtimestamp(self._wall_clock(), timezone.utc)
            untimely = reading.content.untimely(now)
            if untimely is not None:
                fault = f"--tls-cert {self.path}: {untimely}"
                return replace(reading, content=None, fault=fault)
        return reading


def _pair(found: Sequence[FoundFile], *, named: bool) -> Certificate:
    """A chain and the key ``named`` by --tls-key, or in the chain's file, or beside it."""
    chain_file, beside = found
    if chain_file.fault is not None:
        raise _unreadable("--tls-cert", chain_file)
    try:
        chain = x509.load_pem_x509_certificates(chain_file.data)
    except (ValueError, x509.InvalidVersion):
        raise CertificateError(
            f"--tls-cert {chain_file.path}: holds no PEM certificate; it starts with "
            "-----BEGIN CERTIFICATE-----"
        ) from None
    option, key_file = "--tls-key", beside
    if not named and b"PRIVATE KEY-----" in chain_file.data:
        option, key_file = "--tls-cert", chain_file
    elif not named and beside.missing:
        raise CertificateError(
            f"--tls-cert {chain_file.path}: no private key in the file and no {beside.path} "
            "beside it; name the key with --tls-key"
        )
    key = _key(option, key_file)
    try:
        belongs = key.public_key() == chain[0].public_key()
        certificate = Certificate(tuple(chain), key, _dns_names(chain[0]))
        if belongs:
            certificate.new_context()
    except (SSL.Error, TypeError, ValueError, UnsupportedAlgorithm) as error:
        raise CertificateError(
            f"--tls-cert {chain_file.path}: OpenSSL refuses the certificate ({_phrase(error)}); "
            "get one with an ECDSA key or an RSA key of at least 2048 bits"
        ) from None
    if not belongs:
        raise CertificateError(
            f"{option} {key_file.path}: the key does not belong to the certificate "
            f"{chain_file.path}; name the right one with --tls-key"
        )
    return certificate


def _key(option: str, file: FoundFile) -> Any:
    if file.fault is not None:
        raise _unreadable(option, file)
    if file.mode & _OTHERS:
        raise CertificateError(
            f"{option} {file.path}: anybody on this machine may get at the key (mode "
            f"{file.mode:03o}); chmod 640 {file.path}"
        )
    try:
        # OpenSSL's look at the primes of an RSA key takes 100 ms, in which (Python's lock is held
        # meanwhile) nobody would be served.
        key = load_pem_private_key(file.data, None, unsafe_skip_rsa_key_validation=True)
    except TypeError:
        raise CertificateError(
            f"{option} {file.path}: the key is encrypted; decrypt it with: "
            f"openssl pkey -in {file.path} -out plain.key"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise CertificateError(
            f"{option} {file.path}: holds no PEM private key; it starts with "
            "-----BEGIN PRIVATE KEY-----"
        ) from None
    if isinstance(key, rsa.RSAPrivateKey) and not _is_sound(key):
        raise CertificateError(f"{option} {file.path}: the key is damaged; put a copy back")
    return key


def _is_sound(key: rsa.RSAPrivateKey) -> bool:
    """Whether what it signs is signed, which is what it is for, and takes a millisecond."""
    try:
        signature = key.sign(b"", padding.PKCS1v15(), hashes.SHA256())
        key.public_key().verify(signature, b"", padding.PKCS1v15(), hashes.SHA256())
    except (ValueError, InvalidSignature, InternalError):
        return False
    return True


# The rights of all others.  Those of the group are what root:regguard 0640 is made of.
_OTHERS = 0o007


def _unreadable(option: str, file: FoundFile) -> CertificateError:
    return CertificateError(
        f"{option} {file.path}: cannot be read ({file.fault}); check the path and its mode"
    )


@implementer(IOpenSSLServerConnectionCreator)
class Certificates:
    """All chains of the door, chosen by SNI; the first one serves everybody else.

    ``clients``: who signs the certificates that clients may show; None asks them for none.
    """

    context: SSL.Context
    """The context that a new connection starts with."""

    def __init__(
        self,
        certificates: Sequence[WatchedCertificate],
        clients: WatchedClientAuthority | None = None,
    ) -> None:
        self._certificates = tuple(certificates)
        self._clients = clients
        self._when_clients_change: list[Callable[[], None]] = []
        for certificate in self._certificates:
            certificate.replaced = self._certificate_replaced
        if clients is not None:
            clients.replaced = self._clients_replaced
        self._renew()

    @property
    def files(self) -> tuple[WatchedCertificate | WatchedClientAuthority, ...]:
        """For the file watcher."""
        return self._certificates if self._clients is None else (*self._certificates, self._clients)

    @property
    def asks_clients(self) -> bool:
        """Whether a client may show a certificate."""
        return self._clients is not None

    def when_clients_change(self, act: Callable[[], None]) -> None:
        """Call ``act`` whenever other client certificates count than before."""
        self._when_clients_change.append(act)

    def expires(self) -> list[tuple[str, float]]:
        """Each file of certificates, with the time when it expires, in seconds since the epoch."""
        return [(each.path, each.at) for each in self.expiring() if each.counts]

    def expiring(self) -> list[Expiring]:
        """Everything that is loaded now and expires."""
        return [
            *(expiring(certificate) for certificate in self._certificates),
            *(self._clients.expiring() if self._clients is not None else ()),
        ]

    def serverConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """For Twisted's memory-BIO TLS."""
        return SSL.Connection(self.context, None)

    def _certificate_replaced(self, before: Certificate, after: Certificate) -> None:
        # SIGHUP reads all anew, and most often nothing has changed.
        if before != after:
            self._renew()

    def _clients_replaced(self, before: ClientAuthority, after: ClientAuthority) -> None:
        if before != after:
            self._renew()
            for act in self._when_clients_change:
                act()

    def _renew(self) -> None:
        clients = None if self._clients is None else self._clients.content
        loaded = [each.content for each in self._certificates]
        contexts = [certificate.new_context(clients) for certificate in loaded]
        first = contexts[0]
        if len(contexts) > 1:
            # The call-back costs some microseconds for each handshake: only where needed.
            names = [certificate.names for certificate in loaded]
            choices = tuple(zip(names, contexts, strict=True))
            first.set_tlsext_servername_callback(partial(_select, choices))
            for context in contexts[1:]:
                # OpenSSL goes on to call what the first context brought with it (the choice, a
                # second time after HelloRetryRequest; the look at a client's certificate), and
                # pyOpenSSL keeps only the chosen one alive.
                context.set_app_data(first)
        self.context = first


def expiring(certificate: WatchedCertificate) -> Expiring:
    """When this one does."""
    at = certificate.content.expires.timestamp()
    return Expiring(certificate.path, "the certificate", at, "clients refuse it")


def _select(
    choices: Sequence[tuple[frozenset[str], SSL.Context]], connection: SSL.Connection
) -> None:
    name = connection.get_servername()
    if name is not None:
        asked = name.decode("ascii", "replace").lower().rstrip(".")
        parent = "*." + asked.partition(".")[2]
        for names, context in choices:
            if asked in names or parent in names:
                connection.set_context(context)
                return


def _select_http11(connection: SSL.Connection, offered: list[bytes]) -> Any:
    """ALPN: HTTP/1.1 or nothing; never h2, whatever packages are installed."""
    return b"http/1.1" if b"http/1.1" in offered else SSL.NO_OVERLAPPING_PROTOCOLS


def _phrase(error: Exception) -> str:
    """OpenSSL's own words: the last of (library, function, reason)."""
    if isinstance(error, SSL.Error) and error.args and error.args[0]:
        return "; ".join(reason for _, _, reason in error.args[0])
    return str(error) or "no reason given"


def _dns_names(certificate: x509.Certificate) -> frozenset[str]:
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return frozenset()
    return frozenset(n.lower() for n in extension.value.get_values_for_type(x509.DNSName))
