"""Users whom TLS has made sure of."""

from __future__ import annotations

from tests.auth.house import House


def test_a_certified_user_is_in_the_groups_of_now(house: House) -> None:
    """As everybody else; nothing is hashed, and nobody needs a password for it."""
    assert house.authenticator.certified("ci").groups == {"pusher"}
    assert house.authenticator.certified("robot").groups == frozenset()

    house.change("groups", "pusher: robot\n")
    assert house.authenticator.certified("ci").groups == frozenset()
    assert house.authenticator.certified("robot").groups == {"pusher"}
    assert house.authenticator.certified("robot").name == "robot"
    assert house.hashed == 0
