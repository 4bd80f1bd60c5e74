"""Small models that a test can make slow, fail or die, by what a record says.

Copied beside a test's configuration: workers import it from there. What is not a special value is doubled.
"""

import ctypes
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

POISON = -666.0
"""Raises."""
KILLER = -999.0
"""Ends the process by SIGKILL, as the kernel does when memory is short."""
SLEEPER = -333.0
"""Holds its batch up."""
SLEEP_S = 5.0
ASLEEP = "asleep"
"""The file beside this one with a line for each batch that was held up."""
SEGFAULT = -901.0
"""Reads from address 0."""
LEAVER = -902.0
"""Ends the process with exit code 0."""
SPINNER = -903.0
"""A loop in Python that never ends."""
BLOCKER = -904.0
"""A call into C that never returns and keeps the interpreter's lock."""
DEAF_SPINNER = -905.0
"""Blocks every signal that can be blocked, then loops."""


def _sleep() -> None:
    with Path(__file__).with_name(ASLEEP).open("a") as diary:
        diary.write("\n")
    time.sleep(SLEEP_S)


def _raise() -> None:
    raise ValueError("this batch has a poisonous record")


def _spin() -> None:
    while True:
        pass


def _block() -> None:
    mutex = ctypes.create_string_buffer(64)
    library = ctypes.PyDLL(None)
    while True:
        # A second lock by the same thread waits for ever, and no signal ends the wait.
        library.pthread_mutex_lock(mutex)


def _spin_deaf() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())
    _spin()


DEEDS: Mapping[float, Callable[[], object]] = {
    SLEEPER: _sleep,
    POISON: _raise,
    KILLER: lambda: os.kill(os.getpid(), signal.SIGKILL),
    SEGFAULT: lambda: ctypes.string_at(0),
    LEAVER: lambda: os._exit(0),
    SPINNER: _spin,
    BLOCKER: _block,
    DEAF_SPINNER: _spin_deaf,
}


class Double(torch.nn.Module):
    """Doubles its input; does to its process what a record says."""

    def __init__(self, delay_s: float = 0.0) -> None:
        super().__init__()
        self.delay_s = delay_s

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Double rows of any width."""
        if self.delay_s:
            time.sleep(self.delay_s)
        # Everything special is negative: an ordinary batch costs one look.
        if (x < 0).any():
            for value, do in DEEDS.items():
                if (x == value).any():
                    do()
        return 2 * x


class Broken(torch.nn.Module):
    """Answers its warm-up, and nothing while a file is there."""

    def __init__(self, flag: str) -> None:
        super().__init__()
        self.flag = Path(flag)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Fail while the flag is up."""
        if self.flag.exists():
            raise RuntimeError("the flag is up")
        return 2 * x


class Narrow(torch.nn.Module):
    """Has no memory for more than a few rows."""

    def __init__(self, rows_max: int) -> None:
        super().__init__()
        self.rows_max = rows_max

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Run out of memory beyond `rows_max` rows, or at a row that says so."""
        if len(x) > self.rows_max or (x == POISON).any():
            raise torch.OutOfMemoryError("no room for so many rows")
        return 2 * x


class Wide(torch.nn.Module):
    """Makes large results, and dies while they are being written, once for each token in a directory."""

    def __init__(self, width: int, tokens: str) -> None:
        super().__init__()
        self.width = width
        self.tokens = Path(tokens)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Repeat each row's double `width` times."""
        if (x > 0).any():
            for token in sorted(self.tokens.iterdir()):
                delay_s = float(token.name)
                token.unlink()
                threading.Timer(delay_s, os.kill, (os.getpid(), signal.SIGKILL)).start()
                break
        return (2 * x[:, :1]).repeat(1, self.width)
