"""Real worker processes, with real torch, behind real channels."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from consumer.core.events import Answered, Event, ModelFailed, ModelLoaded, ModelProbed, WorkerReady
from consumer.core.types import Chunk, ChunkId, Disposition, Failure, Generation, Run, TopicPartition, WorkerId
from consumer.errors import ExitCode
from consumer.models.options import ModelOptions
from consumer.models.signature import TensorSpec
from consumer.transport.channel import Channel, ChannelOptions
from consumer.transport.controls import LoadModel, ProbeModel
from consumer.transport.spawn import spawn
from consumer.worker import process
from consumer.worker.device import WorkerSlot, environment
from consumer.worker.process import EXIT_DEVICE_LOST, WorkerSpec
from schemas.codecs import decode_result
from tests.transport.chunks import Pair, has_ended
from tests.worker.building import request as record
from tests.worker.served import TRIGGER

HERE = "tests.worker.served:"
X = (TensorSpec("x", "FP32", (2,)),)


def served(model: str, name: str, **options: Any) -> ModelOptions:
    """Describe one of the models of this package."""
    return ModelOptions(id=model, factory=f"{HERE}{name}", inputs=X, **options)


@dataclass
class Worker(Pair):
    """A worker, and what it has told."""

    heard: list[Event] = field(default_factory=list)
    counts: dict[ChunkId, int] = field(default_factory=dict)
    """How many records each chunk has."""

    def dispatch(self, model: str, values: Sequence[bytes]) -> ChunkId:
        """Send records."""
        chunk_id = ChunkId(len(self.counts) + 1)
        self.counts[chunk_id] = len(values)
        run = Run(
            partition=TopicPartition("requests", 0),
            generation=Generation(1),
            model=model,
            positions=range(len(values)),
            offsets=range(len(values)),
            keys=[model.encode()] * len(values),
            values=values,
            headers=None,
            timestamps_ms=[0] * len(values),
            size=sum(map(len, values)),
            fetched_s=time.monotonic(),
        )
        self.channel.send_chunk(Chunk(chunk_id, model, [run]), None)
        return chunk_id

    def load(self, *models: str) -> None:
        """Have models loaded, and wait for them."""
        for model in models:
            self.channel.send(LoadModel(model))
        self.hear(lambda heard: {event.model for event in heard if isinstance(event, ModelLoaded)} >= {*models})

    def hear(self, is_enough: Callable[[list[Event]], bool]) -> list[Event]:
        """Listen until enough was told; return all that was told since the start."""
        while not is_enough(self.heard):
            self.heard += self.receive(60)
        return self.heard

    def answers(self, *chunks: ChunkId) -> list[Answered]:
        """Wait until all records of some chunks are answered; each record is, once."""

        def found(heard: list[Event]) -> list[Answered]:
            return [event for event in heard if isinstance(event, Answered) and event.chunk in chunks]

        wanted = sum(self.counts[chunk] for chunk in chunks)
        self.hear(lambda heard: sum(event.count for event in found(heard)) == wanted)
        return found(self.heard)

    def failures(self, chunk: ChunkId) -> list[Failure]:
        """Wait for a chunk; return its failures."""
        return [failure for answer in self.answers(chunk) for failure in answer.failures.values()]

    def outputs(self, chunk: ChunkId) -> list[list[float]]:
        """Wait for a chunk; return what was computed, in the records' order."""
        answers = sorted(self.answers(chunk), key=lambda answer: answer.first)
        assert [failure for answer in answers for failure in answer.failures.values()] == []
        return [decode_result(value).outputs[0].data.tolist() for answer in answers for value in answer.values]  # type: ignore[union-attr]


Start = Callable[..., Worker]


BOTH_WAYS = pytest.mark.parametrize("start", [1, 2], indirect=True, ids=["straight", "overlapped"])
"""With as many threads: a worker with two has a second one that calls the models."""


@pytest.fixture
def start(request: pytest.FixtureRequest) -> Iterator[Start]:
    """Start workers; they are gone when the test is over."""
    with ExitStack() as stack:

        def begin(*models: ModelOptions, slot: WorkerSlot | None = None, **spec: Any) -> Worker:
            threads = getattr(request, "param", 1)
            slot = slot or WorkerSlot(index=0, device="cpu", threads=threads, has_spare_core=threads > 1)
            channel = Channel(WorkerId(1), ChannelOptions())
            stack.callback(channel.close)
            child = spawn(
                process.main,
                WorkerSpec(slot=slot, models={model.id: model for model in models}, **spec),
                channel.ends,
                environment=environment(slot),
                name="worker",
            )
            channel.close_ends()
            stack.callback(child.close)
            stack.callback(child.join, 20)
            stack.callback(child.kill)
            return Worker(channel, child)

        yield begin


def rows(count: int, first: int = 1) -> list[bytes]:
    """Make records that say who they are."""
    return [record(f"{i:06}", x=np.full(2, i, np.float32)) for i in range(first, first + count)]


def doubled(count: int, first: int = 1) -> list[list[float]]:
    """Say what `rows` become."""
    return [[2.0 * i] * 2 for i in range(first, first + count)]


@pytest.fixture
def torchscript(tmp_path: Path) -> ModelOptions:
    """Save a TorchScript model that doubles."""

    class Double(torch.nn.Module):
        """Twice what comes."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * 2

    path = tmp_path / "double.pt"
    with pytest.warns(DeprecationWarning, match="jit"):
        scripted = torch.jit.script(Double())
    with pytest.warns(DeprecationWarning, match="jit"):
        torch.jit.save(scripted, str(path))
    return ModelOptions(id="script", path=str(path), inputs=X)


def test_the_supervisor_can_import_the_entry_without_torch() -> None:
    """Importing the module that workers run leaves torch out."""
    code = "import sys, consumer.worker.process, consumer.worker.device; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@BOTH_WAYS
def test_a_worker_serves_several_models_at_once(start: Start, torchscript: ModelOptions) -> None:
    """Records of two models, sent in turns, all get their own results; batches are as full as allowed."""
    worker = start(torchscript, served("python", "double", rows_max=64))
    worker.load("script", "python")
    sent = [worker.dispatch(("script", "python")[i % 2], rows(100, 1 + 100 * i)) for i in range(20)]
    for i, chunk in enumerate(sent):
        assert worker.outputs(chunk) == doubled(100, 1 + 100 * i)
    answers = [event for event in worker.heard if isinstance(event, Answered)]
    assert all(answer.keys[0] == decode_result(answer.values[0]).id.encode() for answer in answers)  # type: ignore[union-attr]
    assert all(0 < answer.queue_s < 60 and answer.infer_s > 0 for answer in answers)
    assert {decode_result(answer.values[0]).model_name for answer in answers} == {"script", "python"}
    assert max(answer.rows for answer in answers if answer.chunk in sent[1::2]) == 64
    assert worker.heard[0] == WorkerReady(WorkerId(1), "cpu")


def test_the_process_is_set_up_before_torch_is_imported(start: Start) -> None:
    """Threads, cores and the environment are what the slot says, in the thread that infers."""
    core = min(os.sched_getaffinity(0))
    worker = start(served("m", "surroundings"), slot=WorkerSlot(index=0, device="cpu", cores=(core,), threads=1))
    worker.load("m")
    assert worker.outputs(worker.dispatch("m", rows(1))) == [[1, 1, 1, 1, 1]]


@BOTH_WAYS
def test_the_memory_of_large_batches_is_kept(start: Start) -> None:
    """A batch of 3 MB costs no page faults once others like it have run: malloc keeps its pages."""
    wide = (TensorSpec("x", "FP32", (784,)),)
    worker = start(ModelOptions(id="m", factory=f"{HERE}narrow", inputs=wide, rows_max=1024))
    worker.load("m")
    values = [record(f"{i:0{6 + i // 512}}", x=np.zeros(784, np.float32)) for i in range(1024)]

    def faults() -> int:
        worker.answers(worker.dispatch("m", values))
        return int(Path(f"/proc/{worker.process.pid}/stat").read_text().rpartition(")")[2].split()[7])

    counts = [faults() for _ in range(20)]
    assert max(answer.rows for answer in worker.heard if isinstance(answer, Answered)) > 500
    assert counts[-1] - counts[-5] < 2 * 784, "four batches, less than two of fresh pages"


@BOTH_WAYS
def test_an_idle_worker_waits_for_a_full_batch_but_not_longer(start: Start) -> None:
    """Records that come within the delay share a batch, which runs once it is full; else when it is over."""
    worker = start(served("patient", "double", rows_max=8, delay_ms_max=60_000), served("brisk", "double"))
    worker.load("patient", "brisk")
    halves = [worker.dispatch("patient", rows(4)) for _ in range(2)]
    assert [answer.rows for answer in worker.answers(*halves)] == [8, 8]
    began_s = time.monotonic()
    assert [answer.rows for answer in worker.answers(worker.dispatch("brisk", rows(4)))] == [4]
    assert time.monotonic() - began_s < 30


@BOTH_WAYS
def test_a_model_that_loads_holds_nothing_up(start: Start, tmp_path: Path) -> None:
    """While one model is being loaded, another one answers; the first one's records wait and are answered then."""
    os.mkfifo(tmp_path / "fifo")
    slow = served("slow", "slow_to_load", arguments={"fifo": str(tmp_path / "fifo")})
    worker = start(slow, served("quick", "double"))
    worker.load("quick")
    worker.channel.send(LoadModel("slow"))
    waiting = worker.dispatch("slow", rows(10))
    assert worker.outputs(worker.dispatch("quick", rows(10))) == doubled(10)
    assert not any(isinstance(event, ModelLoaded) and event.model == "slow" for event in worker.heard)
    (tmp_path / "fifo").write_bytes(b"go")
    assert worker.outputs(waiting) == doubled(10)
    (loaded,) = (event for event in worker.heard if isinstance(event, ModelLoaded) and event.model == "slow")
    assert loaded.load_s > 0


@BOTH_WAYS
def test_a_model_that_cannot_be_loaded_gives_its_records_back(start: Start, tmp_path: Path) -> None:
    """The supervisor is told why, first; the records are not charged; a later attempt may succeed."""
    path = tmp_path / "late.pt"
    worker = start(ModelOptions(id="late", path=str(path), inputs=X), served("leaves", "leaves"))
    worker.channel.send(LoadModel("leaves"))
    worker.hear(lambda heard: any(isinstance(event, ModelFailed) for event in heard))
    worker.heard.clear()
    worker.channel.send(LoadModel("late"))
    chunk = worker.dispatch("late", rows(3))
    failures = worker.failures(chunk)
    assert {failure.disposition for failure in failures} == {Disposition.UNAVAILABLE}
    assert len(failures) == 3
    told = [event for event in worker.heard if isinstance(event, ModelFailed | Answered)]
    assert isinstance(told[0], ModelFailed)
    assert str(path) in told[0].failure.message
    never = worker.dispatch("late", rows(1))
    assert [failure.reason for failure in worker.failures(never)] == ["model-unavailable"]
    worker.channel.send(ProbeModel("late"))
    worker.hear(lambda heard: sum(isinstance(event, ModelFailed) for event in heard) == 2)
    with pytest.warns(DeprecationWarning, match="jit"):
        torch.jit.save(torch.jit.script(torch.nn.ReLU()), str(path))
    worker.heard.clear()
    worker.channel.send(LoadModel("late"))
    worker.hear(lambda heard: any(isinstance(event, ModelLoaded | ModelFailed) for event in heard))
    assert isinstance(worker.heard[0], ModelFailed)  # its argument is not called x: told, not crashed
    assert "input" in worker.heard[0].failure.message


@BOTH_WAYS
def test_a_broken_model_is_told_apart_from_poison_and_recovers(start: Start, tmp_path: Path) -> None:
    """A model that fails its warm-up input as well is reported before its records come back; a probe ends it."""
    flag = tmp_path / "broken"
    worker = start(served("m", "broken_while", arguments={"flag": str(flag)}, failures_max=1, rows_max=4))
    worker.load("m")
    assert worker.outputs(worker.dispatch("m", rows(2))) == doubled(2)
    flag.touch()
    worker.heard.clear()
    chunk = worker.dispatch("m", rows(40))
    failures = worker.failures(chunk)
    assert {failure.disposition for failure in failures} == {Disposition.UNAVAILABLE}
    assert len(failures) == 40
    assert isinstance(worker.heard[0], ModelFailed)
    assert worker.heard[0].failure.message == "weights are gone"
    told = sum(isinstance(event, ModelFailed) for event in worker.heard)
    assert told <= 2, "once for each batch that was under way"
    worker.channel.send(ProbeModel("m"))
    worker.hear(lambda heard: sum(isinstance(event, ModelFailed) for event in heard) > told)
    flag.unlink()
    worker.channel.send(ProbeModel("m"))
    worker.hear(lambda heard: any(isinstance(event, ModelProbed) for event in heard))
    assert worker.outputs(worker.dispatch("m", rows(40))) == doubled(40)


def test_a_batch_is_decoded_while_the_one_before_it_runs(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a core to spare: the first batch here ends only when the second one's last record is decoded."""
    flag = tmp_path / "decoded"
    monkeypatch.setenv("FLAG_FOR_TESTS", str(flag))
    options = {"arguments": {"flag": str(flag)}, "preprocess": f"{HERE}flagged", "rows_max": 8}
    worker = start(
        served("m", "waits_for", **options), slot=WorkerSlot(index=0, device="cpu", threads=2, has_spare_core=True)
    )
    worker.load("m")
    first, second = worker.dispatch("m", rows(8, 1 - TRIGGER)), worker.dispatch("m", rows(8, TRIGGER - 7))
    assert worker.outputs(first) == doubled(8, 1 - TRIGGER)
    assert worker.outputs(second) == doubled(8, TRIGGER - 7)


def test_stop_signals_do_not_end_a_worker(start: Start) -> None:
    """Ctrl-C reaches the whole process group; the supervisor ends its workers itself."""
    worker = start(served("m", "double"))
    assert worker.process.pid is not None
    worker.load("m")
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(worker.process.pid, number)
    assert worker.outputs(worker.dispatch("m", rows(5))) == doubled(5)


@BOTH_WAYS
@pytest.mark.parametrize("is_loading", [False, True])
def test_a_worker_ends_by_end_of_file(start: Start, tmp_path: Path, *, is_loading: bool) -> None:
    """Once the supervisor's end is closed it exits with 0, also while a model is being loaded."""
    os.mkfifo(tmp_path / "fifo")
    slow = served("slow", "slow_to_load", arguments={"fifo": str(tmp_path / "fifo")})
    worker = start(slow, served("m", "double"))
    worker.load("m")
    if is_loading:
        worker.channel.send(LoadModel("slow"))
        assert worker.outputs(worker.dispatch("m", rows(1))) == doubled(1)
    worker.channel.close()
    worker.process.join(30)
    assert worker.process.exitcode == 0


def test_a_device_that_does_not_work_is_a_boot_failure(start: Start) -> None:
    """A worker that cannot come up says so in one line, and its exit code says that a restart would not help."""
    worker = start(slot=WorkerSlot(index=0, device="cuda:0", visible_devices=""))
    assert worker.receive_until_closed() == []
    worker.process.join(30)
    assert worker.process.exitcode == ExitCode.WORKER_BOOT
    assert worker.channel.boot_failure is not None
    assert worker.channel.boot_failure.startswith("cuda:0: ")
    assert "\n" not in worker.channel.boot_failure


@BOTH_WAYS
@pytest.mark.parametrize(
    ("model", "exit_code"), [("spoils_the_device", EXIT_DEVICE_LOST), ("crashes", -signal.SIGABRT)]
)
def test_a_worker_that_cannot_go_on_exits(start: Start, model: str, exit_code: int) -> None:
    """A lost device has its own exit code; a crash is a crash. Nothing is answered for the records."""
    worker = start(served("m", model))
    worker.load("m")
    worker.dispatch("m", rows(3, TRIGGER - 1))
    assert worker.receive_until_closed() == []
    worker.process.join(30)
    assert worker.process.exitcode == exit_code


def test_code_is_found_on_the_configured_path(start: Start, tmp_path: Path) -> None:
    """`python_path` precedes everything else in workers."""
    (tmp_path / "own_models.py").write_text("def tripled():\n    return lambda x: x * 3\n")
    worker = start(ModelOptions(id="m", factory="own_models:tripled", inputs=X), python_path=(str(tmp_path),))
    worker.load("m")
    assert worker.outputs(worker.dispatch("m", rows(1))) == [[3.0, 3.0]]


PARENT = """
import sys
from consumer.core.types import WorkerId
from consumer.transport.channel import Channel, ChannelOptions
from consumer.transport.controls import LoadModel
from consumer.transport.spawn import spawn
from consumer.worker import process
from consumer.worker.device import WorkerSlot, environment
from tests.worker.test_process import TRIGGER, Worker, rows, served

slot = WorkerSlot(index=0, device="cpu")
models = {"m": served("m", "busy", arguments={"started": sys.argv[1]})}
channel = Channel(WorkerId(1), ChannelOptions())
spec = process.WorkerSpec(slot=slot, models=models)
child = spawn(process.main, spec, channel.ends, environment=environment(slot), name="worker")
channel.close_ends()
worker = Worker(channel, child)
worker.load("m")
worker.dispatch("m", rows(1, TRIGGER))
print(child.pid, flush=True)
sys.stdin.read()
"""


def test_a_worker_does_not_outlive_its_supervisor(tmp_path: Path) -> None:
    """Killed in whatever way, a supervisor takes its workers along, even one in the middle of an endless batch."""
    started = tmp_path / "started"
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(started)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=_with_path(os.environ),
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        deadline_s = time.monotonic() + 60
        while not started.exists():
            assert time.monotonic() < deadline_s
            os.sched_yield()
        parent.kill()
        assert has_ended(pid)


def _with_path(variables: Mapping[str, str]) -> dict[str, str]:
    """Let a new interpreter find this package."""
    return {**variables, "PYTHONPATH": str(Path(__file__).parents[2])}
