"""The loop, driven by hand in this process."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from consumer.core.batching import Batcher
from consumer.core.events import Answered
from consumer.core.types import Chunk, ChunkId, Generation, Run, TopicPartition, WorkerId
from consumer.models.signature import Signature, TensorSpec
from consumer.transport.channel import Channel, ChannelOptions
from consumer.transport.worker_end import WorkerEnd
from consumer.worker.loop import Loop
from consumer.worker.waits import CoreWaits
from schemas.codecs import MSGPACK
from tests.worker.building import MODEL, X, linear, loaded, request

RECORDS = 20
WAITED_S = 1000.0


def chunk() -> Chunk:
    """Make a chunk of one run."""
    values = [request(f"id-{number:02}", x=np.zeros(4, np.float32)) for number in range(RECORDS)]
    numbers = range(RECORDS)
    run = Run(
        partition=TopicPartition("requests", 0),
        generation=Generation(1),
        model=MODEL,
        positions=numbers,
        offsets=numbers,
        keys=[None] * RECORDS,
        values=values,
        headers=None,
        timestamps_ms=[0] * RECORDS,
        size=sum(map(len, values)),
        fetched_s=time.monotonic(),
    )
    return Chunk(ChunkId(1), MODEL, [run])


@contextmanager
def driven(**options: Any) -> Iterator[tuple[Loop, Channel]]:
    """Make a loop that serves one model, with a chunk for it received."""
    channel = Channel(WorkerId(1), ChannelOptions())
    model = loaded(linear(), **options)
    end = WorkerEnd(channel.ends)
    loop = Loop(end, {MODEL: model.options}, "cpu", MSGPACK)
    loop._open(MODEL, model)
    channel.send_chunk(chunk(), None)
    loop._receive(0.0)
    yield loop, channel
    end.close()
    channel.close()


def test_waits_for_a_core_are_no_part_of_what_a_batch_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """What batches teach about their size is the time that passed less what the thread was kept from its core."""
    observed: list[tuple[int, float]] = []
    waits = iter([7.0, 7.0 + WAITED_S])
    monkeypatch.setattr(CoreWaits, "seconds", lambda _: next(waits))
    monkeypatch.setattr(Batcher, "observe", lambda _, rows, seconds: observed.append((rows, seconds)))
    with driven() as (loop, _):
        began_s = time.monotonic()
        loop._run_batch(MODEL)
        passed_s = time.monotonic() - began_s
    ((rows, seconds),) = observed
    assert rows == RECORDS
    assert -WAITED_S < seconds <= passed_s - WAITED_S


@pytest.mark.parametrize(("spec", "is_told"), [(X, True), (TensorSpec("x", "FP32", ("length",), pad=0), False)])
def test_answers_tell_how_many_rows_are_enough(spec: TensorSpec, *, is_told: bool) -> None:
    """The supervisor hears what was learned, but not of a model that pads, where more records are of more use."""
    with driven(takes=Signature((spec,)), inputs=(spec,)) as (loop, channel):
        enough = loop._batchers[MODEL].rows_enough
        loop._run_batch(MODEL)
        (answered,) = channel.receive()
    assert isinstance(answered, Answered)
    assert enough > 0
    assert answered.rows_enough == (enough if is_told else 0)
