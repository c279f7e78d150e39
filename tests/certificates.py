"""Certificates for tests: an authority that lives as long as its object."""

from __future__ import annotations

import datetime
import ipaddress
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


def ecdsa_key() -> Key:
    """A P-256 key: what a new certificate has today."""
    return ec.generate_private_key(ec.SECP256R1())


def rsa_key() -> Key:
    """A 2048-bit RSA key: what the recipes' readers have."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


_SIGNS_CERTIFICATES = x509.KeyUsage(
    digital_signature=False,
    key_cert_sign=True,
    crl_sign=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    encipher_only=False,
    decipher_only=False,
)


@dataclass(frozen=True)
class Issued:
    """A certificate and its key, as PEM."""

    certificate: bytes
    key: bytes

    def write(self, folder: Path, name: str = "domain") -> Path:
        """Write ``name.crt`` and ``name.key``; return the certificate's path."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.key").write_bytes(self.key)
        (folder / f"{name}.key").chmod(0o600)
        path = folder / f"{name}.crt"
        path.write_bytes(self.certificate)
        return path


@dataclass
class Authority:
    """Signs certificates for host names, addresses and users.

    ``parent`` signs its own (None: it is a root); ``path_length`` says how many authorities may
    stand between it and what is signed in the end.
    """

    name: str = "regguard test CA"
    parent: Authority | None = None
    path_length: int | None = 0
    days: int = 90
    _key: Key = field(default_factory=ecdsa_key, repr=False)

    def __post_init__(self) -> None:
        subject = common_name(self.name)
        signer = self.parent or self
        issuer = subject if self.parent is None else self.parent._certificate.subject
        self._certificate = (
            _builder(subject, issuer, self._key, self.days)
            .add_extension(
                x509.BasicConstraints(ca=True, path_length=self.path_length), critical=True
            )
            # Python 3.13 verifies strictly: a CA says what its key is for.
            .add_extension(_SIGNS_CERTIFICATES, critical=True)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False
            )
            .sign(signer._key, hashes.SHA256())
        )

    @property
    def certificate(self) -> bytes:
        """The authority's own, as PEM."""
        return self._certificate.public_bytes(serialization.Encoding.PEM)

    def issue(
        self, *hosts: str, key: Key | None = None, days: float = 90, begins: float = -60
    ) -> Issued:
        """A server certificate for ``hosts`` (default: this machine); times in days from now."""
        key = key or ecdsa_key()
        hosts = hosts or ("localhost", "127.0.0.1")
        names = x509.SubjectAlternativeName([_general_name(host) for host in hosts])
        return self._issue(common_name(hosts[0]), names, key, days, begins)

    def issue_client(
        self,
        user: str | x509.Name,
        *,
        days: float = 90,
        usage: x509.ObjectIdentifier | None = ExtendedKeyUsageOID.CLIENT_AUTH,
    ) -> Issued:
        """A client's certificate for a user; ``usage`` None: without extended key usage."""
        subject = user if isinstance(user, x509.Name) else common_name(user)
        usages = None if usage is None else x509.ExtendedKeyUsage([usage])
        return self._issue(subject, usages, ecdsa_key(), days)

    def revoke(self, *issued: Issued, days: float = 7) -> bytes:
        """A revocation list (PEM) that is good for ``days``."""
        now = datetime.datetime.now(datetime.timezone.utc)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self._certificate.subject)
            .last_update(now - datetime.timedelta(days=8))
            .next_update(now + datetime.timedelta(days=days))
        )
        for each in issued:
            serial = x509.load_pem_x509_certificate(each.certificate).serial_number
            builder = builder.add_revoked_certificate(
                x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now).build()
            )
        revocations = builder.sign(self._key, hashes.SHA256())
        return revocations.public_bytes(serialization.Encoding.PEM)

    def _issue(
        self,
        subject: x509.Name,
        extension: x509.ExtensionType | None,
        key: Key,
        days: float,
        begins: float = -60,
    ) -> Issued:
        builder = (
            _builder(subject, self._certificate.subject, key, days, begins)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
        )
        if extension is not None:
            builder = builder.add_extension(extension, critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        return Issued(
            certificate.public_bytes(serialization.Encoding.PEM),
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            ),
        )


def common_name(*names: str) -> x509.Name:
    """A subject of common names."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name) for name in names])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: Key, days: float, begins: float = -60
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.timezone.utc)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + datetime.timedelta(days=begins))
        .not_valid_after(now + datetime.timedelta(days=days))
    )


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
