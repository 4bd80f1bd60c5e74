"""What became of the demo's records: the books that prove that nothing was lost.

Owns the comparison of what was sent with what came out. Must not know Kafka or the terminal; time is an argument.
"""

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from consumer.demo.digits import Digits
from consumer.demo.records import MODELS, Sending


@dataclass(slots=True)
class ModelBooks:
    """One model's results so far."""

    sent: int = 0
    answered: int = 0
    unseen: int = 0
    """Results for images that training never saw."""
    right: int = 0
    """Those of them that name the right digit."""
    batches: float = 0.0
    latencies_s: list[float] = field(default_factory=list)
    first_s: float = 0.0
    last_s: float = 0.0


@dataclass(frozen=True, slots=True)
class ModelSummary:
    """One line of the final table."""

    model: str
    records: int
    accuracy: float
    """Of the images that training never saw."""
    batch_rows: float
    """Mean rows of a batch."""
    records_per_s: float
    p50_ms: float
    p99_ms: float


@dataclass(slots=True)
class Letter:
    """A dead letter that came."""

    sending: Sending
    reason: str
    message: str


class Tally:
    """Keeps the books; a second outcome of a record counts as a duplicate, which at-least-once delivery allows."""

    def __init__(self, sendings: Sequence[Sending], digits: Digits) -> None:
        self.books = {model: ModelBooks() for model in MODELS}
        self.letters: list[Letter] = []
        self.problems: list[str] = []
        """What should not be: an outcome that nobody expected, a dead letter with another reason."""
        self.duplicates = 0
        self._digits = digits
        self._is_training = digits.is_training
        self._open = {sending.id: sending for sending in sendings}
        self._sent_s: dict[str, float] = {}
        self._settled: Counter[str] = Counter()
        for sending in sendings:
            if sending.image is not None:
                self.books[_model(sending)].sent += 1

    @property
    def missing(self) -> Mapping[str, Sending]:
        """Records without an outcome, by id."""
        return self._open

    def send(self, name: str, now_s: float) -> None:
        """Note that a record was handed to the producer."""
        self._sent_s[name] = now_s

    def result(self, name: str, digit: int, batch_rows: int, now_s: float) -> None:
        """Note a result: the digit that it tells."""
        sending = self._settle(name)
        if sending is None:
            return
        if sending.image is None:
            self.problems.append(f"{name} has a result, and a dead letter was expected ({sending.fault})")
            return
        books = self.books[_model(sending)]
        books.answered += 1
        books.batches += 1 / batch_rows
        books.latencies_s.append(now_s - self._sent_s[name])
        books.first_s = books.first_s or self._sent_s[name]
        books.last_s = now_s
        if not self._is_training[sending.image]:
            books.unseen += 1
            books.right += int(digit == self._digits.labels[sending.image])

    def dead_letter(self, name: str, reason: str, message: str) -> None:
        """Note a dead letter."""
        sending = self._settle(name)
        if sending is None:
            return
        if sending.reason != reason:
            expected = f"the reason {sending.reason}" if sending.reason else "a result"
            self.problems.append(f"{name} is a dead letter ({reason}: {message}), and {expected} was expected")
        self.letters.append(Letter(sending, reason, message))

    def summaries(self) -> list[ModelSummary]:
        """Sum up, for models that have at least one result."""
        return [_summary(model, books) for model, books in self.books.items() if books.answered]

    def _settle(self, name: str) -> Sending | None:
        self._settled[name] += 1
        if self._settled[name] > 1:
            self.duplicates += 1
            return None
        sending = self._open.pop(name, None)
        if sending is None:
            self.problems.append(f"an outcome for {name}, which was never sent")
        return sending


def _model(sending: Sending) -> str:
    assert sending.key is not None, "a record that expects a result has a key"
    return sending.key.decode()


def _summary(model: str, books: ModelBooks) -> ModelSummary:
    percentiles = (
        statistics.quantiles(books.latencies_s, n=100, method="inclusive")
        if books.answered > 1
        else books.latencies_s * 99
    )
    return ModelSummary(
        model=model,
        records=books.answered,
        accuracy=books.right / books.unseen if books.unseen else 0.0,
        batch_rows=books.answered / books.batches,
        records_per_s=books.answered / (books.last_s - books.first_s),
        p50_ms=1e3 * percentiles[49],
        p99_ms=1e3 * percentiles[98],
    )
