"""Records of different lengths: which of them share a call, and that nothing but the time depends on it."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from consumer.core.cost import CostCurve
from consumer.models.signature import Signature, TensorSpec
from consumer.worker.runner import CALLS_BEFORE_GROWTH
from consumer.worker.spans import Columns, Span
from schemas.codecs import JSON, MSGPACK
from tests.strategies import UNHURRIED
from tests.worker.building import loaded, read, request, run_batch, runner, whole, work

WIDTH = 8
TOKENS = Signature(
    (TensorSpec("ids", "INT64", ("tokens",), pad=0, mask="mask"), TensorSpec("mask", "FP32", ("tokens",))),
    (TensorSpec("text", "FP32", (WIDTH,)), TensorSpec("each", "FP32", ("tokens", WIDTH))),
)


class Encoder(torch.nn.Module):
    """A small transformer whose tokens look at one another, but not at padding."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = torch.nn.Embedding(50, WIDTH)
        layer = torch.nn.TransformerEncoderLayer(WIDTH, 2, 2 * WIDTH, dropout=0.0, batch_first=True)
        self.layers = torch.nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.calls: list[tuple[int, int]] = []

    def forward(self, inputs: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        """Encode each token, and each text as the mean of its tokens."""
        ids, mask = inputs["ids"], inputs["mask"]
        self.calls.append((ids.shape[0], ids.shape[1]))
        each = self.layers(self.table(ids), src_key_padding_mask=mask == 0)
        return {"text": (each * mask[..., None]).sum(1) / mask.sum(1, keepdim=True), "each": each}


ENCODER = Encoder().eval()
RECORDS = st.tuples(st.integers(1, 24), st.integers(0, 3), st.booleans())
"""Length, rows (0: none of its own, one example) and whether it is JSON."""


def tokens(at: int, length: int, rows: int) -> npt.NDArray[np.int64]:
    """Make tokens that no other record has."""
    return np.random.default_rng(at).integers(1, 50, (rows, length) if rows else (length,))


def record(at: int, length: int, rows: int = 0, *, is_json: bool = False) -> bytes:
    """Make a record of them."""
    return request(f"{at:04}", JSON if is_json else MSGPACK, ids=tokens(at, length, rows))


def alone(at: int, length: int, rows: int) -> dict[str, npt.NDArray[np.float32]]:
    """Ask the model for one record, without padding."""
    ids = torch.from_numpy(tokens(at, length, rows)).reshape(max(rows, 1), length)
    outputs = ENCODER({"ids": ids, "mask": torch.ones(ids.shape)})
    return {name: (output if rows else output[0]).numpy() for name, output in outputs.items()}


@given(
    records=st.lists(RECORDS, min_size=1, max_size=16),
    copies=st.sampled_from([1, 10]),
    limits=st.sampled_from([(512, 16_384), (4, 16_384), (512, 40), (3, 10)]),
    cuts=st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
@settings(UNHURRIED, max_examples=15)
@torch.inference_mode()
def test_results_are_those_of_one_record_at_a_time(
    records: list[tuple[int, int, bool]], copies: int, limits: tuple[int, int], cuts: tuple[float, float]
) -> None:
    """Whatever shares a call, each record gets its own result, to the tolerance of floating point."""
    records = [one for one in records for _ in range(copies)][:30]
    values = [record(at, length, rows, is_json=is_json) for at, (length, rows, is_json) in enumerate(records)]
    types = [JSON if is_json else None for _, _, is_json in records]
    chunk = work(values, content_types=types)
    first, second = sorted(int(cut * len(values)) for cut in cuts)
    spans = [Span(Columns(chunk), a, b) for a, b in ((0, first), (first, second), (second, len(values))) if a < b]
    model = loaded(ENCODER, TOKENS, rows_max=limits[0], padded_max=limits[1])
    ENCODER.calls.clear()
    ran = read(run_batch(runner(model), spans)[0])
    assert ran.failures == {}
    longest = {rows * length for rows, length in ENCODER.calls}
    assert max(longest) <= max(limits[1], *(max(rows, 1) * length for length, rows, _ in records))
    assert max(rows for rows, _ in ENCODER.calls) <= limits[0]
    for at, (length, rows, _) in enumerate(records):
        for name, output in alone(at, length, rows).items():
            assert ran.output(at, name).shape == output.shape
            assert np.allclose(ran.output(at, name), output, atol=1e-5)
        assert ran.results[at].id == f"{at:04}"


def test_lengths_that_differ_much_do_not_share_a_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a call costs as much besides as fifty tokens, little of what is computed is padding."""
    monkeypatch.setattr(CostCurve, "seconds", lambda _, size: 50 + size)
    lengths = np.clip(np.random.default_rng(1).lognormal(3.0, 0.8, 256), 1, 200).astype(int).tolist()
    calls: list[tuple[int, ...]] = []

    def model(inputs: Mapping[str, Any]) -> dict[str, Any]:
        calls.append(tuple(inputs["ids"].shape))
        return {"text": torch.zeros(len(inputs["ids"]), WIDTH), "each": torch.zeros(*inputs["ids"].shape, WIDTH)}

    chunk = work([record(at, length) for at, length in enumerate(lengths)])
    assert len(read(run_batch(runner(loaded(model, TOKENS)), [whole(chunk)])[0]).results) == len(lengths)
    assert sum(lengths) <= sum(rows * length for rows, length in calls) <= 1.15 * sum(lengths)
    assert len(calls) < len(lengths) / 8


def test_too_little_memory_limits_what_is_padded_not_the_rows() -> None:
    """Where long records do not fit, calls of short ones stay as large as they were."""
    shapes: list[tuple[int, ...]] = []

    def model(inputs: Mapping[str, Any]) -> dict[str, Any]:
        shapes.append(tuple(inputs["ids"].shape))
        if inputs["ids"].numel() > 100:
            raise MemoryError
        return {"text": torch.zeros(len(inputs["ids"]), WIDTH), "each": torch.zeros(*inputs["ids"].shape, WIDTH)}

    ran = runner(loaded(model, TOKENS, rows_max=64))
    chunk = work([record(at, 40) for at in range(4)])
    short = work([record(at, 2) for at in range(40)])
    assert len(read(run_batch(ran, [whole(chunk)])[0]).results) == 4
    shapes.clear()
    assert len(read(run_batch(ran, [whole(short)])[0]).results) == 40
    assert shapes == [(40, 2)]
    run_batch(ran, [whole(chunk)])
    assert shapes[1:] == [(2, 40), (2, 40)]
    few = work([record(0, 2)])
    for _ in range(CALLS_BEFORE_GROWTH):
        run_batch(ran, [whole(few)])
    shapes.clear()
    run_batch(ran, [whole(chunk)])
    assert shapes[0] == (4, 40), "after a while more is tried again"
