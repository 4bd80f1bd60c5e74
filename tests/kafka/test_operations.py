"""What blocks, in a thread of its own."""

import gc
import threading
import weakref
from functools import partial
from typing import Any

from confluent_kafka import KafkaError, KafkaException

from consumer.kafka.operations import Operation, end


class Stuck:
    """A client whose call does not return before it is told to, and then asks to be called again."""

    def __init__(self, may_return: threading.Event) -> None:
        self._may_return = may_return

    def abort_transaction(self, _timeout_s: float) -> None:
        """Hang, then fail for now."""
        self._may_return.wait()
        raise KafkaException(KafkaError(KafkaError._TIMED_OUT, "again", False, True))


def test_an_abandoned_operation_lets_go_of_its_client() -> None:
    """When the late call has come back at last, the client is gone at once, and needs no collector."""
    may_return = threading.Event()
    client: Any = Stuck(may_return)
    operation = Operation(partial(end, client, None), None)
    is_there = weakref.ref(client)
    del client
    operation.abandon()
    gc.disable()
    try:
        may_return.set()
        assert operation.wait(10)
        del operation
        assert is_there() is None
    finally:
        gc.enable()
