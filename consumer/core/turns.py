"""Whose turn it is to be given device time.

Owns what each model has been given of it, by weight and by priority. Must not know what waits, nor which device is
free.

Theory of operation. Every model has a clock, which the device time that it is given moves on, divided by its weight;
the model whose clock is furthest behind is next (P. Goyal, H. Vin, H. Cheng, "Start-Time Fair Queueing", 1996). One
that comes to wait anew, or that there was no device for, starts where the one served last did: it is next, but it has
saved nothing up. What it was given beyond its share it pays back, be its queue empty meanwhile or not; so a flood gives
way to records that come now and then, and records that come in bursts give way to the flood in between.

Models of equal priority are a class, and classes have clocks likewise, on which each weighs `LOWER_PART` of the one
above it. These say when a slice for the class would be over, so that one that comes to wait anew has the higher ones go
first for as long as they would need to get their part of it; but however much waits above, its own turn comes.
"""

from collections.abc import Iterable, Mapping
from heapq import heappop, heappush

from consumer.core.types import ModelId

LOWER_PART = 0.1
"""What a class is given at least, while records of higher ones wait, for what the class above it is given."""
SLICE_S = 0.05
"""Device time that a class is thought to take at once."""


class _Class:
    """The models of one priority."""

    __slots__ = ("due_s", "is_waiting", "served_at_s", "waiting", "weight")

    def __init__(self, weight: float) -> None:
        self.weight = weight
        self.due_s = 0.0
        """Its clock."""
        self.served_at_s = 0.0
        """The clock of its model that was served last, as that began."""
        self.is_waiting = False
        """Whether any of its models was in the round before."""
        self.waiting: list[tuple[float, int, ModelId]] = []
        """A heap of the models that may be next in this round."""

    def begin(self, served_at_s: float) -> None:
        """Begin a round, as its models say; the class served last was due at `served_at_s`."""
        if self.waiting:
            self.due_s = max(self.due_s, served_at_s + (0.0 if self.is_waiting else SLICE_S / self.weight))
        self.is_waiting = bool(self.waiting)


class Turns:
    """The clocks of all models and classes."""

    def __init__(self, weights: Mapping[ModelId, float], priorities: Mapping[ModelId, int]) -> None:
        """Start with nothing given to anyone."""
        ranks = sorted(set(priorities.values()), reverse=True)
        self._classes = [_Class(LOWER_PART**rank) for rank in range(len(ranks))]
        self._class_of = {model: self._classes[ranks.index(priority)] for model, priority in priorities.items()}
        self._weights = dict(weights)
        self._passed_s = dict.fromkeys(weights, 0.0)
        self._served_at_s = 0.0
        """The clock of the class that was served last, as that began."""
        self._entries = 0

    def begin(self, waiting: Iterable[ModelId]) -> None:
        """Begin a round of the models for which records wait, in the order in which they came to wait."""
        for each in self._classes:
            each.waiting.clear()
        for model in waiting:
            self._passed_s[model] = max(self._passed_s[model], self._class_of[model].served_at_s)
            self.stay(model)
        for each in self._classes:
            each.begin(self._served_at_s)

    def next(self) -> ModelId | None:
        """Take the model whose turn it is out of the round; None when nobody is left."""
        left = [each for each in self._classes if each.waiting]
        if not left:
            return None
        _, _, model = heappop(min(left, key=lambda each: each.due_s).waiting)
        return model

    def stay(self, model: ModelId) -> None:
        """Let a model have another turn in this round."""
        self._entries += 1
        # Of equal clocks the newest goes first: the others are the models of a flood, about to be served one by one.
        heappush(self._class_of[model].waiting, (self._passed_s[model], -self._entries, model))

    def serve(self, model: ModelId, device_s: float) -> None:
        """Take note that a model, in its turn, is given device time."""
        each = self._class_of[model]
        each.served_at_s = max(each.served_at_s, self._passed_s[model])
        self._served_at_s = max(self._served_at_s, each.due_s)
        self.correct(model, device_s)

    def correct(self, model: ModelId, device_s: float) -> None:
        """Take note that what a model was given took longer than was thought, or less where that is negative."""
        each = self._class_of[model]
        self._passed_s[model] += device_s / self._weights[model]
        each.due_s += device_s / each.weight
