"""regguard.auth.throttle: what is counted, for whom, for how long, and in how much memory."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from twisted.internet.task import Clock

from regguard.addresses import network_of
from regguard.auth.interfaces import Throttled
from regguard.auth.throttle import PER_NETWORK, REFUSED_TTL, Throttle, Try

LIMIT = 3
WINDOW = 300.0
HOME, ELSEWHERE = "192.0.2.0/24", "198.51.100.0/24"


class Guessing:
    """Wrong secrets, each tried to its refusal."""

    def __init__(self, clock: Clock, capacity: int = 1000) -> None:
        self.clock = clock
        self.throttle = Throttle(LIMIT, WINDOW, clock, capacity)

    def admit(
        self, secret: str, user: str = "ci", network: str = HOME, *, verified_before: bool = False
    ) -> Try:
        name = self.name(secret, user)
        return self.throttle.admit(user, network, name, verified_before=verified_before)

    def refuses(self, secret: str, network: str = HOME, basis: str = "basis") -> bool:
        return self.throttle.refuses(self.name(secret), network, basis)

    @staticmethod
    def name(secret: str, user: str = "ci") -> bytes:
        return f"{user}:{secret}".encode()

    def wrong(self, secret: str, user: str = "ci", network: str = HOME) -> None:
        self.admit(secret, user, network).refused("basis")

    def exhaust(self, user: str = "ci", network: str = HOME) -> None:
        for number in range(LIMIT):
            self.wrong(f"wrong {number}", user, network)

    def refusal(self, user: str = "ci", network: str = HOME) -> Throttled:
        with pytest.raises(Throttled) as caught:
            self.admit("another", user, network)
        return caught.value


@pytest.fixture
def guessing(clock: Clock) -> Guessing:
    return Guessing(clock)


def test_e12_one_more_than_the_limit_is_refused_until_the_window_ends(
    guessing: Guessing, clock: Clock
) -> None:
    """The time to wait is that to the window's end, rounded up: who heeds it gets in."""
    guessing.wrong("first")
    clock.advance(100.5)
    for secret in ("second", "third"):
        guessing.wrong(secret)

    refusal = guessing.refusal()

    assert refusal.retry_after == 200
    clock.advance(199.4)
    assert guessing.refusal().retry_after == 1
    clock.advance(0.2)
    guessing.admit("another")


def test_e12_only_the_first_refusal_of_a_window_begins_it(guessing: Guessing, clock: Clock) -> None:
    """So that there is one warning for each window, not one for each try."""
    guessing.exhaust()

    assert [guessing.refusal().begins for _ in range(3)] == [True, False, False]
    clock.advance(WINDOW)
    guessing.exhaust()
    assert guessing.refusal().begins


def test_e12_nobody_locks_a_user_out_from_elsewhere(guessing: Guessing) -> None:
    """The same name from another network has a count of its own."""
    guessing.exhaust()
    guessing.refusal()

    guessing.admit("right", network=ELSEWHERE).give_back()
    guessing.admit("another", "bob")


@pytest.mark.parametrize(
    "spelling",
    [
        *("CI BOT", "ci bot ", "\uff43\uff49 bot", "ci  bot", " ci \u3000 bot", "c\u00adi bot"),
        *("ci\u200b bot", "c\ufe0fi bot", "ci\ufffc bot", "\u0107\u00ef bot", "c\u0301i bot"),
    ],
)
def test_e12_spellings_of_a_name_are_one_user(guessing: Guessing, spelling: str) -> None:
    """A directory takes them for the same, so they must not be worth more guesses."""
    guessing.exhaust("ci bot")

    assert guessing.refusal(spelling)
    guessing.admit("another", "cibot")


def test_e12_many_names_from_one_network_are_one_count(guessing: Guessing) -> None:
    """One password tried on many users is refused, too; users from elsewhere are not."""
    for number in range(PER_NETWORK * LIMIT):
        guessing.wrong("Summer2026", f"user{number}")

    assert guessing.refusal("bob").reason == "too many wrong passwords from this network"
    guessing.admit("right", "bob", ELSEWHERE)


def test_the_same_wrong_secret_counts_once(guessing: Guessing, clock: Clock) -> None:
    """A client with an outdated password sends it for every layer, all day."""
    for _ in range(20):
        guessing.wrong("outdated")
        clock.advance(10)
    for secret in ("second", "third"):
        guessing.wrong(secret)

    assert guessing.refusal()


def test_a_secret_that_stays_wrong_counts_again_in_the_next_window(
    guessing: Guessing, clock: Clock
) -> None:
    """Its count ends with the window, as everybody's."""
    guessing.wrong("outdated")
    clock.advance(WINDOW)
    for secret in ("outdated", "second", "third"):
        guessing.wrong(secret)

    assert guessing.refusal()


def test_a_try_counts_from_its_beginning(guessing: Guessing) -> None:
    """Of many at once no more than the limit reach a hash."""
    for number in range(LIMIT):
        guessing.admit(f"under way {number}")

    assert guessing.refusal()


@pytest.mark.parametrize("ending", [Try.give_back, lambda each: None])
def test_only_what_was_given_back_does_not_count(
    guessing: Guessing, ending: Callable[[Try], None]
) -> None:
    """Good credentials and overload cost nothing; who hangs up before the answer pays."""
    for number in range(10 if ending is Try.give_back else LIMIT):
        ending(guessing.admit(f"secret {number}"))

    if ending is Try.give_back:
        assert len(guessing.throttle) == 0
        guessing.admit("another")
    else:
        guessing.refusal()


def test_what_was_verified_before_is_never_refused(guessing: Guessing) -> None:
    """Nobody guesses what was right a minute ago; but when it is wrong now, it counts."""
    guessing.exhaust()

    guessing.admit("right", verified_before=True).give_back()
    guessing.refusal()
    guessing.admit("right", "bob", verified_before=True).refused("basis")
    for secret in ("second", "third"):
        guessing.wrong(secret, "bob")
    guessing.refusal("bob")


def test_a_wrong_secret_is_refused_from_memory_for_a_minute(
    guessing: Guessing, clock: Clock
) -> None:
    """Otherwise a few wrong passwords, repeated, would keep all hashing threads busy."""
    guessing.wrong("outdated")

    assert guessing.refuses("outdated")
    assert not guessing.refuses("another")
    clock.advance(REFUSED_TTL)
    assert not guessing.refuses("outdated")
    guessing.wrong("outdated")
    assert guessing.refuses("outdated")


def test_memory_ends_with_what_the_refusal_rested_on(guessing: Guessing) -> None:
    """A password that was set meanwhile works at once."""
    guessing.wrong("soon right")

    assert not guessing.refuses("soon right", basis="another basis")


def test_memory_is_the_networks_own(guessing: Guessing) -> None:
    """A quick refusal would tell a stranger that somebody mistyped just that."""
    guessing.wrong("almost right")

    assert not guessing.refuses("almost right", ELSEWHERE)


def test_e12_a_million_users_and_networks_take_no_more_room(clock: Clock) -> None:
    """Every table is bounded; full, it drops its oldest entry."""
    guessing = Guessing(clock, capacity=50)
    for number in range(2000):
        guessing.wrong("guess", f"user{number}", f"2001:db8:0:{number:x}::/64")
        clock.advance(0.01)

    assert len(guessing.throttle) == 3 * 50
    guessing.exhaust()
    guessing.refusal()


def test_e12_what_has_ended_makes_room_first(clock: Clock) -> None:
    """An entry goes when its window does, and a running one stays while there is room."""
    guessing = Guessing(clock, capacity=50)
    for number in range(49):
        guessing.wrong("guess", f"user{number}", f"2001:db8:0:{number:x}::/64")
    clock.advance(WINDOW - 1)
    guessing.exhaust(network=ELSEWHERE)
    clock.advance(2)

    guessing.wrong("guess", "late", HOME)

    # Two windows each and the refusals of the two that run.
    assert len(guessing.throttle) == 2 * 2 + LIMIT + 1
    guessing.refusal(network=ELSEWHERE)


def test_a_late_answer_of_an_ended_window_takes_nothing_from_the_next(
    guessing: Guessing, clock: Clock
) -> None:
    """What is given back is given to the window that it was taken from."""
    late = guessing.admit("slow")
    clock.advance(WINDOW)
    guessing.exhaust()

    late.give_back()

    guessing.refusal()


@pytest.mark.parametrize(
    ("client", "network"),
    [
        ("192.0.2.77", "192.0.2.0/24"),
        ("::ffff:192.0.2.77", "192.0.2.0/24"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
        ("unix:", "unix:"),
        ("", ""),
    ],
)
def test_e12_a_network_is_what_one_subscriber_commands(client: str, network: str) -> None:
    """IPv4 /24, IPv6 /64; the same network in whichever form the address comes."""
    assert network_of(client) == network
