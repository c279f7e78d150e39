"""The registry goes away and comes back."""

from __future__ import annotations

import json
import time
from pathlib import Path

from tests.canary import secret
from tests.e2e.clients import curl
from tests.e2e.programs import Ground, Registry, StartGuard


def test_i01_i13_registry_down_and_up_again(
    start_guard: StartGuard, ground: Ground, tmp_path: Path
) -> None:
    """502 UNAVAILABLE within a second while it is away; service as soon as it is there."""
    registry = Registry(tmp_path / "registry")
    guard = start_guard(registry.url)

    for _ in range(2):
        began = time.monotonic()
        answer = curl(guard, "/v2/", credentials=ground.as_reader)
        took = time.monotonic() - began
        (error,) = json.loads(answer.body)["errors"]
        assert (answer.status, error["code"]) == (502, "UNAVAILABLE")
        assert answer.headers("Docker-Distribution-Api-Version") == ["registry/2.0"]
        assert took < 1

        registry.start()
        try:
            assert curl(guard, "/v2/", credentials=ground.as_reader).status == 200
        finally:
            registry.stop()


def test_login_is_checked_while_the_registry_is_down(
    start_guard: StartGuard, ground: Ground, tmp_path: Path
) -> None:
    """Who is not allowed in hears 401 all the same, not that something is broken."""
    guard = start_guard(Registry(tmp_path / "registry").url)

    assert curl(guard, "/v2/").status == 401
    assert curl(guard, "/v2/", credentials=f"testuser:{secret('wrong')}").status == 401


def test_stale_connections_do_not_show(
    start_guard: StartGuard, ground: Ground, tmp_path: Path
) -> None:
    """I05: kept connections that died with the old registry cost a client nothing."""
    registry = Registry(tmp_path / "registry")
    registry.start()
    guard = start_guard(registry.url)
    try:
        for _ in range(3):
            assert curl(guard, "/v2/", credentials=ground.as_reader).status == 200
            registry.stop()
            registry.start()
        assert curl(guard, "/v2/", credentials=ground.as_reader).status == 200
    finally:
        registry.stop()
