"""What blocks, in a thread of its own: the end of a transaction, and what it takes to begin again.

Owns the thread, and how long each of the client's calls in it may take. Must not know what is in a transaction, nor
what follows from its end.

Theory of operation. The client's calls have a limit each, and do not always keep it: after a lost answer to a produce
request one was seen never to return. So the thread notes each call's begin, and the loop's thread looks. An operation
whose call is *overdue* can only be abandoned, with its thread and its client; should the call come back after all, the
thread ends without another one.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka import TopicPartition as ClientPartition

from consumer.core.events import Committed
from consumer.core.types import TopicPartition

RETRY_S = 0.05
CALL_TIMEOUT_S = 5.0
"""How long one call of the client may take before it is called again to go on."""
WORDS_MAX = 10
OVERDUE_S = 1.5 * CALL_TIMEOUT_S
"""After so long a call is not expected to return any more."""
SECOND_LOOK_S = 1.0
"""An overdue call has so much longer: perhaps this whole process was frozen."""
ABORT_S = 3.0
"""How long an abort may take: whoever takes over ends the transaction as well, and knows a way around one that is
stuck."""
HANG_S = 10.0
"""How long the client may take to end a transaction before it is given up for another one: after its coordinator was
away, one was seen not to find it again, where a new client did at once."""

Offsets: TypeAlias = Mapping[TopicPartition, tuple[int, str]]
"""Next offsets with their metadata."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """A commit that was asked for."""

    offsets: Offsets
    metadata: bytes
    """The group's, of the moment of asking."""

    def answer(self, error: str | None) -> Committed:
        """Say how it went."""
        return Committed({partition: offset for partition, (offset, _) in self.offsets.items()}, error)


@dataclass(frozen=True, slots=True)
class Ending:
    """How an operation ended. Without errors, the transaction was committed or, where none was asked for, aborted."""

    error: KafkaError | None = None
    """Why the transaction was aborted instead."""
    fatal: KafkaError | None = None
    """Why the client is of no use any more; whether the transaction was committed is not known then."""
    client: Producer | None = None
    """The new client, where one was made."""
    is_committed: bool = False
    """What the new client found of the transaction whose end was not known."""


class AbandonedError(Exception):
    """Nobody waits for this operation any more."""


class Operation:
    """A sequence of blocking calls in a thread of its own."""

    def __init__(self, calls: Callable[["Operation"], Ending], attempt: Attempt | None) -> None:
        """Begin it; `attempt` is the commit that it is about. What `calls` asks of the client goes through `repeat`."""
        self.attempt = attempt
        self.ending = Ending()
        self.words: deque[str] = deque(maxlen=WORDS_MAX)
        """What holds it up, the newest, for the loop's thread to say and forget."""
        self._raised: BaseException | None = None
        self._calls = calls
        self._called_s: float | None = None
        """When the present call of the client began."""
        self._overdue_s: float | None = None
        """When that was first seen to be overdue."""
        self._is_abandoned = False
        self._thread = threading.Thread(target=self._run, name="sink-transaction", daemon=True)
        self._thread.start()

    def wait(self, timeout_s: float) -> bool:
        """Wait for its end; tell whether it has come."""
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            return False
        if self._raised is not None:
            raise self._raised
        return True

    def is_hung(self) -> bool:
        """Tell whether the client is not expected to come back from its present call."""
        now_s, called_s = time.monotonic(), self._called_s
        if called_s is None or now_s - called_s < OVERDUE_S:
            self._overdue_s = None
            return False
        self._overdue_s = self._overdue_s or now_s
        return now_s - self._overdue_s >= SECOND_LOOK_S

    def abandon(self) -> None:
        """Expect nothing of it any more; it begins no further call."""
        self._is_abandoned = True

    def repeat(self, call: Callable[[float], object], until_s: float) -> None:
        """Call until the client does not say that the same call may work later, or the time is over; in the thread.

        Raises:
            KafkaException: what the client says last.
            AbandonedError: nobody waits for it any more.
        """
        self.pause(0)
        while True:
            self._called_s = time.monotonic()
            try:
                call(min(CALL_TIMEOUT_S, max(RETRY_S, until_s - self._called_s)))
            except KafkaException as raised:
                if not raised.args[0].retriable() or time.monotonic() >= until_s:
                    raise
            else:
                return
            finally:
                self._called_s = None
            self.pause(RETRY_S)

    def pause(self, timeout_s: float) -> None:
        """Let time pass before something is asked again; in the thread.

        Raises:
            AbandonedError: nobody waits for it any more.
        """
        time.sleep(timeout_s)
        if self._is_abandoned:
            raise AbandonedError

    def _run(self) -> None:
        try:
            self.ending = self._calls(self)
        except BaseException as error:  # noqa: BLE001 - kept, and raised in the loop's thread
            # Of an abandoned one it would keep the client, by its traceback's frames: in a cycle, for the collector.
            if not self._is_abandoned:
                self._raised = error


def end(client: Producer, attempt: Attempt | None, operation: Operation) -> Ending:
    """Commit the open transaction, or abort it if none is asked for or it cannot be committed."""
    refused: KafkaError | None = None
    try:
        if attempt is not None:
            until_s = time.monotonic() + HANG_S
            try:
                send = partial(client.send_offsets_to_transaction, _positions(attempt.offsets), attempt.metadata)
                operation.repeat(send, until_s)
                operation.repeat(client.commit_transaction, until_s)
            except KafkaException as raised:
                refused = raised.args[0]
                if refused.fatal() or refused.retriable():
                    return Ending(fatal=refused)
            else:
                return Ending()
        operation.repeat(client.abort_transaction, time.monotonic() + ABORT_S)
    except KafkaException as raised:
        return Ending(fatal=raised.args[0])
    return Ending(error=refused)


def discard(client: Producer) -> None:
    """Be rid of a client, which may hang while it is taken down."""
    holder = [client]

    def take_down() -> None:
        holder[0].purge()
        holder.clear()

    threading.Thread(target=take_down, name="sink-discard", daemon=True).start()


def _positions(offsets: Offsets) -> list[ClientPartition]:
    return [ClientPartition(*partition, offset, metadata) for partition, (offset, metadata) in offsets.items()]
