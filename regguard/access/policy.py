"""Who may do what: the global WHO options, and the verdict on one access.

Words: a :class:`Grant` carries the target that may go upstream; a :class:`Denial` says to the
user, in one sentence, what is missing, and names the rule for the operator.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from regguard import dn
from regguard.access.target import Access

# A comma within quotes belongs to a name: the quotes behind any other one come in pairs.
_comma = re.compile(r',(?=(?:[^"]*"[^"]*")*[^"]*\Z)')


@dataclass(frozen=True, slots=True)
class Who:
    """A set of users: named ones, members of groups, or everybody with a password.

    A name with a comma stands in double quotes. A group that is quoted and has an equals sign is
    the distinguished name (RFC 4514) of a directory's group; it stands in ``groups`` in the
    spelling of :func:`regguard.dn.canonical`.

    ``text`` is the canonical spelling, as it stands in denials; ``users`` and ``groups`` are the
    names mentioned, so that a service can warn of those that nobody knows.
    """

    text: str
    users: frozenset[str] = field(default_factory=frozenset)
    groups: frozenset[str] = field(default_factory=frozenset)
    everyone: bool = False

    @classmethod
    def parse(cls, text: str) -> Who:
        """Read a comma list of ``valid-user``, ``user:NAME``, ``group:NAME``, or ``nobody``.

        :raises ValueError: with one line that says the cure.
        """
        words: dict[str, None] = {}  # in the order given, each once
        users = set()
        groups = set()
        if text.count('"') % 2:
            raise ValueError(f'{text} holds a quote that is not closed: add "')
        for word in _comma.split(text):
            kind, colon, spelled = (part.strip() for part in word.partition(":"))
            name = _unquoted(spelled)
            if kind == "user" and name:
                users.add(name)
            elif kind == "group" and name:
                groups.add(_group(name) if spelled != name else name)
            elif colon or kind not in ("valid-user", "nobody"):
                raise ValueError(_cure(word.strip(), named=bool(colon)))
            words[kind + colon + spelled] = None
        if "nobody" in words and len(words) > 1:
            raise ValueError("nobody stands alone: drop it, or drop the others")
        everyone = "valid-user" in words
        return cls(", ".join(words), frozenset(users), frozenset(groups), everyone)

    def admits(self, name: str, groups: frozenset[str]) -> bool:
        """Whether the user of this name, in these groups, belongs to the set."""
        return self.everyone or name in self.users or not self.groups.isdisjoint(groups)


def _unquoted(name: str) -> str:
    if '"' not in name:
        return name
    inner = name[1:-1]
    if name[0] != '"' or name[-1] != '"' or '"' in inner:
        raise ValueError(f"{name}: write quotes around the whole name, or none")
    return inner.strip()


def _group(quoted: str) -> str:
    if "=" not in quoted:
        return quoted
    try:
        return dn.canonical(quoted)
    except ValueError as error:
        raise ValueError(f'group:"{quoted}": {error}') from None


def _cure(word: str, *, named: bool) -> str:
    if re.match(r"[A-Za-z]+ *=", word):
        return f'{word!r} looks like part of a DN: write all of it in quotes: group:"cn=...,{word}"'
    if not word:
        return "nothing between two commas: write valid-user, user:NAME, group:NAME or nobody"
    if named:
        return f"{word!r} is not understood: write user:NAME or group:NAME with a name"
    return f"{word!r} is not understood: write user:{word} or group:{word}, valid-user or nobody"


@dataclass(frozen=True, slots=True)
class Grant:
    """Leave to send this target, and no other, to the registry."""

    target: bytes


@dataclass(frozen=True, slots=True)
class Denial:
    """``message`` tells the user what is missing; ``rule`` is the option that says so."""

    message: str
    rule: str


_VALID_USER = Who.parse("valid-user")
_PUSHERS = Who.parse("group:pusher")
# The actions on a repository, in the order in which a denial names them.
_ON_REPOSITORY = ("pull", "push", "delete")


class Policy:
    """Decides on accesses by the four global WHO options (defaults: design, section 3)."""

    __slots__ = ("_who", "catalog", "delete", "pull", "push")

    def __init__(
        self,
        pull: Who = _VALID_USER,
        push: Who = _PUSHERS,
        delete: Who = _PUSHERS,
        catalog: Who = _VALID_USER,
    ) -> None:
        self.pull = pull
        self.push = push
        self.delete = delete
        self.catalog = catalog
        self._who: Mapping[str, Who] = {
            "login": _VALID_USER,
            "pull": pull,
            "push": push,
            "delete": delete,
            "catalog": catalog,
        }

    def decide(self, name: str, groups: frozenset[str], access: Access) -> Grant | Denial:
        """The verdict on what a user wants to do.

        A mount needs pull on its source, too. Without that right it becomes a plain upload
        start: to refuse it would end the push in containerd (403) or in buildkit, oras and crane
        (401), whereas the specification lets a registry answer any mount with 202.
        """
        if not self._who[access.action].admits(name, groups):
            return self._denial(name, groups, access)
        if access.mount_source is None or self.pull.admits(name, groups):
            return Grant(access.target)
        assert access.target_without_mount is not None
        return Grant(access.target_without_mount)

    def _denial(self, name: str, groups: frozenset[str], access: Access) -> Denial:
        who = self._who[access.action]
        if access.action == "catalog":
            wish = f"user {name} may not list the catalog: catalog"
        else:
            rights = [a for a in _ON_REPOSITORY if self._who[a].admits(name, groups)]
            but = f"{' and '.join(rights)} but " if rights else ""
            wish = f"user {name} may {but}not {access.action} {access.repository}: {access.action}"
        need = "is open to nobody" if who.text == "nobody" else f"needs {who.text}"
        return Denial(f"{wish} {need}", f"{access.action} = {who.text}")
