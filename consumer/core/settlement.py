"""From an answer to outcomes: which records have results, which failed, which belong to nobody any more.

Owns the split of a worker's answer. Must not know what follows from a failure (retry's), nor where outcomes go.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from consumer.core.events import Answered
from consumer.core.leases import Lease
from consumer.core.types import ChunkId, Failure, Run


@dataclass(slots=True)
class Settlement:
    """What an answer says, sorted."""

    runs: list[Run] = field(default_factory=list)
    """Records with results, without their payloads."""
    values: Sequence[bytes] = ()
    """Their result payloads, a column over the records of `runs`."""
    keys: Sequence[bytes | None] = ()
    """Their result keys."""
    size: int = 0
    """Bytes of `values` and `keys` together."""
    failed: list[tuple[Run, list[Failure]]] = field(default_factory=list)
    """Records without results, with their payloads, and a column of reasons."""
    stale: int = 0
    """Records of partitions that were taken away meanwhile: dropped."""


def settle(lease: Lease, answered: Answered, is_current: Callable[[Run], bool]) -> Settlement:
    """Sort an answer by what became of each record.

    Args:
        lease: The chunk that the answer is about.
        answered: The answer.
        is_current: Tells whether a run's partition is still this member's, in the run's generation.
    """
    segments = list(lease.segments(answered.first, answered.first + answered.count))
    if not answered.failures and all(is_current(run) for run, _, _, _ in segments):
        # The hot path: columns are handed on as they came.
        runs = [run.bare(begin, end) for run, begin, end, _ in segments]
        return Settlement(runs, answered.values, answered.keys, answered.size)
    settlement = Settlement()
    values: list[bytes] = []
    keys: list[bytes | None] = []
    for run, begin, end, base in segments:
        if not is_current(run):
            settlement.stale += end - begin
            continue
        good = [i for i in range(begin, end) if base + i not in answered.failures]
        bad = [i for i in range(begin, end) if base + i in answered.failures]
        if good:
            settlement.runs.append(run.pick_bare(good) if bad else run.bare(begin, end))
            values.extend(answered.values[base + i - answered.first] for i in good)
            keys.extend(answered.keys[base + i - answered.first] for i in good)
        if bad:
            settlement.failed.append((run.pick(bad), [answered.failures[base + i] for i in bad]))
    settlement.values, settlement.keys = values, keys
    settlement.size = sum(map(len, values)) + sum(map(len, filter(None, keys)))
    return settlement


def original(answered: Iterable[Lease], run: Run, chunk: ChunkId | None) -> Run | None:
    """Find a record's payload in the chunk it came back in; None where that is not held any more.

    Args:
        answered: The chunks that are answered and not released.
        run: The record, without its payload.
        chunk: The chunk that it came back in.
    """
    (position,) = run.positions
    for lease in answered:
        if lease.chunk.chunk == chunk:
            for lent in lease.chunk.runs:
                if lent.partition == run.partition and position in lent.positions:
                    return lent.pick([lent.positions.index(position)])
    return None
