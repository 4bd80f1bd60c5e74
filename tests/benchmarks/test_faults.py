import subprocess
import sys
import time
from collections.abc import Iterator

import psutil
import pytest

from benchmarks.openloop import HELD_S, kill_worker, workers

PROGRAM = """
import multiprocessing, sys
from time import sleep
if __name__ == "__main__":
    started = [multiprocessing.get_context("spawn").Process(target=sleep, args=(60,)) for _ in range(2)]
    for each in started:
        each.start()
    print(*(each.pid for each in started), flush=True)
    sys.stdin.read()
    for each in started:
        each.kill()
        each.join()
"""


@pytest.fixture
def program() -> Iterator[tuple[int, set[int]]]:
    """A program with two spawned workers, and their process ids."""
    command = [sys.executable, "-c", PROGRAM]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.pid, set(map(int, process.stdout.readline().split()))
        process.communicate()


def test_workers_are_what_was_spawned(program: tuple[int, set[int]]) -> None:
    """The resource tracker, a child as well, is none of them."""
    pid, spawned = program
    assert len(psutil.Process(pid).children()) > len(spawned)
    assert {each.pid for each in workers(pid)} == spawned


def test_the_victim_is_a_worker_that_was_stopped_before(program: tuple[int, set[int]]) -> None:
    """One of two workers is killed, after it kept for a while what it had; the other one goes on."""
    pid, spawned = program
    both = workers(pid)
    began_ns, ended_ns = kill_worker(pid)
    assert (ended_ns - began_ns) / 1e9 >= HELD_S
    deadline_s = time.monotonic() + 10.0
    while len(ended := {each.pid for each in both if each.status() == psutil.STATUS_ZOMBIE}) < 1:
        assert time.monotonic() < deadline_s
    assert len(ended) == 1
    assert ended < spawned
