"""What becomes of the records that a dead worker had.

Owns the distinction between suspects and innocents. Must not know queues, partitions or the sink.

Theory of operation. Only a record of the batch that was running, or of one that was decoded or encoded beside it, can
have ended its worker, or kept it too long: these are suspects, everything else goes back to where it waited. Suspects
are sent again alone and run one after the other: what is answered before the next death is innocent, and who is running
then is known (`retry.after_crash`). Where a worker left no word of what it ran, the batch was made of the oldest
records of one model, but nobody knows of which: of each model the chunks that a batch can reach into are suspects then.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from consumer.core.activity import Phase, Stretch
from consumer.core.events import WorkerExited
from consumer.core.leases import Lease
from consumer.core.retry import CrashVerdict, after_crash, halve
from consumer.core.types import Failure, ModelId, Run

KILLED: Final = -9
"""Exit code after SIGKILL: by somebody, or by the kernel when memory is short."""


@dataclass(slots=True)
class Recovery:
    """Lost records, sorted."""

    innocent: list[Run] = field(default_factory=list)
    """Newest first, as they are put in front of their queues one by one."""
    suspects: list[list[Run]] = field(default_factory=list)
    """Each a chunk that travels alone."""
    condemned: list[Run] = field(default_factory=list)
    """Single records that ended their worker once more than is put up with."""


def recover(lost: Iterable[Lease], running: Iterable[Stretch], is_wanted: Callable[[Run], bool]) -> Recovery:
    """Sort what a dead worker had.

    Args:
        lost: Its leases, oldest first.
        running: The records of which one may be to blame.
        is_wanted: Tells whether a run is still for this member to infer.
    """
    recovery = Recovery()
    stretches = {stretch.chunk: stretch for stretch in running}
    for lease in lost:
        records = len(lease.unanswered)
        stretch = stretches.get(lease.chunk.chunk, Stretch(lease.chunk.chunk, 0, 0))
        first = min(stretch.first, records)
        stop = min(first + stretch.count, records)
        suspects = _wanted(lease, first, stop, is_wanted)
        others = _wanted(lease, 0, first, is_wanted) + _wanted(lease, stop, records, is_wanted)
        if suspects:
            _suspect(suspects, lease, recovery)
        if others and lease.is_suspect:
            recovery.suspects.append(others)
        else:
            recovery.innocent.extend(others)
    recovery.innocent.reverse()
    return recovery


def blamed_records(
    exited: WorkerExited, lost: Iterable[Lease], rows_max: Callable[[ModelId], int]
) -> Sequence[Stretch]:
    """Name the records of which one may have ended the worker; `rows_max` says how many a batch of a model may have."""
    if exited.is_planned or (exited.overdue is not None and exited.overdue.phase is not Phase.INFER):
        return ()
    return _reachable(lost, rows_max) if exited.running is None else exited.running


def blamed_models(exited: WorkerExited) -> Collection[ModelId] | None:
    """Name the models whose loading or probing may have ended the worker; None: all of those that it was asked for."""
    if exited.is_planned:
        return ()
    if exited.overdue is None:
        return exited.loading
    model = exited.overdue.model
    return (model,) if model is not None and exited.overdue.phase in {Phase.LOAD, Phase.PROBE} else ()


def was_outside(exited: WorkerExited) -> bool:
    """Tell whether a worker may have been killed from outside: by an operator, or for want of memory."""
    return exited.exit_code == KILLED and exited.overdue is None


def culprits(exited: WorkerExited, lost: Iterable[Lease], running: Iterable[Stretch]) -> set[ModelId]:
    """Name the models that are charged with the death.

    A worker that was killed from outside says nothing about its batch, nor does one that was at batches of two models
    say of which; only when the batch is tried again, alone, and that worker ends as well, it does.
    """
    chunks = {stretch.chunk for stretch in running if stretch.count}
    named = [lease for lease in lost if lease.chunk.chunk in chunks]
    is_clear = (
        not was_outside(exited) and exited.running is not None and len({lease.chunk.model for lease in named}) == 1
    )
    return {lease.chunk.model for lease in named if lease.is_suspect or is_clear}


def verdict_on(exited: WorkerExited) -> Failure:
    """Say why a record that ended its workers becomes a dead letter."""
    if exited.overdue is None:
        return Failure("crashed-worker", "WorkerCrashedError", "the worker died each time it had this record")
    limit_s = exited.overdue.timeout_s
    return Failure("time-limit", "WorkerHungError", f"the worker took longer than {limit_s:g} s over this record alone")


def _wanted(lease: Lease, first: int, stop: int, is_wanted: Callable[[Run], bool]) -> list[Run]:
    """Cut records without an answer out of a lease, those apart that are nobody's any more."""
    return [run for run in lease.unanswered_runs(first, stop) if is_wanted(run)]


def _reachable(lost: Iterable[Lease], rows_max: Callable[[ModelId], int]) -> list[Stretch]:
    """Name the chunks that a batch can have reached into."""
    reached: list[Stretch] = []
    ahead: dict[ModelId, int] = {}
    for lease in lost:
        model = lease.chunk.model
        if lease.is_suspect or ahead.get(model, 0) < rows_max(model):
            ahead[model] = ahead.get(model, 0) + sum(lease.unanswered)
            reached.append(Stretch(lease.chunk.chunk, 0, len(lease.unanswered)))
    return reached


def _suspect(runs: list[Run], lease: Lease, recovery: Recovery) -> None:
    """Decide on the records of one chunk, of which one may have ended the worker."""
    records = sum(map(len, runs))
    was_alone = records == 1 and lease.is_suspect
    for run in runs:
        run.attempts += 1
        run.crashes += 1 if was_alone else 0
    match after_crash(records, runs[0].crashes, is_searched=lease.is_suspect):
        case CrashVerdict.CONDEMN:
            recovery.condemned.extend(runs)
        case CrashVerdict.HALVE:
            recovery.suspects.extend(halve(runs))
        case CrashVerdict.SEARCH | CrashVerdict.REPEAT:
            recovery.suspects.append(runs)
