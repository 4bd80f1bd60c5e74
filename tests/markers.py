"""Whether a broker keeps its word to transactions when it is killed: `python -m tests.markers [--rounds N]`.

Owns a question to the broker alone: none of the program's code is asked. Many plain clients end a transaction each,
half by commit and half by abort; the broker is killed meanwhile, and started again. An end that it had accepted must
get its marker in the result's partition. Without one, the records are open for ever to readers of committed records,
or share the fate of whatever the same client sends next: that is how an aborted result gets committed after all.

Exit code 0: every accepted end got its marker; 1: one did not; 2: nothing can be said, for want of a broker that can be
killed or of an accepted end.
"""

import argparse
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence

from confluent_kafka import IsolationLevel, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec
from confluent_kafka.cimpl import NewTopic

from consumer.demo.broker import Broker, BrokerError, start

CLIENTS = 80
END_TIMEOUT_S = 2.0
MARKERS_TIMEOUT_S = 25.0
"""How long a broker that is back may take to write them; shorter than `transaction.timeout.ms`, so that no marker is
that of a timeout."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Kill a broker as often as asked for; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.markers", description="Does this broker lose markers?")
    parser.add_argument("--rounds", type=int, default=6, help="how often it is killed (default: 6)")
    parser.add_argument("--seed", type=int, default=1, help="of the moments at which it is killed (default: 1)")
    options = parser.parse_args(arguments)
    try:
        broker = start()
    except BrokerError as error:
        _say(f"no broker: {error}")
        return 2
    with broker:
        if broker.node is None:
            _say(f"{broker.reason}: not ours to kill; set KAFKA_HOME")
            return 2
        moments = random.Random(options.seed)
        accepted = lost = 0
        for number in range(options.rounds):
            one = Round(broker, number)
            ends = one.kill(moments.randint(1, CLIENTS * 3 // 4))
            missing = one.missing(ends)
            _say(f"round {number + 1}: {len(ends)} ends accepted, {len(missing)} without a marker {missing[:4] or ''}")
            accepted, lost = accepted + len(ends), lost + len(missing)
    _say(f"{broker.reason}: {accepted} ends accepted, {lost} without a marker")
    if accepted == 0:
        return 2
    return 1 if lost else 0


class Round:
    """Clients with an open transaction each, one record in it, and a topic of its own."""

    def __init__(self, broker: Broker, number: int) -> None:
        """Bring all of them to where only the end is missing."""
        self._node = broker.node
        self._settings: dict[str, str | int | float | bool] = {
            "bootstrap.servers": broker.bootstrap_servers,
            "log_level": 0,
        }
        self._topics = [f"markers-{number}-{index}" for index in range(CLIENTS)]
        admin = AdminClient(self._settings)
        for future in admin.create_topics([NewTopic(each, 1, 1) for each in self._topics]).values():
            future.result(30)
        self._clients = [Producer({**self._settings, "transactional.id": each}) for each in self._topics]
        for thread in self._for_all(self._open):
            thread.join()

    def kill(self, after: int) -> dict[str, str]:
        """Have all of them end, kill the broker after so many and start it again; return what it had accepted."""
        assert self._node is not None
        accepted: dict[str, str] = {}

        def end(index: int) -> None:
            client = self._clients[index]
            way, call = [("commit", client.commit_transaction), ("abort", client.abort_transaction)][index % 2]
            try:
                call(END_TIMEOUT_S)
            except KafkaException:
                return  # not accepted, or not known to be
            accepted[self._topics[index]] = way

        threads = self._for_all(end)
        while len(accepted) < after and any(thread.is_alive() for thread in threads):
            time.sleep(0.001)
        self._node.kill(signal.SIGKILL)
        for thread in threads:
            thread.join()
        self._clients.clear()
        self._node.start()
        return accepted

    def missing(self, ends: dict[str, str]) -> list[tuple[str, str]]:
        """Return the ends that get no marker, as (topic, way)."""
        admin = AdminClient(self._settings)
        deadline_s = time.monotonic() + MARKERS_TIMEOUT_S
        while True:
            try:
                end = self._latest(admin, ends, IsolationLevel.READ_UNCOMMITTED)
                stable = self._latest(admin, ends, IsolationLevel.READ_COMMITTED)
            except KafkaException:  # the broker is not quite back
                if time.monotonic() > deadline_s:
                    raise
            else:
                missing = [(topic, way) for topic, way in ends.items() if not 2 <= end[topic] == stable[topic]]
                if not missing or time.monotonic() > deadline_s:
                    return missing
            time.sleep(0.5)

    @staticmethod
    def _latest(admin: AdminClient, ends: dict[str, str], level: IsolationLevel) -> dict[str, int]:
        asked = {TopicPartition(topic, 0): OffsetSpec.latest() for topic in ends}
        if not asked:
            return {}
        answers = admin.list_offsets(asked, isolation_level=level)
        return {place.topic: future.result(30).offset for place, future in answers.items()}

    def _open(self, index: int) -> None:
        client = self._clients[index]
        client.init_transactions(30)
        client.begin_transaction()
        client.produce(self._topics[index], b"x")
        client.flush(30)

    def _for_all(self, call: Callable[[int], None]) -> list[threading.Thread]:
        threads = [threading.Thread(target=call, args=(index,)) for index in range(CLIENTS)]
        for thread in threads:
            thread.start()
        return threads


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - a command's answer


if __name__ == "__main__":
    sys.exit(main())
