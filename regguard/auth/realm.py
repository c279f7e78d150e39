"""The avatar, the realm, and the groups file.

A user's groups are looked up in the table of this moment, not remembered from the login: a
reloaded groups file counts from the next request on. Only those that a checker supplied are kept
with the credential.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import cast

from twisted.cred.portal import IRealm
from zope.interface import Interface, implementer

from regguard.auth.interfaces import AvatarId, IUser
from regguard.files import FileError, WatchedFile, counted, text_lines

_NO_GROUPS: frozenset[str] = frozenset()
_has_control = re.compile(r"[\x00-\x1f\x7f]").search


@implementer(IUser)
class User:
    """Somebody whose credential was verified.

    ``groups`` are those of the groups file and those that his checker supplied.
    """

    __slots__ = ("groups", "name", "supplied")

    def __init__(
        self, name: str, groups: frozenset[str], supplied: frozenset[str] = _NO_GROUPS
    ) -> None:
        self.name = name
        self.groups = groups | supplied
        self.supplied = supplied

    def __repr__(self) -> str:
        return f"<User {self.name!r}>"


class GroupTable:
    """A parsed groups file: ``members`` by group, ``groups`` by user."""

    __slots__ = ("groups", "members")

    def __init__(self, members: Mapping[str, frozenset[str]]) -> None:
        self.members = members
        groups: dict[str, set[str]] = {}
        for group, users in members.items():
            for user in users:
                groups.setdefault(user, set()).add(group)
        self.groups = {user: frozenset(names) for user, names in groups.items()}

    def __repr__(self) -> str:
        return f"{counted(len(self.members), 'group')} of {counted(len(self.groups), 'user')}"


def parse_groups(data: bytes, path: str) -> GroupTable:
    """Read Apache's AuthGroupFile format: ``group: user user``; a repeated group adds to itself.

    :raises FileError: with file, line and cure.
    """
    members: dict[str, frozenset[str]] = {}
    for number, line in text_lines(data, path):
        name, colon, rest = line.partition(":")
        name = name.strip()
        if not colon:
            raise FileError(f"{path}:{number}: no colon: write 'group: user user'")
        if not name or len(name.split()) > 1 or "," in name:
            raise FileError(f"{path}:{number}: write one group name, then a colon, then its users")
        if "," in rest or '"' in rest or ":" in rest:
            raise FileError(f"{path}:{number}: write user names with blanks between, nothing else")
        members[name] = members.get(name, _NO_GROUPS) | frozenset(rest.split())
    return GroupTable(members)


class Groups:
    """Who is in which group, by a groups file, or by none.

    :raises FileError: when the file is no good.
    """

    def __init__(self, path: str | None = None) -> None:
        #: For the watcher; None without a groups file.
        self.file = None if path is None else WatchedFile(path, parse_groups)
        self._none = GroupTable({})

    @property
    def table(self) -> GroupTable:
        """The table in force."""
        return self._none if self.file is None else self.file.content

    def of(self, name: str) -> frozenset[str]:
        """The groups that a user is in now; the same object while the file is the same."""
        return self.table.groups.get(name, _NO_GROUPS)


@implementer(IRealm)
class Realm:
    """Makes a :class:`User` of a name that a checker vouches for."""

    def __init__(self, groups: Groups) -> None:
        self.groups = groups

    def requestAvatar(
        self, avatarId: bytes | tuple[()], mind: object, *interfaces: type[Interface]
    ) -> tuple[type[Interface], User, Callable[[], None]]:
        """Give the avatar for a checked name.

        :raises ValueError: for a name that could not stand in a header or a log line. No log-in
            by a checker's mistake: the anonymous one is refused in the same way.
        """
        if IUser not in interfaces:
            raise NotImplementedError("this realm has avatars for IUser only")
        if not isinstance(avatarId, bytes) or not avatarId:
            raise ValueError("a checker gave no user name")
        name = avatarId.decode("utf-8")
        if _has_control(name):
            raise ValueError("a checker gave a user name with a control character")
        supplied = avatarId.groups if isinstance(avatarId, AvatarId) else _NO_GROUPS
        user = User(name, self.groups.of(name), supplied)
        return cast("type[Interface]", IUser), user, _nothing_to_end


def _nothing_to_end() -> None:
    """An avatar is a value; its user logs in with every request and never out."""
