"""JSON results in frames: the same bytes as one by one."""

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from consumer.models.signature import Signature, TensorSpec
from consumer.transport.worker_end import Work
from consumer.worker import encoding
from schemas.codecs import JSON
from schemas.json_frame import JsonFrame
from tests.worker.building import X, loaded, read, request, run_batch, whole, work
from tests.worker.building import runner as runner_of
from tests.worker.test_template import NEVER, frozen_clocks

SIGNATURE = Signature((X, TensorSpec("n", "INT16", (2,))))


def model(inputs: Any) -> Any:
    """Compute three outputs, row by row; one of them may be infinite, or not a number."""
    x, n = inputs["x"], inputs["n"]
    return {"sum": x.sum(dim=1), "ratio": x[:, :2] / n, "is_large": x > 1.0}


@st.composite
def payloads(draw: st.DrawFn) -> bytes:
    """A JSON request that fits the model, or nearly."""
    rows = draw(st.sampled_from([None, None, None, 1, 2, 3, 0]))
    lead = () if rows is None else (rows,)
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    x = random.standard_normal((*lead, draw(st.sampled_from([4, 4, 4, 4, 5]))), np.float32)
    n = random.integers(draw(st.sampled_from([0, 1, 1])), 9, (*lead, 2)).astype(np.int16)
    identity = draw(st.none() | st.text(max_size=6) | st.sampled_from(["", "é" * 4, 'a"b\\c\n', '"source_offset":7']))
    return request(identity, JSON, x=x, n=n)


@st.composite
def chunks(draw: st.DrawFn) -> Work:
    """A chunk of several partitions."""
    values: list[bytes | None] = draw(st.lists(payloads() | st.none(), min_size=1, max_size=24))
    cut = draw(st.integers(0, len(values)))
    topics = draw(st.sampled_from([("a", "a"), ("a", "other"), ('"source_offset":', "é")]))
    sources = [(topics[0], 3, cut), (topics[1], 300, len(values) - cut)]
    return work(
        values,
        sources=[source for source in sources if source[2]],
        offsets=[2**32 - 3 + i if i < cut else 7 * i for i in range(len(values))],
        content_types=[JSON] * len(values),
    )


def outcomes(chunk: Work, **limits: int) -> list[Any]:
    """Run a chunk in one batch; list what each record gets."""
    with frozen_clocks(**limits):
        sheets, broken = run_batch(runner_of(loaded(model, SIGNATURE)), [whole(chunk)])
    assert broken is None
    ran = read(sheets)
    return [ran.failures.get(i) or (ran.values[i], ran.keys[i]) for i in range(len(chunk))]


@settings(max_examples=200, deadline=None)
@given(chunk=chunks())
def test_frames_change_no_byte(chunk: Work) -> None:
    """Whatever records come together, each gets the same result bytes, key or failure as one by one."""
    slow = outcomes(chunk, FRAME_RECORDS_MIN=NEVER)
    assert outcomes(chunk) == slow
    assert outcomes(chunk, FRAME_RECORDS_MIN=1) == slow


def test_results_of_several_partitions_take_a_frame_each(monkeypatch: Any) -> None:
    """What results of one partition have in common is written once for a batch."""
    made: list[JsonFrame] = []

    def make(*given: Any) -> JsonFrame:
        made.append(JsonFrame(*given))
        return made[-1]

    monkeypatch.setattr(encoding, "JsonFrame", make)
    values = [request(f"id-{i}", JSON, x=np.full(4, i, np.float32), n=np.ones(2, np.int16)) for i in range(40)]
    chunk = work(values, sources=[("a", 0, 25), ("a", 1, 15)], offsets=list(range(40)), content_types=[JSON] * 40)
    found = outcomes(chunk)
    assert [key for _, key in found] == [f"id-{i}".encode() for i in range(40)]
    assert len(made) == 2
