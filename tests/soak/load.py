"""The load on the models while faults come: records at a steady rate, some of them bad on purpose.

Owns the producer, and what each record was sent for. Must not know what becomes of them.
"""

import random
import threading
import time
import uuid
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from confluent_kafka import Message, Producer

from schemas.codecs import encode_request
from schemas.records import Request
from schemas.tensors import Tensor
from tests.e2e.models_for_tests import KILLER, POISON
from tests.e2e.oracle import Place

TICK_S = 0.1
QUEUED_MAX = 5_000
"""Records that may wait in the client while the broker is gone."""
KILLER_EVERY_S = 45.0
"""Each costs three workers: that of its batch, the one that searches it, and the record's second chance."""
POISON_EVERY_S = 2.0
WAIT_S = 60.0


@dataclass(frozen=True, slots=True)
class Sent:
    """A record that was sent: what it is full of, and what may become of it."""

    number: float
    model: str
    kinds: frozenset[str]
    at_s: float = 0.0
    """When the broker took it, in seconds since the epoch."""


GOOD = frozenset({"result"})
UNLUCKY = frozenset({"result", "out-of-memory"})
"""What may become of a flaky model's records."""
BAD = {POISON: frozenset({"inference-failed"}), KILLER: frozenset({"crashed-worker"})}


class Load(threading.Thread):
    """Sends until told to stop."""

    def __init__(
        self, servers: str, topic: str, partitions: int, rates: Mapping[str, float], sent: MutableMapping[Place, str]
    ) -> None:
        """Make the client.

        Args:
            servers: The broker.
            topic: Where records go.
            partitions: Of that topic.
            rates: Records per second, by model.
            sent: Grows by the place and id of every record that the broker has.
        """
        super().__init__(name="load", daemon=True)
        self._topic = topic
        self._partitions = partitions
        self._rates = rates
        self._sent = sent
        self._random = random.Random(0)
        self._stopping = threading.Event()
        self._due: dict[str, float] = {}
        # Without a time limit the client goes on until the broker has a record: none is in doubt.
        settings: dict[str, Any] = {"bootstrap.servers": servers, "enable.idempotence": True, "message.timeout.ms": 0}
        self._producer = Producer({**settings, "linger.ms": 5, "log_level": 0})
        self.records: dict[str, Sent] = {}
        """By id."""
        self.ends = dict.fromkeys(range(partitions), 0)
        """One offset behind the last record that the broker has, by partition."""
        self.failures: list[str] = []

    def pile_up(self, seconds: float) -> None:
        """Send good records for so many seconds of the load at once, and wait until the broker has them."""
        for model, rate in self._rates.items():
            for _ in range(int(rate * seconds)):
                self._send_good(model)
                self._producer.poll(0)
        if left := self._producer.flush(WAIT_S):
            self.failures.append(f"{left} records could not be piled up within {WAIT_S:.0f} s")

    def run(self) -> None:
        """Send a little at a time."""
        while not self._stopping.wait(TICK_S):
            self._producer.poll(0)
            if len(self._producer) > QUEUED_MAX:
                continue
            for model, rate in self._rates.items():
                count = rate * TICK_S
                whole = int(count) + (self._random.random() < count % 1)
                for _ in range(whole):
                    self._send_good(model)
            self._send_bad()

    def stop(self) -> None:
        """Send no more, and wait until the broker has everything."""
        self._stopping.set()
        self.join(WAIT_S)
        left = self._producer.flush(WAIT_S)
        if left:
            self.failures.append(f"{left} records could not be sent within {WAIT_S:.0f} s")

    def _send_good(self, model: str) -> None:
        self._send(model, self._random.randrange(1_000_000), UNLUCKY if model == "flaky" else GOOD)

    def _send_bad(self) -> None:
        """Send a record that its model cannot take, and one that ends its worker, now and then."""
        models: Sequence[str] = [model for model in self._rates if model.startswith("plain")]
        if self._is_due("poison", POISON_EVERY_S):
            self._send(self._random.choice(models), POISON, BAD[POISON])
        if "crashing" in self._rates and self._is_due("killer", KILLER_EVERY_S):
            self._send("crashing", KILLER, BAD[KILLER])

    def _is_due(self, what: str, interval_s: float) -> bool:
        now = time.monotonic()
        if now < self._due.setdefault(what, now + interval_s):
            return False
        self._due[what] = now + interval_s
        return True

    def _send(self, model: str, number: float, kinds: frozenset[str]) -> None:
        uid = uuid.uuid4().hex
        self.records[uid] = Sent(float(np.float32(number)), model, kinds)
        value = encode_request(Request(uid, (Tensor.of("x", np.full(4, number, np.float32)),), {}))
        place = self._random.randrange(self._partitions)
        self._producer.produce(self._topic, value, model.encode(), place, on_delivery=self._note(uid))

    def _note(self, uid: str) -> Callable[[Any, Message], None]:
        def delivered(error: Any, message: Message) -> None:
            if error is not None:
                self.failures.append(str(error))
                return
            partition, offset = int(message.partition() or 0), int(message.offset() or 0)
            self.records[uid] = replace(self.records[uid], at_s=message.timestamp()[1] / 1000)
            self._sent[partition, offset] = uid
            self.ends[partition] = max(self.ends[partition], offset + 1)

        return delivered
