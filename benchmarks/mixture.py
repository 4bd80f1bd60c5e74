"""Eight models of mixed cost, and how often each is asked: what W4 consists of. Must not know torch."""

import numpy as np
from numpy.typing import NDArray

SIDE = 256
"""FP32 values of one record."""
ZIPF_EXPONENT = 1.1

MIXTURE: dict[str, tuple[int, int]] = {
    # Width and layers. The costs are shuffled over the ranks: the most wanted model is neither the cheapest nor the
    # dearest.
    "m0": (256, 2),
    "m1": (64, 1),
    "m2": (1024, 2),
    "m3": (512, 2),
    "m4": (64, 4),
    "m5": (1024, 4),
    "m6": (256, 4),
    "m7": (512, 4),
}
"""By rank: `m0` is asked most."""


def shares() -> NDArray[np.float64]:
    """Return the fraction of the records that each model gets, by Zipf's law."""
    weights = 1.0 / np.arange(1, len(MIXTURE) + 1) ** ZIPF_EXPONENT
    return np.asarray(weights / weights.sum())


def draw(count: int, seed: int = 0) -> list[str]:
    """Draw the models of so many records."""
    names = list(MIXTURE)
    return [names[rank] for rank in np.random.default_rng(seed).choice(len(names), count, p=shares()).tolist()]
