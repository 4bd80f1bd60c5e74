"""The report: tables on the terminal, everything as JSON. Must not know how anything was measured."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.goals import Figure
from benchmarks.intervals import interval, paired
from benchmarks.watch import Measurement

BASELINE = "tuned"


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One invocation's outcome."""

    command: str
    records: int
    """Of W1 binary."""
    machine: Mapping[str, Any]
    disturbance: Mapping[str, float]
    generator: Mapping[str, float]
    figures: Sequence[Figure]
    subjects: Mapping[str, str]
    """What a crash may do to the records of each subject."""
    runs: Mapping[str, Sequence[Measurement]]
    batch_rows: Mapping[str, Mapping[int, int]] = field(default_factory=dict)
    latencies: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    ceilings: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    resident_mb: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """Of supervisor and worker, by lap of many records."""
    profiles: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """By workload: the CPU microseconds of one record, by process, thread and function."""
    notes: Sequence[str] = ()
    """What failed or is missing, in words."""

    def write(self, path: Path) -> None:
        """Write it as JSON."""
        path.write_text(json.dumps(asdict(self), indent=2, ensure_ascii=False, allow_nan=False) + "\n")

    def show(self, console: Console) -> None:
        """Lay it out for a terminal."""
        console.print(run_table(self.runs, self.subjects))
        if self.latencies:
            console.print(latency_table(self.latencies))
        if self.ceilings:
            console.print(ceiling_table(self.ceilings))
        for name, profile in self.profiles.items():
            console.print(profile_table(name, profile))
        console.print(figure_table(self.figures))
        for note in self.notes:
            console.print(f"[yellow]{note}")


def run_table(runs: Mapping[str, Sequence[Measurement]], semantics: Mapping[str, str]) -> Table:
    """Lay out medians by subject; ratios are those of the same rounds."""
    table = Table(title="throughput: from the first result to the last one delivered and committed, acks=all")
    for column in ("", "records/s", "95 %", "2nd half", f"÷ {BASELINE}", "CPU us/record", "broker us", "peak MB"):
        table.add_column(column, justify="left" if not column else "right")
    baseline = [each.records_per_s for each in runs.get(BASELINE, ())]
    for subject, measured in runs.items():
        speeds = [each.records_per_s for each in measured]
        speed = interval(speeds)
        roles = measured[0].cpu_us
        used = {role: interval([each.cpu_us.get(role, 0.0) for each in measured]).median for role in roles}
        broker_us = used.pop("broker", None)
        split = f" ({', '.join(f'{role} {each:.1f}' for role, each in used.items())})" if len(used) > 1 else ""
        peaks = {role: max(each.peak_mb.get(role, 0.0) for each in measured) for role in used}
        is_paired = len(baseline) == len(speeds) and not subject.startswith("W")
        table.add_row(
            subject if semantics.get(subject) == "at least once" else f"{subject} ({semantics.get(subject, '')})",
            f"{speed.median:,.0f}",
            f"{speed.low:,.0f}-{speed.high:,.0f}",
            f"{interval([each.warm_records_per_s for each in measured]).median:,.0f}",
            f"{paired(speeds, baseline).median:.2f}" if is_paired else "",
            f"{sum(used.values()):.1f}{split}",
            "-" if broker_us is None else f"{broker_us:.1f}",
            ", ".join(f"{size:.0f}" for size in peaks.values()),
        )
    return table


def latency_table(latencies: Mapping[str, Mapping[str, float]]) -> Table:
    """Lay out the percentiles of the open-loop trials."""
    columns = list(dict.fromkeys(column for each in latencies.values() for column in each))
    table = Table(title="open loop: from a record's scheduled send time to the receipt of its result")
    for column in ("", *columns):
        table.add_column(column, justify="right" if column else "left")
    for name, percentiles in latencies.items():
        cells = [f"{percentiles[column]:,.1f}" if column in percentiles else "" for column in columns]
        table.add_row(name, *cells)
    return table


def ceiling_table(ceilings: Mapping[str, Mapping[str, float]]) -> Table:
    """Lay out what is compared with beside the subjects."""
    table = Table(title="ceilings and references")
    for column in ("", "values"):
        table.add_column(column)
    for name, values in ceilings.items():
        table.add_row(name, ", ".join(f"{each} {value:,.4g}" for each, value in values.items()))
    return table


def profile_table(name: str, profile: Mapping[str, float]) -> Table:
    """Lay out where the CPU time of a record goes."""
    table = Table(title=f"{name}: CPU us of one record under the sampler")
    table.add_column("")
    table.add_column("us", justify="right")
    for place, used in profile.items():
        table.add_row(place, f"{used:.2f}")
    return table


def figure_table(figures: Sequence[Figure]) -> Table:
    """Lay out the figures to reach."""
    table = Table(title="figures to reach")
    for column in ("", "goal", "value", "95 %", "reached"):
        table.add_column(column, justify="left" if column in {"", "reached"} else "right")
    for each in figures:
        sign = "≥" if each.direction == "at least" else "≤"
        is_measured = each.value is not None and each.low is not None and each.high is not None
        table.add_row(
            each.title,
            f"{sign} {each.goal:g}",
            f"{each.value:.3g}" if is_measured else "-",
            f"{each.low:.3g}-{each.high:.3g}" if is_measured else "",
            {True: "yes", False: "[red]no", None: f"not measured: {each.reason}"}[each.is_reached],
        )
    return table
