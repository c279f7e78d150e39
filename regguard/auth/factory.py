"""``--auth htpasswd:FILE`` as a twisted.cred.strcred plugin.

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
Hashes: bcrypt (htpasswd -B), apr1, {SHA}, {SSHA}, SHA-256-crypt and SHA-512-crypt.
Changes of the file take effect at once; a bad new version is refused, the old one stays.
"""
    argStringFormat = "FILE"
    credentialInterfaces = (IUsernamePassword,)

    def generateChecker(self, argstring: str) -> ICredentialsChecker:
        """Read the file and make the checker.

        :raises InvalidAuthArgumentString: with file, line and cure.
        """
        from regguard.auth.files import FileError
        from regguard.auth.htpasswd import HtpasswdChecker

        if not argstring:
            raise InvalidAuthArgumentString("which file? Write --auth htpasswd:FILE")
        try:
            checker: ICredentialsChecker = HtpasswdChecker(argstring)
        except FileError as error:
            raise InvalidAuthArgumentString(str(error)) from None
        return checker
