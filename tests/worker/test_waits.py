"""Waits for a core, on a core that is shared."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from consumer.worker import waits
from consumer.worker.waits import CoreWaits

BUSY_S = 0.3


@pytest.fixture
def shared_core() -> Iterator[None]:
    """Have this thread and a process that never rests on one core."""
    cores = os.sched_getaffinity(0)
    core = min(cores)
    command = f"import os\nos.sched_setaffinity(0, {{{core}}})\nprint(flush=True)\nwhile True: pass"
    with subprocess.Popen([sys.executable, "-c", command], stdout=subprocess.PIPE) as rival:
        assert rival.stdout is not None
        rival.stdout.readline()
        os.sched_setaffinity(0, {core})
        yield
        os.sched_setaffinity(0, cores)
        rival.kill()


@pytest.mark.usefixtures("shared_core")
def test_what_passes_beside_the_waits_is_what_was_worked() -> None:
    """On a core shared with another process, waits are all that time takes beyond the thread's own work."""
    counted = CoreWaits()
    began_s, began_waits_s, began_work_s = time.monotonic(), counted.seconds(), time.thread_time()
    while (worked_s := time.thread_time() - began_work_s) < BUSY_S:
        pass
    passed_s, waited_s = time.monotonic() - began_s, counted.seconds() - began_waits_s
    counted.close()
    assert waited_s > BUSY_S / 10
    assert passed_s - waited_s == pytest.approx(worked_s, rel=0.2)


def test_a_thread_that_rests_waits_for_nothing() -> None:
    """A wait for something else than a core is no wait for a core."""
    counted = CoreWaits()
    began_s, before_s = time.monotonic(), counted.seconds()
    subprocess.run([sys.executable, "-c", "import time; time.sleep(1)"], check=True)
    passed_s, waited_s = time.monotonic() - began_s, counted.seconds() - before_s
    counted.close()
    assert waited_s < passed_s - 0.9


def test_where_the_system_counts_nothing_nothing_is_waited(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the system's file all time is taken for work."""
    monkeypatch.setattr(waits, "_COUNTS", "/nowhere")
    counted = CoreWaits()
    assert counted.seconds() == 0.0
    counted.close()
