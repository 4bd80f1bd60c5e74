"""The catalogue of figures: every name, label and bucket that `/metrics` shows.

Owns what a figure is called and what it means. Must not know what feeds it.
"""

from dataclasses import dataclass
from enum import Enum

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)


class Kind(Enum):
    """How a figure behaves; the value is the word that the exposition format uses."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True, eq=False)  # found by identity, which costs nothing
class Figure:
    """One entry of the catalogue."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    meaning: str
    buckets: tuple[float, ...] = ()


FETCHED = Figure("consumer_records_fetched_total", Kind.COUNTER, ("topic",), "Records fetched.")
SKIPPED = Figure(
    "consumer_records_skipped_total",
    Kind.COUNTER,
    ("topic",),
    "Records that the topic's retention removed before they were fetched.",
)
SETTLED = Figure(
    "consumer_records_settled_total",
    Kind.COUNTER,
    ("model", "outcome"),
    "Records that are done with: `result`, the reason of their dead letter, or `dropped` where they expired.",
)
FAILED = Figure(
    "consumer_attempts_failed_total",
    Kind.COUNTER,
    ("model", "reason"),
    "Attempts that a worker answered with a failure, whether or not another attempt followed.",
)
DELIVERY_FAILED = Figure(
    "consumer_deliveries_failed_total",
    Kind.COUNTER,
    ("model", "reason"),
    "Outcomes that the broker refused; they are handed over again or become dead letters.",
)
IN_FLIGHT_RECORDS = Figure("consumer_in_flight_records", Kind.GAUGE, (), "Records admitted and not yet resolved.")
IN_FLIGHT_BYTES = Figure("consumer_in_flight_bytes", Kind.GAUGE, (), "Payload bytes of the records in flight.")
WAITING = Figure(
    "consumer_waiting_records", Kind.GAUGE, ("model",), "Records of a model that wait for a worker, fetched already."
)
LAG = Figure(
    "consumer_lag_records",
    Kind.GAUGE,
    ("topic", "partition"),
    "Records between the next offset to commit and the end of an assigned partition.",
)
PARTITIONS = Figure("consumer_partitions_assigned", Kind.GAUGE, (), "Partitions assigned to this member.")
PAUSED = Figure("consumer_partitions_paused", Kind.GAUGE, (), "Assigned partitions that backpressure has paused.")
BATCH_ROWS = Figure(
    "consumer_batch_rows",
    Kind.HISTOGRAM,
    ("model",),
    "Rows of the batch that an answer was part of, once per answer.",
    ROWS,
)
QUEUE_SECONDS = Figure(
    "consumer_queue_seconds",
    Kind.HISTOGRAM,
    ("model",),
    "From the fetch to the start of the batch, of an answer's oldest record.",
    SECONDS,
)
INFER_SECONDS = Figure(
    "consumer_infer_seconds",
    Kind.HISTOGRAM,
    ("model",),
    "An answer's part, by its records, of the time of the batch in the model.",
    SECONDS,
)
DELIVERY_SECONDS = Figure(
    "consumer_delivery_seconds",
    Kind.HISTOGRAM,
    ("model",),
    "From the hand-over of outcomes to the sink until the broker had acknowledged them.",
    SECONDS,
)
WORKERS = Figure("consumer_workers_ready", Kind.GAUGE, (), "Worker processes that take work.")
RESTARTS = Figure(
    "consumer_worker_restarts_total",
    Kind.COUNTER,
    ("reason",),
    "Workers started again, by how the last one ended: a signal's name, or `exit-` and its code.",
)
MODEL_AVAILABLE = Figure(
    "consumer_model_available",
    Kind.GAUGE,
    ("model",),
    "1 where a model is loaded and works, 0 where it is not loaded yet or broken.",
)
LOAD_SECONDS = Figure(
    "consumer_model_load_seconds", Kind.HISTOGRAM, ("model",), "Loading and warming up a model in a worker.", SECONDS
)
COMMITS = Figure("consumer_commits_total", Kind.COUNTER, ("outcome",), "Commits answered: `committed` or `failed`.")
CLIENT_ERRORS = Figure(
    "consumer_client_errors_total",
    Kind.COUNTER,
    ("error",),
    "Errors that the Kafka clients told of and got over, or wait to get over, by their names.",
)

CATALOGUE: tuple[Figure, ...] = (
    FETCHED,
    SKIPPED,
    SETTLED,
    FAILED,
    DELIVERY_FAILED,
    IN_FLIGHT_RECORDS,
    IN_FLIGHT_BYTES,
    WAITING,
    LAG,
    PARTITIONS,
    PAUSED,
    BATCH_ROWS,
    QUEUE_SECONDS,
    INFER_SECONDS,
    DELIVERY_SECONDS,
    WORKERS,
    RESTARTS,
    MODEL_AVAILABLE,
    LOAD_SECONDS,
    COMMITS,
    CLIENT_ERRORS,
)


def catalogue_table() -> str:
    """Write the catalogue as a Markdown table."""
    rows = ["| figure | kind | labels | meaning |", "|---|---|---|---|"]
    rows += [
        f"| `{each.name}` | {each.kind.value} | {', '.join(f'`{label}`' for label in each.labels)} | {each.meaning} |"
        for each in CATALOGUE
    ]
    return "\n".join(rows) + "\n"
