"""In which order subjects are run: interleaved, so that whatever drifts does so for all of them alike. Pure."""

from collections.abc import Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")


def interleaved(subjects: Sequence[T], rounds: int) -> Iterator[list[T]]:
    """Turn the order with each round: A B, B A, A B ...; each round runs every subject once."""
    for number in range(rounds):
        yield list(subjects if number % 2 == 0 else reversed(subjects))
