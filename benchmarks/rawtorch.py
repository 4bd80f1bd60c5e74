"""The program beside raw torch on the same cores, and other ceilings that need no Kafka.

Must not know how a run is made, nor torch: each ceiling is a process of its own (`benchmarks.ceilings`).
"""

import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from benchmarks import sentences, subjects
from benchmarks.orders import interleaved
from benchmarks.plans import Outcome, Plan
from benchmarks.runner import Lab, key, output
from benchmarks.subjects import Subject
from benchmarks.watch import Measurement, StalledError
from benchmarks.workloads import W2, W3, W3_PADDED, Workload

CEILING_TIMEOUT_S = 300.0
LARGE, SMALL = (512, 2048), (8, 32)
"""Rows of a call that ceilings of tiny networks are tried at, and of others."""


def pictures(lab: Lab, plan: Plan, outcome: Outcome) -> None:
    """W2: the program and raw torch."""
    against_torch(lab, plan, outcome, W2, plan.share(1_200))
    outcome.ceilings["W2 decoded from memory and raw torch, records/s"] = {
        f"{rows} rows": ceiling(lab, W2, rows, 1, seconds=plan.seconds(5.0), is_decoded=True) for rows in SMALL
    }


def encoder(lab: Lab, plan: Plan, outcome: Outcome) -> None:
    """W3: the program, the program without buckets, and raw torch; whole turns of the different sentences."""
    try:
        sentences.fetch()
    except RuntimeError as error:
        outcome.reasons["w3_torch_ratio"] = outcome.reasons["w3_bucketed_ratio"] = str(error)
        return
    turns = max(round(plan.share(1_000) / sentences.DIFFERENT), 1)
    padded = Subject(name="program-padded", command=subjects.program(W3_PADDED, cores()), role="supervisor")
    against_torch(lab, plan, outcome, W3, turns * sentences.DIFFERENT, (padded,))
    own, other = (lab.runs.get(f"{W3.name} {name}", ()) for name in ("program", padded.name))
    outcome.compare("w3_bucketed_ratio", [each.records_per_s for each in own], [each.records_per_s for each in other])


def against_torch(
    lab: Lab, plan: Plan, outcome: Outcome, workload: Workload, count: int, beside: Sequence[Subject] = ()
) -> None:
    """Compare the program with raw torch at its best batch size and threads, in turns; other subjects run beside it."""
    lab.write_networks(workload)
    every = [subjects.programs(workload, cores())[0], *beside]
    loaded = lab.load(workload, count)
    found: dict[str, list[Measurement]] = {each.name: [] for each in every}
    other: list[float] = []
    try:
        best = best_ceiling(lab, plan, outcome, workload, SMALL)
        steps: list[Callable[[], None]] = [
            *(lambda each=each: found[each.name].append(lab.measure(loaded, each)) for each in every),
            lambda: other.append(ceiling(lab, workload, *best, seconds=plan.seconds(10.0))),
        ]
        lab.measure(loaded, every[0])
        for turn in interleaved(steps, plan.rounds):
            for step in turn:
                step()
            told = ", ".join(f"{name} {runs[-1].records_per_s:,.1f}/s" for name, runs in found.items())
            lab.console.print(f"{workload.name}: {told}, raw torch {other[-1]:,.1f}/s")
    except StalledError as error:
        outcome.fail([f"{workload.name}: {error}"])
        return
    finally:
        lab.unload(loaded)
    for each in every:
        lab.runs[key(workload, each)] = found[each.name]
        outcome.semantics[key(workload, each)] = each.semantics
    outcome.ceilings[f"{workload.name} raw torch, records/s"] = {f"round {n}": v for n, v in enumerate(other, 1)}
    outcome.compare(
        f"{workload.name.lower()}_torch_ratio", [each.records_per_s for each in found[every[0].name]], other
    )


def from_memory(lab: Lab, plan: Plan, outcome: Outcome, workload: Workload) -> None:
    """Measure what a workload costs without Kafka: the network alone, and with decoding, each at its best."""
    rows, threads = best_ceiling(lab, plan, outcome, workload, LARGE)
    lab.write_networks(workload)
    outcome.ceilings[f"{workload.name} from memory on all cores, records/s"] = {
        "raw torch": ceiling(lab, workload, rows, threads, seconds=plan.seconds(5.0)),
        "decoded one by one and raw torch": max(
            ceiling(lab, workload, each, threads, seconds=plan.seconds(5.0), is_decoded=True) for each in LARGE
        ),
    }


def cores() -> int:
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0))


def best_ceiling(
    lab: Lab, plan: Plan, outcome: Outcome, workload: Workload, tried_rows: Sequence[int]
) -> tuple[int, int]:
    """Find the batch size and the threads a process at which raw torch is fastest."""
    tried = {
        (rows, threads): ceiling(lab, workload, rows, threads, seconds=plan.seconds(3.0))
        for rows in tried_rows
        for threads in sorted({1, cores()})
    }
    outcome.ceilings[f"{workload.name} raw torch, records/s, tried"] = {
        f"{rows} rows, {threads} threads a process": speed for (rows, threads), speed in tried.items()
    }
    return max(tried, key=lambda each: tried[each])


def ceiling(
    lab: Lab, workload: Workload, rows: int, threads: int, *, seconds: float, is_decoded: bool = False
) -> float:
    """Run raw torch on all cores: so many processes that each core has one thread; their records a second together."""
    command = [sys.executable, "-m", "benchmarks.ceilings", workload.name, str(lab.directory)]
    command += [str(rows), str(threads), str(seconds), *(["--decode"] if is_decoded else [])]
    with ThreadPoolExecutor() as pool:
        copies = [pool.submit(output, command, CEILING_TIMEOUT_S) for _ in range(cores() // threads)]
        return sum(each.result()["records_per_s"] for each in copies)
