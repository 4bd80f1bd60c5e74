"""Measures the program beside ceilings, loops and other systems, and reports every figure to reach.

    python -m benchmarks.run [--quick] [--records N] [--rounds N] [--workers N] [--only SUBJECT]
        [--experiment NAME]

Owns the command line and the order of the experiments. One machine, one warm broker, one invocation: the first round
of each experiment is not counted, the order of the subjects turns with every round, and the figures are medians of
paired ratios. Only ratios within one report mean anything.
"""

import argparse
import os
import shlex
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from benchmarks import experiments, machine, openloop, plots, rawtorch, subjects
from benchmarks.goals import figures
from benchmarks.growth import growth
from benchmarks.peers import subjects as peers
from benchmarks.plans import Outcome, Plan
from benchmarks.profiles import profile
from benchmarks.records import MODEL
from benchmarks.report import Report
from benchmarks.runner import Lab
from benchmarks.topics import Topics
from benchmarks.watch import StalledError
from benchmarks.workloads import W1
from consumer.demo import broker as brokers

OUT = Path(__file__).parent / "out"
SUBJECTS = (
    *(each.name for each in (*subjects.programs(W1, 1), *subjects.loops(MODEL, 512))),
    *peers.W1_NAMES,
)
BASELINE = "tuned"
EXPERIMENTS: dict[str, Callable[[Lab, Plan, Outcome], None]] = {
    "throughput": experiments.crayfish,
    "json": experiments.as_json,
    "latency": openloop.steady,
    "crash": openloop.killed,
    "mixture": experiments.mixed,
    "flood": openloop.flood,
    "pictures": rawtorch.pictures,
    "sentences": rawtorch.encoder,
    "growth": growth,
    "profile": profile,
}
"""In their order; `throughput` is the one of a quick run."""
FIGURES = {
    "json": ("w1_json_mlserver_ratio",),
    "latency": ("w5_p99_ratio",),
    "crash": ("w7_lost_records",),
    "mixture": ("w4_aggregate_ratio",),
    "flood": ("w4_flood_p99_ratio",),
    "pictures": ("w2_torch_ratio",),
    "sentences": ("w3_torch_ratio", "w3_bucketed_ratio"),
    "growth": ("growth_mb",),
}
"""What each of them gives in any case, unless its run fails; those of `throughput` depend on its subjects."""
NODE = {"log.retention.check.interval.ms": "10000", "log.segment.delete.delay.ms": "1000"}
"""Of the broker that is started here: what is deleted leaves the disk soon."""


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two minutes: W1 binary, four subjects, few records")
    parser.add_argument("--records", type=int, help="records of W1 (default: 600000, quick 200000)")
    parser.add_argument("--rounds", type=int, help="counted rounds (default: 5, quick 3)")
    parser.add_argument("--workers", type=int, default=1, help="the program's workers in W1 (default: %(default)s)")
    parser.add_argument(
        "--only", choices=SUBJECTS, action="append", help="of W1, beside the tuned loop; no more (repeatable)"
    )
    parser.add_argument(
        "--experiment", choices=EXPERIMENTS, action="append", help="run this one only (repeatable; default: all)"
    )
    return parser.parse_args(given)


def planned(asked: argparse.Namespace) -> Plan:
    """Turn arguments into a plan."""
    return Plan(
        records=asked.records or (200_000 if asked.quick else 600_000),
        rounds=asked.rounds or (3 if asked.quick else 5),
        workers=asked.workers,
        experiments=chosen(asked),
        only=tuple(dict.fromkeys((*asked.only, BASELINE))) if asked.only else (),
        is_quick=asked.quick,
    )


def chosen(asked: argparse.Namespace) -> tuple[str, ...]:
    """Name the experiments that are asked for."""
    if asked.experiment:
        return tuple(dict.fromkeys(asked.experiment))
    return ("throughput",) if asked.quick or asked.only else tuple(EXPERIMENTS)


def measure(lab: Lab, plan: Plan) -> Outcome:
    """Run the experiments that are planned; one that fails leaves the others alone."""
    outcome = Outcome()
    for name in plan.experiments:
        try:
            EXPERIMENTS[name](lab, plan, outcome)
        except StalledError as error:
            outcome.fail([f"{name}: {error}"])
        except Exception as error:  # noqa: BLE001 - an hour of the others is not to be lost for it
            outcome.fail([f"{name}: {type(error).__name__}: {error}"])
        for figure in FIGURES.get(name, ()):
            outcome.reasons.setdefault(figure, "its run failed")
    return outcome


def report(lab: Lab, plan: Plan, outcome: Outcome, disturbance: dict[str, float]) -> Report:
    """Put together what was measured."""
    return Report(
        command=shlex.join(["python", "-m", "benchmarks.run", *sys.argv[1:]]),
        records=plan.records,
        machine=asdict(machine.facts()),
        disturbance=disturbance,
        generator=asdict(lab.generator),
        figures=figures(outcome.measured, outcome.reasons),
        subjects=outcome.semantics,
        runs=lab.runs,
        batch_rows={name: dict(sorted(Counter(rows).items())) for name, rows in lab.batch_rows.items() if rows},
        latencies=lab.latencies,
        ceilings=outcome.ceilings,
        resident_mb=outcome.resident_mb,
        profiles=outcome.profiles,
        notes=outcome.notes,
    )


def draw(made: Report) -> str:
    """Draw the plots."""
    charts = [plots.throughput(made.runs), plots.cpu_split(made.runs), plots.latency(made.latencies)]
    if made.resident_mb:
        charts.append(plots.resident(made.resident_mb))
    charts += [*plots.profiles(made.profiles), *plots.batch_sizes(made.batch_rows)]
    return plots.page(f"Benchmark: {made.command}", charts)


def main() -> int:
    """Measure and report; 1 where a run failed, 4 where there is no broker to measure on."""
    plan = planned(arguments())
    # What was started ends with this, also when it is asked to end itself.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    console = Console() if sys.stdout.isatty() else Console(width=160)
    OUT.mkdir(exist_ok=True)
    try:
        found = brokers.start(properties={} if "KAFKA_BOOTSTRAP_SERVERS" in os.environ else NODE)
    except brokers.BrokerError as error:
        console.print(f"[red]{error}")
        return 4
    with found as broker, tempfile.TemporaryDirectory(prefix="inference-consumer-bench-") as directory:
        if broker.lacks:
            console.print(f"[red]a real Kafka is needed to measure on, and this is {broker.reason}")
            return 4
        console.print(f"broker: {broker.reason}")
        lab = Lab(
            bootstrap=broker.bootstrap_servers,
            broker_pid=broker.node.process.pid if broker.node and broker.node.process else None,
            topics=Topics(broker.bootstrap_servers),
            directory=Path(directory),
            console=console,
        )
        disturbance = machine.Disturbance()
        outcome = measure(lab, plan)
        made = report(lab, plan, outcome, disturbance.since())
    made.write(OUT / "report.json")
    (OUT / "report.html").write_text(draw(made))
    made.show(console)
    console.print(f"{OUT / 'report.json'} and report.html have all of it")
    return 1 if outcome.has_failed else 0


if __name__ == "__main__":
    sys.exit(main())
