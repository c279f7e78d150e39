"""``regguard passwd``: a user's line in a password file.

Passwords come from the terminal or from standard input, never from the command line, which every
user of the machine can read.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable
from getpass import GetPassWarning, getpass
from pathlib import Path

from regguard.auth.editing import (
    NEW_FILE_MODE,
    SHORT,
    check_new_name,
    check_new_password,
    delete_user,
    find_hash,
    set_hash,
)
from regguard.auth.hashes import StoredHash
from regguard.auth.htpasswd import parse_htpasswd
from regguard.files import FileError

# More than any password; what comes on standard input may be anything.
_LINE_LIMIT = 8192


class _Refused(Exception):
    """What was asked for is not done; the message says why."""


def set_password(path: str, name: str, *, cost: int, stdin: bool) -> int:
    """Ask for a new password and write its hash; return the exit status."""

    def act() -> None:
        check_new_name(name)
        password = _read_line() if stdin else _ask_twice(name)
        check_new_password(password)
        stored = StoredHash.make(password.encode("utf-8"), cost)
        # Unlike Path.exists, this leaves errors to who opens it.
        made = not os.path.exists(path)  # noqa: PTH110
        added = set_hash(path, name, stored)
        if len(password) < SHORT:
            _warn(f"a password of less than {SHORT} characters is soon guessed")
        done = "added" if added else "has a new password"
        _say(f"{path}: {f'made, mode {NEW_FILE_MODE:o}; ' if made else ''}user {name} {done}")
        _warn_of_bad_lines(path)

    return _reporting(act)


def delete(path: str, name: str) -> int:
    """Take the user out of the file; return the exit status."""

    def act() -> None:
        if not delete_user(path, name):
            raise _Refused(f"{path}: there is no user {name}")
        _say(f"{path}: user {name} deleted")
        _warn_of_bad_lines(path)

    return _reporting(act)


def verify(path: str, name: str, *, stdin: bool) -> int:
    """Ask for the user's password and compare; return the exit status."""

    def act() -> None:
        text = find_hash(path, name)
        if text is None:
            raise _Refused(f"{path}: there is no user {name}")
        try:
            stored = StoredHash.parse(text)
        except ValueError as error:
            raise _Refused(f"{path}: user {name}: {error}") from None
        password = _read_line() if stdin else _ask(f"Password of {name}: ")
        # An empty one is refused by the guard, whatever it is the hash of.
        if not password or not stored.matches(password.encode("utf-8")):
            raise _Refused(f"{path}: this is not the password of user {name}")
        _say(f"{path}: this is the password of user {name} ({stored.kind})")

    return _reporting(act)


def _reporting(act: Callable[[], None]) -> int:
    try:
        act()
    except (_Refused, ValueError, OSError) as error:
        print(f"regguard passwd: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        # As a shell has it: 128 and the signal's number.
        print(file=sys.stderr)
        return 130
    return 0


def _say(what: str) -> None:
    """Print what was done; characters that cannot be shown are escaped, as in errors."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    print(what.encode(encoding, "backslashreplace").decode(encoding))


def _warn(warning: str) -> None:
    print(f"regguard passwd: warning: {warning}", file=sys.stderr)


def _warn_of_bad_lines(path: str) -> None:
    """The guard takes a file as a whole or not at all."""
    try:
        parse_htpasswd(Path(path).read_bytes(), path)
    except FileError as error:
        _warn(f"regguard will not take this file: {error}")


def _read_line() -> str:
    # There is no object when it was closed by who started this.
    line = sys.stdin.buffer.readline(_LINE_LIMIT) if sys.stdin else b""
    if not line:
        raise _Refused("no password came on standard input")
    try:
        return line.removesuffix(b"\n").removesuffix(b"\r").decode("utf-8")
    except UnicodeDecodeError:
        # The exception would carry the password.
        raise _Refused("the password is not in UTF-8") from None


def _ask_twice(name: str) -> str:
    password = _ask(f"New password of {name}: ")
    check_new_password(password)
    if _ask("Once more: ") != password:
        raise _Refused("these were two passwords; nothing is changed")
    return password


def _ask(prompt: str) -> str:
    try:
        with warnings.catch_warnings():
            # Without a terminal getpass would go on and show what is typed.
            warnings.simplefilter("error", GetPassWarning)
            password = getpass(prompt)
            password.encode("utf-8")
            return password
    except GetPassWarning:
        raise _Refused("there is no terminal to ask on; use --stdin") from None
    except EOFError:
        raise _Refused("no password; nothing is changed") from None
    except UnicodeError:
        # As in _read_line; a terminal on standard input alone gives surrogates.
        raise _Refused("the password is not in the terminal's encoding") from None
