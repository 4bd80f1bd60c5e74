"""Loads models as a worker would, in a process of its own, and reports on each: the child side of `check`.

Owns the child's entry and what it reports. Started by `check` with the worker's environment already set; the options
come pickled through standard input and the reports leave through a descriptor, because models may print. Must not know
Kafka.
"""

import faulthandler
import os
import pickle
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import orjson

from consumer.errors import ConsumerError
from consumer.models.options import ModelOptions
from consumer.models.signature import Signature, TensorSpec
from consumer.worker.device import WorkerSlot, pin

Report: TypeAlias = dict[str, Any]
"""`model` and either `error` (one line), or `version`, `format`, `takes`, `gives`, `rows`, `notes` and `load_s`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Errand:
    """What the child is to do."""

    slot: WorkerSlot
    models: Sequence[ModelOptions]
    python_path: Sequence[str]


def main() -> None:
    """Report on every model of the errand, one JSON object a line, as soon as it is loaded."""
    errand: Errand = pickle.load(sys.stdin.buffer)  # noqa: S301 - from our own parent
    faulthandler.enable()
    sys.path[:0] = errand.python_path
    with os.fdopen(int(sys.argv[1]), "wb", buffering=0) as reports:
        try:
            pin(errand.slot)
        except Exception as error:  # noqa: BLE001 - drivers and libraries fail in many ways
            reports.write(orjson.dumps({"model": None, "error": _line(error)}) + b"\n")
            return
        for options in errand.models:
            reports.write(orjson.dumps(_examine(options, errand.slot.torch_device)) + b"\n")


def _examine(options: ModelOptions, device: str) -> Report:
    """Load a model, warm it up, and say what it is."""
    # torch comes with the loaders, and must not be there before the process is pinned.
    from consumer.worker import loaders  # noqa: PLC0415

    started_s = time.monotonic()
    try:
        model = loaders.load(options, device)
        model.warm_up()
    except Exception as error:  # noqa: BLE001 - a model's own code may raise anything
        return {"model": options.id, "error": _line(error)}
    takes = model.takes
    return {
        "model": options.id,
        "version": model.version,
        "format": model.artifact.format.value,
        "takes": [_spell(spec) for spec in takes.inputs] if isinstance(takes, Signature) else list(takes.required),
        "gives": [_spell(spec) for spec in takes.outputs or ()] if isinstance(takes, Signature) else [],
        "rows": _rows(model.rows_max, model.rows_fixed, is_batched=model.is_batched),
        "notes": list(model.notes),
        "load_s": round(time.monotonic() - started_s, 3),
    }


def _rows(rows_max: int, rows_fixed: int | None, *, is_batched: bool) -> str:
    """Say how large a batch gets."""
    if not is_batched:
        return "one record a call"
    if rows_fixed is not None:
        return f"always {rows_fixed} rows a call"
    return f"up to {rows_max} rows a call"


def _spell(spec: TensorSpec) -> str:
    """Write a tensor as `image FP32[8, 8]`."""
    return f"{spec.name} {spec.datatype}[{', '.join(map(str, spec.shape))}]"


def _line(error: Exception) -> str:
    """Write an error as one line."""
    text = next(iter(str(error).splitlines()), "")
    return text if isinstance(error, ConsumerError) else f"{type(error).__name__}: {text}"
