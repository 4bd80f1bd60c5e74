"""Questions and orders to the cluster that are no part of the record path: is it there, which topics are, make one.

Owns the administrative client. Must not know models, workers or offsets in flight.
"""

import time
from collections.abc import Mapping

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

POLL_S = 0.05
"""Between two questions to a cluster that has not answered yet."""


def wait_reachable(settings: Mapping[str, str | int | float | bool], timeout_s: float) -> bool:
    """Ask for the cluster's metadata until it answers; tell whether it did within `timeout_s`."""
    # Refused connections are expected while a node starts: the client is to keep quiet about them.
    admin = AdminClient({**settings, "log_level": 0, "reconnect.backoff.ms": 20, "reconnect.backoff.max.ms": 100})
    deadline_s = time.monotonic() + timeout_s
    while (left_s := deadline_s - time.monotonic()) > 0:
        try:
            if admin.list_topics(timeout=min(1.0, left_s)).brokers:
                return True
        except KafkaException:
            time.sleep(POLL_S)
    return False
