"""The workloads: what records each consists of, and what the program is told to serve them with.

Must not know torch, nor how anything is started or measured.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks import EXPORTED, mixture, records, sentences
from schemas.codecs import JSON, MSGPACK

ROOT = Path(__file__).resolve().parents[1]
Models = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """One workload."""

    name: str
    title: str
    network: str
    """Which of `benchmarks.networks` to write; empty where the files come from elsewhere."""
    values: Callable[[Iterator[bytes]], Iterator[bytes]]
    """Makes a request for each id."""
    keys: Callable[[int], list[str]]
    """The models of so many requests."""
    models: Callable[[Path], Models]
    """The configuration of the models, with their files in a directory."""
    content_type: str = MSGPACK
    settings: Mapping[str, Any] = field(default_factory=dict)
    """More of the program's configuration."""
    model_header: str = ""
    """The header that names a record's model, for systems that want it there; by default its key does."""


def one(model: str) -> Callable[[int], list[str]]:
    """Ask one model only."""
    return lambda count: [model] * count


def crayfish(directory: Path) -> Models:
    """Serve the small network."""
    return {records.MODEL: {"path": str(directory / EXPORTED), "preload": True}}


def pictures(directory: Path) -> Models:
    """Serve the network for pictures."""
    return {records.PICTURES: {"path": str(directory / "pictures.pt2"), "preload": True, "rows_max": 32}}


def encoder(_directory: Path, factory: str = "benchmarks.bert:Encoder") -> Models:
    """Serve the sentence encoder."""
    return {
        records.SENTENCES: {
            "path": str(sentences.WEIGHTS),
            "factory": factory,
            "inputs": [
                {"name": "tokens", "datatype": "INT64", "shape": ["tokens"], "pad": 0, "mask": "mask"},
                {"name": "mask", "datatype": "INT64", "shape": ["tokens"], "pad": 0},
            ],
            "preload": True,
            "rows_max": 32,
        }
    }


def padded_encoder(directory: Path) -> Models:
    """Serve the sentence encoder by workers that do not look for like lengths."""
    return encoder(directory, "benchmarks.padded:encoder")


def mixed(directory: Path) -> Models:
    """Serve the eight models."""
    return {name: {"path": str(directory / f"{name}.pt2"), "preload": True} for name in mixture.MIXTURE}


# As many records a call as the tuned loop takes.
LARGE_BATCHES = {"batch": {"rows_max": 512}}

W1 = Workload(
    name="W1",
    title="784-32-32-32-32-10, msgpack records of 3.2 KB",
    network="crayfish",
    values=records.requests,
    keys=one(records.MODEL),
    models=crayfish,
    settings=LARGE_BATCHES,
)
W1_JSON = Workload(
    name="W1 JSON",
    title="784-32-32-32-32-10, JSON records of the Open Inference Protocol",
    network="crayfish",
    values=records.json_requests,
    keys=one(records.MODEL),
    models=crayfish,
    content_type=JSON,
    settings=LARGE_BATCHES,
)
W1_JSON_BY_HEADER = replace(W1_JSON, name="W1 JSON by header", model_header="mlserver-model")
"""The same values for MLServer, which takes a key for the record's id."""
W2 = Workload(
    name="W2",
    title="a residual network, pictures of 3 x 224 x 224 bytes",
    network="pictures",
    values=records.picture_requests,
    keys=one(records.PICTURES),
    models=pictures,
)
W3 = Workload(
    name="W3",
    title="a sentence encoder, lognormal lengths",
    network="",
    values=records.sentence_requests,
    keys=one(records.SENTENCES),
    models=encoder,
    settings={"python_path": [str(ROOT)]},
)
W3_PADDED = replace(W3, models=padded_encoder)
"""The same records; those that come together share a call, padded to the longest of them."""
W4 = Workload(
    name="W4",
    title="eight models of mixed cost, asked by Zipf's law with exponent 1.1",
    network="mixture",
    values=records.feature_requests,
    keys=mixture.draw,
    models=mixed,
)
WORKLOADS = {each.name: each for each in (W1, W1_JSON, W1_JSON_BY_HEADER, W2, W3, W4)}
