"""``regguard explain``: what the guard would say to a request, and by which rule.

Nothing is started and nobody is asked: the groups are those of the groups file, and those that
are named with the user, since a directory's can't be known here.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from twisted.python import usage

from regguard import options, parts, service
from regguard.access import Access, Denial, Grant, Policy, Refusal, Who, parse_access
from regguard.auth.realm import Groups
from regguard.files import MarkerFile

_CALL = 'regguard explain --config FILE USER METHOD PATH, such as "alice PUT /v2/app/manifests/v1"'

_GROUP = re.compile(r'(?:"[^"]*"|[^,])+')
# What does not matter to a verdict is taken, for the daemon's words can be given as they are.
_LISTED = (
    *("config", "groups", "pull", "push", "delete", "catalog", "hide", "freeze", "freeze-file"),
    *("help", "version"),
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a request would be let through, and what there is to say about it."""

    allowed: bool
    lines: tuple[str, ...]


class Judge:
    """Knows the rules and groups that settings name; raises usage.UsageError where it can't."""

    def __init__(self, settings: options.Settings) -> None:
        marker = None if settings.freeze_file is None else MarkerFile(str(settings.freeze_file))
        self._policy: Policy = parts.policy_of(settings, marker)
        self._groups: Groups = parts.load_groups(settings)

    def verdict(self, user: str, method: str, path: str) -> Verdict:
        """What would be said to a user, spelled ``NAME`` or ``NAME:GROUP,GROUP``.

        :raises ValueError: with the cure, for groups that are spelled wrong.
        """
        allowed, lines = self._verdict(user, method, path)
        return Verdict(allowed, tuple(map(_shown, lines)))

    def _verdict(self, user: str, method: str, path: str) -> tuple[bool, list[str]]:
        name, _, more = user.partition(":")
        if not name:
            raise ValueError(f"{user!r} has no name: write NAME or NAME:GROUP,GROUP")
        groups = self._groups.of(name)
        if more:
            groups |= Who.parse(_GROUP.sub(r"group:\g<0>", more)).groups
        who = f"{name}, in " + (f"the groups {', '.join(sorted(groups))}" if groups else "no group")
        if path == "/" and method in ("GET", "HEAD"):
            return True, [
                f"{method} {path}",
                "allowed, whoever asks: a line that says what is here",
            ]
        try:
            access = parse_access(
                method.encode("utf-8", "surrogateescape"), path.encode("utf-8", "surrogateescape")
            )
        except Refusal as refusal:
            why = f"refused, whoever asks: {refusal.status} {refusal.code}: {refusal.message}"
            return False, [f"{method} {path}", why]
        decided = self._policy.decide(name, groups, access)
        lines = [who, f"{method} {path}: {_described(access)}"]
        if isinstance(decided, Denial):
            lines += [f"denied: {decided.message}", f"  by {decided.rule}"]
            if decided.hidden:
                lines.append("  and answered like a missing repository: hide = true")
            return False, lines
        return True, [*lines, *_conditions(access, decided)]


def _shown(line: str) -> str:
    """A line that no terminal and no encoding minds, whatever stands in a request."""
    return line if line.isprintable() else ascii(line)[1:-1]


def _described(access: Access) -> str:
    if not access.repository:
        return access.action
    what = f"{access.action} {access.repository}"
    if access.mount_source is not None:
        what += f", with a layer mounted from {access.mount_source}"
    return what


def _conditions(access: Access, grant: Grant) -> list[str]:
    lines = [f"allowed by {grant.rule}"]
    if access.mount_source is not None and grant.target != access.target:
        lines.append(
            f"  without the mount: no right to pull {access.mount_source}; "
            "the client uploads the layer instead"
        )
    unchanged = grant.unchanged
    if unchanged is not None:
        if unchanged.deletes is not None:
            lines.append("  unless an immutable tag stands for it")
        else:
            lines += [
                f"  unless there is a tag {tag} already that stands for another manifest"
                for tag in unchanged.tags
            ]
        lines.append(f"  by {unchanged.rule}")
    return lines


class Options(options.Options):
    """The words of ``twist regguard``, with a request behind them."""

    synopsis = "Usage: regguard explain [options] USER METHOD PATH"
    longdesc = (
        "Says what the guard would answer to this request, and by which rule of which line. "
        "Takes all options of 'twist regguard'; only these count. A directory's groups can be "
        "named behind the user: alice:devs,admins. Ends with status 0 when the request is "
        "allowed, and 1 when it is not."
    )

    def __init__(self) -> None:
        super().__init__()
        self.request: tuple[str, ...] = ()

    def serves(self) -> bool:
        """No daemon starts."""
        return False

    def lists(self, name: str) -> bool:
        """Only what matters to a verdict."""
        return name in _LISTED

    def parseArgs(self, *words: str) -> None:
        """Take the request."""
        if len(words) != 3:
            raise usage.UsageError(f"write {_CALL}")
        self.request = words


def run(words: Sequence[str]) -> int:
    """Print the verdict; return the exit status."""
    given = Options()
    try:
        given.parseOptions(words)
        user, method, path = given.request
        verdict = Judge(given.settings).verdict(user, method, path)
    except (usage.UsageError, ValueError) as error:
        sys.stderr.write(f"regguard: {error}\n")
        return service.USAGE_STATUS
    sys.stdout.write("".join(f"{line}\n" for line in verdict.lines))
    return 0 if verdict.allowed else 1
