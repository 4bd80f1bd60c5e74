"""Workers that die, hang, run out of memory or cannot load a model."""

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.models_for_tests import BLOCKER, DEAF_SPINNER, LEAVER, POISON, SEGFAULT, SPINNER
from tests.e2e.stage import INPUTS, Program, Stage, double
from tests.faults.cluster import Cluster
from tests.faults.conftest import Measured, StageOf

pytestmark = [pytest.mark.broker, pytest.mark.slow]

RECOVERY_S = 60.0
RESTARTED_S = 5.0
"""From the death of a worker to the first result of the next one, but for the time that the model takes to load."""


def kinds_of(stage: Stage, uids: list[str]) -> list[str]:
    """Return what became of records, in their order."""
    outcomes = {stage.sent[place]: each.kind for place, each in stage.check().items()}
    return [outcomes[uid] for uid in uids]


def wait(holds: Callable[[], bool], stage: Stage, timeout_s: float = 30.0) -> None:
    """Wait until something holds."""
    deadline_s = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline_s, stage.logs()
        time.sleep(0.05)


def is_whole(program: Program) -> bool:
    """Tell whether every worker is up."""
    return all(worker["ready"] for worker in program.status()["workers"])


def test_idle_and_busy_workers_are_killed(cluster: Cluster, stage_of: StageOf) -> None:
    """SIGKILL of every worker, first without anything to do, then in the middle of batches: nothing is doubled."""
    stage = stage_of({"a": double(delay_s=0.02)})
    program = stage.start(workers=2)
    program.wait_ready()
    stage.send("a", range(10))
    stage.wait_settled(RECOVERY_S)
    for worker in program.workers():
        os.kill(worker, signal.SIGKILL)
    stage.send("a", range(1000))
    stage.wait_settled(RECOVERY_S)
    wait(lambda: is_whole(program), stage)
    stage.send("a", range(3000))
    marks = stage.committed()
    wait(lambda: stage.committed() != marks, stage)
    for worker in program.workers():
        os.kill(worker, signal.SIGKILL)
    stage.wait_settled(RECOVERY_S)
    assert stage.kinds(stage.check(doubled_max=0)) == {"result": 4010}
    assert program.stop() == 0


def test_a_killed_worker_is_back_soon(cluster: Cluster, stage_of: StageOf, measured: Measured) -> None:
    """The only worker killed: what is sent then has its first result within 5 s, the load of the model apart."""
    stage = stage_of()
    program = stage.start(workers=1)
    stage.send("a", range(10))
    stage.wait_settled(RECOVERY_S)
    took_s = []
    for _ in range(3):
        os.kill(program.workers()[0], signal.SIGKILL)
        killed_s = time.time()
        uids = set(stage.send("a", range(10)))
        stage.wait_settled(RECOVERY_S)
        took_s.append(
            min(each[0].at_s for place, each in stage.outcomes().items() if stage.sent[place] in uids) - killed_s
        )
    loads_s = [json.loads(line)["load_s"] for line in program.log.read_text().splitlines() if "model.loaded" in line]
    stage.check()
    measured("from the kill of a worker to its first result", max(took_s), RESTARTED_S + max(loads_s))
    assert program.stop() == 0


def test_a_worker_dies_while_it_writes_large_results(cluster: Cluster, stage_of: StageOf, tmp_path: Path) -> None:
    """SIGKILL at different moments of the way of 8 MB results into the ring: no hang, no broken result."""
    tokens = tmp_path / "tokens"
    tokens.mkdir()
    moments_s = (0.0, 0.005, 0.01, 0.02, 0.04, 0.08)
    wide = {
        "factory": "models_for_tests:Wide",
        "arguments": {"width": 2_000_000, "tokens": str(tokens)},
        "inputs": INPUTS,
    }
    stage = stage_of(
        {"wide": {**wide, "rows_max": 4}, "a": double()},
        output={"settings": {"max.message.bytes": str(20 * 2**20)}},
        kafka={"producer": {"message.max.bytes": 20 * 2**20}},
        restart={"backoff_s_max": 0.5},
    )
    program = stage.start(workers=2)
    program.wait_ready()
    stage.send("wide", [1.0])
    stage.wait_settled(RECOVERY_S)
    for number, moment_s in enumerate(moments_s):
        (tokens / str(moment_s)).touch()
        stage.send("wide", range(10 * number + 1, 10 * number + 5))
        stage.send("a", range(50))
        wait(lambda: not list(tokens.iterdir()), stage, RECOVERY_S)
        stage.wait_settled(RECOVERY_S)
    assert stage.kinds(stage.check(doubled_max=0)) == {"result": 1 + 54 * len(moments_s)}
    assert program.stop() == 0


def test_records_that_end_their_worker_are_found_among_others(cluster: Cluster, stage_of: StageOf) -> None:
    """A segmentation fault, an `os._exit`: exactly those become dead letters, while another model goes on."""
    stage = stage_of({"a": double(), "b": double()}, restart={"backoff_s_max": 0.5})
    program = stage.start(workers=2)
    program.wait_ready()
    before = stage.send("a", range(1, 41), partition=0)
    bad = stage.send("a", [SEGFAULT, 5.0, LEAVER], partition=0)
    after = stage.send("a", range(1, 41), partition=0)
    stage.send("b", range(200))
    stage.wait_settled(RECOVERY_S)
    assert kinds_of(stage, bad) == ["crashed-worker", "result", "crashed-worker"]
    assert set(kinds_of(stage, before + after)) == {"result"}
    restarts = sum(worker["restarts"] for worker in program.status()["workers"])
    # Each culprit: in a batch, when that is run one by one, and its second chance.
    assert 2 <= restarts <= 2 * 3, restarts
    wait(lambda: is_whole(program), stage, 60)
    assert program.stop() == 0


def test_a_model_that_cannot_load_holds_nobody_up(cluster: Cluster, stage_of: StageOf, tmp_path: Path) -> None:
    """A file that is no model opens its breaker; the others are served, and its records wait until it is mended."""
    weights = tmp_path / "late.pt2"
    weights.write_bytes(b"PK\x05\x06" + bytes(18))
    late = {"path": str(weights), "probe_backoff_s": 0.2, "probe_backoff_s_max": 0.5}
    stage = stage_of({"a": double(), "late": late})
    program = stage.start(workers=2)
    stage.send("late", range(20))
    stage.send("a", range(200))
    wait(lambda: len(stage.outcomes()) >= 200, stage)
    wait(lambda: {m["id"]: m["state"] for m in program.status()["models"]}["late"] == "broken", stage)
    assert program.process.poll() is None
    weights.unlink()
    _export(weights)
    stage.wait_settled(RECOVERY_S)
    assert stage.kinds(stage.check()) == {"result": 220}
    assert program.stop() == 0


def test_too_little_memory_halves_the_batch(cluster: Cluster, stage_of: StageOf) -> None:
    """Out of memory beyond eight rows: all get results; one that alone is too much becomes a dead letter."""
    narrow = {"factory": "models_for_tests:Narrow", "arguments": {"rows_max": 8}, "inputs": INPUTS}
    stage = stage_of({"narrow": narrow, "a": double()})
    program = stage.start(workers=1)
    program.wait_ready()
    good = stage.send("narrow", range(1, 101))
    (bad,) = stage.send("narrow", [POISON])
    stage.send("a", range(50))
    stage.wait_settled(RECOVERY_S)
    assert set(kinds_of(stage, good)) == {"result"}
    assert kinds_of(stage, [bad]) == ["out-of-memory"]
    assert program.status()["workers"][0]["restarts"] == 0
    assert program.stop() == 0


@pytest.mark.parametrize("how", [SPINNER, BLOCKER, DEAF_SPINNER], ids=["python", "c", "deaf"])
def test_a_hung_worker_is_killed_at_its_deadline(cluster: Cluster, stage_of: StageOf, how: float) -> None:
    """A batch that never ends: its worker is killed, the culprit becomes a dead letter, and all others get results."""
    stage = stage_of(
        {"a": {**double(), "infer_timeout_s": 2.0}, "b": double()},
        restart={"backoff_s_max": 0.5},
    )
    program = stage.start(workers=2)
    program.wait_ready()
    stage.send("a", [1.0, 2.0])
    stage.wait_settled(RECOVERY_S)
    bad = stage.send("a", [how, 7.0, 8.0], partition=0)[0]
    stage.send("b", range(200))
    stage.wait_settled(90)
    assert kinds_of(stage, [bad]) == ["time-limit"]
    assert stage.kinds(stage.check()) == {"result": 204, "time-limit": 1}
    if how != DEAF_SPINNER:
        assert "models_for_tests.py" in program.log.read_text(), "no stack trace of what hung"
    wait(lambda: is_whole(program), stage, 60)
    assert program.stop() == 0


@pytest.mark.parametrize("restarts", [6, pytest.param(200, marks=pytest.mark.timeout(1800))])
def test_restarts_leave_nothing_behind(cluster: Cluster, stage_of: StageOf, restarts: int) -> None:
    """Descriptors, threads and processes of the supervisor are as many after worker restarts as before."""
    stage = stage_of(restart={"backoff_s": 0.05, "backoff_s_max": 0.05})
    program = stage.start(workers=1)
    program.wait_ready()
    counts = []
    for _ in range(restarts + 1):
        wait(lambda: is_whole(program), stage)
        stage.send("a", range(20))
        stage.wait_settled(RECOVERY_S)
        counts.append(_belongings(program.process.pid))
        os.kill(program.workers()[0], signal.SIGKILL)
        wait(lambda: program.status()["workers"][0]["restarts"] == len(counts), stage)
    assert counts[-1] == counts[1], counts
    stage.check()
    assert program.stop() == 0


def _belongings(pid: int) -> dict[str, int]:
    """Count what a process has."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return {
        "descriptors": len(list(Path(f"/proc/{pid}/fd").iterdir())),
        "threads": len(list(Path(f"/proc/{pid}/task").iterdir())),
        "children": len(children),
    }


def _export(path: Path) -> None:
    """Write an exported program that doubles."""
    import torch

    class Doubler(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            return 2 * x

    rows = torch.export.Dim("rows", min=1, max=1024)
    program = torch.export.export(Doubler().eval(), (torch.zeros(2, 4),), dynamic_shapes={"x": {0: rows}})
    torch.export.save(program, path)
