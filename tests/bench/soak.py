"""``python -m tests.bench.soak --minutes N``: a random mix of all that may happen, and what stays.

A guard with TLS before the real registry, and people around them: some push and pull whole blobs,
some guess passwords, some send nonsense, some go in the middle, some are slow, some stay and say
nothing; half of the latter come over bad lines, and there is one between guard and registry for a
time, too. Meanwhile the registry is restarted or killed, files are rewritten, well and badly, and
SIGHUP comes. ``--seed`` chooses what happens; when it does is the machine's choice.

Printed are the daemon's memory and file descriptors by the minute, the slope of its memory after
the first fifth of the time, what was done how often, and what should not have happened. The exit
status is 1 where something was: a traceback, a blob that was not what it should be, a good
request that failed although the registry was there, or a file descriptor that nobody uses.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import re
import shutil
import signal
import socket
import ssl
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from regguard.demo.image import digest
from tests.canary import secret
from tests.e2e.conftest import make_ground
from tests.e2e.faults import Cut, FaultProxy, Faults, Way
from tests.e2e.programs import FAULTS, Guard, Registry
from tests.e2e.wire import Broken, Client, Hung, Message, reset
from tests.malformed import MALFORMED

PEOPLE = 6
# Of these a push chooses: the registry's disk is to stay small.
BLOBS = 100
# Seconds in which a registry that was away has its connections back.
RECOVERY = 3.0
# Kept connections of both sides are closed by then: 60 s for clients, 30 s for the registry.
CALM = 95.0


class Sample(NamedTuple):
    """What the daemon has, at ``when`` seconds: PSS in kB, descriptors, threads."""

    when: float
    memory: int
    files: int
    threads: int


def sample(pid: int, began: float) -> Sample:
    """Now."""
    process = Path("/proc") / str(pid)
    found = re.search(r"Pss:\s+(\d+) kB", (process / "smaps_rollup").read_text())
    assert found is not None
    return Sample(
        time.monotonic() - began,
        int(found[1]),
        len(list((process / "fd").iterdir())),
        len(list((process / "task").iterdir())),
    )


class Soak:
    """The guard, the registry, and what has happened."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.seed = seed
        self.done: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.over = threading.Event()
        self.samples: list[Sample] = []
        self._away_until = 0.0
        self._log_read = 0
        self.ground = make_ground(folder)
        self._users = self.ground.htpasswd.read_text()
        self._groups = self.ground.groups.read_text()
        self.registry = Registry(folder / "registry")
        self.context = ssl.create_default_context(cafile=self.ground.ca)
        content = random.Random(seed)
        self.blobs = [content.randbytes(content.choice((0, 1, 5_000, 300_000))) for _ in range(90)]
        self.blobs += [content.randbytes(3_000_000) for _ in range(BLOBS - len(self.blobs))]

    def run(self, minutes: float) -> int:
        """Everything; the exit status."""
        with contextlib.ExitStack() as leaving:
            leaving.enter_context(self.registry.running())
            self.behind = leaving.enter_context(FaultProxy(self.registry.port))
            self.guard = Guard(self.ground, self.folder / "guard", self.behind.url)
            leaving.callback(self.guard.program.stop)
            self.before = leaving.enter_context(FaultProxy(self.guard.port))
            began = time.monotonic()
            for pair in (self.ground.reader, self.ground.pusher):
                # Who is known is not held back for others' guesses.
                with contextlib.closing(self._client(pair)) as client:
                    self._ask(client, "GET", "/v2/", 200)
            first = sample(self.guard.program.pid, began)
            threads = [
                threading.Thread(
                    target=self._act, args=(number,), name=f"person-{number}", daemon=True
                )
                for number in range(PEOPLE)
            ]
            threads.append(threading.Thread(target=self._disturb, daemon=True))
            for thread in threads:
                thread.start()
            self._watch(began, minutes * 60)
            self.over.set()
            for thread in threads:
                thread.join()
            self.before.arm()
            self.behind.arm(Faults())
            time.sleep(CALM)
            last = sample(self.guard.program.pid, began)
            self._look_at_log()
            return self._report(first, last)

    # -- people ------------------------------------------------------------------------------------

    def _act(self, number: int) -> None:
        chance = random.Random(f"{self.seed}-{number}")
        acts: tuple[tuple[int, Callable[[random.Random], None]], ...] = (
            (30, self._push_and_pull),
            (20, self._refused),
            (10, self._guess),
            (20, self._nonsense),
            (10, self._go_in_the_middle),
            (10, self._over_a_bad_line),
            (3, self._slow),
            (3, self._stay),
            (5, self._churn),
        )
        weights = [weight for weight, _ in acts]
        while not self.over.is_set():
            ((_, act),) = chance.choices(acts, weights)
            began = time.monotonic()
            try:
                act(chance)
                self.done[act.__name__.strip("_")] += 1
            except Exception as error:
                if self._was_away(began):
                    self.done["while the registry was away or its line was bad"] += 1
                else:
                    self.wrong.append(f"{act.__name__}: {error!r}")

    def _was_away(self, began: float) -> bool:
        return began <= self._away_until

    def _client(self, pair: tuple[str, str] | None = None, port: int | None = None) -> Client:
        return Client(port or self.guard.port, self.context, pair or self.ground.pusher)

    def _ask(
        self, client: Client, method: str, target: str, *expected: int, body: bytes = b""
    ) -> Message:
        lines = (f"Content-Length: {len(body)}",) if method in ("PUT", "PATCH", "POST") else ()
        answer = client.ask(method, client.head(method, target, *lines) + body)
        if answer.status not in expected:
            raise AssertionError(f"{method} {target}: {answer.start} {answer.body[:300]!r}")
        return answer

    @property
    def _repository(self) -> str:
        """Of one's own: registry 2.8 answers 500 while another one pushes the same blob there."""
        return f"/v2/soak/{threading.current_thread().name}"

    def _place(self, answer: Message) -> str:
        (location,) = answer.values("location")
        return re.sub(r"^https?://[^/]*", "", location)

    def _push(self, client: Client, blob: bytes) -> str:
        started = self._ask(client, "POST", f"{self._repository}/blobs/uploads/", 202)
        patched = self._ask(client, "PATCH", self._place(started), 202, body=blob)
        put = f"{self._place(patched)}&digest={digest(blob)}"
        self._ask(client, "PUT", put, 201)
        return f"{self._repository}/blobs/{digest(blob)}"

    def _push_and_pull(self, chance: random.Random) -> None:
        with contextlib.closing(self._client()) as client:
            for blob in chance.sample(self.blobs, chance.randint(1, 3)):
                target = self._push(client, blob)
                self._ask(client, "HEAD", target, 200)
                if self._ask(client, "GET", target, 200).body != blob:
                    self.wrong.append(f"another blob than {target}")

    def _refused(self, chance: random.Random) -> None:
        with contextlib.closing(self._client(self.ground.reader)) as client:
            self._ask(client, "GET", "/v2/", 200)
            self._ask(client, "POST", "/v2/soak/app/blobs/uploads/", 403)
            self._ask(client, "GET", "/v2/soak/%2e%2e/tags/list", 400)
            self._ask(client, "DELETE", "/v2/soak/app/manifests/latest", 403)

    def _guess(self, chance: random.Random) -> None:
        pair = (f"user{chance.randint(0, 10_000)}", secret(str(chance.random())))
        with contextlib.closing(self._client(pair)) as client:
            self._ask(client, "GET", "/v2/", 401, 429, 503)

    def _nonsense(self, chance: random.Random) -> None:
        case = chance.choice(MALFORMED)
        with contextlib.closing(self._client()) as client:
            authorization = client.head("GET", "/").split(b"Authorization: ")[1].split(b"\r\n")[0]
            client.send(case.octets.replace(b"@credential@", authorization))
            client.sock.settimeout(0.5)
            with contextlib.suppress(OSError):
                client.sock.recv(4096)

    def _go_in_the_middle(self, chance: random.Random) -> None:
        client = self._client()
        client.how = chance.choice(("RST", "FIN", "close_notify"))
        blob = self.blobs[-1]
        pushes = chance.random() < 0.5
        if pushes:
            client.leave_after_sent(chance.randint(100, len(blob)))
        else:
            self._push(client, blob)
            client.leave_after_received(chance.randint(1, len(blob)))
        with contextlib.suppress(Broken):
            if pushes:
                self._push(client, blob)
            else:
                self._ask(client, "GET", f"{self._repository}/blobs/{digest(blob)}", 200)
        client.close()

    def _over_a_bad_line(self, chance: random.Random) -> None:
        self.before.arm(bad_line(chance))
        # What was cut may have been answered with anything, but never with another blob.
        with (
            contextlib.suppress(Broken, Hung, OSError, AssertionError),
            contextlib.closing(self._client(port=self.before.port)) as client,
        ):
            blob = chance.choice(self.blobs)
            target = self._push(client, blob)
            if self._ask(client, "GET", target, 200).body != blob:
                self.wrong.append(f"another blob than {target}, over a bad line")

    def _slow(self, chance: random.Random) -> None:
        with contextlib.closing(self._client()) as client, contextlib.suppress(OSError):
            request = client.head("GET", "/v2/")
            for octet in request[: chance.randint(1, len(request))]:
                client.sock.sendall(bytes([octet]))
                if self.over.wait(chance.random() / 2):
                    return

    def _stay(self, chance: random.Random) -> None:
        with contextlib.closing(self._client()) as client:
            if chance.random() < 0.5:
                self._ask(client, "GET", "/v2/", 200)
            self.over.wait(chance.uniform(0, 30))

    def _churn(self, chance: random.Random) -> None:
        for _ in range(50):
            sock = socket.create_connection(("127.0.0.1", self.guard.port), 5)
            if chance.random() < 0.5:
                sock.send(chance.randbytes(chance.randint(1, 600)))
            reset(sock) if chance.random() < 0.5 else sock.close()

    # -- what happens to the guard -----------------------------------------------------------------

    def _disturb(self) -> None:
        chance = random.Random(f"{self.seed}-disturb")
        acts = (self._restart, self._spoil_the_line, self._hang_up, self._rewrite, self._rewrite)
        while not self.over.wait(chance.uniform(2, 8)):
            act = chance.choice(acts)
            try:
                act(chance)
                self.done[act.__name__.strip("_")] += 1
            except Exception as error:
                self.wrong.append(f"{act.__name__}: {error!r}")
                self._away_until = 0.0

    def _restart(self, chance: random.Random) -> None:
        self._away_until = time.monotonic() + 3600
        self.registry.stop(chance.choice((signal.SIGTERM, signal.SIGKILL)))
        # Uploads that nobody finished would fill the disk; blobs are pushed before they are pulled.
        shutil.rmtree(self.folder / "registry" / "data", ignore_errors=True)
        time.sleep(chance.uniform(0, 2))
        self.registry.start()
        self._away_until = time.monotonic() + RECOVERY

    def _spoil_the_line(self, chance: random.Random) -> None:
        self._away_until = time.monotonic() + 3600
        self.behind.arm(bad_line(chance))
        self.over.wait(chance.uniform(0, 3))
        self.behind.arm(Faults())
        self._away_until = time.monotonic() + RECOVERY

    def _hang_up(self, chance: random.Random) -> None:
        os.kill(self.guard.program.pid, signal.SIGHUP)

    def _rewrite(self, chance: random.Random) -> None:
        path, text = chance.choice(
            ((self.ground.htpasswd, self._users), (self.ground.groups, self._groups))
        )
        more = chance.choice(("", "# a comment\n", "no line of any such file\n", "\x00\xff"))
        new = path.with_suffix(".new")
        new.write_text(text + more, "latin-1")
        new.chmod(0o600)
        new.replace(path)

    # -- what is seen of it ------------------------------------------------------------------------

    def _watch(self, began: float, seconds: float) -> None:
        last = 0.0
        while (now := time.monotonic() - began) < seconds:
            self.samples.append(taken := sample(self.guard.program.pid, began))
            self._look_at_log()
            if now - last >= 60:
                last = now
                print(
                    f"{now / 60:6.1f} min {taken.memory:>9,} kB {taken.files:>5} descriptors "
                    f"{taken.threads:>3} threads {sum(self.done.values()):>9,} happenings "
                    f"{len(self.wrong):>4} wrong",
                    flush=True,
                )
            self.over.wait(1)

    def _look_at_log(self) -> None:
        with self.guard.program.log.open("rb") as log:
            log.seek(self._log_read)
            whole, _, _ = log.read().rpartition(b"\n")
        self._log_read += len(whole)
        found = FAULTS.search(whole.decode(errors="replace"))
        if found is not None:
            at = found.start()
            self.wrong.append(whole.decode(errors="replace")[max(0, at - 300) : at + 3000])

    def _report(self, first: Sample, last: Sample) -> int:
        settled = self.samples[len(self.samples) // 5 :]
        hours = [each.when / 3600 for each in settled]
        slope, _ = statistics.linear_regression(hours, [each.memory / 1024 for each in settled])
        if last.files > first.files + 2:
            self.wrong.append(f"{last.files} descriptors at the end, {first.files} at the start")
        print("\n".join(f"{count:>9,} {what}" for what, count in self.done.most_common()))
        print(
            f"PSS {first.memory:,} kB at the start, {settled[0].memory:,} when warm, "
            f"{max(each.memory for each in self.samples):,} at most, {last.memory:,} in the end; "
            f"{slope:+.2f} MB an hour over the last {hours[-1] - hours[0]:.2f} hours\n"
            f"{first.files} descriptors at the start, {last.files} in the end; "
            f"{first.threads} threads, {last.threads} in the end"
        )
        print("\n".join(self.wrong[:50]) or "nothing wrong")
        return 1 if self.wrong else 0


def bad_line(chance: random.Random) -> Faults:
    """Latency, small pieces, or a cut somewhere."""
    cut = chance.choice((None, Cut.RST, Cut.FIN, Cut.HALF_CLOSE))
    way = Way(
        latency=chance.choice((0.0, 0.02)),
        piece=chance.choice((100, 1460, 65536)),
        cut_after=None if cut is None else chance.randint(1, 400_000),
        cut=cut or Cut.RST,
    )
    return Faults(up=way) if chance.random() < 0.5 else Faults(down=way)


def main() -> int:
    """Run, and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10, help="how long (default: 10)")
    parser.add_argument("--seed", type=int, default=20261122, help="what happens")
    words = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="regguard-soak-") as folder:
        return Soak(Path(folder), words.seed).run(words.minutes)


if __name__ == "__main__":
    sys.exit(main())
