"""The pool, with real worker processes."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from ast import literal_eval
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from consumer.core.actions import Dispatch, Load, Probe, Release, Spawn
from consumer.core.events import Answered, Event, ModelLoaded, ModelProbed, WorkerExited, WorkerReady
from consumer.core.types import ChunkId, WorkerId
from consumer.supervisor import pool as pool_module
from consumer.supervisor.pool import Launch, Pool, PoolOptions
from consumer.transport.channel import ChannelOptions
from consumer.transport.ends import WorkerEnds
from tests.supervisor import entries
from tests.transport.chunks import SPAWN, chunk, has_ended, open_descriptors, run, wait_until_blocked

FIRST = WorkerId(1)


STOP_TIMEOUT_S = 60.0


def make(entry: Callable[[Any, WorkerEnds], None], *specs: object, **environment: str) -> Pool[Any]:
    """Make a pool with one slot for each spec."""
    launches = [Launch(spec, environment) for spec in specs or (None,)]
    return Pool(entry, launches, PoolOptions(stop_timeout_s=STOP_TIMEOUT_S), ChannelOptions())


def wait_for(pool: Pool[Any], count: int, timeout_s: float = 20.0) -> list[Event]:
    """Wait for so many events, and no more."""
    events: list[Event] = []
    deadline_s = time.monotonic() + timeout_s
    while len(events) < count:
        assert time.monotonic() < deadline_s, f"only {events} in time"
        events += pool.wait(1.0)
    assert len(events) == count
    return events


def wait_for_exit(pool: Pool[Any], timeout_s: float = 20.0) -> list[Event]:
    """Wait for a worker's exit, which comes last."""
    events: list[Event] = []
    deadline_s = time.monotonic() + timeout_s
    while not events or not isinstance(events[-1], WorkerExited):
        assert time.monotonic() < deadline_s, f"only {events} in time"
        events += pool.wait(1.0)
    return events


def only(pool: Pool[Any]) -> psutil.Process:
    """Return the pool's only process."""
    (member,) = pool._members.values()
    return psutil.Process(member.process.pid)


def test_a_worker_is_born_as_it_should_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its environment is set before it starts and here as before, stop signals are ignored, and our program not run."""
    monkeypatch.setenv("POOL_TEST", "ours")
    monkeypatch.setattr(sys.modules["__main__"], "__file__", __file__, raising=False)
    with make(entries.report, ("any", "spec"), POOL_TEST="theirs") as pool:
        pool.perform(Spawn(0, FIRST))
        (ready,) = wait_for(pool, 1)
        assert isinstance(ready, WorkerReady)
        assert literal_eval(ready.device) == {
            "spec": ("any", "spec"),
            "variable": "theirs",
            "main": None,
            "imported": [],
            "blocked": [],
            "ignored": [True, True],
        }
    assert os.environ["POOL_TEST"] == "ours"
    assert sys.modules["__main__"].__file__ == __file__


def test_variables_that_were_not_set_are_not_set_afterwards() -> None:
    """What a worker's environment adds is gone here once it has started."""
    with make(entries.sit, POOL_TEST="theirs") as pool:
        pool.perform(Spawn(0, FIRST))
        assert "POOL_TEST" not in os.environ


def test_a_large_spec_is_passed_on() -> None:
    """A spec beyond what a pipe takes reaches its worker."""
    with make(entries.measure, bytes(10 << 20)) as pool:
        pool.perform(Spawn(0, FIRST))
        assert wait_for(pool, 1) == [WorkerReady(FIRST, str(10 << 20))]


def test_a_process_that_dies_before_it_reads_its_spec_does_not_block_the_start() -> None:
    """An interpreter that cannot even start is told as a worker that cannot boot, however large the spec is."""
    with make(entries.measure, bytes(10 << 20), PYTHONHOME="/nowhere") as pool:
        pool.perform(Spawn(0, FIRST))
        reason = "it ended with exit code 1 before it was ready; standard error has the reason"
        assert wait_for(pool, 1) == [WorkerExited(FIRST, 1, reason)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_worker_of_a_program(tmp_path: Path, number: signal.Signals) -> None:
    """Ctrl-C reaches the whole group: from its first moment on a worker is left alone, and runs no script."""
    script = tmp_path / "program.py"
    script.write_text(f"""
print("run as a program" if __name__ == "__main__" else "run again", flush=True)
if __name__ == "__main__":
    from tests.supervisor import entries
    entries.bombard({int(number)})
""")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    ended = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, timeout=60, check=False, env=environment
    )
    assert (ended.returncode, ended.stdout) == (0, "run as a program\n[WorkerReady(worker=1, device='cpu')]\n"), (
        ended.stderr
    )


def test_actions_reach_their_worker() -> None:
    """Load, probe and dispatch are answered by the worker that they name; a release gives its memory back."""
    first, second = WorkerId(1), WorkerId(2)
    with make(entries.echo, None, None) as pool:
        pool.perform(Spawn(0, first))
        pool.perform(Spawn(1, second))
        assert {event.worker for event in wait_for(pool, 2) if isinstance(event, WorkerReady)} == {first, second}
        pool.perform(Load(first, "fraud"))
        pool.perform(Probe(second, "fraud"))
        assert {*wait_for(pool, 2)} == {ModelLoaded(first, "fraud", "1", 0.5), ModelProbed(second, "fraud")}
        pool.perform(Dispatch(second, chunk(1, sent := run([b"payload"]))))
        (answered,) = wait_for(pool, 1)
        assert isinstance(answered, Answered)
        assert (answered.worker, answered.values) == (second, (b"payload",))
        pool.perform(Release(second, ChunkId(1)))
        with pytest.raises(AssertionError, match="released"):
            sent.values[0]


def test_content_types_are_read_from_headers() -> None:
    """The last content type of a record counts; chunks without any carry no column."""
    json = [("content-type", b"text/plain"), ("other", None), ("content-type", b"application/json")]
    runs = [run([b"a", b"b"]), replace(run([b"c", b"d", b"e"]), headers=[json, None, [("content-type", None)]])]
    column = [None, None, "application/json", None, None]
    assert pool_module._content_types(chunk(1, *runs)) == column
    assert pool_module._content_types(chunk(1, runs[0])) is None
    assert pool_module._content_types(chunk(1, replace(runs[0], headers=[None, [("other", b"x")]]))) is None


@pytest.mark.parametrize(
    ("entry", "spec", "exit_code", "reason"),
    [
        (entries.refuse, None, 3, "no device 7"),
        (entries.leave, 1, 1, "it ended with exit code 1 before it was ready; standard error has the reason"),
        (entries.leave, 0, 0, None),
        (entries.die, None, -signal.SIGKILL, None),
    ],
)
def test_a_worker_that_cannot_boot(
    entry: Callable[[Any, WorkerEnds], None], spec: object, exit_code: int, reason: str | None
) -> None:
    """What a restart would not help is told as such, with the worker's own words; a kill is not."""
    with make(entry, spec) as pool:
        pool.perform(Spawn(0, FIRST))
        assert wait_for(pool, 1) == [WorkerExited(FIRST, exit_code, reason)]


def test_a_worker_that_ends_later_has_booted() -> None:
    """An exit after `Ready` is a crash, which a restart may help."""
    with make(entries.leave_when_ready, 1) as pool:
        pool.perform(Spawn(0, FIRST))
        assert wait_for(pool, 2) == [WorkerReady(FIRST, "cpu"), WorkerExited(FIRST, 1)]


def test_a_killed_workers_answers_come_before_its_exit() -> None:
    """Everything it had said is told first, then that it is gone; payloads stay readable for the next worker."""
    with make(entries.echo) as pool:
        pool.perform(Spawn(0, FIRST))
        wait_for(pool, 1)
        for number in range(200):
            pool.perform(Dispatch(FIRST, chunk(number, last := run([b"%d" % number]))))
        process = only(pool)
        wait_until_blocked(process.pid)
        process.kill()
        assert has_ended(process.pid)
        *answers, exited = wait_for_exit(pool)
        assert exited == WorkerExited(FIRST, -signal.SIGKILL)
        assert [event.chunk for event in answers if isinstance(event, Answered)] == list(range(200))
        assert list(last.values) == [b"199"]


def test_what_is_meant_for_a_gone_worker_is_dropped() -> None:
    """Actions for a worker that has died, noticed or not, and for one that never was, do no harm."""
    with make(entries.sit) as pool:
        pool.perform(Spawn(0, FIRST))
        wait_for(pool, 1)
        process = only(pool)
        process.kill()
        assert has_ended(process.pid)
        unsent = chunk(1, run(values := [b"unsent"]))
        late: list[Load | Probe | Dispatch | Release] = [
            Load(FIRST, "fraud"),
            Probe(FIRST, "fraud"),
            Dispatch(FIRST, unsent),
            Release(FIRST, ChunkId(1)),
        ]
        for action in late:
            pool.perform(action)
        assert wait_for(pool, 1) == [WorkerExited(FIRST, -signal.SIGKILL)]
        for action in late:
            pool.perform(action)
        assert pool.wait(0.0) == []
        assert unsent.runs[0].values is values


def test_an_exit_is_noticed_though_a_grandchild_lives() -> None:
    """A process that the worker forked keeps its descriptors open: the exit is found by looking."""
    with make(entries.leave_a_grandchild) as pool:
        pool.perform(Spawn(0, FIRST))
        assert wait_for(pool, 2) == [WorkerReady(FIRST, "cpu"), WorkerExited(FIRST, 7)]


def test_a_worker_that_closes_its_channel_and_stays_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that cannot be talked to any more does not stay for long."""
    monkeypatch.setattr(pool_module, "LINGER_S", 0.1)
    with make(entries.stay) as pool:
        pool.perform(Spawn(0, FIRST))
        assert wait_for(pool, 2) == [WorkerReady(FIRST, "cpu"), WorkerExited(FIRST, -signal.SIGKILL)]


def test_a_worker_that_says_what_cannot_be_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """At once: it is not listened to any more, and its records go to another one like those of any dead worker."""
    monkeypatch.setattr(pool_module, "LINGER_S", 1000.0)
    with make(entries.babble) as pool:
        pool.perform(Spawn(0, FIRST))
        assert wait_for_exit(pool)[-1] == WorkerExited(FIRST, -signal.SIGKILL)


def test_a_worker_that_cannot_be_started_is_told_as_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short memory or descriptors end no program: the core hears of an exit and tries again later."""
    before = open_descriptors()

    def fail(*_: object, **__: object) -> None:
        raise OSError(24, "Too many open files")

    for target in ("spawn", "Channel"):
        with monkeypatch.context() as patch, make(entries.sit) as pool:
            patch.setattr(pool_module, target, fail)
            pool.perform(Spawn(0, FIRST))
            started_s = time.monotonic()
            assert pool.wait(20.0) == [WorkerExited(FIRST, None)]
            assert time.monotonic() - started_s < 20.0
    assert open_descriptors() - before == set()


def test_stopping_ends_everything() -> None:
    """Workers end by themselves when the pool does; nothing is left of them, not a descriptor."""
    with make(entries.sit, None) as pool:  # starts what multiprocessing keeps for itself
        pool.perform(Spawn(0, FIRST))
        wait_for(pool, 1)
    before = open_descriptors()
    pool = make(entries.sit, None, None)
    for slot in (0, 1):
        pool.perform(Spawn(slot, WorkerId(slot)))
    wait_for(pool, 2)
    pids = [member.process.pid for member in pool._members.values()]
    started_s = time.monotonic()
    assert pool.stop()
    assert time.monotonic() - started_s < STOP_TIMEOUT_S, "they had to be killed"
    assert all(pid is not None and has_ended(pid) for pid in pids)
    assert pool.stop(), "stopping twice does no harm"
    assert open_descriptors() - before == set()


def test_stopping_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that notices nothing is killed after the deadline, and one that still boots ends, too."""
    monkeypatch.setitem(globals(), "STOP_TIMEOUT_S", 1.0)
    with make(entries.hang, None, None) as pool:
        pool.perform(Spawn(0, FIRST))
        wait_for(pool, 1)
        process = only(pool)
        pool.perform(Spawn(1, WorkerId(2)))
        started_s = time.monotonic()
        assert pool.stop()
        assert 1.0 <= time.monotonic() - started_s < 1.0 + pool_module.REAP_TIMEOUT_S
        assert has_ended(process.pid)


def test_a_process_that_does_not_go_is_told_as_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver may hold a process after SIGKILL: its records go to others, and the pool ends without it."""
    monkeypatch.setattr(pool_module, "REAP_TIMEOUT_S", 0.5)
    monkeypatch.setitem(globals(), "STOP_TIMEOUT_S", 0.5)
    with make(entries.babble) as pool:
        monkeypatch.setattr("multiprocessing.process.BaseProcess.kill", lambda _: None)
        pool.perform(Spawn(0, FIRST))
        assert wait_for_exit(pool)[-1] == WorkerExited(FIRST, None)
        (left,) = pool._abandoned
        assert left.process.is_alive()
        assert not pool.stop()
        os.kill(left.process.pid or 0, signal.SIGKILL)
        left.process.join(20)
        left.process.close()


def test_workers_end_with_a_killed_supervisor() -> None:
    """SIGKILL of the supervisor leaves no worker behind."""
    ours, theirs = SPAWN.Pipe()
    supervisor = SPAWN.Process(target=entries.supervise, args=(theirs,))
    supervisor.start()
    theirs.close()
    assert ours.poll(20)
    pids = ours.recv()
    assert all(psutil.pid_exists(pid) for pid in pids)
    supervisor.kill()
    supervisor.join()
    supervisor.close()
    ours.close()
    assert [has_ended(pid) for pid in pids] == [True, True]


def test_a_watched_descriptor_ends_the_wait() -> None:
    """Whoever has something for the loop wakes it by a descriptor; workers are heard as before."""
    wakeup = os.eventfd(0)
    with make(entries.sit) as pool:
        pool.watch(wakeup)
        timer = threading.Timer(0.05, os.eventfd_write, (wakeup, 1))
        started_s = time.monotonic()
        timer.start()
        assert pool.wait(20.0) == []
        assert time.monotonic() - started_s < 10.0
        timer.join()
        pool.perform(Spawn(0, FIRST))
        assert wait_for(pool, 1) == [WorkerReady(FIRST, "cpu")]
    os.close(wakeup)


def test_an_idle_wait_takes_its_time() -> None:
    """Without news the pool sleeps: a loop around it does not spin."""
    with make(entries.sit) as pool:
        pool.perform(Spawn(0, FIRST))
        wait_for(pool, 1)
        waits, deadline_s = 0, time.monotonic() + 1.0
        while time.monotonic() < deadline_s:
            assert pool.wait(0.2) == []
            waits += 1
        assert waits <= 10


@pytest.mark.slow
@pytest.mark.parametrize("entry", [entries.leave_when_ready, entries.die])
def test_a_hundred_restarts_leave_nothing_behind(entry: Callable[[Any, WorkerEnds], None]) -> None:
    """Descriptors, threads, children and memory do not grow over restarts, whatever the exit."""
    with make(entry, 1) as pool:
        for number in range(101):
            worker = WorkerId(number)
            pool.perform(Spawn(0, worker))
            pool.perform(Dispatch(worker, chunk(number, run([bytes(1000)] * 10))))
            wait_for_exit(pool)
            descriptors = open_descriptors()
            found = {
                "threads": threading.active_count(),
                "children": len(psutil.Process().children()),
            }
            if number == 0:
                level, before = found, descriptors
            if number == 25:
                resident = psutil.Process().memory_info().rss
            assert descriptors - before == set()
            assert {name: count for name, count in found.items() if count > level[name]} == {}
        assert psutil.Process().memory_info().rss < resident + (8 << 20)
        assert multiprocessing.active_children() == []
