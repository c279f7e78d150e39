"""The registry restarts in the middle of an engine's push; the guard runs on.

The engines' own retries end well: at our 408 they send the layer again, and while the registry is
away for a moment, connections to it are tried again before anybody hears of it.
"""

from __future__ import annotations

import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.e2e.engines import Containerd, Docker, Engine, Podman
from tests.e2e.faults import FaultProxy, Faults, Way
from tests.e2e.programs import Ground, Registry, StartGuard

# They mount file systems and make namespaces.
pytestmark = pytest.mark.root

# Their layers have 20 and 50 kB: some seconds on the way.
SLOW = Faults(up=Way(piece=500, rate=10_000))

# Seconds until the registry is back, as a restarted service is; at 502, after 0.7, podman and
# containerd would give up.
AWAY = 0.5


@pytest.mark.parametrize("kind", [Docker, Podman, Containerd])
def test_i12_push_survives_a_restart_of_the_registry(
    start_guard: StartGuard,
    ground: Ground,
    tmp_path_factory: pytest.TempPathFactory,
    kind: type[Docker] | type[Podman] | type[Containerd],
) -> None:
    """What was cut is sent again by the engine itself, and the image is whole."""
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

            began = time.monotonic()
            pushing = elsewhere.submit(engine.push, "restarted/image:v1")
            guard.program.wait_until("a layer on its way", in_the_middle)
            cut_after = time.monotonic() - began
            with line.refusing():
                registry.stop(signal.SIGKILL)
                time.sleep(AWAY)
                registry.start()
                line.arm()
            pushing.result()
            took = time.monotonic() - began
            print(  # noqa: T201
                f"\n{kind.__name__}: registry killed {cut_after:.1f} s into the push, "
                f"back {AWAY} s later; push ended well after {took:.1f} s"
            )

            engine.login(*ground.reader)
            engine.pull("restarted/image:v1")
        finally:
            engine.stop()
        guard.check_log()
