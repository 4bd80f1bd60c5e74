"""How a transactional client begins: the first one of a process, and each one that takes over from one that broke.

Owns what the coordinator and the group are asked then. Must not know outcomes.

Theory of operation. A client that begins ends what the one before it with the same id has left open. Which way that
ended, where it is not known, the group's committed offsets tell.
"""

import contextlib
import time
from collections.abc import Callable, Collection
from functools import partial

from confluent_kafka import KafkaError, KafkaException, Producer

from consumer.core.types import TopicPartition
from consumer.errors import BrokerError, ClientError, FencedError
from consumer.kafka.errors import Complaints, described
from consumer.kafka.operations import HANG_S, Attempt, Ending, Offsets, Operation, discard

START_TIMEOUT_S = 30.0
"""How long the coordinator may take to end a predecessor's transaction and to answer the first time."""
ASK_AGAIN_S = 1.0
EXAMINATION_WAIT_S = 0.1
UNDECIDED = (
    "{}: they tell whether the last transaction was committed, and everything waits for them; if the brokers are well, "
    "find a transaction that they left without an end by kafka-transactions.sh find-hanging, and abort it"
)
NO_TRANSACTIONS = "delivery: exactly-once needs transactions, and these brokers do not begin one"


class Succession:
    """The clients of one transactional.id, one after the other."""

    def __init__(
        self,
        make: Callable[[], Producer],
        transactional_id: str,
        committed: Callable[[Collection[TopicPartition]], Offsets],
    ) -> None:
        """Take what makes a client, and what asks for the group's committed offsets."""
        self._make = make
        self._id = transactional_id
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
        client = self._make()
        while not self._is_begun(client, operation):
            discard(client)
            client = self._make()
        if attempt is None:
            return Ending(client=client)
        while True:
            try:
                found = self._committed(list(attempt.offsets))
            except (KafkaException, BrokerError) as raised:
                operation.words.append(UNDECIDED.format(raised))
                time.sleep(ASK_AGAIN_S)
                continue
            # One transaction: one of its offsets, with its metadata, tells of all.
            is_committed = any(found.get(each) == commit for each, commit in attempt.offsets.items())
            return Ending(client=client, is_committed=is_committed)

    def _is_begun(self, client: Producer, operation: Operation) -> bool:
        """Have the coordinator end the old transaction; False if it does not answer this client."""
        try:
            operation.repeat(client.init_transactions, time.monotonic() + HANG_S)
        except KafkaException as raised:
            error = raised.args[0]
            if error.code() == KafkaError._FENCED:  # noqa: SLF001 - its name
                raise FencedError(self._id) from None
            if not error.retriable():
                raise ClientError(f"the producer cannot be made anew: {described(error)}") from None
            return False
        return True

    def _first(self, complaints: Complaints, timeout_s: float) -> Producer:
        client = self._make()
        try:
            client.init_transactions(timeout_s)
        except KafkaException as raised:
            error = raised.args[0]
            if error.code() == KafkaError._FENCED:  # noqa: SLF001 - its name
                raise FencedError(self._id) from None
            with contextlib.suppress(KafkaException):  # a client that broke only repeats that it did
                client.poll(0)
            reasons = [each.message for each in complaints.take() if each.name != error.name()]
            why = f"; {reasons[0]}" if reasons else ""
            raise BrokerError(f"{NO_TRANSACTIONS}: {described(error)}{why}") from None
        return client
