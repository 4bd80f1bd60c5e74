"""Code that the tests' configurations name: factories, hooks, and what is wrong with some."""

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from schemas.tensors import TensorData
from tests.worker.networks import Classifier, Embedder, Normalised, Pair, Record

__all__ = ["Classifier", "Embedder", "Normalised"]

NUMBER = 3


class Doubler:
    """A plain callable with hooks."""

    def __init__(self, factor: float = 2.0) -> None:
        self._factor = factor

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Multiply."""
        return x * self._factor

    def preprocess(self, record: dict[str, TensorData]) -> dict[str, TensorData]:
        """Take the length of texts for a number."""
        return {"x": np.array([len(text) for text in record["text"]], "f4")}

    def postprocess(self, record: dict[str, TensorData]) -> dict[str, TensorData]:
        """Leave it as it is."""
        return record


class Echo:
    """Takes and returns texts."""

    def __call__(self, text: list[bytes]) -> list[bytes]:
        """Turn every text into capitals."""
        return [element.upper() for element in text]


class Constant(nn.Module):
    """Takes a number and returns a tensor."""

    def forward(self, number: int) -> torch.Tensor:
        """Repeat the number."""
        return torch.full((2, 3), float(number))


class Counter:
    """Keeps state between calls."""

    def __init__(self) -> None:
        self._calls = 0

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Count."""
        self._calls += 1
        return x + self._calls


def centred(x: torch.Tensor) -> torch.Tensor:
    """Mix the rows."""
    return x - x.mean(0)


def noisy(x: torch.Tensor) -> torch.Tensor:
    """Answer at random."""
    return x + torch.rand_like(x)


def returning(kind: str) -> Callable[[torch.Tensor], object]:
    """Make a model that returns one kind of structure."""
    made: dict[str, Callable[[torch.Tensor], object]] = {
        "tensor": lambda x: x,
        "tuple": lambda x: (x, x + 1),
        "dict": lambda x: {"low": x, "high": x + 1},
        "named tuple": lambda x: Pair(x, x + 1),
        "dataclass": lambda x: Record(x, x + 1),
        "bytes": lambda x: [b"a"] * len(x),
        "list": lambda x: [x, x],
        "none": lambda _: None,
        "number": lambda _: 3,
        "array": lambda x: x.numpy(),
        "nested": lambda x: {"low": (x, x)},
        "numbered": lambda x: {1: x},
        "empty": lambda _: {},
        "complex": lambda x: x.to(torch.complex64),
        "sparse": lambda x: x.to_sparse(),
        "scalar": lambda x: x.sum(),
        "short": lambda x: x[:1],
        "short bytes": lambda x: [b"a"] * (len(x) + 1),
    }

    def model(x: torch.Tensor) -> object:
        return made[kind](x)

    return model


def picky(x: torch.Tensor) -> torch.Tensor:
    """Refuse whatever is not zero, as an index into a table of one entry would."""
    if bool((x != 0).any()):
        raise IndexError("index out of range")
    return x


def single(x: torch.Tensor) -> torch.Tensor:
    """Take one row and no more."""
    if len(x) != 1:
        raise ValueError("one row, please")
    return x


def positional(x: torch.Tensor, /, y: torch.Tensor, *, scale: torch.Tensor | None = None) -> torch.Tensor:
    """Take one argument by position only."""
    return x - y if scale is None else (x - y) * scale


def keywords(**inputs: torch.Tensor) -> torch.Tensor:
    """Take any names."""
    return inputs["b"] - inputs["a"]


def nameless(*inputs: torch.Tensor) -> torch.Tensor:
    """Take no names."""
    return inputs[0]


def of(name: str) -> Callable[..., object]:
    """Make one of the functions of this module a model."""
    return globals()[name]  # type: ignore[no-any-return]


def nothing_made() -> None:
    """Make no model."""


def builtin() -> Callable[..., object]:
    """Make something that does not tell its arguments."""
    return torch.add


def failing() -> nn.Module:
    """Fail to make a model."""
    raise RuntimeError("no licence\nand more")


def texts(record: dict[str, TensorData]) -> dict[str, TensorData]:
    """Take the lengths of texts for four numbers."""
    lengths = [float(len(text)) for text in record["text"]]
    return {"x": np.array([lengths], "f4")}


def unchanged(record: dict[str, TensorData]) -> dict[str, TensorData]:
    """Leave a record as it is."""
    return record


def rounded(x: torch.Tensor) -> torch.Tensor:
    """Round otherwise in larger batches."""
    return (x + 1) * (1 + 1e-6 * len(x))


def undefined(x: torch.Tensor) -> torch.Tensor:
    """Divide by zero."""
    return x / 0 * 0


def moody(x: torch.Tensor) -> list[bytes]:
    """Answer in words, and otherwise each time."""
    return [torch.rand(1).numpy().tobytes()] * len(x)


def average(x: torch.Tensor) -> torch.Tensor:
    """Average over the padding, too."""
    return x.mean(1)
