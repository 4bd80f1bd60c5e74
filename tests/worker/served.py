"""Models that the tests of real worker processes serve."""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

Model = Callable[..., Any]

TRIGGER = 4242
"""A row of this number makes a model do what it is here for; no warm-up asks for it."""


def double() -> Model:
    """Make a model that doubles."""

    def model(x: torch.Tensor) -> torch.Tensor:
        return x * 2

    return model


def narrow() -> Model:
    """Make a model that returns less than it gets."""

    def model(x: torch.Tensor) -> torch.Tensor:
        return x[:, :10] + 1

    return model


def leaves() -> Model:
    """End the interpreter instead of making a model, as a script would."""
    sys.exit("usage: train.py")


def slow_to_load(fifo: str) -> Model:
    """Take until the test writes to a pipe."""
    Path(fifo).read_bytes()
    return double()


def broken_while(flag: str) -> Model:
    """Make a model that fails everything while a file exists."""

    def model(x: torch.Tensor) -> torch.Tensor:
        if Path(flag).exists():
            raise RuntimeError("weights are gone")
        return x * 2

    return model


def busy(started: str) -> Model:
    """Make a model that tells when it is called, and never ends."""

    def model(x: torch.Tensor) -> torch.Tensor:
        if bool((x == TRIGGER).all(dim=1).any()):
            Path(started).touch()
            while True:
                time.sleep(1)
        return x

    return model


def waits_for(flag: str) -> Model:
    """Make a model whose answer to a certain row waits until a file exists."""

    def model(x: torch.Tensor) -> torch.Tensor:
        while bool((x == 1 - TRIGGER).all(dim=1).any()) and not Path(flag).exists():
            time.sleep(0.01)
        return x * 2

    return model


def flagged(inputs: dict[str, Any]) -> dict[str, Any]:
    """Make the file that `waits_for` waits for, when a certain record is decoded."""
    path = os.environ.get("FLAG_FOR_TESTS")
    if path is not None and bool((inputs["x"] == TRIGGER).all()):
        Path(path).touch()
    return inputs


def spoils_the_device() -> Model:
    """Make a model after which the device is lost; its warm-up passes."""

    def model(x: torch.Tensor) -> torch.Tensor:
        if bool((x == TRIGGER).all(dim=1).any()):
            raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
        return x

    return model


def crashes() -> Model:
    """Make a model that ends its process; its warm-up passes."""

    def model(x: torch.Tensor) -> torch.Tensor:
        if bool((x == TRIGGER).all(dim=1).any()):
            os.abort()
        return x

    return model


def surroundings() -> Model:
    """Make a model that tells how its process was set up."""

    def model(x: torch.Tensor) -> dict[str, torch.Tensor]:
        facts = [
            torch.get_num_threads(),
            torch.get_num_interop_threads(),
            len(os.sched_getaffinity(0)),
            int(torch.is_inference_mode_enabled()),
            int(os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"]),
        ]
        return {"facts": torch.tensor([facts] * len(x))}

    return model
