from collections.abc import Mapping
from typing import Any

import pytest
import torch

from benchmarks import padded, sentences
from benchmarks.workloads import W3, W3_PADDED
from consumer.models.signature import Signature, TensorSpec
from consumer.worker import runner as workers
from tests.worker.building import loaded, read, request, run_batch, runner, whole, work

TOKENS = Signature(
    (TensorSpec("ids", "INT64", ("tokens",), pad=0, mask="mask"), TensorSpec("mask", "FP32", ("tokens",))),
    (TensorSpec("text", "FP32", (1,)),),
)


def test_a_worker_without_buckets_takes_records_as_they_come(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once the encoder is made there, calls have all the rows that they may, each padded to its longest."""
    monkeypatch.setitem(vars(workers), "Buckets", workers.__dict__["Buckets"])
    padded.encoder()
    shapes: list[tuple[int, ...]] = []

    def model(inputs: Mapping[str, Any]) -> dict[str, Any]:
        shapes.append(tuple(inputs["ids"].shape))
        return {"text": torch.zeros(len(inputs["ids"]), 1)}

    lengths = [2, 90, 2, 2, 3, 2, 70, 2, 5, 5]
    chunk = work([request(str(at), ids=torch.ones(length).long().numpy()) for at, length in enumerate(lengths)])
    ran = read(run_batch(runner(loaded(model, TOKENS, rows_max=4)), [whole(chunk)])[0])
    assert len(ran.results) == len(lengths)
    assert shapes == [(4, 90), (4, 70), (2, 5)]


def test_nothing_else_differs() -> None:
    """The two configurations of W3 are the same but for where the model is made."""
    with_buckets, without = (dict(each.models(sentences.DIRECTORY)["sentences"]) for each in (W3, W3_PADDED))
    assert with_buckets.pop("factory") != without.pop("factory")
    assert with_buckets == without
    assert (W3.values, W3.settings) == (W3_PADDED.values, W3_PADDED.settings)
