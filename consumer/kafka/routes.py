"""Where outcomes go, and what is sent there: from the core's actions to hand-overs.

Owns topics, keys and headers of outgoing records. Must not know the producer.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from operator import itemgetter
from typing import Any

from consumer.core.actions import DeadLetter, Produce
from consumer.core.types import Headers, ModelId, Run
from consumer.kafka.dead_letters import letter_headers
from consumer.kafka.handovers import HandOver, Letters, Reporter
from consumer.kafka.settings import Value
from schemas.headers import DEAD_LETTER_PREFIX, without_dead_letter

MESSAGE_BYTES_DEFAULT = 1_000_000
"""The client's own `message.max.bytes` and `batch.size`."""


@dataclass(frozen=True, slots=True)
class Routes:
    """Where outcomes go."""

    results: Mapping[ModelId, str]
    """The topic of each model's results."""
    dead_letters: Callable[[str], str]
    """From an input topic to the topic of its dead letters."""
    key: str = "id"
    """The key of results: `id`, `source-key` or `header:NAME`."""
    bytes_max: Mapping[str, int] = field(default_factory=dict)
    """`max.message.bytes` of the output topics, where known."""

    def of_results(self, reporter: Reporter, action: Produce) -> HandOver:
        """Address results."""
        headers: list[Any] | None = None
        if any(run.headers is not None for run in action.runs):
            headers = _carried([each for run in action.runs for each in _headers(run)])
        return HandOver(
            reporter,
            action.ticket,
            self.results[action.model],
            action.model,
            action.runs,
            self._keys(action),
            action.values,
            headers,
            size_max=action.size if self.key == "id" else None,
        )

    def of_letters(self, reporter: Reporter, action: DeadLetter) -> Letters:
        """Address dead letters."""
        run = action.run
        return Letters(
            reporter,
            action.ticket,
            self.dead_letters(run.partition.topic),
            None,
            [run],
            run.keys,
            run.values,
            [letter_headers(run, i, failure) for i, failure in enumerate(action.failures)],
            run=run,
            failures=action.failures,
        )

    def sizes(self) -> dict[str, Value]:
        """Return the client settings that keep a batch below what every topic takes, and let large records through."""
        if not self.bytes_max:
            return {}
        return {
            "batch.size": min(MESSAGE_BYTES_DEFAULT, *self.bytes_max.values()),
            "message.max.bytes": max(MESSAGE_BYTES_DEFAULT, *self.bytes_max.values()),
        }

    def _keys(self, action: Produce) -> Sequence[bytes | None]:
        if self.key == "id":
            return action.keys
        if self.key == "source-key":
            return [key for run in action.runs for key in run.keys]
        name = self.key.partition(":")[2]
        return [
            next((value for each, value in reversed(headers or ()) if each == name), None)
            for run in action.runs
            for headers in _headers(run)
        ]


def compresses(settings: Mapping[str, Value]) -> bool:
    """Tell whether the client compresses, so that a record's size says little about its batch's."""
    return any(settings.get(name, "none") != "none" for name in ("compression.type", "compression.codec"))


def _carried(column: list[Headers | None]) -> list[Any]:
    """Drop the headers of an earlier failure, which replayed records have, from a column of headers."""
    names = set(map(itemgetter(0), chain.from_iterable(filter(None, column))))
    if not any(name.startswith(DEAD_LETTER_PREFIX) for name in names):
        return column
    return [without_dead_letter(each) or None for each in column]


def _headers(run: Run) -> Sequence[Headers | None]:
    return run.headers if run.headers is not None else [None] * len(run)
