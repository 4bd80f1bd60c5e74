"""The networks of the benchmarks, as files: a .pt2 for the program, weights for the loops and ceilings.

A program of its own, since it imports torch: `python -m benchmarks.networks NAME DIRECTORY`. Every network is seeded;
what it answers does not matter here, only what it costs.
"""

import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from benchmarks import EXPORTED, PIXELS, WEIGHTS
from benchmarks.mixture import MIXTURE, SIDE

HIDDEN, CLASSES = 32, 10


class Network(nn.Module):
    """784-32-32-32-32-10: so small that what stands around it is what is measured."""

    def __init__(self) -> None:
        super().__init__()
        widths = [PIXELS, HIDDEN, HIDDEN, HIDDEN, HIDDEN, CLASSES]
        layers: list[nn.Module] = [nn.Linear(widths[0], widths[1])]
        for width, following in pairwise(widths[1:]):
            layers += [nn.ReLU(), nn.Linear(width, following)]
        self.layers = nn.Sequential(*layers)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Score images: FP32 (rows, 784) -> FP32 (rows, 10)."""
        scores: torch.Tensor = self.layers(image)
        return scores


class Block(nn.Module):
    """Two convolutions with a way around them."""

    def __init__(self, width: int, following: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, following, 3, stride, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(following)
        self.second = nn.Conv2d(following, following, 3, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(following)
        self.around = nn.Conv2d(width, following, 1, stride, bias=False)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """FP32 (rows, width, height, side) -> FP32 (rows, following, height / stride, side / stride)."""
        inner = torch.relu(self.first_norm(self.first(image)))
        return torch.relu(self.second_norm(self.second(inner)) + self.around(image))


class Pictures(nn.Module):
    """A residual network of eight blocks for pictures that come as bytes; it normalises them itself."""

    def __init__(self) -> None:
        super().__init__()
        widths = [32, 32, 32, 64, 64, 128, 128, 256, 256]
        strides = [1, 1, 2, 1, 2, 1, 2, 1]
        self.stem = nn.Sequential(
            nn.Conv2d(3, widths[0], 7, stride=2, padding=3, bias=False),
            nn.BatchNorm2d(widths[0]),
            nn.ReLU(),
            nn.MaxPool2d(3, stride=2, padding=1),
        )
        self.blocks = nn.Sequential(*map(Block, widths, widths[1:], strides))
        self.head = nn.Linear(widths[-1], 1000)
        self.register_buffer("mean", torch.tensor([123.675, 116.28, 103.53]).view(3, 1, 1))
        self.register_buffer("deviation", torch.tensor([58.395, 57.12, 57.375]).view(3, 1, 1))

    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        """Score pictures: UINT8 (rows, 3, 224, 224) -> FP32 (rows, 1000)."""
        mean, deviation = self.get_buffer("mean"), self.get_buffer("deviation")
        scores: torch.Tensor = self.head(self.blocks(self.stem((picture - mean) / deviation)).mean((2, 3)))
        return scores


class Member(nn.Module):
    """One of eight models: equal inputs, layers that differ in width and number."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Linear(SIDE, width), nn.ReLU()]
        for _ in range(depth - 1):
            layers += [nn.Linear(width, width), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(width, CLASSES))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Score features: FP32 (rows, SIDE) -> FP32 (rows, 10)."""
        scores: torch.Tensor = self.layers(features)
        return scores


def load(directory: Path) -> Network:
    """Read the small network back from its weights, ready for inference on one thread."""
    torch.set_num_threads(1)
    network = Network().eval()
    network.load_state_dict(load_file(directory / WEIGHTS))
    return network


def export(network: nn.Module, example: torch.Tensor, path: Path) -> None:
    """Write a network as a program that takes any number of rows."""
    program = torch.export.export(network, (example,), dynamic_shapes=({0: torch.export.Dim("rows")},))
    torch.export.save(program, path)


def save_crayfish(directory: Path) -> None:
    """Write the small network: a program, and weights for the loops."""
    network = Network().eval()
    save_file(network.state_dict(), directory / WEIGHTS)
    export(network, torch.zeros(2, PIXELS), directory / EXPORTED)


def save_pictures(directory: Path) -> None:
    """Write the network for pictures."""
    export(Pictures().eval(), torch.zeros(2, 3, 224, 224, dtype=torch.uint8), directory / "pictures.pt2")


def save_mixture(directory: Path) -> None:
    """Write the eight models."""
    for name, (width, depth) in MIXTURE.items():
        export(Member(width, depth).eval(), torch.zeros(2, SIDE), directory / f"{name}.pt2")


SAVERS: dict[str, Callable[[Path], None]] = {
    "crayfish": save_crayfish,
    "pictures": save_pictures,
    "mixture": save_mixture,
}


def main(name: str, directory: str) -> None:
    """Write the files of one workload's networks."""
    torch.manual_seed(0)
    SAVERS[name](Path(directory))


if __name__ == "__main__":
    main(*sys.argv[1:])
