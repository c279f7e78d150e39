"""The checker for LDAP and Active Directory."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from ipaddress import ip_address
from typing import Any

from twisted.application.service import IService
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred, TimeoutError, fail
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from regguard import dn
from regguard.auth.directory.lines import Lines, read_password
from regguard.auth.directory.session import (
    DirectoryError,
    Entry,
    Refused,
    Session,
    escape_dn_chars,
    escape_filter_chars,
)
from regguard.auth.directory.settings import DirectorySettings, Server, filled
from regguard.auth.interfaces import (
    AvatarId,
    IGroupSource,
    IServedChecker,
    Overloaded,
    Unavailable,
)
from regguard.transport.trust import trust_in

# From the request to the answer, all servers together. Docker's login gives up after 15 s; the
# guard holds its 503 for up to 2 s, and a password file behind this checker wants its turn, too.
DEADLINE = 8.0

# An outage is told once a minute, not for each log-in.
REPEAT = 60.0

# RFC 4519 section 2.3; what a rule calls group:NAME.
_CN = "cn"


@implementer(ICredentialsChecker, IServedChecker, IGroupSource)
class DirectoryChecker:
    """Checks user name and password by asking a directory, which says the groups as well.

    The user name is the one that the entry holds, however it was spelled at the log-in: names are
    compared without regard to case and blanks there, and exactly in rules here.

    :raises ValueError: when the CA or the password file is no good, with file and cure.
    """

    credentialInterfaces = (IUsernamePassword,)

    _log = Logger()

    def __init__(self, settings: DirectorySettings) -> None:
        self.settings = settings
        self._trust_root = None if settings.ca is None else trust_in(settings.ca, "ca")
        if settings.bind_password_file is not None:
            read_password(settings.bind_password_file)
        self._servers = settings.servers
        self._group_base = (
            None if settings.group_base is None else dn.canonical(settings.group_base)
        )
        self._clock: Any = None
        self._lines: Lines | None = None
        self._outage: str | None = None
        self._told = 0.0

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.settings}>"

    def __str__(self) -> str:
        return f"LDAP, {self.settings}"

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the operator should know about how this is configured."""
        if self.settings.encrypted or all(_is_near(each) for each in self.settings.servers):
            return ()
        where = next(each for each in self.settings.servers if not _is_near(each))
        cure = "write ldaps://, or add ;starttls"
        return (f"--auth ldap: passwords go to {where} in clear text; {cure}",)

    def serve(self, reactor: Any) -> IService:
        """Work by this reactor from now on, in the threads of the service returned."""
        self._clock = reactor
        self._lines = Lines(reactor, self.settings, self._trust_root)
        return self._lines

    def requestAvatarId(self, credentials: IUsernamePassword) -> Deferred[bytes | tuple[()]]:
        """Fire with name and groups, or fail with ``UnauthorizedLogin`` or ``Unavailable``."""
        name = credentials.username.decode("utf-8")
        if not (name and credentials.password):
            # A bind without a password succeeds, as nobody; the question is not even asked.
            return fail(UnauthorizedLogin("no name or no password"))
        if self._lines is None:
            return fail(Unavailable("not served by a reactor"))
        asking = Deferred.fromCoroutine(self._ask(self._lines, name, credentials.password))
        return asking.addCallbacks(self._answered, self._not_answered)

    def _answered(self, avatar: AvatarId) -> AvatarId:
        if self._outage is not None:
            self._outage = None
            self._log.info("{checker} answers again", checker=str(self))
        return avatar

    def _not_answered(self, failure: Failure) -> Failure:
        if failure.check(DirectoryError, Overloaded):
            reason = str(failure.value)
            now = self._clock.seconds()
            if reason != self._outage or now >= self._told + REPEAT:
                self._outage, self._told = reason, now
                self._log.error(
                    "{checker} cannot check passwords: {reason}", checker=str(self), reason=reason
                )
            raise Unavailable(reason) from None
        return failure

    async def _ask(self, lines: Lines, name: str, password: bytes) -> AvatarId:
        """Ask the servers in turn, the one that answered last time first."""
        end = self._clock.seconds() + DEADLINE
        reasons = []
        servers = self._servers
        for position, server in enumerate(servers):
            # A silent server leaves as much to each one behind it.
            share = (end - self._clock.seconds()) / (len(servers) - position)
            way = self._search_and_bind if self.settings.user_dn is None else self._bind
            asking = Deferred.fromCoroutine(way(lines, server, name, password, share))
            try:
                avatar = await asking.addTimeout(share, self._clock)
            except DirectoryError as error:
                reasons.append(f"{server}: {error}")
            except TimeoutError:
                reasons.append(f"{server}: no answer in {share:.0f} s")
            except UnauthorizedLogin:
                self._prefer(server)
                raise
            else:
                self._prefer(server)
                return avatar
        raise DirectoryError("; ".join(reasons))

    def _prefer(self, server: Server) -> None:
        others = (each for each in self._servers if each != server)
        self._servers = (server, *others)

    async def _search_and_bind(
        self, lines: Lines, server: Server, name: str, password: bytes, seconds: float
    ) -> AvatarId:
        entry = await lines.shared(server, partial(self._find, name, seconds), seconds)
        # Who is unknown is tried all the same, so that it takes as long as a wrong password.
        tried = f"{_CN}=nobody,{self.settings.base}" if entry is None else entry.dn
        try:
            await lines.alone(server, lambda session: session.bind(tried, password, seconds))
        except Refused:
            entry = None
        if entry is None:
            raise UnauthorizedLogin("wrong user name or password")
        known = self._name_in(entry, name)
        if self.settings.group_filter is None:
            return AvatarId(known, self._listed_groups(entry))
        search = partial(self._search_groups, entry, known, seconds)
        return AvatarId(known, await lines.shared(server, search, seconds))

    async def _bind(
        self, lines: Lines, server: Server, name: str, password: bytes, seconds: float
    ) -> AvatarId:
        assert self.settings.user_dn is not None
        user_dn = filled(self.settings.user_dn, {"user": escape_dn_chars(name)})

        def bind_and_read(session: Session) -> AvatarId:
            session.bind(user_dn, password, seconds)
            own = session.search(user_dn, "base", "(objectClass=*)", self._wanted, seconds)
            if not own:
                raise DirectoryError(f"{user_dn} may not read its own entry")
            known = self._name_in(own[0], name)
            if self.settings.group_filter is None:
                return AvatarId(known, self._listed_groups(own[0]))
            return AvatarId(known, self._search_groups(own[0], known, seconds, session))

        try:
            return await lines.alone(server, bind_and_read)
        except Refused:
            raise UnauthorizedLogin("wrong user name or password") from None

    @property
    def _wanted(self) -> list[str]:
        if self.settings.group_filter is None:
            return [self.settings.name, self.settings.groups]
        return [self.settings.name]

    def _find(self, name: str, seconds: float, session: Session) -> Entry | None:
        """The user's entry; None when there is none, or no telling which."""
        settings = self.settings
        condition = f"(&{settings.filter}({settings.attribute}={escape_filter_chars(name)}))"
        found = session.search(
            settings.base, settings.scope, condition, self._wanted, seconds, limit=2
        )
        if len(found) > 1:
            self._log.warn("{user!r} fits more than one entry: refused", user=name)
        return found[0] if len(found) == 1 else None

    def _name_in(self, entry: Entry, said: str) -> str:
        """The user name as the entry has it; of several the one that was said.

        :raises DirectoryError: when there is no telling.
        """
        values = entry.attributes.get(self.settings.name.lower(), ())
        names = {_collapsed(value) for value in values if value.isprintable() and value.strip()}
        if len(names) > 1:
            names = {name for name in names if name.casefold() == _collapsed(said).casefold()}
        if len(names) != 1:
            raise DirectoryError(
                f"{entry.dn}: its attribute {self.settings.name} holds no one name"
            )
        return names.pop()

    def _listed_groups(self, entry: Entry) -> frozenset[str]:
        listed = entry.attributes.get(self.settings.groups.lower(), ())
        return frozenset().union(*map(self._names, listed))

    def _search_groups(
        self, entry: Entry, name: str, seconds: float, session: Session
    ) -> frozenset[str]:
        settings = self.settings
        assert settings.group_base is not None
        assert settings.group_filter is not None
        values = {"user": escape_filter_chars(name), "dn": escape_filter_chars(entry.dn)}
        condition = filled(settings.group_filter, values)
        found = session.search(settings.group_base, "sub", condition, [_CN], seconds)
        return frozenset().union(
            *(self._names(group.dn, group.attributes.get(_CN, ())) for group in found)
        )

    def _names(self, name: str, common_names: Iterable[str] | None = None) -> set[str]:
        """What rules may call a group: its DN, and its CN unless that could pass for a DN.

        Without common names the one in the DN counts.
        """
        try:
            spelled, own = dn.canonical(name), dn.parse(name)[0]
        except ValueError:
            return set()  # No rule can name it.
        if common_names is None:
            common_names = (value for kind, value in own if kind == _CN)
        if self._group_base is not None and not dn.is_below(spelled, self._group_base):
            return set()
        return {spelled, *(_collapsed(each) for each in common_names if "=" not in each)}


def _collapsed(value: str) -> str:
    return " ".join(value.split())


def _is_near(server: Server) -> bool:
    try:
        return server.host == "localhost" or ip_address(server.host).is_loopback
    except ValueError:
        return False
