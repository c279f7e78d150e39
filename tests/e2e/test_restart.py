"""The registry restarts in the middle of an engine's push; the guard runs on.

What an engine does then is its own: dockerd sends a layer up to five times.  podman 4.3 tries
again where connections are refused or reset, but takes a 502 for the last word, as ctr 1.6 takes
every failure: their next call has to end well.
"""

from __future__ import annotations

import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.e2e.engines import Containerd, Docker, Engine, Podman, Refused
from tests.e2e.faults import FaultProxy, Faults, Way
from tests.e2e.programs import Ground, Registry, StartGuard

# They mount file systems and make namespaces.
pytestmark = pytest.mark.root

# Their layers have 20 and 50 kB: some seconds on the way.
SLOW = Faults(up=Way(piece=500, rate=10_000))

# Seconds until the registry is back, as a restarted service is.
AWAY = 1.0


@pytest.mark.parametrize(
    ("kind", "has_to_try_again"),
    [
        pytest.param(Docker, True, id="dockerd"),
        pytest.param(Podman, False, id="podman"),
        pytest.param(Containerd, False, id="containerd"),
    ],
)
def test_i12_push_survives_a_restart_of_the_registry(
    start_guard: StartGuard,
    ground: Ground,
    tmp_path_factory: pytest.TempPathFactory,
    kind: type[Docker] | type[Podman] | type[Containerd],
    has_to_try_again: bool,
) -> None:
    """dockerd's own retry ends well; an engine that gives up says so, and its next call does."""
    with (
        Registry(tmp_path_factory.mktemp("registry")).running() as registry,
        FaultProxy(registry.port) as line,
        ThreadPoolExecutor(1) as elsewhere,
    ):
        guard = start_guard(line.url)
        engine: Engine = kind(guard, tmp_path_factory.mktemp("engine") / "state")
        try:
            engine.login(*ground.pusher)
            slowed = line.arm(SLOW)

            def in_the_middle() -> bool:
                # The layer's octets, after a head of less than 1,500.
                starts = (b"PATCH ", b"PUT ")
                return any(p.up.startswith(starts) and len(p.up) > 8_000 for p in slowed.passages)

            def push() -> str:
                try:
                    engine.push("restarted/image:v1")
                except Refused as refused:
                    return str(refused)
                return ""

            began = time.monotonic()
            pushing = elsewhere.submit(push)
            guard.program.wait_until("a layer on its way", in_the_middle)
            cut_after = time.monotonic() - began
            registry.stop(signal.SIGKILL)
            time.sleep(AWAY)
            registry.start()
            line.arm()
            complaint = pushing.result()
            took = time.monotonic() - began
            print(  # noqa: T201
                f"\n{kind.__name__}: registry killed {cut_after:.1f} s into the push, "
                f"back {AWAY:.0f} s later; push ended after {took:.1f} s: {complaint or 'well'}"
            )
            if complaint:
                assert not has_to_try_again
                assert push() == ""

            engine.login(*ground.reader)
            engine.pull("restarted/image:v1")
        finally:
            engine.stop()
        guard.check_log()
