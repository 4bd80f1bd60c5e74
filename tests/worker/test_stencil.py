"""Stencils: many results from one that the codec wrote."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.worker import stencil
from consumer.worker.stencil import Origin, Stencil
from schemas.codecs import encode_result
from schemas.records import Result, Source, provenance
from schemas.tensors import Tensor

COUNT = 12


def encoded(source: Source, identity: str, rows: int, queue_ms: float, infer_ms: float) -> bytes:
    """Write one result by the codec; its output is made of its offset."""
    output = Tensor.of("y", np.full(3, source.offset % 1000, np.float32))
    return encode_result(Result(identity, "m", "1", (output,), provenance(source, rows, queue_ms, infer_ms, "5a")))


@pytest.mark.parametrize("run_records_min", [0, 10**9])
@given(data=st.data())
def test_a_table_holds_what_the_codec_writes(run_records_min: int, data: Any) -> None:
    """Run by run and by columns alike, each row is the result of its record, byte for byte."""
    low, high = data.draw(st.sampled_from([(0, 127), (128, 255), (256, 65_535), (65_536, 2**32 - 1), (2**32, 2**50)]))
    partitions = data.draw(st.lists(st.sampled_from([0, 7, 127]), min_size=1, max_size=4))
    cuts = sorted(
        data.draw(
            st.lists(st.integers(1, COUNT - 1), min_size=len(partitions) - 1, max_size=len(partitions) - 1, unique=True)
        )
    )
    counts = np.diff([0, *cuts, COUNT]).tolist()
    times = st.floats(0, 1e6).map(lambda value: round(value, 3))
    origins = [Origin(n, partition, data.draw(times)) for n, partition in zip(counts, partitions, strict=True)]
    offsets = np.array(data.draw(st.lists(st.integers(low, high), min_size=COUNT, max_size=COUNT)), np.int64)
    rows, infer_ms = data.draw(st.sampled_from([COUNT, 127])), data.draw(times)
    owners = [origin for origin in origins for _ in range(origin.records)]
    expected = [
        encoded(Source("in", owner.partition, offset), f"id-{at:02}", rows, owner.queue_ms, infer_ms)
        for at, (owner, offset) in enumerate(zip(owners, offsets.tolist(), strict=True))
    ]
    other = encoded(Source("in", 3, high), "other", 99, 0.25, 1.5)
    cut = Stencil(other, 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stencil, "RUN_RECORDS_MIN", run_records_min)
        values = cut.table(origins, rows, infer_ms)
    cut.write_offsets(values, offsets)
    values[:, cut.id] = np.array([[*f"id-{at:02}".encode()] for at in range(COUNT)], np.uint8)
    values[:, cut.outputs[0]] = np.repeat(offsets % 1000, 3).astype(np.float32).reshape(COUNT, 3).view(np.uint8)
    assert [row.tobytes() for row in values] == expected
