"""What the tests start as workers: small programs around a WorkerEnd, importable by the spawned process."""

import os
import signal
from itertools import pairwise
from typing import NoReturn

import numpy as np

from consumer.core.types import Failure
from consumer.transport.controls import Broken, Loaded, LoadModel, Probed, ProbeModel, Ready
from consumer.transport.ends import WorkerEnds
from consumer.transport.worker_end import Timing, Work, WorkerEnd
from tests.transport.chunks import open_descriptors

TIMING = Timing(rows=7, rows_enough=5, queue_s=0.25, infer_s=0.5)
NO_FILE = Failure("model-unavailable", "LoadError", "no such file")


def boot(ends: WorkerEnds) -> WorkerEnd:
    """Open the ends and say so."""
    end = WorkerEnd(ends)
    end.send(Ready("cpu"))
    return end


def work(end: WorkerEnd) -> Work:
    """Wait for records; nothing else may come."""
    received = end.receive(None)
    assert isinstance(received, Work)
    return received


def payloads(received: Work) -> list[bytes]:
    """Cut a chunk's payloads out of the buffer."""
    ends = [0, *np.cumsum(received.lengths, dtype=np.int64).tolist()]
    return [bytes(received.buffer[start:end]) for start, end in pairwise(ends)]


def answer_payloads(end: WorkerEnd, received: Work) -> None:
    """Answer every record with its own payload, keyed by its offset."""
    keys = [str(offset).encode() for offset in received.offsets.tolist()]
    end.answer(received.chunk, 0, payloads(received), keys, {}, TIMING)


def echo(ends: WorkerEnds) -> None:
    """Answer records and controls; end with the supervisor."""
    end = boot(ends)
    while True:
        try:
            match end.receive(None):
                case Work() as received:
                    answer_payloads(end, received)
                case LoadModel("broken" as model):
                    end.send(Broken(model, NO_FILE))
                case LoadModel(model):
                    end.send(Loaded(model, "1", 0.5))
                case ProbeModel(model):
                    end.send(Probed(model))
        except EOFError:
            return


def describe(ends: WorkerEnds) -> None:
    """Answer with one cell that says what arrived, without keys."""
    end = boot(ends)
    while True:
        received = work(end)
        said = (
            received.model,
            len(received),
            received.offsets.tolist(),
            list(received.sources),
            list(received.fetched_s),
            received.content_types,
            sorted(received.absent),
            received.buffer.readonly,
            received.is_suspect,
        )
        cells = [repr(said).encode(), *[b""] * (len(received) - 1)]
        end.answer(received.chunk, 0, cells, None, {}, TIMING)


def count_descriptors(ends: WorkerEnds) -> None:
    """Answer with how many descriptors are open here."""
    end = boot(ends)
    while True:
        received = work(end)
        end.answer(received.chunk, 0, [str(len(open_descriptors())).encode()], None, {}, TIMING)


def answer_arrays(ends: WorkerEnds) -> None:
    """Answer each record alone, with arrays, the last one with a failure."""
    end = boot(ends)
    while True:
        received = work(end)
        for i, payload in enumerate(payloads(received)):
            values = np.frombuffer(payload, np.uint8).reshape(1, -1)
            keys = np.full((1, 3), ord("k"), np.uint8)
            is_last = i == len(received) - 1
            failures = {i: Failure("wrong-input", "RecordError", "lone \ud800 surrogate")} if is_last else {}
            end.answer(received.chunk, i, values, keys, failures, TIMING)


def die_in_the_middle(ends: WorkerEnds) -> None:
    """Answer one chunk, then be killed when the next answer lies in memory and is not announced yet."""
    end = boot(ends)
    answer_payloads(end, work(end))

    def die(packet: bytes, fd: int | None) -> NoReturn:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError

    end._send = die  # type: ignore[method-assign]
    answer_payloads(end, work(end))


def answer_once(ends: WorkerEnds) -> None:
    """Answer one chunk, then neither read nor write any more."""
    end = boot(ends)
    answer_payloads(end, work(end))
    signal.pause()


def load_while_waiting(ends: WorkerEnds) -> None:
    """Answer the first chunk in single records, so that the outbox overflows; then say what else was received."""
    end = boot(ends)
    received = work(end)
    for i, payload in enumerate(payloads(received)):
        end.answer(received.chunk, i, [payload], None, {}, TIMING)
    for _ in range(3):
        match end.receive(0.0):
            case LoadModel(model):
                end.send(Loaded(model, "stashed", 0.0))
            case Work() as later:
                answer_payloads(end, later)
    end.receive(None)


def read_after_release(ends: WorkerEnds) -> None:
    """Keep the first chunk until the second has come, then answer both."""
    end = boot(ends)
    first = work(end)
    second = work(end)
    answer_payloads(end, first)
    answer_payloads(end, second)
    end.receive(None)
