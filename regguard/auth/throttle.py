"""Who tries many passwords is refused without a look.

Counted are *distinct wrong secrets* by user and client network. Not 401s: docker, podman and
containerd ask without credentials first, and a client with an outdated password sends it for every
layer, containerd up to six times each. All that is one wrong secret, or none.

* By user *and* network, so nobody can lock a user out from elsewhere. A network is what one
  subscriber commands: an IPv4 /24, an IPv6 /64.
* Over all users of a network as well, against one password tried on many names.
* A try counts when it begins: of two hundred at once no more than the limit reach a hash. It is
  given back when the credential turns out good or known as wrong, or when nobody looked at it.
* A wrong secret is refused from memory for a minute, unless what it was refused by changes. Trying
  it again and again would otherwise cost a hash each time, and count only once.
* A credential that was ever verified is not looked for here; the caller lets it pass.

Nothing here holds a password: a secret is named by the keyed MAC of its header value.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from hashlib import blake2b
from math import ceil

from twisted.internet.interfaces import IReactorTime

from regguard.auth.interfaces import Throttled

# An office or a build farm behind one address has many users with an outdated password, and each
# of them counts once. At bcrypt 12 (0.37 s) 100 tries in five minutes keep an eighth of one
# processor busy.
PER_NETWORK = 10

# Seconds for which a wrong secret is refused from memory: as long as a good one is accepted from
# it (``verified.TTL``). Where the checker tells versions, a change ends it at once.
REFUSED_TTL = 60.0

# Entries of each of three tables, some 300 bytes each, so 10 MB. Full, a table drops its oldest
# entry. To push out his own one an attacker needs that many counted tries from networks that are
# not throttled, and one such network gives him as many tries as the entry took from him.
CAPACITY = 10_000


# Marks that go with another character, and format characters.
_UNSEEN = frozenset({"Mn", "Me", "Cf"})


class _Window:
    """Tries that count together, until it ends."""

    __slots__ = ("announced", "ends", "tries")

    def __init__(self, ends: float) -> None:
        self.ends = ends
        self.tries = 0
        self.announced = False


class _Windows:
    """Running windows by key, all equally long."""

    def __init__(self, limit: int, seconds: float, capacity: int) -> None:
        self._limit = limit
        self._seconds = seconds
        self._capacity = capacity
        self._windows: dict[bytes, _Window] = {}

    def __len__(self) -> int:
        return len(self._windows)

    def at(self, key: bytes, now: float) -> _Window:
        """The window that runs for this key; a new one is entered by its first try only."""
        window = self._windows.get(key)
        if window is None or window.ends <= now:
            window = _Window(now + self._seconds)
        return window

    def full(self, window: _Window) -> bool:
        return window.tries >= self._limit

    def count(self, key: bytes, window: _Window, now: float) -> None:
        if not window.tries:
            _make_room(self._windows, self._capacity, now)
            self._windows[key] = window
        window.tries += 1

    def give_back(self, key: bytes, window: _Window) -> None:
        window.tries -= 1
        if not window.tries and self._windows.get(key) is window:
            del self._windows[key]


class _Refusal:
    """A secret that was wrong: since when, and by what."""

    __slots__ = ("basis", "ends", "stands_until")

    def __init__(self, basis: object, stands_until: float, ends: float) -> None:
        self.basis = basis
        self.stands_until = stands_until
        self.ends = ends


class Try:
    """A counted verification. When it has ended, one of the methods is to be called."""

    __slots__ = ("_entries", "_secret", "_throttle")

    def __init__(
        self,
        throttle: Throttle,
        secret: bytes,
        entries: Iterable[tuple[_Windows, bytes, _Window]],
    ) -> None:
        self._throttle = throttle
        self._secret = secret
        self._entries = entries

    def refused(self, basis: object) -> None:
        """The secret is wrong, by this basis."""
        if self._throttle._remember(self._secret, basis):
            self.give_back()

    def give_back(self) -> None:
        """The secret is right, or nobody looked at it."""
        for windows, key, window in self._entries:
            windows.give_back(key, window)


class Throttle:
    """Counts distinct wrong secrets.

    :param limit: how many of them one user has from one network, and ten times as many all users
        of one network, before the next one is refused without a look.
    :param window: for how many seconds they count, from the first one on.
    """

    def __init__(
        self, limit: int, window: float, clock: IReactorTime, capacity: int = CAPACITY
    ) -> None:
        self._window = window
        self._clock = clock
        self._capacity = capacity
        self._pairs = _Windows(limit, window, capacity)
        self._networks = _Windows(PER_NETWORK * limit, window, capacity)
        self._refusals: dict[bytes, _Refusal] = {}

    def __len__(self) -> int:
        """How many entries there are."""
        return len(self._pairs) + len(self._networks) + len(self._refusals)

    def refuses(self, secret: bytes, network: str, basis: object) -> bool:
        """Whether this secret was wrong from this network, and still is by the same basis.

        From this network: a quick answer would tell others that somebody mistyped just that.
        """
        refusal = self._refusals.get(_name(network, secret))
        return (
            refusal is not None
            and self._clock.seconds() < refusal.stands_until
            and refusal.basis == basis
        )

    def admit(self, user: str, network: str, secret: bytes, *, verified_before: bool) -> Try:
        """Count a verification that begins.

        :raises Throttled: instead, when there were too many; never for a secret that was
            verified before.
        """
        now = self._clock.seconds()
        pair_key, network_key = _name(network, _folded(user)), network.encode()
        pair = self._pairs.at(pair_key, now)
        whole = self._networks.at(network_key, now)
        if not verified_before:
            for windows, window, whose in (
                (self._pairs, pair, "too many wrong passwords for this user from this network"),
                (self._networks, whole, "too many wrong passwords from this network"),
            ):
                if windows.full(window):
                    begins, window.announced = not window.announced, True
                    raise Throttled(whose, max(1, ceil(window.ends - now)), begins)
        self._pairs.count(pair_key, pair, now)
        self._networks.count(network_key, whole, now)
        entries = ((self._pairs, pair_key, pair), (self._networks, network_key, whole))
        return Try(self, _name(network, secret), entries)

    def _remember(self, name: bytes, basis: object) -> bool:
        """Remember a refusal; say whether it was counted already."""
        now = self._clock.seconds()
        stands_until = now + REFUSED_TTL
        refusal = self._refusals.get(name)
        if refusal is not None and now < refusal.ends:
            refusal.basis, refusal.stands_until = basis, stands_until
            return True
        _make_room(self._refusals, self._capacity, now)
        self._refusals[name] = _Refusal(basis, stands_until, now + self._window)
        return False


def _make_room(table: dict[bytes, _Window] | dict[bytes, _Refusal], room: int, now: float) -> None:
    """Drop what has ended, and the oldest entry of a full table.

    The first entry is always the next to end, so nothing that has ended is left behind.
    """
    while table:
        first = next(iter(table))
        if len(table) < room and now < table[first].ends:
            break
        del table[first]


def _folded(user: str) -> bytes:
    """A user name, in the same form for all that a directory may take for the same.

    Directories neither see what is invisible nor count blanks (RFC 4518 sections 2.2 and 2.6.1),
    and Active Directory has no eye for accents.
    """
    characters = unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", user).casefold())
    seen = (c for c in characters if unicodedata.category(c) not in _UNSEEN and c != "\ufffc")
    return " ".join("".join(seen).split()).encode("utf-8")


def _name(network: str, what: bytes) -> bytes:
    """A short name, however long a user name is."""
    return blake2b(network.encode() + b"\0" + what, digest_size=16).digest()
