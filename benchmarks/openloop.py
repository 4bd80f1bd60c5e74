"""The experiments on latency: records sent at their times, results received beside them (W4's flood, W5, W6, W7).

Owns the trials and what is compared. A latency runs from the moment at which its record was to be sent, so that a
system that falls behind is charged for all that waits.
"""

import json
import math
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import psutil

from benchmarks import mixture, subjects
from benchmarks.intervals import interval
from benchmarks.plans import Outcome, Plan
from benchmarks.rawtorch import cores
from benchmarks.records import MODEL
from benchmarks.runner import Lab
from benchmarks.schedules import Received, Seconds, at_once, poisson
from benchmarks.subjects import KEPT_PAGES, Subject
from benchmarks.watch import STALL_S, StalledError
from benchmarks.workloads import W1, W4, Workload

WARM_UP = 2_000
"""Records that go through a subject before its trial."""
LEAD_S = 3.0
"""From the start of generator and receiver to the first record: both have to import what they need."""
TRIAL_S = 10.0
SHARES = (0.2, 0.8, 0.9)
"""Of the capacity; half of it is tried in every round."""
HELD_S = 0.2
"""How long a victim is stopped before it is killed: work that has gone to it is with it then."""
Stretch = tuple[int, int]
"""Two moments of the monotonic clock, in ns."""
QUIET, FLOOD = "m1", "m5"
QUIET_RATE = 100.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One subject under one schedule."""

    workload: Workload
    subject: Subject
    times: Seconds
    model: str = ""
    """The only model that is asked, if any."""
    beside: tuple[str, ...] = ()
    """Topics that the subject reads as well."""
    fault: tuple[float, Callable[[int], Stretch]] | None = None
    """A second of the schedule, and what happens then to the subject's main process; it tells from when until when
    what failed had work that it did not do."""


def run(lab: Lab, trial: Trial) -> Received:
    """Warm a subject up, send the schedule to it, receive its results.

    Raises:
        StalledError: it failed, or did not answer the records of the warm-up.
    """
    loaded = lab.load(trial.workload, WARM_UP, trial.model, is_all=True)
    (topic,) = loaded.sources
    try:
        with lab.run(trial.workload, trial.subject, (topic, *trial.beside)) as (started, targets, pid):
            wanted = (started.target(trial.model),) if trial.model else targets
            await_results(lab, wanted, loaded.count)
            return exchange(lab, trial, topic, wanted, pid)
    finally:
        lab.unload(loaded)


def await_results(lab: Lab, targets: tuple[str, ...], count: int) -> None:
    """Wait until the warm-up is through.

    Raises:
        StalledError: it is not after a minute.
    """
    deadline_s = time.monotonic() + STALL_S
    while sum(lab.topics.end(target) for target in targets) < count:
        if time.monotonic() > deadline_s:
            raise StalledError(f"the {count} records of the warm-up were not answered within {STALL_S:.0f} s")
        time.sleep(0.1)


def exchange(lab: Lab, trial: Trial, topic: str, targets: tuple[str, ...], pid: int) -> Received:
    """Send and receive, each in a process of its own.

    Raises:
        StalledError: one of them failed.
    """
    name = lab.directory / uuid.uuid4().hex
    schedule, received = name.with_suffix(".npy"), name.with_suffix(".npz")
    np.save(schedule, trial.times)
    content_type = trial.workload.content_type if trial.subject.role == "supervisor" else ""
    receiver = start("receiver", lab.bootstrap, ",".join(targets), str(len(trial.times)), str(received), content_type)
    start_ns = time.monotonic_ns() + round(LEAD_S * 1e9)
    generator = start("generator", lab.bootstrap, topic, trial.workload.name, str(schedule), str(start_ns), trial.model)
    struck = None
    if trial.fault is not None:
        second, strike = trial.fault
        time.sleep(max((start_ns - time.monotonic_ns()) / 1e9 + second, 0.0))
        struck = strike(pid)
    sent = json.loads(finish(generator))
    lab.generator.add(sent)
    finish(receiver)
    found = np.load(received)
    return Received(
        due_ns=found["due_ns"],
        received_ns=found["received_ns"],
        sent=len(trial.times),
        duplicates=int(found["duplicates"]),
        infer_ms=float(found["infer_ms"]),
        sent_ns=sent["sent_ns"],
        late_ms=sent["late_ms"],
        struck=struck,
    )


def start(name: str, *given: str) -> "subprocess.Popen[str]":
    """Start the generator or the receiver."""
    command = [sys.executable, "-m", f"benchmarks.{name}", *given]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: "subprocess.Popen[str]") -> str:
    """Wait for the end of the generator or the receiver; what it printed.

    Raises:
        StalledError: it failed.
    """
    printed, complaints = process.communicate()
    if process.returncode:
        raise StalledError(f"a process beside the trial failed: {complaints.strip()[-1000:]}")
    return printed


def steady(lab: Lab, plan: Plan, outcome: Outcome) -> None:
    """W5 and W6: Poisson at shares of the capacity against the echo, then bursts."""
    lab.write_networks(W1)
    program = subjects.programs(W1, plan.workers)[0]
    echo = Subject(name="echo-kept-pages", command=subjects.loop("echo", MODEL), environment=KEPT_PAGES)
    found_at = capacities(lab, plan, program)
    capacity = min(found_at.values())
    outcome.ceilings["W5 capacity with the generator beside it, records/s"] = found_at
    for share in SHARES:
        for subject in (program, echo):
            attempt(lab, subject, poisson([(share * capacity, TRIAL_S)]), f"W5 {subject.name} at {share:.0%}")
    ratios = []
    for number in range(plan.rounds):
        times = poisson([(0.5 * capacity, TRIAL_S)], seed=number)
        turn = (program, echo) if number % 2 else (echo, program)
        found = {each.name: attempt(lab, each, times, f"W5 {each.name} at 50%") for each in turn}
        own, other = found[program.name], found[echo.name]
        beyond_ms = max(own.percentiles()["p99 ms"] - own.infer_ms, 0.0)
        ratios.append(beyond_ms / other.percentiles()["p99 ms"])
    outcome.measured["w5_p99_ratio"] = interval(ratios)
    bursts(lab, program, capacity)


def capacities(lab: Lab, plan: Plan, subject: Subject) -> dict[str, float]:
    """Measure what a subject delivers while the generator beside it, on the same cores, sends more than that.

    Sent as fast as it goes, records come in large batches; sent at random moments, as in the trials that follow, they
    come in small ones, which cost the generator, the broker and the subject more.
    """
    flat_out = run(lab, Trial(workload=W1, subject=subject, times=at_once(plan.share(300_000)))).capacity()
    at_random = run(lab, Trial(workload=W1, subject=subject, times=poisson([(flat_out, TRIAL_S)]))).capacity()
    return {"sent as fast as it goes": flat_out, "sent at random moments at that rate": at_random}


def attempt(lab: Lab, subject: Subject, times: Seconds, name: str) -> Received:
    """Run a trial of W1 and keep its percentiles; of several trials by one name those of the last.

    Raises:
        StalledError: it failed or lost records.
    """
    received = run(lab, Trial(workload=W1, subject=subject, times=times))
    if received.lost:
        raise StalledError(f"{name}: {received.lost} of {received.sent} records have no result")
    lab.latencies[name] = received.percentiles()
    lab.console.print(f"{name}: {', '.join(f'{key} {value:,.1f}' for key, value in lab.latencies[name].items())}")
    return received


def bursts(lab: Lab, program: Subject, capacity: float) -> None:
    """W6: a burst above the capacity, and short ones; how long until latencies are back."""
    name, calm_s, burst_s = "W6 burst of 110% over 70%", 12.0, 3.0
    times = poisson([(0.7 * capacity, calm_s), (1.1 * capacity, burst_s), (0.7 * capacity, calm_s)])
    received = attempt(lab, program, times, name)
    lab.latencies[name] |= back(received.recovery_s((calm_s, calm_s + burst_s)))
    short = [(0.5 * capacity, 2.0), (1.1 * capacity, 1.0)] * 5
    attempt(lab, program, poisson(short), "W6 five bursts of one second, 110% over 50%")


def back(seconds: float) -> dict[str, float]:
    """Tell how long it took until latencies were back; nothing where they never were."""
    return {"back after s": seconds} if math.isfinite(seconds) else {}


def workers(pid: int) -> list[psutil.Process]:
    """Find the workers of the program: what it spawned, but for the resource tracker that comes with that."""
    children = psutil.Process(pid).children()
    return [each for each in children if any("multiprocessing.spawn" in part for part in each.cmdline())]


def kill_worker(pid: int) -> Stretch:
    """End the busier of two workers with work in flight: stop it, so that it keeps what it gets, and kill it then."""
    victim = max(workers(pid), key=lambda each: sum(each.cpu_times()[:2]))
    os.kill(victim.pid, signal.SIGSTOP)
    stopped_ns = time.monotonic_ns()
    time.sleep(HELD_S)
    os.kill(victim.pid, signal.SIGKILL)
    return stopped_ns, time.monotonic_ns()


def killed(lab: Lab, plan: Plan, outcome: Outcome) -> None:
    """W7: one of two workers is killed under load."""
    lab.write_networks(W1)
    subject = subjects.programs(W1, 2)[0]
    rate, at_s, name = 0.5 * min(capacities(lab, plan, subject).values()), 8.0, "W7 one of two workers killed at 50%"
    times = poisson([(rate, 30.0)])
    received = run(lab, Trial(workload=W1, subject=subject, times=times, fault=(at_s, kill_worker)))
    held = received.held()
    if not held:
        outcome.reasons["w7_lost_records"] = "the worker had no work in flight when it was killed"
        return
    lab.latencies[name] = received.percentiles() | {
        "held when killed": held,
        "lost": received.lost,
        "duplicates": received.duplicates,
        **back(received.recovery_s((at_s, at_s))),
    }
    lab.console.print(f"{name}: {', '.join(f'{key} {value:,.1f}' for key, value in lab.latencies[name].items())}")
    outcome.measured["w7_lost_records"] = interval([float(received.lost)])


def flood(lab: Lab, plan: Plan, outcome: Outcome) -> None:
    """W4: the latency of a quiet model, without and beside a backlog for a dear one in a topic of its own."""
    assert {QUIET, FLOOD} <= mixture.MIXTURE.keys()
    lab.write_networks(W4)
    subject = subjects.programs(W4, cores())[0]
    backlog = lab.load(W4, plan.share(400_000), FLOOD, is_all=True)
    ratios = []
    try:
        for number in range(plan.rounds):
            times = poisson([(QUIET_RATE, TRIAL_S)], seed=number)
            found = {}
            for beside in ((), tuple(backlog.sources))[:: 1 if number % 2 else -1]:
                name = f"W4 {QUIET} beside a flood of {FLOOD}" if beside else f"W4 {QUIET} by itself"
                received = run(lab, Trial(workload=W4, subject=subject, times=times, model=QUIET, beside=beside))
                if received.lost:
                    raise StalledError(f"{name}: {received.lost} of {received.sent} records have no result")
                found[bool(beside)] = lab.latencies[name] = received.percentiles()
                lab.console.print(f"{name}: p99 {lab.latencies[name]['p99 ms']:,.1f} ms")
            ratios.append(found[True]["p99 ms"] / found[False]["p99 ms"])
    finally:
        lab.unload(backlog)
    outcome.measured["w4_flood_p99_ratio"] = interval(ratios)
