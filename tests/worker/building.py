"""What the worker's tests are made of: chunks, requests, small models."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from consumer.core.types import ChunkId, Failure
from consumer.models.options import ModelOptions
from consumer.models.repository import Artifact, Format
from consumer.models.signature import Arguments, Signature, TensorSpec
from consumer.transport.worker_end import Work
from consumer.worker.loaders import LoadedModel
from consumer.worker.loaders.program import Program, Rows
from consumer.worker.runner import Runner
from consumer.worker.spans import Columns, Sheet, Span
from schemas.codecs import MSGPACK, decode_result, encode_request
from schemas.records import Request, Result
from schemas.tensors import Tensor

MODEL = "digits"


def work(
    values: Sequence[bytes | None],
    *,
    chunk: int = 1,
    model: str = MODEL,
    sources: Sequence[tuple[str, int, int]] | None = None,
    offsets: Sequence[int] | None = None,
    content_types: Sequence[str | None] | None = None,
) -> Work:
    """Make the chunk that a worker would receive; by default all of it comes from one partition."""
    present = [value or b"" for value in values]
    sources = [("requests", 0, len(values))] if sources is None else sources
    now_s = time.monotonic()
    return Work(
        chunk=ChunkId(chunk),
        model=model,
        buffer=memoryview(b"".join(present)),
        lengths=np.array([len(value) for value in present], np.uint32),
        offsets=np.arange(len(values)) if offsets is None else np.array(offsets, np.int64),
        sources=list(sources),
        fetched_s=[now_s] * len(sources),
        content_types=content_types,
        absent=frozenset(index for index, value in enumerate(values) if value is None),
    )


def request(identity: str | None, content_type: str = MSGPACK, **inputs: Any) -> bytes:
    """Encode a request; an input is an array, or a tensor that is named anew."""
    tensors = tuple(
        value._replace(name=name) if isinstance(value, Tensor) else Tensor.of(name, value)
        for name, value in inputs.items()
    )
    return encode_request(Request(identity, tensors), content_type)


def linear(features: int = 4, outputs: int = 3) -> Callable[[Mapping[str, Any]], Any]:
    """Make a model `y = x W` with fixed weights, exact in float32 whatever the batch is."""
    weights = (torch.arange(features * outputs, dtype=torch.float32) % 7 - 3).reshape(features, outputs)

    def run(inputs: Mapping[str, Any]) -> Any:
        return inputs["x"] @ weights

    return run


X = TensorSpec("x", "FP32", (4,))


def loaded(
    run: Callable[[Mapping[str, Any]], Any],
    takes: Signature | Arguments | None = None,
    *,
    rows: Rows | None = None,
    preprocess: Any = None,
    postprocess: Any = None,
    **options: Any,
) -> LoadedModel:
    """Make a loaded model of a function."""
    program = Program(
        run=run,
        takes=Signature((X,)) if takes is None else takes,
        rows=rows or Rows(),
        preprocess=preprocess,
        postprocess=postprocess,
    )
    return LoadedModel(
        options=ModelOptions(id=MODEL, factory="tests:none", **options),
        artifact=Artifact(Format.PYTHON, None, None, "7"),
        program=program,
        device="cpu",
    )


@dataclass
class Ran:
    """What became of the records of one chunk, by index."""

    results: dict[int, Result] = field(default_factory=dict)
    values: dict[int, bytes] = field(default_factory=dict)
    keys: dict[int, bytes] = field(default_factory=dict)
    failures: dict[int, Failure] = field(default_factory=dict)

    def output(self, index: int, name: str = "output") -> Any:
        """Return the elements of one output of one record's result."""
        return next(tensor.data for tensor in self.results[index].outputs if tensor.name == name)

    def reasons(self) -> dict[int, str]:
        """Return the failures' reasons."""
        return {index: failure.reason for index, failure in sorted(self.failures.items())}


def read(sheets: Sequence[Sheet], content_type: str | None = None) -> Ran:
    """Read the sheets of one chunk as the supervisor would."""
    ran = Ran()
    for sheet in sheets:
        values, keys, failures = sheet.outcomes()
        assert len(values) == len(keys) == sheet.span.stop - sheet.span.first
        for at, index in enumerate(range(sheet.span.first, sheet.span.stop)):
            if index in failures:
                ran.failures[index] = failures[index]
                continue
            ran.values[index], ran.keys[index] = bytes(values[at]), bytes(keys[at])
            types = sheet.columns.work.content_types
            named = None if types is None else types[index]
            ran.results[index] = decode_result(ran.values[index], named or content_type)
    return ran


def runner(model: LoadedModel, content_type: str = MSGPACK) -> Runner:
    """Make a model's runner."""
    return Runner(model, model.options, content_type)


def run_batch(runs: Runner, spans: Sequence[Span]) -> tuple[Sequence[Sheet], Failure | None]:
    """Run a batch in one thread; return the outcomes, and why the model was found broken if it was."""
    batch = runs.decode(spans)
    ended = runs.infer(batch, runs.encode)
    return runs.close(batch, ended), ended.failure


def run(model: LoadedModel, chunk: Work, content_type: str = MSGPACK) -> Ran:
    """Run a whole chunk as one batch of a new runner."""
    sheets, broken = run_batch(runner(model, content_type), [whole(chunk)])
    assert broken is None
    return read(sheets, content_type)


def whole(chunk: Work) -> Span:
    """Take all records of a chunk."""
    return Span(Columns(chunk), 0, len(chunk))
