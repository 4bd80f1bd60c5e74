"""From settled records to delivered ones: results and dead letters on their way through the sink.

Owns every outcome from its hand-over until the broker has it, and the tickets between. Must not know what became of a
record before, nor when barriers and commits are due.

Theory of operation. An outcome is handed over under a ticket and is *resolved* when a barrier has passed its ticket.
One that its topic does not take for now is *parked* in the sink: no barrier resolves it, only its own delivery does.
Where each outcome must be committed together with its offset (exactly-once), one whose offset is too far above the
watermark to be named in the commit's metadata is *withheld* here until the watermark has come closer: produced earlier,
it would be produced again after a crash.
"""

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from consumer.core.actions import DeadLetter, Produce
from consumer.core.handover import Handover
from consumer.core.leases import Lease
from consumer.core.partitions import Partitions
from consumer.core.settlement import original
from consumer.core.types import ChunkId, Failure, ModelId, Run, Ticket, TopicPartition

PAYLOAD_LOST = "its payload is no longer at hand: read it from its source offset"


@dataclass(frozen=True, slots=True)
class Results:
    """Results of one model: `values` and `keys` are columns over the records of `runs`."""

    model: ModelId
    runs: Sequence[Run]
    values: Sequence[bytes]
    keys: Sequence[bytes | None]
    size: int
    """Bytes of `values` and `keys` together, at most."""


@dataclass(frozen=True, slots=True)
class Letters:
    """Dead letters: `failures` is a column over the records of `run`."""

    run: Run
    failures: Sequence[Failure]


class Outcomes:
    """Every outcome between its settlement and its delivery."""

    def __init__(self, partitions: Partitions, *, must_fit: bool) -> None:
        """Start with none; `must_fit` withholds what the next commit could not name."""
        self._partitions = partitions
        self._must_fit = must_fit
        self._handover = Handover()
        self._withheld: deque[Results | Letters] = deque()
        self._parked: dict[tuple[Ticket, int], Run] = {}

    @property
    def undelivered(self) -> int:
        """Outcomes handed over that a barrier would tell of."""
        return self._handover.records

    @property
    def size(self) -> int:
        """Bytes of the undelivered outcomes."""
        return self._handover.size

    @property
    def parked(self) -> int:
        """Outcomes that wait in the sink for their topics."""
        return len(self._parked)

    def touch(self, partitions: Collection[TopicPartition]) -> bool:
        """Tell whether an outcome of these partitions is withheld or on its way; parked ones would take too long."""
        runs = (run for each in self._withheld for run in (each.runs if isinstance(each, Results) else [each.run]))
        return self._handover.touch(partitions) or any(run.partition in partitions for run in runs)

    def results(self, results: Results, chunk: ChunkId | None) -> Iterator[Produce]:
        """Hand over results that came back in a chunk, or withhold them; their bytes weigh until they are delivered."""
        records = sum(map(len, results.runs))
        for run in results.runs:
            run.size = results.size * len(run) // records  # near enough, and found without a look at each
        if self._must_fit and not all(map(self._partitions.fits, results.runs)):
            first = 0
            for run in results.runs:
                place = slice(first, first + len(run))
                single = Results(results.model, [run], results.values[place], results.keys[place], results.size)
                first += len(run)
                if self._partitions.fits(run):
                    yield self._produce(single, chunk)
                else:
                    self._withhold(single)
            return
        yield self._produce(results, chunk)

    def letters(self, run: Run, failures: Sequence[Failure]) -> Iterator[DeadLetter]:
        """Hand over dead letters, payloads included, or withhold them."""
        if self._must_fit and not self._partitions.fits(run):
            self._withhold(Letters(run, failures))
            return
        yield self._dead_letter(Letters(run, failures))

    def skip(self, run: Run) -> None:
        """Be done with records that get no outcome: nothing is waited for, and the next commit may pass them."""
        self._partitions.settle([run])
        self._partitions.resolve([run])

    def release(self) -> Iterator[Produce | DeadLetter]:
        """Hand over what was withheld and can be named in a commit by now; forget what is nobody's any more."""
        for _ in range(len(self._withheld)):
            each = self._withheld.popleft()
            run = each.runs[0] if isinstance(each, Results) else each.run
            if not self._partitions.is_current(run):
                continue
            if not self._partitions.fits(run):
                self._withheld.append(each)
                continue
            self._partitions.drop([run])  # weighed while it was withheld, and weighs again as handed over
            yield self._produce(each, None) if isinstance(each, Results) else self._dead_letter(each)

    def forget(self) -> None:
        """Forget parked outcomes of partitions that were taken away: the sink has dropped them."""
        self._parked = {place: run for place, run in self._parked.items() if self._partitions.is_current(run)}

    def deliver(self, ticket: Ticket) -> int:
        """Resolve everything up to a ticket that a barrier has passed; count it."""
        before = self._handover.records
        self._partitions.resolve(self._handover.deliver(ticket))
        return before - self._handover.records

    def park(self, ticket: Ticket, index: int) -> None:
        """Take note that an outcome waits in the sink for its topic."""
        found = self._handover.withdraw(ticket, index)
        if found is not None:
            self._parked[ticket, index], _ = found

    def unpark(self, ticket: Ticket, index: int) -> None:
        """Resolve an outcome that was parked and is delivered now."""
        run = self._parked.pop((ticket, index), None)
        if run is not None:
            self._partitions.resolve([run])

    def give_up(self, ticket: Ticket, index: int, failure: Failure, answered: Iterable[Lease]) -> Iterator[DeadLetter]:
        """Make a dead letter of a record whose result the broker does not take.

        Args:
            ticket: The hand-over.
            index: The record's number in it.
            failure: Why.
            answered: The chunks whose payloads can still be read.
        """
        parked = self._parked.pop((ticket, index), None)
        run, chunk = (parked, None) if parked else self._handover.withdraw(ticket, index) or (None, None)
        if run is None or not self._partitions.is_current(run):
            return
        letter = original(answered, run, chunk)
        if letter is None:
            letter = run.bare(0, 1)
            letter.values = [None]
            failure = Failure(failure.reason, failure.error, f"{failure.message}; {PAYLOAD_LOST}", failure.disposition)
        # Settled before, by the result: only its outcome is another one now.
        self._partitions.drop([run])
        self._partitions.hold(letter)
        yield DeadLetter(self._handover.hand([_handed(letter)]), letter, [failure])

    def _withhold(self, each: Results | Letters) -> None:
        self._withheld.append(each)
        self._partitions.hold(each.runs[0] if isinstance(each, Results) else each.run)

    def _produce(self, results: Results, chunk: ChunkId | None) -> Produce:
        ticket = self._handover.hand(results.runs, chunk)
        self._partitions.settle(results.runs)
        return Produce(ticket, results.model, results.runs, results.values, results.keys, results.size)

    def _dead_letter(self, letters: Letters) -> DeadLetter:
        handed = _handed(letters.run)
        ticket = self._handover.hand([handed])
        self._partitions.settle([handed])
        return DeadLetter(ticket, letters.run, letters.failures)


def _handed(run: Run) -> Run:
    """Leave the payloads of a dead letter's records out, but for their size."""
    handed = run.bare(0, len(run))
    handed.size = run.size
    return handed
