"""The sentence encoder in a worker that does not look for like lengths: what W3 compares the buckets with.

A worker that makes its model here has its division of batches replaced by that for models which do not pad: as many
records a call as it may have, in the order of their arrival, each padded to the longest of its call. All else stays.
"""

from collections.abc import Iterator, Sequence

from benchmarks.bert import Encoder
from consumer.core.buckets import Limits
from consumer.worker import runner
from consumer.worker.buckets import Buckets
from consumer.worker.collate import Call, calls
from consumer.worker.decoding import Portion


class Arrivals(Buckets):
    """Calls in the order of arrival."""

    def calls(self, portions: Sequence[Portion], limits: Limits) -> Iterator[Call]:
        """Divide portions of one group into calls of so many rows."""
        return calls(portions, limits.rows)


def encoder() -> Encoder:
    """Make the encoder, and take the buckets from the worker around it, whose runner is made after its model."""
    assert "Buckets" in vars(runner)
    vars(runner)["Buckets"] = Arrivals
    return Encoder()
