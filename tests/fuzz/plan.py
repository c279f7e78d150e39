"""A stream and all that happens to it, made from a seed and a number and from nothing else."""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random
from typing import Literal

from tests.fuzz.exchanges import Client
from tests.fuzz.mutations import ACCIDENTS, TRICKS, segments

Ending = Literal["fin", "reset", "stay"]
Timing = Literal["prompt", "early", "late", "never"]


@dataclass(frozen=True)
class Plan:
    """What a client does, and how the registry behaves meanwhile.

    ``pieces`` are sent one after the other, ``pauses`` are the seconds that pass before each.
    ``timing``: the registry answers when it has the whole request; at its head; when the client
    has sent everything; not at all.  ``answers`` chooses its answers, one after the other.
    """

    pieces: tuple[bytes, ...]
    pauses: tuple[int, ...] = ()
    ending: Ending = "fin"
    timing: Timing = "prompt"
    answers: tuple[int, ...] = (0,)
    client_room: int = 128 * 1024
    registry_room: int = 128 * 1024
    refuses: bool = False

    @property
    def stream(self) -> bytes:
        """Everything the client sends."""
        return b"".join(self.pieces)

    def with_pieces(self, pieces: list[bytes]) -> Plan:
        """The same with other octets."""
        return replace(self, pieces=tuple(pieces), pauses=self.pauses[: len(pieces)])


def make_plan(seed: int, number: int) -> Plan:
    """Stream ``number`` of those of ``seed``."""
    rng = Random(seed << 64 | number)
    stream = _stream(rng)
    if rng.random() < 0.05:  # one stream goes on as another
        other = _stream(rng)
        stream = stream[: rng.randint(0, len(stream))] + other[rng.randint(0, len(other)) :]
    pieces = segments(rng, stream)
    pauses = [0] * len(pieces)
    if rng.random() < 0.05:
        pauses[rng.randrange(len(pieces))] = rng.choice((3, 12, 25, 65, 130))
    return Plan(
        tuple(pieces),
        tuple(pauses),
        rng.choices(("fin", "stay", "reset"), (6, 3, 1))[0],
        rng.choices(("prompt", "early", "late", "never"), (70, 12, 16, 2))[0],
        tuple(rng.randrange(100) for _ in range(4)),
        rng.choice((128 * 1024,) * 8 + (200, 5000)),
        rng.choice((128 * 1024,) * 8 + (100, 5000)),
        rng.random() < 0.01,
    )


def _stream(rng: Random) -> bytes:
    messages = Client(rng).exchange()
    while rng.random() < 0.2:
        messages += Client(rng).exchange()
    how_often = rng.choices((0, 1, 2, 4), (12, 55, 23, 10))[0]
    accidents = 0
    for _ in range(how_often):
        if rng.random() < 0.6:
            rng.choice(TRICKS)(rng, rng.choice(messages))
        else:
            accidents += 1
    stream = b"".join(message.octets() for message in messages)
    for _ in range(accidents):
        # Mostly in heads and chunk lines: octets of a body are all alike.
        at = rng.randint(0, min(len(stream), 3000))
        stream = rng.choice(ACCIDENTS)(rng, stream, at)
    return stream
