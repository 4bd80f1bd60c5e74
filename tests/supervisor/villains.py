"""Models that mistreat the process they run in, at a record or once while they are loaded."""

import ctypes
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

Model = Callable[[torch.Tensor], torch.Tensor]

KEPT: list[bytearray] = []
"""What leaks."""


def _spin() -> None:
    while True:
        pass


def _spin_deaf() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())
    _spin()


def _deadlock() -> None:
    """Wait in C for a lock that this thread holds itself, with the interpreter's. A sleep would end by any signal."""
    mutex = ctypes.create_string_buffer(128)
    for _ in range(2):
        ctypes.PyDLL(None).pthread_mutex_lock(mutex)


def _segfault() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.string_at(0)


DEEDS: Mapping[str, Callable[[], object]] = {
    "segv": _segfault,
    "os._exit": lambda: os._exit(0),
    "sys.exit": lambda: sys.exit("done"),
    "sigkill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "loop": _spin,
    "deaf loop": _spin_deaf,
    "usleep": lambda: [ctypes.CDLL(None).usleep(999_999) for _ in range(3600)],
    "deadlock": _deadlock,
    "stopped": lambda: os.kill(os.getpid(), signal.SIGSTOP),
}


def _do(deed: str, token: str) -> None:
    """Do it while the token is there, which it takes; leave the time behind."""
    if Path(token).exists():
        Path(token).unlink()
        Path(token + ".at").write_text(str(time.monotonic()), encoding="ascii")
        DEEDS[deed]()


def once(deed: str, token: str) -> Model:
    """Make a model that does something to its process during its next batch."""

    def model(x: torch.Tensor) -> torch.Tensor:
        if bool((x != 0).any()):  # not during the warm-up
            _do(deed, token)
        return x * 2

    return model


def at_load(deed: str, token: str) -> Model:
    """Do something to the process instead of making a model."""
    _do(deed, token)
    return lambda x: x * 2


def at(deed: str, value: float) -> Model:
    """Make a model that does something at one record."""

    def model(x: torch.Tensor) -> torch.Tensor:
        if bool((x == value).any()):
            DEEDS[deed]()
        return x * 2

    return model


def leaks(size: int) -> Model:
    """Make a model that keeps so many bytes with each batch."""

    def model(x: torch.Tensor) -> torch.Tensor:
        if bool((x != 0).any()):
            KEPT.append(bytearray(os.urandom(4096)) * (size // 4096))
        return x * 2

    return model
