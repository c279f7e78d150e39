"""``regguard check``: what ``twist regguard`` would find with the same words.

With ``--passwords`` also who has what kind of hash, and how users and groups fit together. With
``--expect`` instead whether the rules say what a table of requests expects of them.
"""

from __future__ import annotations

import shlex
import stat
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from twisted.python import usage

from regguard import service
from regguard.auth.htpasswd import HtpasswdChecker
from regguard.explain import Judge
from regguard.files import FileError, text_lines
from regguard.parts import Parts


class Options(service.Options):
    """The words of ``twist regguard``, with ``--check`` said."""

    synopsis = "Usage: regguard check [options]"
    longdesc = (
        "Reads every file that the options name, as 'twist regguard' does with the same options, "
        "and starts nothing. Prints what was found, and ends with status 0; with warnings, too. "
        "When something is wrong, it ends with status 1 and a line that says what to mend."
    )
    optFlags: tuple[list[str | None], ...] = (
        ["passwords", None, "Report on password files: weak hashes, and users without groups."],
    )
    optParameters: tuple[list[str | None], ...] = (
        [
            "expect",
            None,
            None,
            "Only try the rules, on a file of lines `USER METHOD PATH allow|deny`.",
        ],
    )

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """Check, print, and end the program."""
        super().parseOptions(["--check", *(options or ())])

    def lists(self, name: str) -> bool:
        """All but what is said anyway."""
        return name != "check"

    def serves(self) -> bool:
        """Rules can be tried where there are no certificates."""
        return self["expect"] is None

    def look(self) -> None:
        """Look at everything, or only try the rules."""
        if self["expect"] is None:
            super().look()
        elif self["passwords"]:
            raise usage.UsageError("--passwords: --expect only tries the rules; say one of them")
        else:
            self._expected = try_expectations(Judge(self.settings), self["expect"])

    def report(self) -> list[str]:
        """What ``--check`` says, and what ``--passwords`` adds."""
        if self["expect"] is not None:
            return [f"{self['expect']}: all {self._expected} lines are as expected"]
        return [*super().report(), *(password_report(self.parts) if self["passwords"] else ())]


def try_expectations(judge: Judge, path: str) -> int:
    """Print what is not as the table expects it; return the number of its lines.

    :raises usage.UsageError: when a line is not as expected, or is none.
    """
    try:
        lines = text_lines(Path(path).read_bytes(), path)
    except OSError as error:
        raise usage.UsageError(f"--expect {path}: cannot be read ({error.strerror})") from None
    except FileError as error:
        raise usage.UsageError(f"--expect {error}") from None
    tried = wrong = 0
    for number, line in lines:
        try:
            *request, expected = _words(line)
            verdict = judge.verdict(*request)
        except ValueError as error:
            raise usage.UsageError(f"{path}:{number}: {error}") from None
        tried += 1
        if verdict.allowed != (expected == "allow"):
            wrong += 1
            sys.stdout.write(f"{path}:{number}: not {expected}: {line.strip()}\n")
            sys.stdout.write("".join(f"  {each}\n" for each in verdict.lines))
    if not tried:
        raise usage.UsageError(f"--expect {path}: no lines; write {_LINE}")
    if wrong:
        raise usage.UsageError(f"{wrong} of {tried} lines of {path} are not as expected")
    return tried


_LINE = "USER METHOD PATH allow, or deny at the end"


def _words(line: str) -> list[str]:
    words = shlex.split(line, comments=True)
    if len(words) != 4 or words[3] not in ("allow", "deny"):
        raise ValueError(f"write {_LINE}")
    return words


def password_report(parts: Parts) -> list[str]:
    """Who has what kind of hash, who is in no group, and which groups name nobody."""
    files = [each for each in parts.checkers if isinstance(each, HtpasswdChecker)]
    lines: list[str] = []
    seen: dict[bytes, str] = {}
    for checker in files:
        path, users = checker.file.path, checker.file.content.users
        lines += [f"passwords in {path}", *_kinds(checker)]
        lines += _open_to_anybody(path, stat.S_IROTH | stat.S_IWOTH, "o=")
        lines += [
            f"  {name.decode()} stands in {seen[name]}, too, and both passwords are right"
            for name in sorted(users.keys() & seen.keys())
        ]
        seen = dict.fromkeys(users, path) | seen
    if not files:
        return ["no password files"]
    names = {name.decode() for name in seen}
    table = parts.groups.table
    lines += ["groups", f"  in no group: {_list(names - table.groups.keys())}"]
    if parts.groups.file is not None:
        lines += _open_to_anybody(parts.groups.file.path, stat.S_IWOTH, "o-w")
    if len(files) == len(parts.checkers):
        for group, members in sorted(table.members.items()):
            if unknown := members - names:
                lines.append(f"  {group} names users without a password: {_list(unknown)}")
    return lines


def _open_to_anybody(path: str, forbidden: int, cure: str) -> Iterator[str]:
    """A line when the file's mode has a forbidden bit."""
    mode = stat.S_IMODE(Path(path).stat().st_mode)
    acts = (("read", stat.S_IROTH), ("write", stat.S_IWOTH))
    if may := " and ".join(act for act, bit in acts if mode & forbidden & bit):
        yield f"  anybody on this machine may {may} it (mode {mode:o}): chmod {cure} {path}"


def _kinds(checker: HtpasswdChecker) -> Iterator[str]:
    """A line for each scheme and cost; with names where it is weak."""
    kinds: dict[tuple[bool, str], list[str]] = {}
    for name, stored in checker.file.content.users.items():
        kinds.setdefault((stored.weak, stored.kind), []).append(name.decode())
    if not kinds:
        yield "  no users"
    for (weak, kind), names in sorted(kinds.items()):
        yield f"  {kind}{' (weak)' if weak else ''}: {_list(names) if weak else len(names)}"


def _list(names: Sequence[str] | set[str] | frozenset[str]) -> str:
    return ", ".join(sorted(names)) or "nobody"
