"""From a signal to a flag.

Owns the handlers of SIGTERM and SIGINT. A handler here does three things that cannot fail and nothing else: a raising
one would make the Kafka client throw a whole batch away, and anything that takes a lock could wait for itself.
"""

import os
import signal
from types import FrameType, TracebackType
from typing import Any, Self

from consumer.transport.spawn import STOP_SIGNALS


class StopSignals:
    """Remembers that the program was asked to stop; asked again, it ends at once with 128 + the signal's number.

    Ending at once is safe: nothing is committed that was not delivered, and workers end with their supervisor.
    Use as a context manager, in the main thread. `fileno` makes it something to wait on: readable once a stop was
    requested.
    """

    def __init__(self) -> None:
        self.requested: signal.Signals | None = None
        """The first signal that came."""
        self._wakeup = -1
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        """Install the handlers."""
        self._wakeup = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        for number in STOP_SIGNALS:
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Put the earlier handlers back."""
        for number, before in self._before.items():
            signal.signal(number, before)
        os.close(self._wakeup)

    def fileno(self) -> int:
        """Return what becomes readable, and stays so, when a stop is requested."""
        return self._wakeup

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if self.requested is not None:
            os._exit(128 + number)
        self.requested = signal.Signals(number)
        os.eventfd_write(self._wakeup, 1)
