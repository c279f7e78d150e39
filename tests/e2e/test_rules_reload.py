"""The rules of a running guard change with its configuration, and a file freezes the registry."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.clients import Answer, curl
from tests.e2e.programs import PATIENCE, Ground, Guard, Registry

# What the README promises.
REACTION_SECONDS = 1.0

RULES = """\
# Who may what
[[repository]]
match = "team/**"
push = "{who}"
"""
OPEN = RULES.format(who="valid-user")
SHUT = RULES.format(who="nobody")


@dataclass
class Ruled:
    """A guard with a configuration of its own."""

    guard: Guard
    config: Path

    def push(self) -> Answer:
        """The reader starts an upload."""
        return curl(
            *(self.guard, "/v2/team/app/blobs/uploads/", "--request", "POST", "--data", ""),
            credentials=self.guard.ground.as_reader,
        )

    def pull(self) -> Answer:
        return curl(self.guard, "/v2/", credentials=self.guard.ground.as_reader)

    def wait_for(self, status: int, change: Callable[[], object]) -> float:
        """Change something; how many seconds pushes took to be answered so."""
        began = time.monotonic()
        change()
        self.guard.program.wait_until(f"a push's {status}", lambda: self.push().status == status)
        return time.monotonic() - began

    def log(self) -> list[str]:
        return self.guard.program.output().splitlines()

    def faults(self) -> list[str]:
        return [line for line in self.log() if "stays in force" in line]


def denial(answer: Answer) -> tuple[str, str, str]:
    """Message, rule and incident of a 403."""
    assert answer.status == 403
    [error] = json.loads(answer.body)["errors"]
    assert error["code"] == "DENIED"
    message, incident = re.fullmatch(r"(.*) \(incident ([0-9a-f]{8})\)", error["message"]).groups()  # type: ignore[union-attr]
    assert error["detail"]["incident"] == incident
    return message, error["detail"]["rule"], incident


StartRuled = Callable[..., Ruled]


@pytest.fixture
def start(ground: Ground, registry: Registry, tmp_path: Path) -> Iterator[StartRuled]:
    """Start a guard with this path as its configuration."""
    started: list[Guard] = []

    def start(config: Path, *words: str) -> Ruled:
        words = ("--config", str(config), *words)
        started.append(Guard(ground, tmp_path / "guard", registry.url, *words))
        return Ruled(started[-1], config)

    yield start
    for guard in started:
        guard.stop()


@pytest.fixture
def ruled(start: StartRuled, tmp_path: Path) -> Ruled:
    """A guard whose configuration lets nobody push."""
    config = tmp_path / "regguard.toml"
    config.write_text(SHUT)
    return start(config)


def test_a_changed_rule_counts_within_a_second(ruled: Ruled) -> None:
    """Both ways, by the same process, with the new line in the denial and in both logs."""
    name, _ = ruled.guard.ground.reader
    message, rule, incident = denial(ruled.push())
    assert message == (f"user {name} may pull but not push team/app: push is open to nobody")
    assert rule == f"{ruled.config}:4: push = nobody"
    ruled.guard.wait_for_line(
        f" {incident} {name} [", '"POST /v2/team/app/blobs/uploads/ ', " 403 "
    )
    ruled.guard.wait_for_line(f"incident {incident}: {message}; by {rule}")

    assert ruled.wait_for(202, lambda: ruled.config.write_text(OPEN)) < REACTION_SECONDS
    assert ruled.wait_for(403, lambda: ruled.config.write_text("\n" + SHUT)) < REACTION_SECONDS
    assert denial(ruled.push())[1] == f"{ruled.config}:5: push = nobody"
    # An answer of the registry's is no incident.
    assert any(re.search(rf" - {name} \[.*\"POST .* 202 ", line) for line in ruled.log())


@pytest.mark.parametrize(
    ("broken", "line"),
    [
        (OPEN + "[[repository", "{file}: is no TOML: "),
        (
            OPEN + '[[repository]]\nmatch = "Team/*"\n',
            "{file}:6: match: 'Team/*': repository ",
        ),
        (OPEN[: len(OPEN) // 2], "{file}: "),
    ],
)
def test_a_broken_configuration_changes_nothing_and_logs_one_line(
    start: StartRuled, tmp_path: Path, broken: str, line: str
) -> None:
    """What counted before counts on, until a good version comes."""
    config = tmp_path / "regguard.toml"
    config.write_text(SHUT)
    ruled = start(config, "--freeze-file", str(tmp_path / "frozen"))
    ruled.config.write_text(broken)
    ruled.guard.wait_for_line(line.format(file=ruled.config), "stays in force")
    # The freeze file is looked at after the configuration: each line tells of one more look.
    marker = tmp_path / "frozen"
    for change, told in ((marker.touch, "frozen by "), (marker.unlink, "no longer frozen")):
        change()
        ruled.guard.wait_for_line(told)

    assert len(ruled.faults()) == 1
    assert ruled.push().status == 403
    assert ruled.wait_for(202, lambda: ruled.config.write_text(OPEN)) < REACTION_SECONDS
    assert len(ruled.faults()) == 1


def test_sighup_reads_the_configuration_anew(ruled: Ruled) -> None:
    """A good one is taken over, and a fault is told again."""
    os.kill(ruled.guard.program.pid, signal.SIGHUP)
    ruled.guard.wait_for_line(f"{ruled.config}: loaded anew, 1 [[repository]] table")

    ruled.config.write_text("push = 1")
    ruled.guard.wait_for_line(f"{ruled.config}:1: push: takes a string", "stays in force")
    os.kill(ruled.guard.program.pid, signal.SIGHUP)
    ruled.guard.program.wait_until("a second line", lambda: len(ruled.faults()) == 2)

    assert ruled.push().status == 403


def test_a_renamed_file_is_noticed(ruled: Ruled) -> None:
    """As editors and configuration management write."""

    def rename() -> None:
        new = ruled.config.with_suffix(".new")
        new.write_text(OPEN)
        new.rename(ruled.config)

    assert ruled.wait_for(202, rename) < REACTION_SECONDS


def test_a_swapped_symlink_is_noticed(start: StartRuled, tmp_path: Path) -> None:
    """As Kubernetes replaces a mounted ConfigMap."""
    mount = tmp_path / "mount"
    for version, text in (("..1", SHUT), ("..2", OPEN)):
        (mount / version).mkdir(parents=True)
        (mount / version / "regguard.toml").write_text(text)
    (mount / "..data").symlink_to("..1")
    (mount / "regguard.toml").symlink_to("..data/regguard.toml")
    ruled = start(mount / "regguard.toml")
    assert ruled.push().status == 403

    def swap() -> None:
        (mount / "..new").symlink_to("..2")
        (mount / "..new").rename(mount / "..data")

    assert ruled.wait_for(202, swap) < REACTION_SECONDS


def test_what_takes_a_restart_is_said_and_a_group_that_nobody_knows(ruled: Ruled) -> None:
    """The rest of the file counts all the same."""
    text = f'realm = "Other"\n{OPEN}pull = "group:ops"\n'

    assert ruled.wait_for(202, lambda: ruled.config.write_text(text)) < REACTION_SECONDS
    ruled.guard.wait_for_line(f"{ruled.config}: realm changed; that takes a restart")
    ruled.guard.wait_for_line(f"{ruled.config}:6: pull group:ops: no such group in ")
    [challenge] = curl(ruled.guard, "/v2/").headers("WWW-Authenticate")
    assert 'realm="Registry"' in challenge


def test_a_freeze_file_counts_within_a_second_both_ways(start: StartRuled, tmp_path: Path) -> None:
    """Pulls go on, a push is told the reason, and nothing has to be restarted."""
    config, marker = tmp_path / "regguard.toml", tmp_path / "frozen"
    config.write_text(f'freeze-file = "{marker}"\n{OPEN}')
    ruled = start(config)
    name, _ = ruled.guard.ground.reader
    pulls: list[int] = []
    stop = threading.Event()

    def pull() -> None:
        while not stop.is_set():
            pulls.append(ruled.pull().status)

    puller = threading.Thread(target=pull)
    puller.start()
    try:
        assert ruled.push().status == 202
        frozen = ruled.wait_for(403, lambda: marker.write_text("moving to\nthe new disk\n"))
        message, rule, _ = denial(ruled.push())
        thawed = ruled.wait_for(202, marker.unlink)
    finally:
        stop.set()
        puller.join(PATIENCE)

    assert message == (
        f"user {name} may not push team/app now: the registry is frozen: moving to the new disk"
    )
    assert rule == f"freeze-file {marker}"
    assert max(frozen, thawed) < REACTION_SECONDS
    assert set(pulls) == {200}
    ruled.guard.wait_for_line(f"frozen by freeze-file {marker}: nobody may push or delete: moving")
    ruled.guard.wait_for_line("no longer frozen")


def test_a_freeze_in_the_configuration_counts_within_a_second_both_ways(ruled: Ruled) -> None:
    """The same by a word."""
    name, _ = ruled.guard.ground.reader
    ruled.wait_for(202, lambda: ruled.config.write_text(OPEN))
    frozen = ruled.wait_for(403, lambda: ruled.config.write_text(f'freeze = "moving"\n{OPEN}'))
    message, rule, _ = denial(ruled.push())

    assert message == f"user {name} may not push team/app now: the registry is frozen: moving"
    assert rule == f"{ruled.config}:1: freeze"
    assert ruled.pull().status == 200
    thawed = ruled.wait_for(202, lambda: ruled.config.write_text(OPEN))
    assert max(frozen, thawed) < REACTION_SECONDS


def test_a_registry_may_start_frozen(start: StartRuled, tmp_path: Path) -> None:
    """By --freeze nothing but a restart ends it."""
    config = tmp_path / "regguard.toml"
    config.write_text(OPEN)
    ruled = start(config, "--freeze", "moving")

    assert denial(ruled.push())[1] == "command line: freeze"
    ruled.guard.wait_for_line("frozen: nobody may push or delete")
