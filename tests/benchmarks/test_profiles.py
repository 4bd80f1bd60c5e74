"""Where the CPU time of a record goes."""

import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from benchmarks import sampler
from benchmarks.profiles import FUNCTIONS, split, under_sampler
from benchmarks.sampler import INTERVAL_S, Sampler, place, threads
from benchmarks.subjects import Run
from benchmarks.watch import Measurement

RUN = Run(name="r", bootstrap="b:9", sources=("t",), directory=Path("/d"))


class Loop:
    """Stands for the supervisor's."""

    def run(self, seconds: float) -> None:
        """Use so much CPU time."""
        until_s = time.thread_time() + seconds
        while time.thread_time() < until_s:
            pass


def test_the_main_threads_time_is_put_down_to_its_functions(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the loop's functions use is found again, whatever other threads use, and nothing of what is outside."""
    monkeypatch.setattr(sampler, "OURS", (__name__,))
    monkeypatch.setattr(sampler, "LOOP", "Loop.run")
    found = Sampler()
    before = signal.signal(signal.SIGPROF, found.sample)
    signal.setitimer(signal.ITIMER_PROF, INTERVAL_S, INTERVAL_S)
    try:
        Loop().run(0.3)
        until_s = time.thread_time() + 0.2
        while time.thread_time() < until_s:
            pass
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        signal.signal(signal.SIGPROF, before)
    assert found.seconds == {f"{__name__}.Loop.run": pytest.approx(0.3, abs=0.1)}


def test_only_the_programs_own_functions_are_named() -> None:
    """A frame that no function of the loop has called is nobody's."""
    assert place(sys._getframe()) is None


def test_other_threads_are_told_by_name() -> None:
    """What a thread beside the main one has used is told, and the main one's is not."""
    done = threading.Event()

    def work() -> None:
        until_s = time.thread_time() + 0.2
        while time.thread_time() < until_s:
            pass
        done.wait(30)

    thread = threading.Thread(target=work)
    before_s = sum(threads().values())
    thread.start()
    deadline_s = time.monotonic() + 30
    while sum(threads().values()) < before_s + 0.15 and time.monotonic() < deadline_s:
        time.sleep(0.01)
    used_s = sum(threads().values()) - before_s
    done.set()
    thread.join()
    assert used_s == pytest.approx(0.2, abs=0.06)


def test_the_program_runs_under_the_sampler(tmp_path: Path) -> None:
    """The command line is the program's behind the sampler's; it ends as the program does, and leaves samples."""
    out = tmp_path / "profile.json"
    command = under_sampler(lambda _: [sys.executable, "-m", "consumer", "--help"], out)(RUN)
    assert command == [sys.executable, "-m", "benchmarks.sampler", str(out), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert json.loads(out.read_text())["functions"] == {}


def test_a_profile_adds_up() -> None:
    """The functions that are told one by one and the others make up the main thread's time."""
    measured = Measurement(
        records=1_000_000,
        seconds=1.0,
        records_per_s=1e6,
        cpu_us={"supervisor": 25.0, "workers": 2.0},
        warm_records_per_s=1e6,
        warm_cpu_us={},
        peak_mb={},
        peak_private_mb={},
        commit_lag_s=0.0,
    )
    functions = {f"f{number}": float(number) for number in range(1, FUNCTIONS + 3)}
    found = split(measured, {"functions": functions, "threads": {"rdk:broker1": 3.0, "rdk:main": 1.0}})
    assert found["supervisor's main thread"] == pytest.approx(sum(functions.values()))
    told = [used for name, used in found.items() if name.startswith("  ")]
    assert sum(told) == pytest.approx(sum(functions.values()))
    assert found["  all other functions"] == pytest.approx(1.0 + 2.0)
    assert found["supervisor's other threads (the client's)"] == pytest.approx(4.0)
    assert found["supervisor"] == 25.0
