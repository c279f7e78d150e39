"""regguard.auth.editing: one line is changed, and everything else stays as it was."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from passlib.hash import bcrypt

import regguard
from regguard.auth.editing import (
    check_new_name,
    check_new_password,
    delete_user,
    find_hash,
    set_hash,
)
from regguard.auth.hashes import StoredHash
from regguard.auth.htpasswd import parse_htpasswd
from regguard.files import FileError, WatchedFile

Write = Callable[..., str]

ONE = bcrypt.using(rounds=4).hash("one")
NEW = StoredHash.make(b"new", 4)
USER_AND_GROUP = 12345, 23456


def content(path: str) -> str:
    """The file with line ends as they are, and the new hash as a word."""
    return Path(path).read_bytes().decode("latin-1").replace(NEW.text, "NEW")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("a:x\nci:y\nb:z\n", "a:x\nci:NEW\nb:z\n"),
        ("# c\n\na:x\n", "# c\n\na:x\nci:NEW\n"),
        ("a:x", "a:x\nci:NEW\n"),
        ("ci:x", "ci:NEW\n"),
        ("", "ci:NEW\n"),
        ("a:x\r\nci:y\r\nb:z\r\n", "a:x\r\nci:NEW\r\nb:z\r\n"),
        ("a:x\r\n", "a:x\r\nci:NEW\r\n"),
        ("#ci:x\nci2:x\nCI:x\n", "#ci:x\nci2:x\nCI:x\nci:NEW\n"),
        ("ci:x\na:x\nci:y\n", "ci:NEW\na:x\n"),
        ("ci\nno colon\n\xff\x00:x\n", "ci\nno colon\n\xff\x00:x\nci:NEW\n"),
    ],
)
def test_a_line_is_set_where_it_stands_or_at_the_end(write: Write, before: str, after: str) -> None:
    """Comments, order, line ends and bad lines stay; a second line of the same user goes."""
    path = write(before.encode("latin-1"))
    is_new = set_hash(path, "ci", NEW)

    assert content(path) == after
    assert is_new is ("ci:" not in before.replace("#ci:", ""))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("a:x\nci:y\n# c\nb:z\n", "a:x\n# c\nb:z\n"),
        ("a:x\r\nci:y", "a:x\r\n"),
        ("ci:y\nci:z\na:x", "a:x\n"),
        ("# c\nci:y\n", "# c\n"),
    ],
)
def test_a_line_is_taken_out(write: Write, before: str, after: str) -> None:
    """Nothing else is."""
    path = write(before)

    assert delete_user(path, "ci")
    assert content(path) == after


def test_without_its_last_user_the_file_is_one_that_a_running_guard_takes(write: Write) -> None:
    """A file of no bytes would be refused as half of a rewrite, and the user would stay."""
    path = write(f"ci:{ONE}\n")

    assert delete_user(path, "ci")
    assert WatchedFile(path, parse_htpasswd).content.users == {}
    assert content(path) == "# no users\n"


@pytest.mark.parametrize("before", ["a:x", "", "#ci:x\r\n"])
def test_who_is_not_there_cannot_be_deleted(write: Write, before: str) -> None:
    """The file is not even written anew."""
    path = write(before)
    inode = Path(path).stat().st_ino

    assert not delete_user(path, "ci")
    assert (content(path), Path(path).stat().st_ino) == (before, inode)


def test_a_hash_is_found_as_it_stands(write: Write) -> None:
    """Of lines that are no good, too; None means that there is no such user."""
    path = write(b"# ci:c\nno colon\r\nci:x:y\r\nbob:\xff\n")

    assert find_hash(path, "ci") == "x:y"
    assert find_hash(path, "bob") == "\ufffd"
    assert find_hash(path, "eve") is None


def test_a_missing_file_is_made_with_mode_640(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the umask is: the guard's group reads it, and nobody else."""
    path = tmp_path / "htpasswd"
    for umask in (0, 0o077):
        path.unlink(missing_ok=True)
        before = os.umask(umask)
        try:
            assert set_hash(str(path), "ci", NEW)
        finally:
            os.umask(before)
        assert (content(str(path)), path.stat().st_mode & 0o7777) == ("ci:NEW\n", 0o640)

    with pytest.raises(FileError, match="No such file"):
        delete_user(str(tmp_path / "other"), "ci")


def test_mode_and_owner_stay(write: Write) -> None:
    """The guard can read the file afterwards if it could before."""
    path = write("a:x\n")
    Path(path).chmod(0o604)
    if os.geteuid() == 0:
        os.chown(path, *USER_AND_GROUP)
    before = Path(path).stat()
    set_hash(path, "ci", NEW)
    after = Path(path).stat()

    assert after.st_ino != before.st_ino
    assert after.st_mtime_ns > before.st_mtime_ns
    for stamp in ("st_mode", "st_uid", "st_gid"):
        assert getattr(after, stamp) == getattr(before, stamp)


def test_an_owner_that_cannot_stay_is_a_refusal(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rather than lock the guard out of a file that is somebody else's now."""

    def fchown(descriptor: int, user: int, group: int) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "fchown", fchown)
    path = write("a:x\n")
    with pytest.raises(FileError, match="belongs to another user or group, and would not any more"):
        set_hash(path, "ci", NEW)

    assert content(path) == "a:x\n"
    assert [each.name for each in Path(path).parent.iterdir()] == ["file"]


def test_a_symlink_stays_one(write: Write, tmp_path: Path) -> None:
    """What it leads to is replaced, in its own folder."""
    real = tmp_path / "real"
    real.mkdir()
    path = write("a:x\n", "real/htpasswd")
    link = tmp_path / "htpasswd"
    link.symlink_to("real/htpasswd")
    set_hash(str(link), "ci", NEW)

    assert link.readlink() == Path("real/htpasswd")
    assert content(path) == "a:x\nci:NEW\n"
    assert [each.name for each in real.iterdir()] == ["htpasswd"]


def test_a_file_of_two_names_is_refused(write: Write, tmp_path: Path) -> None:
    """The other name, which may be the guard's, would keep what stands there now."""
    path = write("a:x\nci:x\n")
    (tmp_path / "other").hardlink_to(path)
    with pytest.raises(FileError, match=r"has 2 names \(hard links\)"):
        delete_user(path, "ci")

    assert content(path) == "a:x\nci:x\n"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["file", "other"]


def test_a_file_that_is_a_mount_is_refused_with_the_cure(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Containers have single files mounted, and nothing can take such a file's place."""

    def rename(self: Path, target: Path) -> Path:
        raise OSError(errno.EBUSY, "Device or resource busy")

    monkeypatch.setattr(Path, "rename", rename)
    path = write("a:x\n")
    with pytest.raises(FileError, match=f"{path}: is mounted by itself .* mount its folder"):
        set_hash(path, "ci", NEW)

    assert content(path) == "a:x\n"
    assert [each.name for each in Path(path).parent.iterdir()] == ["file"]


def test_a_line_whose_name_is_no_text_can_be_taken_out(write: Write) -> None:
    """By the same octets, as the command line passes them."""
    path = write(b"a:x\n\xff:y\n")

    assert find_hash(path, os.fsdecode(b"\xff")) == "y"
    assert delete_user(path, os.fsdecode(b"\xff"))
    assert content(path) == "a:x\n"


def test_a_fault_while_writing_changes_nothing(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk, say: the file is as before, and no other one lies about."""

    def fsync(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    path = write("a:x\n")
    with pytest.raises(FileError, match=f"{path}: No space left"):
        set_hash(path, "ci", NEW)

    assert content(path) == "a:x\n"
    assert [each.name for each in Path(path).parent.iterdir()] == ["file"]


def test_all_is_on_the_disk_before_it_counts(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """The content before the rename, the rename before success is told."""
    acts: list[str] = []
    real_fsync, real_rename = os.fsync, Path.rename

    def fsync(descriptor: int) -> None:
        acts.append("folder" if Path(f"/proc/self/fd/{descriptor}").is_dir() else "file")
        real_fsync(descriptor)

    def rename(self: Path, target: Path) -> Path:
        acts.append("rename")
        return real_rename(self, target)

    path = write("a:x\n")
    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "rename", rename)
    set_hash(path, "ci", NEW)

    assert acts == ["file", "rename", "folder"]


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (Path.mkdir, "Is a directory"),
        (os.mkfifo, "not a regular file"),
        (lambda path: path.symlink_to(path), "symbolic links"),
        (lambda path: path.symlink_to("nowhere/file"), "no such folder; make it first"),
    ],
)
def test_what_is_no_file_is_refused(
    tmp_path: Path, make: Callable[[Path], object], reason: str
) -> None:
    """A folder, a FIFO and links to nowhere stay what they are."""
    path = tmp_path / "htpasswd"
    make(path)
    mode = path.lstat().st_mode
    with pytest.raises(FileError, match=reason):
        set_hash(str(path), "ci", NEW)

    assert path.lstat().st_mode == mode


def test_two_at_once_wait_for_each_other(write: Write, tmp_path: Path) -> None:
    """The second one reads what the first one wrote."""
    path = write("a:x\n")
    folder = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    second = threading.Thread(target=set_hash, args=(path, "ci", NEW))
    second.start()
    Path(path).write_text("a:x\nb:y\n")
    os.close(folder)
    second.join()

    assert content(path) == "a:x\nb:y\nci:NEW\n"


def test_many_at_once_lose_nobody(write: Write) -> None:
    """Processes that add users at the same time each find theirs in the file at the end."""
    path = write("a:x\n")
    add = (
        "import sys; from regguard.auth.editing import set_hash\n"
        "from regguard.auth.hashes import StoredHash\n"
        f"for number in range(10): set_hash({path!r}, f'{{sys.argv[1]}}{{number}}', "
        f"StoredHash.parse({ONE!r}))"
    )
    running = [
        subprocess.Popen([sys.executable, "-c", add, name], cwd=Path(regguard.__path__[0]).parent)
        for name in ("one", "two", "three")
    ]

    assert [each.wait() for each in running] == [0, 0, 0]
    assert len(Path(path).read_text().splitlines()) == 31


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "no user name"),
        ("a:b", "no colon"),
        ("#a", "comment"),
        (" a", "blanks"),
        ("a\n", "blanks"),
        ("a\nb:x", "cannot be printed"),
        ("a\0b", "cannot be printed"),
        ("a\udcff", "cannot be printed"),
    ],
)
def test_names_that_no_line_can_hold_are_refused(name: str, reason: str) -> None:
    """A name never becomes two lines, a comment, or a shorter name."""
    with pytest.raises(ValueError, match=reason):
        check_new_name(name)


def test_names_that_a_line_can_hold_are_taken() -> None:
    """They come back as they went in."""
    for name in ("ci", "a b", "jürgen", "a#b", "robot$ci", "x@example.com", "-x"):
        check_new_name(name)
        assert list(parse_htpasswd(f"{name}:{ONE}".encode(), "f").users) == [name.encode()]


@pytest.mark.parametrize(
    ("password", "reason"),
    [("", "empty"), ("a\tb", "control character"), ("a\0", "control character"),
     ("x" * 73, "has 73 bytes, and bcrypt reads only 72"), ("é" * 37, "has 74 bytes")],
)  # fmt: skip
def test_e06_e07_passwords_that_could_not_log_in_are_refused(password: str, reason: str) -> None:
    """What HTTP Basic or bcrypt cannot carry is told now, not at the first log-in."""
    with pytest.raises(ValueError, match=reason) as caught:
        check_new_password(password)

    assert not password or password not in str(caught.value)


def test_e06_a_password_of_72_bytes_is_taken() -> None:
    """And logs in."""
    for password in ("x" * 72, "é" * 36, " a:b "):
        check_new_password(password)
        assert StoredHash.make(password.encode(), 4).matches(password.encode())
