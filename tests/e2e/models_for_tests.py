"""Small models that a test can make slow, fail or die, by what a record says.

Copied beside a test's configuration: workers import it from there. A value of `POISON` raises, one of `KILLER` ends
the process, one of `SLEEPER` holds its batch up.
"""

import os
import signal
import time
from pathlib import Path

import torch

POISON = -666.0
KILLER = -999.0
SLEEPER = -333.0
SLEEP_S = 5.0


class Double(torch.nn.Module):
    """Doubles its input; breaks on what it is told to break on."""

    def __init__(self, delay_s: float = 0.0) -> None:
        super().__init__()
        self.delay_s = delay_s

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Double rows of any width."""
        if self.delay_s:
            time.sleep(self.delay_s)
        if (x == SLEEPER).any():
            time.sleep(SLEEP_S)
        if (x == POISON).any():
            raise ValueError("this batch has a poisonous record")
        if (x == KILLER).any():
            os.kill(os.getpid(), signal.SIGKILL)
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
