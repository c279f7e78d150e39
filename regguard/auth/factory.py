"""``--auth htpasswd:FILE`` and ``--auth ldap:URL`` as twisted.cred.strcred plugins.

Every ``twist`` program on the machine loads the plugins, so nothing heavy is imported before a
checker is asked for.
"""

from __future__ import annotations

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.strcred import ICheckerFactory, InvalidAuthArgumentString
from twisted.plugin import IPlugin
from zope.interface import implementer


@implementer(ICheckerFactory, IPlugin)
class HtpasswdCheckerFactory:
    """Makes an :class:`~regguard.auth.htpasswd.HtpasswdChecker` of a file name."""

    authType = "htpasswd"
    authHelp = """\
Checks user names and passwords by a file of Apache's htpasswd (lines of user:hash).
'regguard passwd FILE USER' makes one. Hashes: bcrypt, argon2 (with the extra argon2),
SHA-256-crypt, SHA-512-crypt, apr1, {SSHA} and {SHA}.
Changes of the file take effect at once; a bad new version is refused, the old one stays.
"""
    argStringFormat = "FILE"
    credentialInterfaces = (IUsernamePassword,)

    def generateChecker(self, argstring: str) -> ICredentialsChecker:
        """Read the file and make the checker.

        :raises InvalidAuthArgumentString: with file, line and cure.
        """
        from regguard.auth.htpasswd import HtpasswdChecker
        from regguard.files import FileError

        if not argstring:
            raise InvalidAuthArgumentString("which file? Write --auth htpasswd:FILE")
        try:
            checker: ICredentialsChecker = HtpasswdChecker(argstring)
        except FileError as error:
            raise InvalidAuthArgumentString(str(error)) from None
        return checker


@implementer(ICheckerFactory, IPlugin)
class DirectoryCheckerFactory:
    """Makes a :class:`~regguard.auth.directory.checker.DirectoryChecker` of an LDAP URL."""

    authType = "ldap"
    authHelp = """\
Checks user names and passwords by LDAP or Active Directory, which says the groups as well.
Needs python-ldap: pip install 'regguard[ldap]'.

    ldap[s]://HOST[:PORT][,HOST...]/BASE[?ATTRIBUTE[?SCOPE[?FILTER]]][;KEY=VALUE...]

Hosts are asked in this order; ATTRIBUTE (uid) is what users log in by; SCOPE is sub, one or base.
  starttls                  encrypt ldap:// before anything else is said
  ca=FILE                   trust this CA (PEM) instead of the system's
  bind-dn=DN                search as this account, else anonymously, with the password in
  bind-password-file=FILE   the first line of this file
  user-dn=uid={user},DN     no search: bind as the user at once; the user reads his own entry
  name=ATTRIBUTE            the name for rules and logs, where users log in by another one
  groups=ATTRIBUTE          of the user's entry, with DNs of groups; memberOf if not given
  group-filter=FILTER       search groups by this filter instead, with {dn} or {user} in it
  group-base=DN             only groups below this one count

OpenLDAP:
  --auth 'ldap:ldaps://ldap.example.org/ou=people,dc=example,dc=org?uid;ca=/etc/regguard/ca.crt
    ;group-base=ou=groups,dc=example,dc=org;group-filter=(|(member={dn})(memberUid={user}))'
Active Directory:
  --auth 'ldap:ldaps://dc1.example.com,dc2.example.com/DC=example,DC=com?sAMAccountName?sub
    ?(objectClass=user);bind-dn=CN=regguard,CN=Users,DC=example,DC=com
    ;bind-password-file=/etc/regguard/ldap-password'
(each one in one line, or in the TOML file in several, as here).
In rules: group:NAME by the group's CN, or group:"CN=devs,OU=groups,DC=example,DC=com".
"""
    argStringFormat = "URL[;KEY=VALUE...]"
    credentialInterfaces = (IUsernamePassword,)

    def generateChecker(self, argstring: str) -> ICredentialsChecker:
        """Read the words and the files named; asks no server yet.

        :raises InvalidAuthArgumentString: with the cure.
        """
        try:
            from regguard.auth.directory.checker import DirectoryChecker
        except ImportError as error:
            if (error.name or "").partition(".")[0] not in ("ldap", "_ldap"):
                raise
            raise InvalidAuthArgumentString(
                f"needs python-ldap ({error}): pip install 'regguard[ldap]'; building it takes "
                "Debian's gcc, python3-dev, libldap-dev and libsasl2-dev"
            ) from None
        from regguard.auth.directory.settings import parse_settings

        try:
            checker: ICredentialsChecker = DirectoryChecker(parse_settings(argstring))
        except ValueError as error:
            raise InvalidAuthArgumentString(str(error)) from None
        return checker
