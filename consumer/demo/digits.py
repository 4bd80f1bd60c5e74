"""The demo's input: the 1,797 handwritten digits that ship inside scikit-learn.

Owns the split into images that training sees and images that it does not. Must not know torch or Kafka.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from consumer.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Digits:
    """Images FP32 (count, 8, 8) with pixels from 0 to 1, and labels INT64 (count,)."""

    images: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]

    @property
    def is_training(self) -> npt.NDArray[np.bool_]:
        """Tell the images that training sees: every other one, so that all writers and digits are on both sides."""
        flags: npt.NDArray[np.bool_] = np.arange(len(self.labels)) % 2 == 0
        return flags


def load_digits() -> Digits:
    """Load them from the installed package; nothing is downloaded.

    Raises:
        ConfigError: scikit-learn is not installed.
    """
    try:
        from sklearn import datasets
    except ImportError:
        raise ConfigError("the demo needs scikit-learn: pip install 'inference-consumer[demo]'") from None
    bunch = datasets.load_digits()
    return Digits(
        images=np.ascontiguousarray(bunch.images / 16, dtype=np.float32),
        labels=np.ascontiguousarray(bunch.target, dtype=np.int64),
    )
