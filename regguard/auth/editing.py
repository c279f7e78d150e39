"""A user's line in a password file: added, changed, taken out, all or nothing.

The running guard, another ``regguard passwd`` and a power cut may come at any moment, so a new
version is written beside the file, brought to the disk, and then takes the file's place in one
rename. It keeps mode, owner, comments, the order of lines, and lines that are no good (mending one
is what this may be called for).
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from regguard.auth.hashes import BCRYPT_BYTES, StoredHash
from regguard.auth.htpasswd import check_name
from regguard.files import FileError

# Of a new file: for its owner, and for the group that the guard runs in.
NEW_FILE_MODE: Final = 0o640
# NIST SP 800-63B takes no shorter one.
SHORT: Final = 8

# What HTTP Basic cannot carry (RFC 7617 section 2).
_has_control = re.compile(r"[\x00-\x1f\x7f]").search


def check_new_name(name: str) -> None:
    """See whether a user may be called so.

    :raises ValueError: with the reason.
    """
    check_name(name)
    if ":" in name:
        raise ValueError("a user name has no colon: HTTP Basic could not tell where it ends")
    if name.startswith("#"):
        raise ValueError("a user name does not begin with #: its line would be a comment")


def check_new_password(password: str) -> None:
    """See whether somebody could log in with this as a new password.

    :raises ValueError: with the reason.
    """
    if not password:
        raise ValueError("the password is empty")
    if _has_control(password):
        raise ValueError("the password has a control character, which HTTP Basic cannot carry")
    size = len(password.encode("utf-8"))
    if size > BCRYPT_BYTES:
        raise ValueError(f"the password has {size} bytes, and bcrypt reads only {BCRYPT_BYTES}")


def set_hash(path: str, name: str, stored: StoredHash) -> bool:
    """Give the user this hash; True when there was no such user before.

    A missing file is made. Of several lines of the same user the first stays.

    :raises FileError: when the file cannot be read or written; nothing is changed then.
    """
    line = f"{name}:{stored.text}".encode()
    new = True

    def edit(lines: list[bytes]) -> list[bytes]:
        nonlocal new
        edited: list[bytes] = []
        for each in lines:
            if not _is_of(each, name):
                edited.append(each)
            elif new:
                new = False
                edited.append(line + _line_end(each))
        if new:
            edited.append(line + (_line_end(lines[0]) if lines else b""))
        return edited

    _rewrite(path, edit, create=True)
    return new


def delete_user(path: str, name: str) -> bool:
    """Take the user's line out; False when there is none.

    :raises FileError: when the file cannot be read or written; nothing is changed then.
    """
    found = False

    def edit(lines: list[bytes]) -> list[bytes]:
        nonlocal found
        kept = [each for each in lines if not _is_of(each, name)]
        found = len(kept) < len(lines)
        # An empty file looks like half of a rewrite, and the guard would not take it over.
        return kept if kept or not found else [b"# no users"]

    _rewrite(path, edit, create=False)
    return found


def find_hash(path: str, name: str) -> str | None:
    """What stands behind the user's name; None when there is no such user.

    :raises FileError: when the file cannot be read.
    """
    with _errors_named(path):
        lines = _lines_of(_read(os.path.realpath(path)))
    for line in lines:
        if _is_of(line, name):
            return line.removesuffix(b"\r").partition(b":")[2].decode("utf-8", "replace")
    return None


def _is_of(line: bytes, name: str) -> bool:
    user, colon, _ = line.partition(b":")
    # A name that is no text comes from the command line in surrogates.
    return bool(colon) and user == name.encode("utf-8", "surrogateescape")


def _line_end(line: bytes) -> bytes:
    """The CR of a line whose LF was split off."""
    return b"\r" if line.endswith(b"\r") else b""


def _lines_of(data: bytes) -> list[bytes]:
    lines = data.split(b"\n")
    return lines if lines[-1] else lines[:-1]


def _rewrite(path: str, edit: Callable[[list[bytes]], list[bytes]], *, create: bool) -> None:
    with _errors_named(path):
        # What a symlink leads to is replaced, not the link.
        target = Path(os.path.realpath(path))
        with _locked(target.parent) as folder:
            try:
                data: bytes | None = _read(target)
            except FileNotFoundError:
                if not create:
                    raise
                data = None
            before = [] if data is None else _lines_of(data)
            after = edit(list(before))
            if after != before:
                _replace(target, b"".join(line + b"\n" for line in after), data is None)
                # The rename itself reaches the disk with the folder.
                os.fsync(folder)


def _read(path: str | Path) -> bytes:
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise FileError(f"{path}: not a regular file")
        return file.read()


def _replace(target: Path, data: bytes, is_new: bool) -> None:
    try:
        descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    except OSError as error:
        raise FileError(
            f"{target.parent}: no file can be made there ({error.strerror}); "
            "run this as a user who may"
        ) from None
    try:
        with os.fdopen(descriptor, "wb") as file:
            if is_new:
                os.fchmod(descriptor, NEW_FILE_MODE)
            else:
                _keep_access(target, descriptor, name)
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        _rename(name, target)
    except BaseException:
        with suppress(FileNotFoundError):
            Path(name).unlink()
        raise


def _rename(name: str, target: Path) -> None:
    try:
        Path(name).rename(target)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        raise FileError(
            f"{target}: is mounted by itself (as containers have it), so no other file can take "
            "its place; mount its folder instead"
        ) from None


def _keep_access(target: Path, descriptor: int, name: str) -> None:
    status = target.stat()
    if status.st_nlink > 1:
        # Whoever is deleted here would still get in by a guard that reads the other one.
        raise FileError(
            f"{target}: has {status.st_nlink} names (hard links), and the others would keep what "
            "stands there now; make them symlinks"
        )
    try:
        os.fchown(descriptor, status.st_uid, status.st_gid)
    except PermissionError:
        raise FileError(
            f"{target}: belongs to another user or group, and would not any more; run this as root"
        ) from None
    # Mode (after the owner, whose change clears bits of it), and what else access may hang on:
    # ACLs, the SELinux label.
    shutil.copystat(target, name)


@contextmanager
def _locked(folder: Path) -> Iterator[int]:
    """Nobody else edits here meanwhile; the folder is locked, since the file gets replaced."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        raise FileError(f"{folder}: no such folder; make it first") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _errors_named(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise FileError(f"{error.filename2 or error.filename or path}: {error.strerror}") from None
