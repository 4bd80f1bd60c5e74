"""How long a thread had something to do and no core to do it on.

Owns the reading of what the system counts. Must not know what the thread does.
"""

import os
from typing import Final

_COUNTS: Final = "/proc/thread-self/schedstat"
"""Nanoseconds that the thread has run, and that it has waited for a core; then how often."""


class CoreWaits:
    """What the thread that makes it has waited for a core since it began."""

    def __init__(self) -> None:
        """Open what the system counts for this thread; where it counts nothing, nothing is waited."""
        try:
            self._file: int | None = os.open(_COUNTS, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self._file = None

    def seconds(self) -> float:
        """Read the sum of all waits that are over."""
        return 0.0 if self._file is None else int(os.pread(self._file, 128, 0).split()[1]) / 1e9

    def close(self) -> None:
        """Close what is read."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
