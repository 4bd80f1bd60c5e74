"""What every format's loader makes of a model: something to call by name, and what is known about it beforehand."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from consumer.models.signature import Arguments, Signature
from consumer.worker.loaders.outputs import Value
from schemas.tensors import TensorData

Hook: TypeAlias = Callable[[dict[str, TensorData]], Mapping[str, TensorData]]
"""`preprocess` or `postprocess`: from one record's tensors by name to others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """How many rows a program runs with; it is filled up to `least` and cut."""

    least: int = 0
    most: int | None = None

    @property
    def fixed(self) -> int | None:
        """The one number of rows that the program runs with."""
        return self.least if self.least == self.most else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A model as its format gives it."""

    run: Callable[[Mapping[str, Value]], object]
    """Call the model with named tensors; returns what the model returns."""
    takes: Signature | Arguments
    """The signature where it is declared or the format carries one, else the names alone."""
    rows: Rows = field(default_factory=Rows)
    preprocess: Hook | None = None
    postprocess: Hook | None = None
    notes: tuple[str, ...] = ()
    """What whoever made the file may want to know, one line each."""
    version: str | None = None
    """A version, where neither the options nor a file's digest give one."""
