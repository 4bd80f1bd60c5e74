"""What the tests start as workers: small programs around a WorkerEnd, importable by the spawned process."""

import numpy as np

from consumer.core.types import Failure
from consumer.transport.controls import Broken, Loaded, LoadModel, Probed, ProbeModel, Ready
from consumer.transport.ends import WorkerEnds
from consumer.transport.worker_end import Timing, Work, WorkerEnd

TIMING = Timing(rows=7, queue_s=0.25, infer_s=0.5)


def payloads(work: Work) -> list[bytes]:
    """Cut a chunk's payloads out of the buffer."""
    ends = [0, *np.cumsum(work.lengths, dtype=np.int64).tolist()]
    return [bytes(work.buffer[start:end]) for start, end in zip(ends, ends[1:], strict=False)]


def echo(ends: WorkerEnds) -> None:
    """Answer every record with its own payload, keyed by its offset; answer controls; end with the supervisor."""
    end = WorkerEnd(ends)
    end.send(Ready("cpu"))
    while True:
        try:
            received = end.receive(None)
            match received:
                case Work():
                    keys = [str(offset).encode() for offset in received.offsets.tolist()]
                    end.answer(received.chunk, 0, payloads(received), keys, {}, TIMING)
                case LoadModel("broken"):
                    end.send(Broken("broken", Failure("model-unavailable", "LoadError", "no such file")))
                case LoadModel(model):
                    end.send(Loaded(model, "1", 0.5))
                case ProbeModel(model):
                    end.send(Probed(model))
        except EOFError:
            return
