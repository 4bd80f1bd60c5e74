"""Which faults come when, by a seed.

Owns the kinds of faults and their schedule. Must not know how a fault is done. The kinds come like cards from a deck
that is shuffled anew whenever it is used up, so that even a short run meets all of them; pauses between faults are
exponential, and every fifth fault comes right behind the one before it.
"""

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

GAP_S_MIN = 2.0
OVERLAP_S = 0.3
"""How soon after the one before it an overlapping fault comes."""
OVERLAP_EVERY = 5


class Kind(StrEnum):
    """What goes wrong."""

    KILL_WORKER = "worker killed"
    FREEZE_WORKER = "worker frozen"
    KILL_SUPERVISOR = "supervisor killed"
    FREEZE_SUPERVISOR = "supervisor frozen"
    LEAVE = "member left and came back"
    JOIN = "member joined and left"
    KILL_BROKER = "broker killed"
    FREEZE_BROKER = "broker frozen"
    BREAK_MODEL = "model broken"


LASTS_S = {
    Kind.KILL_WORKER: (0.0, 0.0),
    Kind.FREEZE_WORKER: (1.0, 6.0),
    Kind.KILL_SUPERVISOR: (0.5, 8.0),
    # Shorter and longer than the session's timeout of 6 s.
    Kind.FREEZE_SUPERVISOR: (1.0, 12.0),
    Kind.LEAVE: (0.5, 5.0),
    Kind.JOIN: (8.0, 20.0),
    Kind.KILL_BROKER: (0.5, 5.0),
    Kind.FREEZE_BROKER: (1.0, 10.0),
    Kind.BREAK_MODEL: (2.0, 6.0),
}
"""How long each kind lasts at least and at most, in seconds: until what was killed is started again, for example."""

KILLS = frozenset({Kind.KILL_WORKER, Kind.KILL_SUPERVISOR})
"""What ends a process of the program without warning."""

REBALANCING = frozenset(Kind) - {Kind.KILL_WORKER, Kind.FREEZE_WORKER, Kind.BREAK_MODEL}
"""Faults after which what was done and not committed may be done again by another member, in at-least-once."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong."""

    at_s: float
    """Seconds after the faults began."""
    kind: Kind
    lasts_s: float
    choice: float
    """From 0 (inclusive) to 1 (exclusive): picks the victim among those there are then."""


def plan(seed: int, gap_s: float, kinds: frozenset[Kind]) -> Iterator[Fault]:
    """Draw the faults of a run, one after the other, without an end.

    Args:
        seed: Equal seeds give equal plans.
        gap_s: The mean pause between two faults.
        kinds: Those that can be done.
    """
    drawn = random.Random(seed)
    deck: list[Kind] = []
    at_s = drawn.uniform(0, gap_s)
    for number in itertools.count(1):
        if not deck:
            deck = sorted(kinds)
            drawn.shuffle(deck)
        kind = deck.pop()
        yield Fault(at_s, kind, drawn.uniform(*LASTS_S[kind]), drawn.random())
        overlaps = number % OVERLAP_EVERY == OVERLAP_EVERY - 1
        at_s += OVERLAP_S if overlaps else max(GAP_S_MIN, drawn.expovariate(1 / gap_s))
