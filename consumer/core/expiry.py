"""Until when a record is worth inferring, and what becomes of it afterwards.

Owns the deadlines of records: their own, and those that follow from their age. Must not know where records wait, nor
what the time of day is: a slice says how its timestamps relate to the clock that everything here is measured by.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from consumer.core.types import Failure, ModelId, Run

EXPIRED: Final = Failure("expired", "RecordError", "the record expired before it could be inferred")


@dataclass(frozen=True, slots=True)
class ModelExpiry:
    """What the configuration says of a model's records that come late."""

    age_s_max: float | None = None
    """Seconds from a record's timestamp after which it is not worth inferring; None where age does not matter."""
    is_dropped: bool = False
    """Whether what has expired is dropped, rather than made a dead letter."""


class Expiry:
    """The deadlines of all models' records."""

    def __init__(self, models: Mapping[ModelId, ModelExpiry]) -> None:
        """Take what is configured."""
        self._ages_s = {model: each.age_s_max for model, each in models.items() if each.age_s_max is not None}
        self._dropped = frozenset(model for model, each in models.items() if each.is_dropped)

    def limit(self, run: Run, epoch_s: float) -> None:
        """Let a run's records expire by their age, too; one without a timestamp has none.

        Args:
            run: The records, as they were fetched.
            epoch_s: Monotonic seconds at the Unix epoch.
        """
        age_s = self._ages_s.get(run.model)
        if age_s is None:
            return
        own = run.deadlines_s or [None] * len(run)
        base_s = epoch_s + age_s
        run.deadlines_s = [
            deadline_s if ms <= 0 else _earlier(deadline_s, base_s + ms / 1000)
            for deadline_s, ms in zip(own, run.timestamps_ms, strict=True)
        ]

    def is_dropped(self, model: ModelId) -> bool:
        """Tell whether a model's expired records are dropped."""
        return model in self._dropped


def split_expired(run: Run, now: float) -> tuple[Run | None, Run | None]:
    """Divide a run into the records that are still worth inferring and those that are not; None for an empty part."""
    if run.deadlines_s is None:
        return run, None
    expired = [i for i, deadline_s in enumerate(run.deadlines_s) if deadline_s is not None and deadline_s <= now]
    if not expired:
        return run, None
    if len(expired) == len(run):
        return None, run
    late = set(expired)
    return run.pick([i for i in range(len(run)) if i not in late]), run.pick(expired)


def _earlier(one_s: float | None, other_s: float) -> float:
    return other_s if one_s is None else min(one_s, other_s)
