"""The experiments on throughput: which subjects run on which records, and which figures come of it.

Must not know how a run is made or how anything is shown.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from benchmarks import mixture, sentences, subjects
from benchmarks.intervals import Interval, interval, paired
from benchmarks.orders import interleaved
from benchmarks.peers import subjects as peers
from benchmarks.records import MODEL
from benchmarks.runner import Lab, Loaded, key, output
from benchmarks.subjects import Subject
from benchmarks.watch import Measurement, StalledError
from benchmarks.workloads import W1, W2, W3, W4, Workload

TORCH = "import torch; torch.set_num_threads(1); torch.set_num_interop_threads(1); torch.zeros(1) + 1"
CEILING_TIMEOUT_S = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much is measured."""

    records: int
    """Of W1 binary; the other workloads follow it."""
    rounds: int
    workers: int
    experiments: tuple[str, ...]
    only: tuple[str, ...] = ()
    """The subjects of W1 to run; all of them if empty."""
    is_quick: bool = False

    def share(self, count: int) -> int:
        """Scale a number of records that suits 600,000 of W1."""
        return max(round(count * self.records / 600_000), 64)


@dataclass(slots=True)
class Outcome:
    """What came of the experiments."""

    measured: dict[str, Interval] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    ceilings: dict[str, dict[str, float]] = field(default_factory=dict)
    semantics: dict[str, str] = field(default_factory=dict)
    has_failed: bool = False

    def fail(self, failures: Sequence[str]) -> None:
        """Keep what went wrong."""
        self.notes.extend(failures)
        self.has_failed = self.has_failed or bool(failures)

    def compare(self, name: str, own: Sequence[float], other: Sequence[float]) -> None:
        """Work a ratio out, if both sides ran in every round."""
        if own and len(own) == len(other):
            self.measured[name] = paired(own, other)


def speeds(lab: Lab, name: str) -> list[float]:
    """Return a subject's records a second, by round."""
    return [each.records_per_s for each in lab.runs.get(name, ())]


RATIOS = {
    # Figure: the subjects whose throughputs are compared.
    "w1_simple_ratio": ("program", "simple"),
    "w1_tuned_ratio": ("program", "tuned"),
    "w1_tuned_kept_pages_ratio": ("program", "tuned-kept-pages"),
    "w1_echo_ratio": ("program", "echo-kept-pages"),
    "w1_java_ratio": ("program", "java-at-least-once"),
    "w1_quix_ratio": ("program", "quix-at-least-once"),
    "w1_kafka_streams_ratio": ("program-exactly-once", "kafka-streams-exactly-once"),
    "exactly_once_ratio": ("program-exactly-once", "program"),
}
QUICK = ("simple", "tuned", "program", "echo-kept-pages")


def crayfish(lab: Lab, plan: Plan, outcome: Outcome) -> None:
    """W1 binary: the program in both modes, the loops, the echo, the peers."""
    lab.write_networks(W1)
    loaded = lab.load(W1, plan.records)
    try:
        rows = 512 if plan.is_quick or plan.only else best_rows(lab, loaded, outcome)
        offered = [*subjects.programs(W1, plan.workers), *subjects.loops(MODEL, rows)]
        outcome.reasons["w1_json_mlserver_ratio"] = "MLServer commits nothing and takes headers: no adapter yet"
        if not plan.is_quick or plan.only:
            installed, reasons = peers.offered(lab.directory, plan.only)
            offered += installed
            outcome.notes += sorted({f"a peer is missing: {reason}" for reason in reasons.values()})
            outcome.reasons |= {name: reasons[each] for name, (_, each) in RATIOS.items() if each in reasons}
        wanted = plan.only or (QUICK if plan.is_quick else tuple(each.name for each in offered))
        chosen = [each for each in offered if each.name in wanted]
        outcome.semantics |= {each.name: each.semantics for each in chosen}
        outcome.fail(lab.rounds(loaded, chosen, plan.rounds))
    finally:
        lab.unload(loaded)
    for name, (own, other) in RATIOS.items():
        outcome.compare(name, speeds(lab, own), speeds(lab, other))
    own_cpu, tuned_cpu = ([each.own_cpu_us() for each in lab.runs.get(name, ())] for name in ("program", "tuned"))
    outcome.compare("w1_cpu_ratio", own_cpu, tuned_cpu)
    memory(lab.runs.get("program", ()), lab, outcome)


def best_rows(lab: Lab, loaded: Loaded, outcome: Outcome) -> int:
    """Try the tuned loop at each batch size, twice after a round of warm-up; the size at which it was fastest."""
    offered = [subjects.tuned(rows, MODEL) for rows in subjects.ROWS]
    outcome.fail(lab.rounds(loaded, offered, 2))
    tried = {
        rows: interval(speeds(lab, each.name)).median
        for rows, each in zip(subjects.ROWS, offered, strict=True)
        if speeds(lab, each.name)
    }
    for each in offered:
        lab.runs.pop(key(W1, each), None)
    outcome.ceilings["tuned loop by batch size, records/s"] = {str(rows): speed for rows, speed in tried.items()}
    return max(tried, key=lambda rows: tried[rows], default=512)


def memory(runs: Sequence[Measurement], lab: Lab, outcome: Outcome) -> None:
    """Compare the resident memory of supervisor and worker with what they may take."""
    if not runs:
        return
    outcome.measured["supervisor_mb"] = interval([each.peak_private_mb["supervisor"] for each in runs])
    bare_mb = bare_torch_mb()
    weights_mb = (lab.directory / "mlp.safetensors").stat().st_size / 1e6
    outcome.ceilings["a process with torch alone"] = {"resident MB": bare_mb}
    outcome.measured["worker_extra_mb"] = interval(
        [each.peak_private_mb["workers"] - bare_mb - weights_mb for each in runs]
    )
    outcome.reasons["growth_mb"] = "takes 32 GB of records: run --records 10000000 and compare the halves of the peaks"


def bare_torch_mb() -> float:
    """Measure what a process has resident that has only imported torch."""
    code = f"{TORCH}; print(open('/proc/self/status').read().split('VmRSS:')[1].split()[0])"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    return int(printed) * 1024 / 1e6


def pictures(lab: Lab, plan: Plan, outcome: Outcome) -> None:
    """W2: the program and raw torch."""
    against_torch(lab, plan, outcome, W2, plan.share(1_500))


def encoder(lab: Lab, plan: Plan, outcome: Outcome) -> None:
    """W3: the program and raw torch; whole turns of the different sentences."""
    try:
        sentences.fetch()
    except RuntimeError as error:
        outcome.reasons["w3_torch_ratio"] = outcome.reasons["w3_bucketed_ratio"] = str(error)
        return
    outcome.reasons["w3_bucketed_ratio"] = "needs a way to turn bucketing off"
    turns = max(round(plan.share(1_500) / sentences.DIFFERENT), 1)
    against_torch(lab, plan, outcome, W3, turns * sentences.DIFFERENT)


def against_torch(lab: Lab, plan: Plan, outcome: Outcome, workload: Workload, count: int) -> None:
    """Compare the program with raw torch at its best batch size and threads, in turns."""
    figure = f"{workload.name.lower()}_torch_ratio"
    lab.write_networks(workload)
    subject = subjects.programs(workload, cores())[0]
    loaded = lab.load(workload, count)
    try:
        best = best_ceiling(lab, workload, outcome)
        lab.measure(loaded, subject)
        own, other = [], []
        steps: list[Callable[[], None]] = [
            lambda: own.append(lab.measure(loaded, subject)),
            lambda: other.append(ceiling(lab, workload, *best, seconds=10.0)),
        ]
        for turn in interleaved(steps, plan.rounds):
            for step in turn:
                step()
            lab.console.print(f"{workload.name}: {own[-1].records_per_s:,.1f}/s, raw torch {other[-1]:,.1f}/s")
    except StalledError as error:
        outcome.fail([f"{workload.name}: {error}"])
        outcome.reasons[figure] = "a run failed"
        return
    finally:
        lab.unload(loaded)
    lab.runs[key(workload, subject)] = own
    outcome.semantics[key(workload, subject)] = subject.semantics
    outcome.ceilings[f"{workload.name} raw torch, records/s"] = {f"round {n}": v for n, v in enumerate(other, 1)}
    outcome.compare(figure, [each.records_per_s for each in own], other)


def cores() -> int:
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0))


def best_ceiling(lab: Lab, workload: Workload, outcome: Outcome) -> tuple[int, int]:
    """Find the batch size and the threads a process at which raw torch is fastest."""
    tried = {
        (rows, threads): ceiling(lab, workload, rows, threads, seconds=3.0)
        for rows in (8, 32)
        for threads in sorted({1, cores()})
    }
    outcome.ceilings[f"{workload.name} raw torch, tried"] = {
        f"{rows} rows, {threads} threads a process": speed for (rows, threads), speed in tried.items()
    }
    return max(tried, key=lambda each: tried[each])


def ceiling(lab: Lab, workload: Workload, rows: int, threads: int, seconds: float) -> float:
    """Run raw torch on all cores: so many processes that each core has one thread; their records a second together."""
    command = [sys.executable, "-m", "benchmarks.ceilings", workload.name, str(lab.directory)]
    command += [str(rows), str(threads), str(seconds)]
    with ThreadPoolExecutor() as pool:
        copies = [pool.submit(output, command, CEILING_TIMEOUT_S) for _ in range(cores() // threads)]
        return sum(each.result()["records_per_s"] for each in copies)


def mixed(lab: Lab, plan: Plan, outcome: Outcome) -> None:
    """W4: eight models together, and each alone."""
    lab.write_networks(W4)
    subject: Subject = subjects.programs(W4, cores())[0]
    count = plan.share(200_000)
    together = lab.load(W4, count)
    alone: Mapping[str, Loaded] = {name: lab.load(W4, count, name) for name in mixture.MIXTURE}
    own, other = [], []
    steps: list[Callable[[], None]] = [
        lambda: own.append(lab.measure(together, subject)),
        lambda: other.append(count / sum(lab.measure(each, subject).seconds for each in alone.values())),
    ]
    try:
        lab.measure(together, subject)
        for turn in interleaved(steps, plan.rounds):
            for step in turn:
                step()
            lab.console.print(f"W4: together {own[-1].records_per_s:,.0f}/s, one after the other {other[-1]:,.0f}/s")
    except StalledError as error:
        outcome.fail([f"W4: {error}"])
        outcome.reasons["w4_aggregate_ratio"] = "a run failed"
        return
    finally:
        for each in (together, *alone.values()):
            lab.unload(each)
    lab.runs[key(W4, subject)] = own
    outcome.semantics[key(W4, subject)] = subject.semantics
    outcome.compare("w4_aggregate_ratio", [each.records_per_s for each in own], other)
