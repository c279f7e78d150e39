"""Wrong passwords, many of them: who is slowed down, who is not, and what the log says."""

from __future__ import annotations

import json

from tests.canary import secret
from tests.e2e.clients import curl
from tests.e2e.programs import Guard, Registry, StartGuard

LIMIT = 10


def test_e12_the_eleventh_wrong_password_is_refused_without_a_look(
    start_guard: StartGuard, registry: Registry
) -> None:
    """By default; who is known already, and everybody else, works on."""
    guard = start_guard(registry.url)
    user, _ = guard.ground.reader
    assert curl(guard, "/v2/", credentials=guard.ground.as_reader).status == 200

    for number in range(LIMIT):
        for _ in range(2):  # docker repeats itself
            assert curl(guard, "/v2/").status == 401
            wrong = f"{user}:{secret(str(number))}"
            assert curl(guard, "/v2/", credentials=wrong).status == 401
    answer = curl(guard, "/v2/", credentials=f"{user}:{secret('another')}")

    assert answer.status == 429
    (wait,) = answer.headers("Retry-After")
    assert 0 < int(wait) <= 300
    (error,) = json.loads(answer.body)["errors"]
    assert error["code"] == "TOOMANYREQUESTS"
    assert wait in error["message"]
    assert curl(guard, "/v2/", credentials=guard.ground.as_reader).status == 200
    assert curl(guard, "/v2/", credentials=guard.ground.as_pusher).status == 200


def test_e12_the_log_says_who_was_refused_from_where_and_why(
    start_guard: StartGuard, registry: Registry
) -> None:
    """One line for the first, one warning where throttling begins, and one that sums up."""
    guard = start_guard(registry.url, "--throttle", "2/1h")
    curl(guard, "/v2/")
    for number in range(2):
        curl(guard, "/v2/", credentials=f"eve:{secret(str(number))}")
    curl(guard, "/v2/", credentials=f"eve:{secret('wrong')}")
    guard.program.stop()

    place = "127.0.0.0/24"
    too_many = "too many wrong passwords for this user from this network"
    said = [line for line in guard.program.output().splitlines() if place in line]
    assert [line.partition("regguard.auth.audit.Audit#")[2] for line in said] == [
        f"info] refused eve from {place}: wrong user name or password",
        f"warn] {too_many}: eve from {place} is refused without a look for 3600 s",
        f"info] refused eve from {place}: {too_many}",
        f"info] refused eve from {place} 1 more times within a minute: wrong user name or password",
    ]


def test_throttle_off_looks_at_every_password(start_guard: StartGuard, registry: Registry) -> None:
    """Where something in front counts already, or all clients have one address."""
    guard: Guard = start_guard(registry.url, "--throttle", "off")

    for number in range(LIMIT + 2):
        wrong = f"testuser:{secret(str(number))}"
        assert curl(guard, "/v2/", credentials=wrong).status == 401
