"""Outcomes out, exactly once: results, dead letters and offsets in one transaction.

Owns the transactional producer and every outcome until its transaction is committed. Must not know which offsets are
due, nor when.

Theory of operation. Hand-overs go into the open transaction. `flush` *seals* it: what comes later waits, so that the
transaction holds nothing whose offset its commit does not name. When nothing is left in the client, the barrier is
passed; `commit` adds the offsets. Whatever blocks (commit, abort, start) runs in a thread, one at a time, and the
client is that thread's alone meanwhile; the loop turns on, and hand-overs wait.

A transaction can end in one other way: it is aborted. Then everything that is *retained*, which is all that no commit
has confirmed, is produced again into the next one, but for what was fenced or found to be at fault, and for topics that
are tried apart first (`trials`). Nothing is inferred again. An error of a whole batch condemns the transaction with
it: its records are sent one by one in the next, so that only the culprit fails. If the client breaks for good, another
one takes over; its first act ends the old transaction, and the group's committed offsets tell which way, where that
was not known. Fenced by another instance it never does: two would fence each other for ever. A transaction that
outlived its timeout looks the same to the client, so that its age decides.
"""

import time
from bisect import insort
from collections.abc import Callable, Collection, Mapping
from functools import partial
from operator import attrgetter
from typing import Any

from confluent_kafka import KafkaException, Producer, ThrottleEvent

from consumer.core.events import Delivered, DeliveryFailed
from consumer.core.types import Failure, Ticket, TopicPartition
from consumer.errors import FencedError
from consumer.kafka.contents import Contents
from consumer.kafka.errors import Complaints
from consumer.kafka.handovers import HandOver
from consumer.kafka.operations import Attempt, Ending, Offsets, Operation, discard, end
from consumer.kafka.outlet import LOOK_S, UNHEARD, Outlet
from consumer.kafka.ration import SLOW, Ration
from consumer.kafka.routes import Routes
from consumer.kafka.settings import Value
from consumer.kafka.spares import Spares
from consumer.kafka.succession import Succession
from consumer.kafka.trials import Trials

BACKOFF_S = 0.1
BACKOFF_S_MAX = 5.0
"""Pause before what an abort left over is produced again, where a topic was at fault: doubled up to this."""
NOT_A_MEMBER = "UNKNOWN_MEMBER_ID"
ALSO_RECALLED = frozenset({"_PURGE_INFLIGHT", "_STATE"})
"""What else the client says of records that are not in a transaction because that has failed."""
BROKE = "the producer broke and is made anew: what no commit confirmed is produced again"
HUNG = "the producer did not come back from the end of a transaction and is made anew: what no commit confirmed is \
produced again"


class TransactionalSink(Outlet):
    """The producer of results, dead letters and commits. Every method is the loop thread's; none waits for ever."""

    def __init__(
        self,
        settings: Mapping[str, Value],
        routes: Routes,
        committed: Callable[[Collection[TopicPartition]], Offsets],
        examine: Callable[[Producer, Operation], Ending] | None = None,
    ) -> None:
        """Make the client and have the coordinator end what a predecessor with the same id has left open.

        Args:
            settings: `ClientSettings.producer`, composed for exactly-once.
            routes: where outcomes go.
            committed: asks for the group's committed offsets (`Admin.committed`); called from a thread, after a fatal
                error only, and asked again if it raises a KafkaException or a BrokerError.
            examine: finds out whether the brokers only pretend to have transactions (`pretence.examine`).

        Raises:
            ClientError: the client refuses its settings.
            BrokerError: the brokers cannot do transactions, refuse them, or do not answer.
            FencedError: another instance has the same transactional.id.
        """
        super().__init__(settings, routes)
        self._timeout_s = float(settings["transaction.timeout.ms"]) / 1000
        self._contents = Contents()
        self._began_s: float | None = None
        """When the open transaction began."""
        self._is_sealed = False
        self._ration = Ration(self._timeout_s / 2)
        self._attempt: Attempt | None = None
        """A commit that waits until everything retained is in the transaction."""
        self._operation: Operation | None = None
        self._is_condemned = False
        """The open transaction cannot be committed."""
        self._is_explained = False
        """No topic is at fault that it cannot."""
        self._not_before_s = 0.0
        self._backoff_s = BACKOFF_S
        own = str(settings["transactional.id"])
        spares = Spares(own)
        make = partial(self._make_as, {"throttle_cb": self._note_throttle})
        self._succession = Succession(make, own, spares, committed)
        self._client = self._succession.begin(self._complaints, examine)
        self._trials = Trials(partial(self._make_as, UNHEARD), spares, self._tell)
        self._trials.prepare()

    @property
    def in_flight(self) -> int:
        """Outcomes handed over that no commit has confirmed."""
        return sum(len(each.values) for each in (*self._waiting, *self._contents.retained)) + len(self._trials)

    def flush(self) -> None:
        """Seal the transaction behind all that was handed over, and begin a barrier there.

        Later hand-overs wait until the commit that follows is confirmed, or until another barrier includes them.
        """
        assert self._barrier is None, "one barrier at a time"
        self._is_sealed = True
        super().flush()

    def commit(self, offsets: Offsets, metadata: bytes | None) -> None:
        """Commit what the last barrier passed, with these offsets; the answer is a `Committed` of a later `events`.

        Args:
            offsets: the next offsets.
            metadata: `Source.group_metadata()` of now; None, where this member has not joined, is refused here.
        """
        assert self._attempt is None, "one commit at a time"
        assert self._barrier is None, "a commit follows its barrier"
        newest = max((each.ticket for each in self._contents.retained), default=Ticket(0))
        assert newest <= self._delivered, "a commit names all that is in it"
        if metadata is None:
            # The member may be away for long, and a transaction must not grow old.
            self._condemn()
            self._events.append(Attempt(offsets, b"").answer(NOT_A_MEMBER))
            return
        self._attempt, self._is_sealed = Attempt(offsets, metadata), True
        self._turn()

    def hasten(self) -> None:
        """Do nothing: nobody reads a result before its transaction is committed, and that sends it."""

    def fence(self, partitions: Collection[TopicPartition]) -> None:
        """Let nothing more of partitions that were taken away be committed.

        An open transaction that holds some of it is aborted. One that is being committed is not: either its commit is
        accepted for the group's old generation, and whoever has the partitions now waits for its end, or it is refused.
        """
        is_in_it = self._contents.fence(partitions)
        for handed in self._waiting:
            handed.fence(partitions)
        self._trials.fence(partitions)
        attempt = self._attempt
        if attempt is not None and not attempt.offsets.keys().isdisjoint(partitions):
            self._attempt = None
            self._events.append(attempt.answer("REBALANCE_IN_PROGRESS"))
        if is_in_it and (self._operation is None or self._operation.attempt is None):
            self._condemn()

    def close(self) -> None:
        """Abort what is open, and give up what is still in the client; flush and commit first."""
        if self._operation is None and self._began_s is not None and self._complaints.fatal is None:
            self._operation = Operation(partial(end, self._client, None), None)
        if self._operation is not None and not self._operation.wait(1.0):
            self._operation.abandon()
        self._trials.close()

    # -- one turn ----------------------------------------------------------------------------------------------------

    def _turn(self) -> None:
        """See how far everything is, and do what comes next."""
        if self._operation is not None:
            has_ended = self._operation.wait(0)
            while self._operation.words:
                self._complaints.add("_WAIT_COORD", self._operation.words.popleft())
            if has_ended:
                self._finish(self._operation)
            elif self._operation.is_hung():
                self._operation.abandon()
                self._replace("_TIMED_OUT", HUNG, self._operation.attempt)
        self._trials.turn(self._delivered)
        if self._operation is None:
            self._call(self._client.poll, 0)
            self._look_for_trouble()
        if self._operation is None:
            self._fill()
        if self._operation is None and self._is_all_sent():
            self._events.extend(self._contents.unpark())
            self._pass_barrier()
            if self._attempt is not None and self._begin():
                call = partial(end, self._client, self._attempt)
                self._operation, self._attempt = Operation(call, self._attempt), None

    def _wait(self, timeout_s: float) -> None:
        if self._operation is not None:
            self._operation.wait(timeout_s)
        elif len(self._client):
            self._call(self._client.flush, timeout_s)
        else:
            time.sleep(min(timeout_s, 0.005))

    def _fill(self) -> None:
        """Give the client what the transaction is to hold."""
        for handed in self._trials.cleared(with_parked=not self._is_sealed):
            if handed.ticket > self._delivered:  # in its turn, and as the ration allows
                insort(self._waiting, handed, key=attrgetter("ticket"))
            else:
                self._contents.add(handed)
        if time.monotonic() < self._not_before_s or self._trials.is_undecided:
            return
        while self._waiting and (not self._is_sealed or self._waiting[0].ticket <= (self._barrier or 0)):
            if not self._ration.allows(self._waiting[0], self._contents.retained, self._delivered):
                # The barrier passes before it, and so does the commit.
                self._barrier = self._barrier and Ticket(self._waiting[0].ticket - 1)
                break
            handed = self._waiting.popleft()
            if not self._trials.takes(handed):
                self._contents.add(handed)
        # What an abort left over waits for the next barrier or commit: an open transaction grows old.
        if self._is_sealed and self._barrier is None and self._attempt is None:
            return
        self._send()

    def _send(self) -> None:
        """Give the client what it has room for."""
        if self._contents.has_unsent and self._begin():
            try:
                self._contents.send(self._client)
            except KafkaException:
                self._is_condemned = True
        if self._contents.has_suspects and len(self._client) == 0 and self._begin():
            self._contents.send_alone(self._client)

    def _is_all_sent(self) -> bool:
        is_left = len(self._client) or self._is_condemned or self._trials.is_undecided
        return self._contents.is_all_sent and not is_left and time.monotonic() >= self._not_before_s

    def _note_throttle(self, event: ThrottleEvent) -> None:
        """Wait while a broker does not listen, before the barrier: behind it, a transaction cannot be made smaller."""
        self._not_before_s = max(self._not_before_s, time.monotonic() + event.throttle_time)

    def _pass_barrier(self) -> None:
        if self._barrier is not None:
            self._delivered = self._barrier
            self._events.append(Delivered(self._barrier))
            self._barrier = None

    def _look_for_trouble(self) -> None:
        """Abort a transaction that cannot be committed any more; replace a broken client."""
        if self._began_s is not None and not self._is_condemned and self._is_old():
            self._is_condemned = True
            self._ration.outlived(self._contents.retained, self._delivered)
            self._complaints.add("_TIMED_OUT", SLOW)
        is_ending = self._began_s is not None and self._is_condemned
        if self._complaints.fatal is not None or (is_ending and self._is_explained):
            # A client that broke says only here why.
            self._operation = Operation(partial(end, self._client, None), None)
        elif is_ending:
            self._leave()
        elif self._is_condemned:
            self._again()

    def _leave(self) -> None:
        """Have topics tried, and another client go on meanwhile.

        A partition that takes no record may take no mark of the transaction's end either, and while it keeps a record
        without an answer, it keeps everything that this client has for its broker.
        """
        self._client.purge()
        self._call(self._client.flush, LOOK_S)  # serves the reports of what was given back
        self._again()
        self._operation = Operation(partial(self._succession.leave, self._client), None)

    def _is_old(self) -> bool:
        """Tell whether the open transaction is close to its timeout: better aborted by us than by the coordinator."""
        assert self._began_s is not None
        return time.monotonic() - self._began_s > self._timeout_s / 2

    def _condemn(self) -> None:
        if self._contents.retained:
            self._is_condemned = self._is_explained = True

    def _make_as(self, settings: Mapping[str, Any], transactional_id: str) -> Producer:
        return self._make({**settings, "transactional.id": transactional_id})

    def _begin(self) -> bool:
        """Have a transaction open; False if the client cannot, which the next turn looks into."""
        if self._began_s is None:
            try:
                self._client.begin_transaction()
            except KafkaException as raised:
                self._complaints.break_down(raised.args[0])
                return False
            self._began_s = time.monotonic()
        return True

    # -- ends of transactions ----------------------------------------------------------------------------------------

    def _finish(self, operation: Operation) -> None:
        """Draw the conclusions from how an operation ended."""
        self._operation = None
        ending, attempt = operation.ending, operation.attempt
        if ending.fatal is not None or (self._complaints.fatal is not None and ending.client is None):
            name = ending.fatal.name() if ending.fatal is not None else self._complaints.fatal_name
            self._replace(name, BROKE, attempt)
            return
        if ending.client is not None:
            discard(self._client)
            self._client = ending.client
        began_s, self._began_s = self._began_s, None
        if attempt is not None and ending.error is None and (ending.client is None or ending.is_committed):
            self._contents.clear()
            if began_s is not None:
                self._ration.committed(time.monotonic() - began_s)
            self._is_sealed = self._barrier is not None
            self._is_condemned = self._is_explained = False
            self._backoff_s = BACKOFF_S
            self._events.append(attempt.answer(None))
            return
        if ending.error is not None:
            self._complaints.note(ending.error)
        if self._again() and ending.client is None:
            # The partition that took no record may take no mark of the transaction's end either.
            self._operation = Operation(partial(self._succession.take_over, None), None)
        if attempt is not None:
            self._events.append(attempt.answer(ending.error.name() if ending.error is not None else "_FATAL"))

    def _again(self) -> bool:
        """Have what is retained produced again, but for topics that are to be tried first; tell whether some are."""
        left = [handed for handed in self._contents.retained if not handed.is_fenced]
        retained = self._trials.suspend(left, is_explained=self._is_explained)
        is_for_topics = len(retained) < len(left)
        if is_for_topics:
            self._not_before_s = max(self._not_before_s, time.monotonic() + self._backoff_s)
            self._backoff_s = min(BACKOFF_S_MAX, 2 * self._backoff_s)
        self._is_condemned = self._is_explained = False
        retained, left = self._ration.divide(retained, self._delivered)
        self._waiting.extendleft(reversed(left))
        self._contents.restart(retained)
        return is_for_topics

    def _replace(self, name: str, why: str, attempt: Attempt | None) -> None:
        """Make another client, unless another instance wants to be the only one."""
        is_timed_out = self._began_s is not None and time.monotonic() - self._began_s >= self._timeout_s
        if name == "_FENCED" and not is_timed_out:
            raise FencedError(self._succession.id)
        # Without a word from the client before it broke, nothing is known of topics.
        self._is_explained = self._is_explained or not self._is_condemned
        self._complaints = Complaints()
        self._complaints.add(name, why)
        self._operation = Operation(partial(self._succession.take_over, attempt), attempt)

    # -- from the hand-overs; in an aborting thread too, where they say nothing new ------------------------------------

    def suspect(self, handed: HandOver, index: int) -> None:
        """Send a record alone, from now on."""
        handed.apart.add(index)
        if index in handed.reported:
            self._is_condemned = self._is_explained = True
        else:
            self._contents.suspect(handed, index)

    def recalled(self, handed: HandOver, index: int) -> None:
        """Take note of a record that did not get into the transaction; unasked, the client says that it has failed."""
        self._trials.give_back(handed, index)
        self._is_condemned = self._is_condemned or self._operation is None

    def park(self, handed: HandOver, index: int, failure: Failure) -> None:
        """Abort, and have the topic tried: a transaction cannot do without one of its records."""
        if failure.error in ALSO_RECALLED:
            self.recalled(handed, index)
            return
        self._trials.blame(handed, index)
        if not self._is_condemned:
            self._is_condemned = True
            self._complaints.add(failure.error, f"{handed.topic}: {failure.message}", handed.topic)

    def fail(self, handed: HandOver, index: int, failure: Failure) -> None:
        """Report a record as not delivered, and never send it again."""
        if index in handed.reported:
            self._is_condemned = self._is_explained = True
        handed.fenced.add(index)
        handed.parked.discard(index)
        self._events.append(DeliveryFailed(handed.ticket, index, failure))
