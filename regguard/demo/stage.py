"""The throw-away folder of a demo: certificate, users, and the registry's settings."""

from __future__ import annotations

import datetime
import ipaddress
import secrets
import sys
from dataclasses import dataclass, field
from pathlib import Path

import bcrypt
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

# What ``htpasswd -B`` users are advised to take is 12; 10 keeps a demo's first login at 0.1 s.
BCRYPT_COST = 10
# A demo left running over the weekend still works; a forgotten certificate soon does not.
CERTIFICATE_DAYS = 45


@dataclass(frozen=True)
class User:
    """A name and its password."""

    name: str
    password: str = field(repr=False)


@dataclass(frozen=True)
class Stage:
    """What the demo's two programs read, and where they listen (ports on 127.0.0.1)."""

    folder: Path
    port: int
    registry_port: int
    reader: User
    pusher: User

    @property
    def url(self) -> str:
        """The guard's, as a client writes it."""
        return f"https://localhost:{self.port}"

    @property
    def registry_url(self) -> str:
        """The registry's, behind the guard."""
        return f"http://127.0.0.1:{self.registry_port}"

    @property
    def trust(self) -> Path:
        """A folder with the CA alone, as ``--cert-dir`` of podman and skopeo wants it."""
        return self.folder / "trust"

    @property
    def ca(self) -> Path:
        """The CA that signed the guard's certificate."""
        return self.trust / "ca.crt"

    @property
    def registry_settings(self) -> Path:
        """The registry's own configuration file."""
        return self.folder / "registry.yml"

    def guard_command(self) -> list[str]:
        """The words that start the guard; no secret among them."""
        return [
            *(sys.executable, "-m", "twisted", "--log-format=text", "regguard"),
            *("--listen", f"tcp:{self.port}:interface=127.0.0.1"),
            *("--tls-cert", str(self.folder / "domain.crt")),
            *("--tls-key", str(self.folder / "domain.key")),
            *("--htpasswd", str(self.folder / "auth" / "htpasswd")),
            *("--groups", str(self.folder / "auth" / "groups")),
            *("--upstream", self.registry_url),
            # Ctrl-C on a demo is meant at once.
            *("--drain-timeout", "2"),
        ]


def prepare(folder: Path, *, port: int, registry_port: int) -> Stage:
    """Fill ``folder`` (empty, and open to its owner only) with all that the demo needs."""
    stage = Stage(
        folder,
        port,
        registry_port,
        reader=User("testuser", secrets.token_hex(8)),
        pusher=User("testuserpush", secrets.token_hex(8)),
    )
    for name in ("auth", "trust", "data"):
        (folder / name).mkdir()
    _write_certificates(stage)
    users = (stage.reader, stage.pusher)
    _write_secret(folder / "auth" / "htpasswd", "".join(_htpasswd_line(user) for user in users))
    (folder / "auth" / "groups").write_text(f"pusher: {stage.pusher.name}\n")
    stage.registry_settings.write_text(_registry_settings(stage))
    return stage


def _htpasswd_line(user: User) -> str:
    hashed = bcrypt.hashpw(user.password.encode(), bcrypt.gensalt(BCRYPT_COST))
    return f"{user.name}:{hashed.decode()}\n"


def _registry_settings(stage: Stage) -> str:
    return f"""\
version: 0.1
log:
  level: error
  accesslog:
    disabled: true
storage:
  filesystem:
    rootdirectory: {stage.folder / "data"}
  delete:
    enabled: true
  cache:
    blobdescriptor: inmemory
http:
  addr: 127.0.0.1:{stage.registry_port}
  secret: {secrets.token_hex(16)}
health:
  storagedriver:
    enabled: false
"""


def _write_certificates(stage: Stage) -> None:
    """A CA of its own and a leaf for localhost, both ECDSA P-256.

    The CA's key is never written: who trusts this CA for the demo trusts nothing else by it.
    """
    ca_key = ec.generate_private_key(ec.SECP256R1())
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "regguard demo CA")])
    ca_identifier = x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key())
    ca = (
        _certificate(ca_name, ca_name, ca_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(ca_identifier, critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    hosts = x509.SubjectAlternativeName(
        [
            x509.DNSName("localhost"),
            x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
            x509.IPAddress(ipaddress.ip_address("::1")),
        ]
    )
    leaf = (
        _certificate(name, ca_name, key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(ca_identifier),
            critical=False,
        )
        .add_extension(hosts, critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    stage.ca.write_bytes(ca.public_bytes(pem))
    (stage.folder / "domain.crt").write_bytes(leaf.public_bytes(pem))
    _write_secret(
        stage.folder / "domain.key",
        key.private_bytes(
            pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode(),
    )


def _certificate(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.timezone.utc)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        # Clients' clocks may be a little behind.
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=CERTIFICATE_DAYS))
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _write_secret(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text)
