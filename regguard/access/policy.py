"""Who may do what: the global WHO options, the rules per repository, the verdict on one access.

Words: a :class:`Grant` carries the target that may go upstream; a :class:`Denial` says to the
user, in one sentence, what is missing, and names the rule for the operator.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import Literal

from regguard import dn
from regguard.access.matching import NO_MATCH, Fits, Matcher, tag_patterns
from regguard.access.target import Access, Action

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
class Rule:
    """What the operator says of the repositories that fit one of some patterns.

    What is None or empty was not said: an action is then decided by the global WHO. ``immutable``
    are patterns of tags; ``said`` tells where (``FILE:LINE``) each word stands, by its name.
    """

    match: tuple[str, ...]
    pull: Who | None = None
    push: Who | None = None
    delete: Who | None = None
    immutable: tuple[str, ...] = ()
    hide: bool | None = None
    said: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Unchanged:
    """What has to hold at the registry before a write may go on: no immutable tag changes.

    ``tags`` are those that the request would set; each must be missing or stand for the same
    manifest already. Where ``deletes`` is a digest, no tag that ``is_immutable`` may stand for it.
    ``rule`` is where that was said. Unless the user ``may_pull``, what the tags stand for is not to
    be told.
    """

    rule: str
    is_immutable: Fits
    may_pull: bool
    tags: tuple[str, ...] = ()
    deletes: str | None = None


# Not frozen: to set three fields around that costs as much as to decide.
@dataclass(slots=True)
class Grant:
    """Leave to send this target, and no other, to the registry; ``rule`` gives it.

    Under the condition ``unchanged``, if there is one.
    """

    target: bytes
    rule: str = ""
    unchanged: Unchanged | None = None


@dataclass(frozen=True, slots=True)
class Denial:
    """``message`` tells the user what is missing; ``rule`` is the option that says so.

    ``hidden``: the user must not learn whether there is such a repository.
    """

    message: str
    rule: str
    hidden: bool = False


@dataclass(frozen=True, slots=True)
class Freeze:
    """Nobody may push or delete now, for this ``reason``; ``rule`` says so."""

    reason: str
    rule: str


@dataclass(frozen=True, slots=True)
class _Right:
    """Who may do a thing, and the rule that says so."""

    who: Who
    rule: str


@dataclass(frozen=True, slots=True)
class _Ruling:
    """All that holds for a repository: rule and global WHO put together."""

    rights: Mapping[Action, _Right]
    hide: bool
    is_immutable: Fits | None = None
    immutable_rule: str = ""


_VALID_USER = Who.parse("valid-user")
_PUSHERS = Who.parse("group:pusher")
# The actions on a repository, in the order in which a denial names them.
_ON_REPOSITORY: tuple[Action, ...] = ("pull", "push", "delete")

Visible = Literal["all", "some", "none"]


class Policy:
    """Decides on accesses by the four global WHO options (defaults: design, section 3) and rules.

    The first rule that fits a repository decides; what it leaves out, and a repository that none
    fits, is decided by the global words. ``hide`` is the global word for rules that have none;
    ``freeze`` says that nobody may write now; ``said`` tells for each global word where it stands.
    """

    __slots__ = (
        "_everywhere",
        "_matcher",
        "_rulings",
        "catalog",
        "delete",
        "freeze",
        "hides",
        "pull",
        "push",
    )

    def __init__(
        self,
        pull: Who = _VALID_USER,
        push: Who = _PUSHERS,
        delete: Who = _PUSHERS,
        catalog: Who = _VALID_USER,
        rules: Sequence[Rule] = (),
        *,
        hide: bool = False,
        freeze: Freeze | None = None,
        said: Mapping[str, str] | None = None,
    ) -> None:
        self.pull = pull
        self.push = push
        self.delete = delete
        self.catalog = catalog
        #: Why nobody may push or delete now; None while everybody may who else may.
        self.freeze = freeze
        said = said or {}
        whos: dict[Action, Who] = {
            "pull": pull,
            "push": push,
            "delete": delete,
            "catalog": catalog,
        }
        rights = {action: _right(said, action, who) for action, who in whos.items()}
        rights["login"] = _Right(_VALID_USER, "login = valid-user")
        self._everywhere = _Ruling(rights, hide)
        self._rulings = tuple(self._ruling(rule) for rule in rules)
        #: Whether there is any repository that answers to some as if it were missing.
        self.hides = any(ruling.hide for ruling in (self._everywhere, *self._rulings))
        self._matcher = Matcher(
            (number, pattern) for number, rule in enumerate(rules) for pattern in rule.match
        )

    def _ruling(self, rule: Rule) -> _Ruling:
        rights = dict(self._everywhere.rights)
        for action in _ON_REPOSITORY:
            who = getattr(rule, action)
            if who is not None:
                rights[action] = _right(rule.said, action, who)
        hide = self._everywhere.hide if rule.hide is None else rule.hide
        if not rule.immutable:
            return _Ruling(rights, hide)
        said = _rule(rule.said, "immutable", ", ".join(rule.immutable))
        return _Ruling(rights, hide, tag_patterns(rule.immutable), said)

    def _ruling_for(self, repository: str, name: str) -> _Ruling:
        if not self._rulings or not repository:
            return self._everywhere
        number = self._matcher.first(repository, name)
        return self._everywhere if number == NO_MATCH else self._rulings[number]

    def decide(self, name: str, groups: frozenset[str], access: Access) -> Grant | Denial:
        """The verdict on what a user wants to do.

        A mount needs pull on its source, too. Without that right it becomes a plain upload
        start: to refuse it would end the push in containerd (403) or in buildkit, oras and crane
        (401), whereas the specification lets a registry answer any mount with 202.
        """
        action = access.action
        ruling = self._ruling_for(access.repository, name)
        right = ruling.rights[action]
        writes = action in ("push", "delete")
        if writes and self.freeze is not None:
            return self._frozen(name, access, self.freeze)
        if not right.who.admits(name, groups):
            return self._denial(name, groups, access, ruling)
        target = access.target
        if access.mount_source is not None and not self.may_pull(name, groups, access.mount_source):
            assert access.target_without_mount is not None
            target = access.target_without_mount
        if writes and ruling.is_immutable is not None:
            return self._unchanged(name, groups, access, ruling, ruling.is_immutable, target)
        return Grant(target, right.rule)

    def frozen(self, freeze: Freeze) -> Policy:
        """The same, while nobody may push or delete."""
        policy = copy(self)
        policy.freeze = freeze
        return policy

    def may_pull(self, name: str, groups: frozenset[str], repository: str) -> bool:
        """Whether a user may pull from a repository, whether there is one or not."""
        return self._ruling_for(repository, name).rights["pull"].who.admits(name, groups)

    def visible(self, name: str, groups: frozenset[str]) -> Visible:
        """How much a user may pull of what may be there; ``some`` when only names can tell."""
        rulings = (self._everywhere, *self._rulings)
        pulls = {ruling.rights["pull"].who.admits(name, groups) for ruling in rulings}
        if len(pulls) > 1:
            return "some"
        return "all" if pulls == {True} else "none"

    def _frozen(self, name: str, access: Access, freeze: Freeze) -> Denial:
        message = (
            f"user {name} may not {access.action} {access.repository} now: "
            f"the registry is frozen: {freeze.reason}"
        )
        return Denial(message, freeze.rule)

    def _unchanged(
        self,
        name: str,
        groups: frozenset[str],
        access: Access,
        ruling: _Ruling,
        is_immutable: Fits,
        target: bytes,
    ) -> Grant | Denial:
        """The verdict on a write where some tags are immutable."""
        rule = ruling.immutable_rule
        right = ruling.rights[access.action].rule
        may_pull = ruling.rights["pull"].who.admits(name, groups)
        tags = tuple(tag for tag in access.tags if is_immutable(tag))
        if access.action == "push":
            if not tags:
                return Grant(target, right)
            return Grant(target, right, Unchanged(rule, is_immutable, may_pull, tags))
        if tags:
            return Denial(
                f"user {name} may not delete {access.repository}:{tags[0]}: the tag is immutable",
                rule,
            )
        if access.endpoint == "manifests" and ":" not in access.reference:
            # OCI end-9: the tag goes, and not what it stood for.
            return Grant(target, right)
        if access.endpoint == "blobs":
            # Nobody can tell cheaply which layers an immutable tag needs; the registry's own
            # garbage collection can.
            return Denial(
                f"user {name} may not delete a blob of {access.repository}: "
                "an immutable tag may need it",
                rule,
            )
        # Its tags go with a manifest.
        deletes = access.reference
        return Grant(target, right, Unchanged(rule, is_immutable, may_pull, deletes=deletes))

    def _denial(self, name: str, groups: frozenset[str], access: Access, ruling: _Ruling) -> Denial:
        right = ruling.rights[access.action]
        hidden = False
        if access.action == "catalog":
            wish = f"user {name} may not list the catalog: catalog"
        else:
            rights = [a for a in _ON_REPOSITORY if ruling.rights[a].who.admits(name, groups)]
            but = f"{' and '.join(rights)} but " if rights else ""
            wish = f"user {name} may {but}not {access.action} {access.repository}: {access.action}"
            hidden = ruling.hide and "pull" not in rights
        text = right.who.text
        need = "is open to nobody" if text == "nobody" else f"needs {text}"
        return Denial(f"{wish} {need}", right.rule, hidden)


def _right(said: Mapping[str, str], action: Action, who: Who) -> _Right:
    return _Right(who, _rule(said, action, who.text))


def _rule(said: Mapping[str, str], word: str, value: str) -> str:
    """A rule as operators find it: where it stands, if that is known, and what it says."""
    where = f"{said[word]}: " if word in said else ""
    return f"{where}{word} = {value}"
