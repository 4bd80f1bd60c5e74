"""Measures the program beside two hand-written loops: one machine, one warm broker, one loaded topic, one run.

    python -m benchmarks.run [--records N] [--rounds N] [--workers N]

Owns the order of the runs and the report. The first round warms the broker and is not counted; every later round runs
each subject once, in an order that turns, and the report gives medians. Only ratios within one report mean anything.
"""

import argparse
import contextlib
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import yaml
from rich.console import Console
from rich.table import Table

from benchmarks import EXPORTED
from benchmarks.load import MODEL, load
from benchmarks.topics import PARTITIONS, Topics
from benchmarks.watch import Measurement, StalledError, Subject, watch
from consumer.demo import broker as brokers

OUT = Path(__file__).parent / "out"
SUBJECTS = ("simple", "tuned", "program")
BASELINE = "tuned"
STOP_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """What all runs share."""

    bootstrap: str
    broker_pid: int | None
    source: str
    count: int
    workers: int
    directory: Path

    def command(self, subject: str, run: str) -> list[str]:
        """Write the command line of one run, whose group and topics are named after it."""
        if subject != "program":
            loop = [subject, self.bootstrap, run, self.source, f"{run}.{MODEL}", str(self.directory)]
            return [sys.executable, "-m", "benchmarks.loops", *loop]
        configuration = {
            "kafka": {"bootstrap.servers": self.bootstrap, "group.id": run},
            "input": {"topics": [self.source]},
            "output": {"result_topic": f"{run}.{{model}}"},
            "models": {MODEL: {"path": str(self.directory / EXPORTED), "preload": True}},
            # As many records a call as the tuned loop takes.
            "batch": {"rows_max": 512},
            "workers": [{"device": "cpu", "count": self.workers}],
            "http": {"enabled": False},
        }
        path = self.directory / f"{run}.yaml"
        path.write_text(yaml.safe_dump(configuration))
        return [sys.executable, "-m", "consumer", "run", "--config", str(path)]


@contextlib.contextmanager
def started(command: Sequence[str], log: Path) -> Iterator[int]:
    """Run a command for a block; its process id.

    Raises:
        StalledError: it failed, or did not stop when asked; with the last lines that it printed.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)
    try:
        yield process.pid
    except StalledError as error:
        raise StalledError(f"{error}: {tail(log)}") from None
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if process.returncode != 0:
        raise StalledError(f"{command[2]} ended with {process.returncode}: {tail(log)}")


def tail(log: Path) -> str:
    """Quote the end of what a process printed."""
    return log.read_text(errors="replace")[-2000:].strip()


def measure(bench: Bench, topics: Topics, subject: str) -> Measurement:
    """Run one subject over the whole topic."""
    run = f"bench-{subject}-{uuid.uuid4().hex[:8]}"
    target = f"{run}.{MODEL}"
    topics.create(target)
    try:
        with started(bench.command(subject, run), bench.directory / f"{run}.log") as pid:
            return watch(
                topics,
                Subject(
                    pid=pid,
                    role="supervisor" if subject == "program" else "loop",
                    broker_pid=bench.broker_pid,
                    group=run,
                    source=bench.source,
                    target=target,
                    count=bench.count,
                ),
            )
    finally:
        topics.delete(target)


def report(measured: dict[str, list[Measurement]]) -> Table:
    """Lay out the medians."""
    table = Table(title="records of 3.2 KB through a 784-32-10 network, at least once, acks=all")
    for column in ("", "records/s", "range", f"x {BASELINE}", "CPU us/record", "of which", "broker us", "peak MB"):
        table.add_column(column, justify="left" if column in {"", "of which"} else "right")
    speeds = {subject: [each.records_per_s for each in runs] for subject, runs in measured.items()}
    for subject, runs in measured.items():
        cpu_us = {role: statistics.median(each.cpu_us[role] for each in runs) for role in runs[0].cpu_us}
        broker_us = cpu_us.pop("broker", None)
        ratios = [own / other for own, other in zip(speeds[subject], speeds[BASELINE], strict=True)]
        peak_mb = {role: max(each.peak_mb[role] for each in runs) for role in cpu_us}
        table.add_row(
            subject,
            f"{statistics.median(speeds[subject]):,.0f}",
            f"{min(speeds[subject]):,.0f}-{max(speeds[subject]):,.0f}",
            f"{statistics.median(ratios):.2f}",
            f"{sum(cpu_us.values()):.1f}",
            ", ".join(f"{role} {used:.1f}" for role, used in cpu_us.items()) if len(cpu_us) > 1 else "",
            "-" if broker_us is None else f"{broker_us:.1f}",
            ", ".join(f"{role} {size:.0f}" if len(peak_mb) > 1 else f"{size:.0f}" for role, size in peak_mb.items()),
        )
    return table


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--records", type=int, default=600_000, help="records in the topic (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="counted rounds (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=1, help="the program's workers (default: %(default)s)")
    parser.add_argument("--only", choices=SUBJECTS, action="append", help="measure this one only (repeatable)")
    return parser.parse_args()


def main() -> int:
    """Measure and report; 1 where a run failed, 4 where there is no broker to measure on."""
    asked = arguments()
    console = Console() if sys.stdout.isatty() else Console(width=140)
    subjects = [each for each in SUBJECTS if not asked.only or each in asked.only or each == BASELINE]
    OUT.mkdir(exist_ok=True)
    try:
        found = brokers.start()
    except brokers.BrokerError as error:
        console.print(f"[red]{error}")
        return 4
    with found as broker, tempfile.TemporaryDirectory(prefix="inference-consumer-bench-") as directory:
        if broker.lacks:
            console.print(f"[red]a real Kafka is needed to measure on, and this is {broker.reason}")
            return 4
        console.print(f"broker: {broker.reason}")
        subprocess.run([sys.executable, "-m", "benchmarks.network", directory], check=True)
        bench = Bench(
            bootstrap=broker.bootstrap_servers,
            broker_pid=broker.node.process.pid if broker.node and broker.node.process else None,
            source=f"bench-{uuid.uuid4().hex[:8]}",
            count=asked.records,
            workers=asked.workers,
            directory=Path(directory),
        )
        topics = Topics(bench.bootstrap)
        topics.create(bench.source)
        load(bench.bootstrap, bench.source, bench.count)
        console.print(f"loaded: {bench.count:,} records, {PARTITIONS} partitions")
        measured: dict[str, list[Measurement]] = {subject: [] for subject in subjects}
        for round_number in range(asked.rounds + 1):
            turned = subjects if round_number % 2 else subjects[::-1]
            for subject in turned:
                try:
                    result = measure(bench, topics, subject)
                except StalledError as error:
                    console.print(f"[red]{subject}: {error}")
                    return 1
                name = f"round {round_number}" if round_number else "warm-up"
                console.print(
                    f"{name}: {subject} {result.records_per_s:,.0f}/s, "
                    f"{', '.join(f'{role} {used:.1f} us' for role, used in result.cpu_us.items())}, "
                    f"committed {result.commit_lag_s:.1f} s later"
                )
                if round_number:
                    measured[subject].append(result)
    console.print(report(measured))
    facts = {"cores": os.cpu_count(), "processor": platform.processor() or platform.machine(), "records": asked.records}
    runs = {subject: [asdict(each) for each in results] for subject, results in measured.items()}
    (OUT / "report.json").write_text(json.dumps(facts | {"runs": runs}, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
