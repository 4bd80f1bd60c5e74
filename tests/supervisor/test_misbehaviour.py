"""Real workers, with real torch, that die, hang, leak or cannot load; what the supervisor's core makes of it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import structlog

from consumer.core.activity import Phase
from consumer.core.events import ModelLoaded, WorkerReady
from consumer.core.placement import OVERSPENT
from tests.supervisor.rig import Rig, good, villain

pytestmark = pytest.mark.slow

NUMBERS = [float(number) for number in range(1, 41)]
INFER_TIMEOUT_S = 3.0
KILL_MARGIN_S = 3.0
RECOVERY_S = 5.0
IMPORTS_MAX = 3.0
"""On a machine that is busy with something else: so many times what it takes to import torch there."""


def import_s() -> float:
    """Measure how long a new process takes to import torch at this moment."""
    began_s = time.monotonic()
    subprocess.run([sys.executable, "-c", "import torch"], check=True)
    return time.monotonic() - began_s


def seconds(token: Path) -> float:
    """Read when a model did what it was asked to."""
    return float(Path(f"{token}.at").read_text(encoding="ascii"))


@pytest.mark.parametrize("deed", ["segv", "os._exit", "sys.exit", "sigkill"])
def test_a_worker_that_dies_in_a_batch_is_replaced(tmp_path: Path, deed: str) -> None:
    """Every record of every model gets its one result, and the crash says where it happened."""
    token = tmp_path / "token"
    arguments = {"deed": deed, "token": str(token)}
    with structlog.testing.capture_logs() as logs, Rig(villain("m", "once", arguments, rows_max=8), good("g")) as rig:
        rig.send("g", NUMBERS)
        rig.send("m", NUMBERS)
        rig.settle()
        token.touch()
        rig.send("m", NUMBERS)
        rig.send("g", NUMBERS)
        rig.settle()
        assert rig.kinds(range(rig.sent)) == {"result"}
        (exited,) = rig.exits
        assert exited.running is not None
        (running,) = exited.running
        assert 1 <= running.count <= 8
        assert exited.exit_code == {"segv": -signal.SIGSEGV, "os._exit": 0, "sys.exit": 1, "sigkill": -9}[deed]
        assert not exited.is_planned
        crashes = [log for log in logs if log["event"] == "worker.crashed"]
        assert ["villains.py" in log["stack"] for log in crashes] == [True] * (deed == "segv")


def test_a_killed_worker_is_replaced_in_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """SIGKILL while idle, then in the middle of a batch: no record is charged, and the first result is soon there."""
    token = tmp_path / "token"
    with Rig(villain("m", "once", {"deed": "usleep", "token": str(token)}, rows_max=8)) as rig:
        rig.send("m", NUMBERS)
        rig.settle()
        for is_busy in (False, True):
            if is_busy:
                token.touch()
                rig.send("m", NUMBERS)
                rig.until(lambda: not token.exists())
            else:
                rig.until(rig.is_idle)
            ended_s = time.monotonic()
            os.kill(rig.process_id(), signal.SIGKILL)
            rig.until_exits(1 + is_busy)
            first = rig.sent - 1 if is_busy else rig.send("m", NUMBERS)[0]
            rig.settle()
            loads = [event for event in rig.events if isinstance(event, ModelLoaded)]
            recovered_s = min(at for at in rig.settled_s.values() if at > ended_s) - ended_s - loads[-1].load_s
            with capsys.disabled():
                where = "in a batch" if is_busy else "while idle"
                sys.stdout.write(f"\nkilled {where}: first result {recovered_s:.2f} s later, beyond the model's load\n")
            assert rig.outcomes[first] == ["result"]
            assert recovered_s <= max(RECOVERY_S, IMPORTS_MAX * import_s())
        assert rig.kinds(range(rig.sent)) == {"result"}
        assert [bool(exited.running) for exited in rig.exits] == [False, True]


@pytest.mark.parametrize("deed", ["loop", "deaf loop", "usleep", "deadlock", "stopped"])
def test_a_worker_that_hangs_is_killed_and_says_where(tmp_path: Path, deed: str) -> None:
    """Within its model's time and a little, with its stack traces in the log; its records all get results."""
    token = tmp_path / "token"
    arguments = {"deed": deed, "token": str(token)}
    hanging = villain("m", "once", arguments, rows_max=8, infer_timeout_s=INFER_TIMEOUT_S)
    with structlog.testing.capture_logs() as logs, Rig(hanging, good("g")) as rig:
        rig.send("m", NUMBERS)
        rig.send("g", NUMBERS)
        rig.settle()
        token.touch()
        rig.send("m", NUMBERS)
        rig.until(lambda: rig.exits)
        took_s = time.monotonic() - seconds(token)
        rig.send("g", NUMBERS)
        rig.settle()
    assert INFER_TIMEOUT_S < took_s <= INFER_TIMEOUT_S + KILL_MARGIN_S
    assert rig.kinds(range(rig.sent)) == {"result"}
    (exited,) = rig.exits
    assert exited.overdue is not None
    assert (exited.exit_code, exited.overdue.phase, exited.overdue.model) == (-signal.SIGKILL, Phase.INFER, "m")
    (log,) = [log for log in logs if log["event"] == "worker.hung"]
    assert (log["model"], log["phase"], log["timeout_s"]) == ("m", "infer", INFER_TIMEOUT_S)
    assert deed == "stopped" or "villains.py" in log["stack"], log


def test_a_record_that_hangs_is_found_among_others() -> None:
    """It becomes a dead letter for the time it takes, its neighbours get results, and so do another model's records."""
    hanging = villain("m", "at", {"deed": "loop", "value": 3.0}, rows_max=8, infer_timeout_s=2.0)
    with Rig(hanging, good("g"), slots=2) as rig:
        sent = rig.send("m", NUMBERS[:8])
        others = rig.send("g", NUMBERS)
        rig.settle()
        assert rig.kinds([sent[2]]) == {"time-limit"}
        assert rig.kinds([*sent[:2], *sent[3:], *others]) == {"result"}
        # Among eight, when they are run one by one, and its second chance.
        assert len(rig.exits) == 3
        assert rig.notes == [], "one bad record does not break its model"


@pytest.mark.parametrize("deed", ["segv", "deadlock"])
def test_a_model_that_ends_its_worker_at_load_holds_nobody_up(tmp_path: Path, deed: str) -> None:
    """Its breaker opens, other models' records get their results, and its own once it can be loaded."""
    token = tmp_path / "token"
    token.touch()
    arguments = {"deed": deed, "token": str(token)}
    late = villain("m", "at_load", arguments, probe_backoff_s=0.1, load_timeout_s=10.0)
    with structlog.testing.capture_logs() as logs, Rig(late, good("g")) as rig:
        rig.until(lambda: any(isinstance(event, WorkerReady) for event in rig.events))
        bad, others = rig.send("m", NUMBERS), rig.send("g", NUMBERS)
        rig.settle()
        assert rig.kinds([*bad, *others]) == {"result"}
        (exited,) = rig.exits
        assert exited.loading == ["m"]
        assert (exited.overdue is not None) == (deed != "segv")
        assert [note.fields["model"] for note in rig.notes if note.name == "model.broken"] == ["m"]
        stacks = [log["stack"] for log in logs if "stack" in log]
        assert len(stacks) == 1
        assert "villains.py" in stacks[0]


def test_a_model_that_crashes_at_every_record_is_taken_out_of_service() -> None:
    """Past its budget its breaker opens; its records wait, and the other model has the worker to itself."""
    arguments = {"deed": "os._exit", "value": 1.0}
    crashing = villain("m", "at", arguments, rows_max=1, crash_budget_s=0.5, probe_backoff_s=60.0)
    with Rig(crashing, good("g")) as rig:
        bad = rig.send("m", [1.0] * 4)
        rig.until(lambda: rig.notes)
        # Starting another worker takes longer than that: the first death uses the budget up.
        assert len(rig.exits) == 1
        others = rig.send("g", NUMBERS)
        rig.until(lambda: all(offset in rig.outcomes for offset in others))
        assert rig.kinds(others) == {"result"}
        assert len(rig.exits) == 1
        assert rig.core.unavailable() == {"m": OVERSPENT}
        assert not any(offset in rig.outcomes for offset in bad)


def test_a_model_that_leaks_gets_a_new_process_between_batches() -> None:
    """A worker above its limit answers its batch and leaves; nothing is lost, doubled, charged or broken."""
    limit = 800 << 20
    with Rig(villain("m", "leaks", {"size": 400 << 20}, rows_max=8), good("g"), memory_bytes_max=limit) as rig:
        for _ in range(2):
            rig.send("m", NUMBERS[:8])
            rig.send("g", NUMBERS)
            rig.settle()
            rig.turn_for(1.1)  # it measures itself once a second
        assert rig.exits
        assert all(exited.is_planned and exited.exit_code == 0 for exited in rig.exits)
        assert rig.kinds(range(rig.sent)) == {"result"}
        assert rig.notes == []
