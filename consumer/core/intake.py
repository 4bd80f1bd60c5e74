"""From a fetched slice to runs: which model each record is for, and which records are for none.

Owns the split of columns. Must not know what happens to a run afterwards.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence

from consumer.core.partitions import Admitted
from consumer.core.types import Failure, ModelId, Run, Slice

NAMES_MAX = 10
"""Configured models that a dead letter names."""
NO_MODEL_ID = Failure("no-model-id", "RecordError", "the record names no model: its key is missing or not UTF-8 text")
NO_VALUE = Failure("no-value", "RecordError", "the record has no value (a tombstone)")


def unknown_model(known: Collection[ModelId]) -> Failure:
    """Say that a record names a model that is not configured; the name itself is the sender's and is not repeated."""
    names = ", ".join(sorted(known)[:NAMES_MAX]) + (", ..." if len(known) > NAMES_MAX else "")
    return Failure(
        "unknown-model", "RecordError", f"the record names a model that is not configured; there are: {names}"
    )


class Intake:
    """Splits slices by model and sets aside what no model can take."""

    def __init__(self, known: Collection[ModelId]) -> None:
        """Take the names of the configured models."""
        self._known = frozenset(known)
        self._unknown = unknown_model(self._known)

    def split(self, admitted: Admitted, now: float) -> tuple[list[Run], list[tuple[Run, Failure]]]:
        """Split a slice into runs for models, and runs that fail with one failure each.

        Args:
            admitted: The slice, where its records stand in the ledger, and which of them are meant.
            now: Monotonic seconds of the fetch.
        """
        fetched, indices = admitted.fetched, admitted.indices
        models = fetched.models
        if indices is None and isinstance(models, str) and models in self._known and not admitted.has_tombstones:
            return [_whole(admitted, models, now)], []
        whole = _whole(admitted, "", now)
        runs: list[Run] = []
        failed: list[tuple[Run, Failure]] = []
        for verdict, chosen in self._by_model(
            fetched, range(len(fetched.offsets)) if indices is None else indices
        ).items():
            is_consecutive = chosen[-1] - chosen[0] == len(chosen) - 1
            run = whole.part(chosen[0], chosen[-1] + 1) if is_consecutive else whole.pick(chosen)
            if isinstance(verdict, Failure):
                failed.append((run, verdict))
            else:
                run.model = verdict
                runs.append(run)
        return runs, failed

    def _by_model(self, fetched: Slice, indices: Sequence[int]) -> Mapping[ModelId | Failure, list[int]]:
        """Sort records by their model, or by why they have none."""
        models, values, known = fetched.models, fetched.values, self._known
        names: Sequence[ModelId | Failure | None]
        names = [models] * len(values) if models is None or isinstance(models, str) else models
        if None in values:
            names = [
                NO_VALUE if value is None and name in known else name for name, value in zip(names, values, strict=True)
            ]
        by_name: dict[ModelId | Failure | None, list[int]] = defaultdict(list)
        for i in indices:
            by_name[names[i]].append(i)
        # Decided once for each name: this loop is the only work that is done for every record.
        sorted_indices: dict[ModelId | Failure, list[int]] = {}
        for name, chosen in by_name.items():
            sorted_indices.setdefault(self._verdict(name), []).extend(chosen)
        return {verdict: sorted(chosen) for verdict, chosen in sorted_indices.items()}

    def _verdict(self, name: ModelId | Failure | None) -> ModelId | Failure:
        """Say which model takes records of this name, or why none does."""
        if name is None:
            return NO_MODEL_ID
        return name if isinstance(name, Failure) or name in self._known else self._unknown


def _whole(admitted: Admitted, model: ModelId, now: float) -> Run:
    """Make one run of a slice."""
    fetched = admitted.fetched
    return Run(
        partition=fetched.partition,
        generation=admitted.generation,
        model=model,
        positions=admitted.positions,
        offsets=fetched.offsets,
        keys=fetched.keys,
        values=fetched.values,
        headers=fetched.headers,
        timestamps_ms=fetched.timestamps_ms,
        size=admitted.size,
        fetched_s=now,
        deadlines_s=fetched.deadlines_s,
    )
