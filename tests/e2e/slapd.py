"""A real directory: OpenLDAP's slapd with people, groups, StartTLS and ldaps."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.canary import secret
from tests.certificates import Authority
from tests.e2e.programs import Program, accepts, binary, free_port

SUFFIX = "dc=example,dc=org"
PEOPLE = f"ou=people,{SUFFIX}"
GROUPS = f"ou=groups,{SUFFIX}"
READER = f"cn=reader,{SUFFIX}"
READER_PASSWORD = secret("the-reader's-password")
_ADMIN = f"cn=admin,{SUFFIX}"
_ADMIN_PASSWORD = "the-admin's-password"

# User name to password; each one's entry is uid=NAME below ou=people.
PASSWORDS = {
    "alice": secret("alice's password"),
    "bob": secret("bob's password"),
    "Ca(ro)l*": secret("carol's password"),
}
# Two entries have this uid, in different branches.
TWIN = ("twin", secret("the twins' password"))

# memberOf is made by the overlay, for groupOfNames only: devs shows it, and testers is found by a
# search for memberUid. There are two groups named devs; their DNs tell them apart.
_ENTRIES = f"""\
dn: {SUFFIX}
objectClass: dcObject
objectClass: organization
dc: example
o: Example

dn: {READER}
objectClass: organizationalRole
objectClass: simpleSecurityObject
cn: reader
userPassword: {READER_PASSWORD}

dn: {PEOPLE}
objectClass: organizationalUnit
ou: people

dn: {GROUPS}
objectClass: organizationalUnit
ou: groups

dn: ou=old,{SUFFIX}
objectClass: organizationalUnit
ou: old

dn: ou=elsewhere,{SUFFIX}
objectClass: referral
objectClass: extensibleObject
ou: elsewhere
ref: ldap://127.0.0.1:1/ou=elsewhere,dc=example,dc=net

"""
_PERSON = """\
dn: {dn}
objectClass: inetOrgPerson
uid: {name}
cn: {name}
sn: {name}
mail: {name}@example.org
userPassword: {password}

"""
_MEMBERS = f"""\
dn: cn=devs,{GROUPS}
objectClass: groupOfNames
cn: devs
member: uid=alice,{PEOPLE}

dn: cn=devs,ou=old,{SUFFIX}
objectClass: groupOfNames
cn: devs
member: uid=bob,{PEOPLE}

dn: cn=testers,{GROUPS}
objectClass: posixGroup
cn: testers
gidNumber: 1000
memberUid: alice
"""


class Slapd:
    """slapd on two ports of its own, ldap (with StartTLS) and ldaps; ``ca`` signed for both."""

    def __init__(self, folder: Path) -> None:
        (folder / "data").mkdir(parents=True)
        authority = Authority()
        self.ca = folder / "directory-ca.crt"
        self.ca.write_bytes(authority.certificate)
        certificate = authority.issue("127.0.0.1").write(folder, "directory")
        self.port, self.tls_port = free_port(), free_port()
        self.password_file = folder / "reader.password"
        self.password_file.write_text(READER_PASSWORD + "\n")
        self._folder = folder
        self._configuration = folder / "slapd.conf"
        self._configuration.write_text(
            f"""\
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/nis.schema
include /etc/ldap/schema/inetorgperson.schema
modulepath /usr/lib/ldap
moduleload back_mdb
moduleload memberof
TLSCACertificateFile {self.ca}
TLSCertificateFile {certificate}
TLSCertificateKeyFile {certificate.with_suffix(".key")}
database mdb
directory {folder / "data"}
suffix "{SUFFIX}"
rootdn "{_ADMIN}"
rootpw "{_ADMIN_PASSWORD}"
overlay memberof
access to attrs=userPassword by anonymous auth by * none
access to * by dn.exact="{READER}" read by self read by * none
"""
        )
        self.start()
        people = "".join(
            _PERSON.format(dn=f"uid={name},{PEOPLE}", name=name, password=password)
            for name, password in PASSWORDS.items()
        )
        name, password = TWIN
        twins = "".join(
            _PERSON.format(dn=f"uid={name},{branch}", name=name, password=password)
            for branch in (PEOPLE, f"ou=old,{SUFFIX}")
        )
        subprocess.run(
            [
                *(binary("ldapadd"), "-x", "-H", self.url, "-M"),
                *("-D", _ADMIN, "-w", _ADMIN_PASSWORD),
            ],
            input=(_ENTRIES + people + twins + _MEMBERS).encode(),
            stdout=subprocess.DEVNULL,
            timeout=30,
            check=True,
        )

    @property
    def url(self) -> str:
        return f"ldap://127.0.0.1:{self.port}"

    @property
    def tls_url(self) -> str:
        return f"ldaps://127.0.0.1:{self.tls_port}"

    def start(self) -> None:
        """Start it; what it logs (each operation, and no password) is ``program.output()``."""
        self.program = Program(
            [
                *("/usr/sbin/slapd", "-f", str(self._configuration), "-d", "stats"),
                *("-h", f"{self.url} {self.tls_url}"),
            ],
            self._folder / "slapd.log",
            self._folder,
        )
        self.program.wait_until(
            "slapd to listen", lambda: accepts(self.port) and accepts(self.tls_port)
        )

    def stop(self) -> None:
        self.program.stop()

    def has_unread_octets(self, port: int) -> bool:
        """Whether something was sent to this port that it has not read."""
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            _, local, _, state, queues, *_ = line.split()
            established, unread = state == "01", int(queues.partition(":")[2], 16)
            if established and unread and int(local.partition(":")[2], 16) == port:
                return True
        return False

    def searching(self, *more: str, url: str | None = None, base: str = PEOPLE) -> str:
        """``--auth`` for search-and-bind by ldaps as the reader; ``more`` are further settings."""
        return ";".join(
            (
                f"ldap:{url or self.tls_url}/{base}?uid",
                f"ca={self.ca}",
                f"bind-dn={READER}",
                f"bind-password-file={self.password_file}",
                *more,
            )
        )
