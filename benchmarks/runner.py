"""Runs subjects: their topics, their processes, in turns; checks each run's results and keeps what was measured.

Must not know what is compared with what.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from benchmarks.orders import interleaved
from benchmarks.readback import Readback, read_back
from benchmarks.subjects import Run, Subject
from benchmarks.topics import Topics
from benchmarks.watch import Measurement, StalledError, Watched, watch
from benchmarks.workloads import Workload

STOP_TIMEOUT_S = 30.0


class LossError(StalledError):
    """A run lost records."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """Topics that hold a workload's records."""

    workload: Workload
    sources: Mapping[str, int]
    """Topics, and the records in each."""

    @property
    def count(self) -> int:
        """All records."""
        return sum(self.sources.values())


@dataclass(slots=True)
class Generator:
    """What sending cost: CPU seconds and peak memory of the processes that sent the records."""

    records: int = 0
    cpu_s: float = 0.0
    peak_mb: float = 0.0

    def add(self, sent: Mapping[str, float]) -> None:
        """Count what such a process says of itself."""
        self.records += round(sent["records"])
        self.cpu_s += sent["cpu_s"]
        self.peak_mb = max(self.peak_mb, sent["peak_mb"])


@dataclass(slots=True, kw_only=True)
class Lab:
    """Where runs take place, and what they gave."""

    bootstrap: str
    broker_pid: int | None
    topics: Topics
    directory: Path
    console: Console
    written: set[str] = field(default_factory=set)
    """The networks whose files are in the directory."""
    generator: Generator = field(default_factory=Generator)
    runs: dict[str, list[Measurement]] = field(default_factory=dict)
    """By subject, under the workload's name but for W1; in the order of the rounds."""
    batch_rows: dict[str, list[int]] = field(default_factory=dict)
    """Batch sizes that the results tell of, by the same names."""
    latencies: dict[str, dict[str, float]] = field(default_factory=dict)
    """Percentiles in ms of each open-loop trial."""

    def load(self, workload: Workload, count: int, model: str = "", *, is_all: bool = False) -> Loaded:
        """Make a topic and fill it, by a process of its own.

        Args:
            workload: whose records.
            count: how many.
            model: only those of this model, if one is named.
            is_all: all of them for that model instead.

        Raises:
            StalledError: the broker did not take the records.
        """
        topic = f"bench-{uuid.uuid4().hex[:8]}"
        self.topics.create(topic)
        sent = self.fill(topic, workload, count, *((model, "all") if model and is_all else (model,)))
        self.console.print(f"{workload.name}: {sent:,} records loaded{f' for {model}' if model else ''}")
        return Loaded(workload=workload, sources={topic: sent})

    def fill(self, topic: str, workload: Workload, count: int, *more: str) -> int:
        """Send so many records to a topic, by a process of its own; how many it sent.

        Raises:
            StalledError: the broker did not take the records.
        """
        sent = output(
            [sys.executable, "-m", "benchmarks.load", self.bootstrap, topic, workload.name, str(count), *more]
        )
        self.generator.add(sent)
        return round(sent["records"])

    def unload(self, loaded: Loaded) -> None:
        """Delete the topics."""
        for topic in loaded.sources:
            self.topics.delete(topic)

    def write_networks(self, workload: Workload) -> None:
        """Write a workload's networks into the directory, once."""
        if workload.network and workload.network not in self.written:
            self.written.add(workload.network)
            subprocess.run(
                [sys.executable, "-m", "benchmarks.networks", workload.network, str(self.directory)], check=True
            )

    def measure(self, loaded: Loaded, subject: Subject) -> Measurement:
        """Run one subject over all the records, and see that each has a result.

        Raises:
            StalledError: it failed, stopped before its end, or lost a record.
        """
        with self.run(loaded.workload, subject, tuple(loaded.sources)) as (run, targets, pid):
            watched = Watched(
                pid=pid,
                role=subject.role,
                broker_pid=self.broker_pid,
                group=run.name,
                counts=loaded.sources,
                targets=targets,
                commits=subject.commits,
            )
            result = watch(self.topics, watched)
            read = read_back(self.bootstrap, targets, self._content_type(loaded.workload, subject))
        check(read, loaded.count, subject)
        self.batch_rows.setdefault(key(loaded.workload, subject), []).extend(read.batch_rows)
        return result

    @contextlib.contextmanager
    def run(
        self, workload: Workload, subject: Subject, sources: Sequence[str]
    ) -> Iterator[tuple[Run, tuple[str, ...], int]]:
        """Start a subject for a block: the run, its result topics, its process id.

        Raises:
            StalledError: it failed, or did not stop when asked.
        """
        run = Run(
            name=f"bench-{subject.name}-{uuid.uuid4().hex[:8]}",
            bootstrap=self.bootstrap,
            sources=sources,
            directory=self.directory,
        )
        targets = tuple(run.target(model) for model in workload.models(self.directory))
        for target in targets:
            self.topics.create(target)
        try:
            with started(subject, run) as pid:
                yield run, targets, pid
        finally:
            for target in targets:
                self.topics.delete(target)

    def rounds(self, entries: Sequence[tuple[Loaded, Subject]], rounds: int, *, warm_up: bool = True) -> list[str]:
        """Run subjects on their records, in turns; what failed, in words.

        The first round warms the broker and is not counted. A subject that fails is left out from then on.
        """
        failures: dict[str, str] = {}
        for number, turn in enumerate(interleaved(entries, rounds + warm_up), 1 - warm_up):
            for loaded, subject in turn:
                name = key(loaded.workload, subject)
                if name in failures:
                    continue
                try:
                    result = self.measure(loaded, subject)
                except StalledError as error:
                    failures[name] = f"{name}: {error}"
                    self.console.print(f"[red]{failures[name]}")
                    self.runs.pop(name, None)
                    continue
                self._tell(f"round {number}" if number else "warm-up", loaded.workload, subject, result)
                if number:
                    self.runs.setdefault(name, []).append(result)
        return list(failures.values())

    def _tell(self, when: str, workload: Workload, subject: Subject, result: Measurement) -> None:
        self.console.print(
            f"{workload.name} {when}: {subject.name} {result.records_per_s:,.0f}/s "
            f"(second half {result.warm_records_per_s:,.0f}), "
            f"{', '.join(f'{role} {used:.1f} us' for role, used in result.cpu_us.items())}"
        )

    @staticmethod
    def _content_type(workload: Workload, subject: Subject) -> str | None:
        return workload.content_type if subject.role == "supervisor" else None


def key(workload: Workload, subject: Subject) -> str:
    """Name a subject's runs on a workload."""
    return subject.name if workload.name == "W1" else f"{workload.name} {subject.name}"


def check(read: Readback, count: int, subject: Subject) -> None:
    """See that every record has its result.

    Raises:
        LossError: one has none, or an exactly-once run gave one two.
    """
    if len(read.ids) != count:
        raise LossError(f"{len(read.ids):,} of {count:,} records have a result")
    if subject.counts_markers and read.duplicates:
        raise LossError(f"{read.duplicates:,} records have more than one result")


@contextlib.contextmanager
def started(subject: Subject, run: Run) -> Iterator[int]:
    """Run a subject for a block; its process id.

    Raises:
        StalledError: it failed, or did not stop when asked; with the last lines that it printed.
    """
    log = run.directory / f"{run.name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            subject.command(run),
            stdout=output,
            stderr=output,
            start_new_session=True,
            env={**os.environ, **subject.environment},
        )
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
    if process.returncode not in subject.stop_codes:
        raise StalledError(f"it ended with {process.returncode}: {tail(log)}")


def tail(log: Path) -> str:
    """Quote the end of what a process printed."""
    return log.read_text(errors="replace")[-2000:].strip()


def output(command: Sequence[str], timeout_s: float = 600.0) -> dict[str, float]:
    """Run a program of the benchmarks to its end; the JSON object that it prints.

    Raises:
        StalledError: it failed or took too long.
    """
    started_s = time.monotonic()
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=timeout_s)
    except subprocess.TimeoutExpired:
        raise StalledError(f"{command[2]} took longer than {time.monotonic() - started_s:.0f} s") from None
    if done.returncode:
        raise StalledError(f"{command[2]} failed: {done.stderr.strip()[-1000:]}")
    printed: dict[str, float] = json.loads(done.stdout)
    return printed
