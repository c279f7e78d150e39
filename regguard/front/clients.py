"""Client certificates: who signs them, and which user one of them names.

A client may show a certificate. OpenSSL then looks at it in the handshake: its chain up to a root
of ours, its dates, that its extended key usage (if it has one) is clientAuth, and the revocation
lists where there are any. What does not stand is an alert and the end, never a connection without
a user: who shows a bad certificate should know.
"""

from __future__ import annotations

import re
import secrets
import warnings
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.x509.oid import NameOID
from OpenSSL import SSL
from OpenSSL.crypto import X509, Error, X509StoreFlags

from regguard.files import FileError, WatchedFile
from regguard.front.expiry import Expiring

MAX_DEPTH = 3
"""Intermediate certificates between a client's and a root of ours; OpenSSL would follow 100."""

MAX_NAME = 64
"""Characters of a common name (X.520, ub-common-name)."""

_REVOCATIONS = re.compile(
    rb"-----BEGIN X509 CRL-----.+?-----END X509 CRL-----", re.ASCII | re.DOTALL
)

_FAULTS = {
    number: name.removeprefix("ERR_").replace("_", " ").lower()
    for name, number in vars(SSL.X509VerificationCodes).items()
    if name.startswith("ERR_")
}


@dataclass(frozen=True, slots=True)
class ClientAuthority:
    """The certificate authorities of clients, and whom they have revoked."""

    authorities: tuple[x509.Certificate, ...]
    revocations: tuple[x509.CertificateRevocationList, ...]

    def __str__(self) -> str:
        names = ", ".join(_named(each.subject) for each in self.authorities)
        text = f"{names}; until {min(self._ends()):%Y-%m-%d}"
        if self.revocations:
            text += f"; {sum(map(len, self.revocations))} revoked"
        return text

    def _ends(self) -> list[datetime]:
        return [each.not_valid_after_utc for each in self.authorities]

    def look_at_clients_of(self, context: SSL.Context) -> None:
        """Let connections of this context ask for a certificate; none is fine."""
        store = context.get_cert_store()
        assert store is not None
        for authority in self.authorities:
            store.add_cert(X509.from_cryptography(authority))
            context.add_client_ca(authority)
        for revocation in self.revocations:
            store.add_crl(revocation)
        if self.revocations:
            store.set_flags(X509StoreFlags.CRL_CHECK | X509StoreFlags.CRL_CHECK_ALL)
        context.set_verify(SSL.VERIFY_PEER, _note_fault)
        context.set_verify_depth(MAX_DEPTH)
        # Sessions of one context are nothing to another one, if ever there are any.
        context.set_session_id(secrets.token_bytes(32))


class WatchedClientAuthority(WatchedFile[ClientAuthority]):
    """``--tls-client-ca``, always the last good version; see :func:`parse`."""

    def __init__(self, path: str) -> None:
        super().__init__(path, parse)

    def expiring(self) -> list[Expiring]:
        """The authority that ends first, and each revocation list."""
        content = self.content
        ends = [each.not_valid_after_utc for each in content.authorities]
        found = [
            Expiring(
                self.path,
                "the CA of client certificates",
                min(ends).timestamp(),
                "what it signed is refused",
            )
        ]
        found += [
            Expiring(
                self.path,
                f"the revocation list of {_named(each.issuer)}",
                each.next_update_utc.timestamp(),
                "all client certificates are refused",
                # Many live no longer than a week.
                ahead=(1,),
                counts=False,
            )
            for each in content.revocations
            if each.next_update_utc is not None
        ]
        return found


def parse(data: bytes, path: str) -> ClientAuthority:
    """Read CA certificates and revocation lists (PEM).

    With a revocation list each authority needs one: OpenSSL refuses everybody whose chain it can't
    follow to the end.

    :raises FileError: with the cure.
    """
    without = _REVOCATIONS.sub(b"", data)
    if b"-----BEGIN X509 CRL-----" in without:
        raise FileError(f"{path}: ends within a revocation list; write the file whole")
    try:
        authorities = x509.load_pem_x509_certificates(without)
    except (ValueError, x509.InvalidVersion):
        raise FileError(
            f"{path}: holds no PEM certificate; it starts with -----BEGIN CERTIFICATE-----"
        ) from None
    try:
        revocations = [x509.load_pem_x509_crl(each) for each in _REVOCATIONS.findall(data)]
    except ValueError:
        raise FileError(
            f"{path}: holds a damaged revocation list; make it anew with: openssl ca -gencrl"
        ) from None
    for each in authorities:
        if not _is_authority(each):
            raise FileError(
                f"{path}: {_named(each.subject)} is no CA; name the certificate that signed the "
                "clients' ones"
            )
    if not any(each.subject == each.issuer for each in authorities):
        raise FileError(
            f"{path}: holds no root; add the certificate of {_named(authorities[0].issuer)}"
        )
    issuers = {each.issuer for each in revocations}
    for each in authorities:
        if revocations and each.subject not in issuers:
            raise FileError(
                f"{path}: holds revocation lists, and none of {_named(each.subject)}; add that "
                "one, or everybody is refused"
            )
    found = ClientAuthority(tuple(authorities), tuple(revocations))
    try:
        found.look_at_clients_of(SSL.Context(SSL.TLS_SERVER_METHOD))
    except (SSL.Error, Error) as error:
        raise FileError(f"{path}: OpenSSL refuses it ({error}); make it anew") from None
    return found


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    except (x509.ExtensionNotFound, ValueError):
        return False
    return constraints.value.ca


def _named(name: x509.Name) -> str:
    return name.rfc4514_string() or "a CA without a name"


def _note_fault(
    connection: SSL.Connection, certificate: X509, number: int, depth: int, ok: int
) -> bool:
    """What OpenSSL found stays as it is; why is kept for the log."""
    if not ok:
        connection.set_app_data(_FAULTS.get(number, f"error {number}"))
    return bool(ok)


def fault_of(connection: SSL.Connection) -> str | None:
    """Why the client's certificate was refused in the handshake; None if it was not."""
    fault = connection.get_app_data()
    return fault if isinstance(fault, str) else None


class NoUser(ValueError):
    """A certificate that stands, and names no user; the text says why."""


def user_of(connection: SSL.Connection) -> str | None:
    """The user whom the client's certificate names by its common name; None without one.

    To be called after the handshake.

    :raises NoUser: for a name that could not stand in a rule, a header and a log line.
    """
    if fault_of(connection) is not None:
        raise NoUser("it was refused")
    try:
        certificate = connection.get_peer_certificate(as_cryptography=True)
        if certificate is None:
            return None
        with warnings.catch_warnings():
            # Of names that are too long: those are refused below.
            warnings.simplefilter("ignore")
            names = [each.value for each in certificate.subject if each.oid == NameOID.COMMON_NAME]
    except ValueError:
        raise NoUser("its subject cannot be read") from None
    if len(names) != 1:
        raise NoUser(f"it has {len(names)} common names" if names else "it has no common name")
    name = names[0]
    if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME:
        raise NoUser(f"its common name is not text of 1 to {MAX_NAME} characters")
    if ":" in name or not name.isprintable() or name != name.strip():
        raise NoUser("its common name has a colon, a control character, or a blank at an end")
    return name
