"""A word in every password of these tests, and the search for it where no password belongs.

What starts a program, plays the registry or hears a log event shows :data:`SEARCH` all that there
is to see; ``tests/conftest.py`` fails the session when a password was in it.
"""

from __future__ import annotations

import os
from base64 import b64encode

# Nothing that quotes, escapes or encodes for a URL or for JSON changes these letters.
CANARY = "c4n4ry-s3cret"
# In passwords that a test gives to a program on its command line, where all processes see them:
# ``--auth memory:`` wants it so, and warns. Elsewhere it is searched for like the other.
ON_ARGV = "0n-argv-by-d3sign"


def secret(words: str) -> str:
    """A password that the search will find."""
    return f"{words}-{CANARY}"


def is_searched_for(password: str) -> bool:
    """Whether a password would be found; one without the words above escapes the search."""
    return CANARY in password or ON_ARGV in password


def spellings(word: str) -> list[bytes]:
    """A word in plain, and in base64, as Basic credentials are, wherever it stands in them."""
    octets = word.encode()
    spelled = [octets]
    for shift in range(3):
        # Six bits a character: those that are the word's alone, whatever is around it.
        first, last = (8 * shift + 5) // 6, 8 * (shift + len(octets)) // 6
        spelled.append(b64encode(bytes(shift) + octets)[first:last])
    return spelled


class Search:
    """What was seen where it does not belong: ``found`` says where, and what is around it there."""

    def __init__(self) -> None:
        self.found: dict[str, bytes] = {}

    def look(self, place: str, octets: bytes, words: tuple[str, ...] = (CANARY, ON_ARGV)) -> None:
        """Search ``octets``; ``place`` says to people what they are."""
        for spelled in (spelled for word in words for spelled in spellings(word)):
            at = octets.find(spelled)
            if at >= 0:
                where = f"{place}, in {os.environ.get('PYTEST_CURRENT_TEST', 'no test')}"
                self.found.setdefault(where, octets[max(at - 100, 0) : at + len(spelled) + 20])


SEARCH = Search()
