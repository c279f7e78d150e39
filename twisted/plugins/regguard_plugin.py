"""What regguard adds to Twisted: ``twist regguard``, ``--auth htpasswd:FILE`` and ``ldap:URL``.

Every ``twist`` program on the machine imports this file, so it imports next to nothing.
"""

from twisted.application.service import ServiceMaker

from regguard.auth.factory import DirectoryCheckerFactory, HtpasswdCheckerFactory

regguard = ServiceMaker(
    "regguard",
    "regguard.service",
    "A guard in front of a container image registry.",
    "regguard",
)
htpasswd = HtpasswdCheckerFactory()
ldap = DirectoryCheckerFactory()
