"""Trains the demo's three networks and saves each in another format. A program of its own: it imports torch.

    python -m consumer.demo.training DIRECTORY

Owns the three files: linear.pt (TorchScript), mlp.pt2 (torch.export), cnn.safetensors (weights). Must not know Kafka or
the consumer.
"""

import argparse
import time
import warnings
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from consumer.demo.digits import Digits, load_digits
from consumer.demo.networks import Cnn, Linear, Mlp

SEED = 7
ROWS = 64
LEARNING_RATE = 3e-3
EPOCHS = {"linear": 40, "mlp": 30, "cnn": 15}


def train(network: nn.Module, digits: Digits, epochs: int) -> float:
    """Fit a network to the training half; returns its accuracy on the other half."""
    chosen = torch.from_numpy(digits.is_training)
    images, labels = torch.from_numpy(digits.images), torch.from_numpy(digits.labels)
    seen, answers = images[chosen], labels[chosen]
    optimizer = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE)
    network.train()
    for _ in range(epochs):
        for rows in torch.randperm(len(seen)).split(ROWS):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(seen[rows]), answers[rows]).backward()
            optimizer.step()
    network.eval()
    with torch.inference_mode():
        right = network(images[~chosen]).argmax(1) == labels[~chosen]
    return float(right.float().mean())


def save_linear(network: nn.Module, path: Path) -> None:
    """Save TorchScript."""
    with warnings.catch_warnings():
        # torch deprecates the format; the demo shows that files made long ago are still served.
        warnings.filterwarnings("ignore", "`torch.jit", DeprecationWarning)
        torch.jit.save(torch.jit.script(network), path)


def save_mlp(network: nn.Module, path: Path) -> None:
    """Save an exported program whose first axis is free: the example has two rows, since one row would fix it."""
    example = (torch.zeros(2, 8, 8),)
    program = torch.export.export(network, example, dynamic_shapes=({0: torch.export.Dim("rows")},))
    torch.export.save(program, path)


def save_cnn(network: nn.Module, path: Path) -> None:
    """Save the weights alone; `consumer.demo.networks:Cnn` is the factory that takes them."""
    save_file(network.state_dict(), path)


def train_all(directory: Path) -> None:
    """Train and save all three into a directory, each file whole or not at all; prints a line for each."""
    digits = load_digits()
    directory.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    parts = (
        ("linear", "linear.pt", Linear, save_linear),
        ("mlp", "mlp.pt2", Mlp, save_mlp),
        ("cnn", "cnn.safetensors", Cnn, save_cnn),
    )
    for name, file, network_class, save in parts:
        torch.manual_seed(SEED)
        start_s = time.monotonic()
        network = network_class()
        accuracy = train(network, digits, EPOCHS[name])
        unfinished = directory / f".{file}"
        save(network, unfinished)
        unfinished.chmod(0o644)  # safetensors writes for the owner alone; a container's user reads it too
        unfinished.replace(directory / file)
        print(  # noqa: T201 - this is a program, and these are its results
            f"{file}: {accuracy:.1%} of the images it never saw, trained in {time.monotonic() - start_s:.1f} s",
            flush=True,
        )


def main() -> None:
    """Parse the arguments and train."""
    parser = argparse.ArgumentParser(prog="python -m consumer.demo.training", description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path, help="where the three files go")
    train_all(parser.parse_args().directory)


if __name__ == "__main__":
    main()
