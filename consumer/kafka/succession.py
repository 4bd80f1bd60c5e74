"""How a transactional client begins: the first one of a process, and each one that takes over from one that broke.

Owns what the coordinator and the group are asked then. Must not know outcomes.

Theory of operation. A client that begins ends what the one before it with the same id has left open. Which way that
ended, where it is not known, the group's committed offsets tell, which are stable only when it is decided. If the
coordinator is at work on the end and does not come to it, because a partition takes no mark of it, a spare id goes on.
"""

import contextlib
import time
from collections.abc import Callable, Collection
from functools import partial
from typing import TypeAlias

from confluent_kafka import KafkaError, KafkaException, Producer

from consumer.core.types import TopicPartition
from consumer.errors import BrokerError, ClientError, ConsumerError, FencedError
from consumer.kafka.errors import Complaints, described
from consumer.kafka.operations import HANG_S, Attempt, Ending, Offsets, Operation, discard, end
from consumer.kafka.spares import Spares

STUCK_S = 1.5
"""How long the coordinator may be at work on the last transaction before that is taken for stuck."""
START_TIMEOUT_S = 30.0
"""How long the coordinator may take to end a predecessor's transaction and to answer the first time."""
ASK_AGAIN_S = 1.0
EXAMINATION_WAIT_S = 0.1
UNDECIDED = (
    "{}: they tell whether the last transaction was committed, and everything waits for them; if the brokers are well, "
    "find a transaction that they left without an end by kafka-transactions.sh find-hanging, and abort it"
)
STUCK = "the last transaction of {} has no end yet (a partition that it wrote to may take no mark of it): {}"
NO_TRANSACTIONS = "delivery: exactly-once needs transactions, and these brokers do not begin one"


Repeat: TypeAlias = Callable[[Callable[[float], object], float], None]
"""Calls the client until a time, as `Operation.repeat` does."""


class Succession:
    """The transactional clients of one process, one after the other."""

    def __init__(
        self,
        make: Callable[[str], Producer],
        transactional_id: str,
        spares: Spares,
        committed: Callable[[Collection[TopicPartition]], Offsets],
    ) -> None:
        """Take what makes the client of an id, the ids, and what asks for the group's committed offsets."""
        self._make = make
        self.id = transactional_id
        """The present client's."""
        self._spares = spares
        self._committed = committed

    def begin(
        self,
        complaints: Complaints,
        examine: Callable[[Producer, Operation], Ending] | None = None,
        timeout_s: float = START_TIMEOUT_S,
    ) -> Producer:
        """Make the first client, and have the coordinator end what a predecessor has left open.

        Args:
            complaints: where the client's are; they may know why it does not begin.
            examine: finds out whether the brokers only pretend (`pretence.examine`).
            timeout_s: how long the coordinator may take.

        Raises:
            ClientError: the client refuses its settings.
            BrokerError: the brokers cannot do transactions, refuse them, or do not answer.
            FencedError: another instance has the same transactional.id.
        """
        client = self._first(complaints, timeout_s)
        if examine is None:
            return client
        operation = Operation(partial(examine, client), None)
        while not (has_ended := operation.wait(EXAMINATION_WAIT_S)) and not operation.is_hung():
            pass
        if has_ended and operation.ending.fatal is None:
            return client
        operation.abandon()
        discard(client)
        return self._first(complaints, timeout_s)

    def take_over(self, attempt: Attempt | None, operation: Operation) -> Ending:
        """Make a client, which ends the old one's transaction, and find out how that ended; in a thread.

        Raises:
            ClientError: no client can begin.
            FencedError: another instance has the same transactional.id.
        """
        client = self._another(operation)
        if attempt is None:
            return Ending(client=client)
        while True:
            try:
                found = self._committed(list(attempt.offsets))
            except (KafkaException, BrokerError) as raised:
                operation.words.append(UNDECIDED.format(raised))
                operation.pause(ASK_AGAIN_S)
                continue
            # One transaction: one of its offsets, with its metadata, tells of all.
            is_committed = any(found.get(each) == commit for each, commit in attempt.offsets.items())
            return Ending(client=client, is_committed=is_committed)

    def leave(self, client: Producer, operation: Operation) -> Ending:
        """Abort a client's transaction, which may not end, and have another client take over; in a thread.

        Raises:
            ClientError: no client can begin.
            FencedError: another instance has the same transactional.id.
        """
        ending = end(client, None, operation)
        if ending.fatal is not None and ending.fatal.code() == KafkaError._FENCED:  # noqa: SLF001 - its name
            return ending
        return self.take_over(None, operation)

    def _another(self, operation: Operation) -> Producer:
        """Make clients until one begins."""
        while True:
            client = self._make(self.id)
            error = end_last(client, HANG_S, operation.repeat)
            if error is None:
                return client
            discard(client)
            if error.code() == KafkaError._FENCED:  # noqa: SLF001 - its name
                raise FencedError(self.id)
            if not error.retriable():
                raise ClientError(f"the producer cannot be made anew: {described(error)}")
            if is_stuck(error) and (stand_in := self._stand_in(operation.repeat, operation.words.append)) is not None:
                return stand_in

    def _first(self, complaints: Complaints, timeout_s: float) -> Producer:
        client = self._make(self.id)
        until_s = time.monotonic() + timeout_s
        while (error := end_last(client, until_s - time.monotonic(), at_once)) is not None:
            if is_stuck(error):
                stand_in = self._stand_in(at_once, partial(complaints.add, error.name()))
                if stand_in is not None:
                    discard(client)
                    return stand_in
            if not is_stuck(error) or time.monotonic() >= until_s:
                raise self._reason(client, error, complaints)
        return client

    def _reason(self, client: Producer, error: KafkaError, complaints: Complaints) -> ConsumerError:
        """Say why the first client does not begin."""
        if error.code() == KafkaError._FENCED:  # noqa: SLF001 - its name
            return FencedError(self.id)
        with contextlib.suppress(KafkaException):  # a client that broke only repeats that it did
            client.poll(0)
        reasons = [each.message for each in complaints.take() if each.name != error.name()]
        why = f"; {reasons[0]}" if reasons else ""
        return BrokerError(f"{NO_TRANSACTIONS}: {described(error)}{why}")

    def _stand_in(self, repeat: Repeat, say: Callable[[str], object]) -> Producer | None:
        """Make a client with a spare id in the place of one that is stuck; None if none begins now."""
        for _ in range(len(self._spares)):
            spare = self._spares.take()
            if spare is None:
                break
            client = self._make(spare)
            error = end_last(client, STUCK_S, repeat)
            if error is None:
                say(STUCK.format(self.id, f"{spare} goes on"))
                self._spares.put_back(self.id, has_ended=False)
                self.id = spare
                return client
            discard(client)
            self._spares.put_back(spare, has_ended=False)
            if not is_stuck(error):
                say(STUCK.format(self.id, f"{spare} cannot go on: {described(error)}"))
                return None
        say(STUCK.format(self.id, "no spare id is free, and everything waits"))
        return None


def end_last(client: Producer, timeout_s: float, repeat: Repeat) -> KafkaError | None:
    """Have the coordinator end what the last client with the same id left open; return why it does not."""
    until_s = time.monotonic() + timeout_s
    while True:
        try:
            repeat(client.init_transactions, min(until_s, time.monotonic() + STUCK_S))
        except KafkaException as raised:
            error: KafkaError = raised.args[0]
            if is_stuck(error) or not error.retriable() or time.monotonic() >= until_s:
                return error
        else:
            return None


def is_stuck(error: KafkaError) -> bool:
    """Tell whether the coordinator is at work on the end of the id's last transaction."""
    return bool(error.code() == KafkaError.CONCURRENT_TRANSACTIONS)


def at_once(call: Callable[[float], object], until_s: float) -> None:
    """Call the client in this thread, once."""
    call(max(0.0, until_s - time.monotonic()))
