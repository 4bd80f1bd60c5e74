"""What becomes of the records that a dead worker had.

Owns the distinction between suspects and innocents. Must not know queues, partitions or the sink.

Theory of operation. The batch that was running is made of the oldest records of one model, but nobody knows of which.
So of each model the chunks that a batch can reach into are suspects, and what lies behind them is innocent and goes
back into its queue. Suspects are halved and sent again alone (`retry.after_crash`).
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from consumer.core.leases import Lease
from consumer.core.retry import CrashVerdict, after_crash, halve
from consumer.core.types import ModelId, Run


@dataclass(slots=True)
class Recovery:
    """Lost records, sorted."""

    innocent: list[Run] = field(default_factory=list)
    """Newest first, as they are put in front of their queues one by one."""
    suspects: list[list[Run]] = field(default_factory=list)
    """Each a chunk that travels alone."""
    condemned: list[Run] = field(default_factory=list)
    """Single records that killed their worker once more than is put up with."""


def recover(
    lost: Iterable[tuple[Lease, list[Run]]], rows_max: Callable[[ModelId], int], is_wanted: Callable[[Run], bool]
) -> Recovery:
    """Sort what a dead worker had.

    Args:
        lost: Its leases, oldest first, with the records that have no answer.
        rows_max: Says how many records a batch of a model may have.
        is_wanted: Tells whether a run is still for this member to infer.
    """
    recovery = Recovery()
    ahead: dict[ModelId, int] = {}
    for lease, runs in lost:
        wanted = [run for run in runs if is_wanted(run)]
        model = lease.chunk.model
        if not wanted:
            continue
        if lease.is_suspect or ahead.get(model, 0) < rows_max(model):
            ahead[model] = ahead.get(model, 0) + sum(map(len, wanted))
            _suspect(wanted, lease, recovery)
        else:
            recovery.innocent.extend(wanted)
    recovery.innocent.reverse()
    return recovery


def _suspect(runs: list[Run], lease: Lease, recovery: Recovery) -> None:
    """Decide on the records of one chunk, of which one may have killed the worker."""
    records = sum(map(len, runs))
    was_alone = records == 1 and lease.is_suspect
    for run in runs:
        run.attempts += 1
        run.crashes += 1 if was_alone else 0
    match after_crash(records, runs[0].crashes):
        case CrashVerdict.CONDEMN:
            recovery.condemned.extend(runs)
        case CrashVerdict.HALVE:
            recovery.suspects.extend(halve(runs))
        case CrashVerdict.REPEAT:
            recovery.suspects.append(runs)
