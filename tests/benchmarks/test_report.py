import json
import xml.etree.ElementTree as ET
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks import plots
from benchmarks.goals import figures
from benchmarks.intervals import Interval
from benchmarks.report import Report
from benchmarks.watch import Measurement


def measurement(records_per_s: float) -> Measurement:
    """Make one run."""
    return Measurement(
        records=1_000,
        seconds=1_000 / records_per_s,
        records_per_s=records_per_s,
        cpu_us={"supervisor": 3.0, "workers": 2.0, "broker": 1.0},
        warm_records_per_s=records_per_s,
        warm_cpu_us={"supervisor": 3.0, "workers": 2.0, "broker": 1.0},
        peak_mb={"supervisor": 200.0, "workers": 600.0, "broker": 900.0},
        peak_private_mb={"supervisor": 90.0, "workers": 590.0, "broker": 900.0},
        commit_lag_s=0.1,
    )


@pytest.fixture
def report() -> Report:
    """A report of two subjects and three rounds."""
    return Report(
        command="python -m benchmarks.run --quick",
        records=1_000,
        machine={"cores": 2},
        disturbance={"steal_share": 0.01},
        generator={"cpu_s": 1.0},
        figures=figures({"w1_tuned_ratio": Interval(2.0, 1.9, 2.1)}, {"w1_java_ratio": "no Java here"}),
        subjects={"tuned": "at least once", "program": "at least once"},
        runs={
            "tuned": [measurement(speed) for speed in (100.0, 120.0, 110.0)],
            "program": [measurement(speed) for speed in (200.0, 240.0, 220.0)],
        },
        batch_rows={"program": {1: 5, 300: 15}},
        ceilings={"raw torch, records/s": {"round 1": 1_234.0}},
        resident_mb={"supervisor": [100.0, 101.0], "workers": [500.0, 501.0]},
        latencies={"program at 50 %": {"records/s": 55.0, "p50 ms": 2.0, "p99 ms": 9.0}},
        profiles={"W1": {"supervisor": 5.5, "  consumer.kafka.source.Source._consume": 0.875}},
        notes=["something is missing"],
    )


def test_the_file_has_every_figure_by_name(report: Report, tmp_path: Path) -> None:
    """The JSON holds each figure with value, interval, goal and whether it is reached, and all runs."""
    report.write(tmp_path / "report.json")
    read = json.loads((tmp_path / "report.json").read_text())
    by_name = {each["name"]: each for each in read["figures"]}
    tuned = by_name["w1_tuned_ratio"]
    assert (tuned["value"], tuned["low"], tuned["high"], tuned["goal"], tuned["is_reached"]) == (
        2.0,
        1.9,
        2.1,
        1.7,
        True,
    )
    assert (by_name["w1_java_ratio"]["is_reached"], by_name["w1_java_ratio"]["reason"]) == (None, "no Java here")
    assert [run["records_per_s"] for run in read["runs"]["program"]] == [200.0, 240.0, 220.0]
    assert read["machine"] == {"cores": 2}


def test_the_terminal_shows_medians_and_paired_ratios(report: Report) -> None:
    """The tables give medians, ratios to the baseline, percentiles, figures, reasons and notes."""
    text = StringIO()
    report.show(Console(file=text, width=200))
    for shown in (
        "220",
        "2.00",
        "supervisor 3.0, workers 2.0",
        "9.0",
        "yes",
        "no Java here",
        "something is missing",
        "1,234",
        "Source._consume",
        "0.88",
    ):
        assert shown in text.getvalue()


def test_plots_are_one_page_that_needs_nothing_else(report: Report) -> None:
    """The page is well-formed, refers to nothing outside itself, and draws a bar for each part."""
    charts = [plots.throughput(report.runs), plots.cpu_split(report.runs), plots.latency(report.latencies)]
    charts += [plots.resident(report.resident_mb), *plots.profiles(report.profiles)]
    page = plots.page("a < b", [*charts, *plots.batch_sizes(report.batch_rows)])
    assert "http" not in page
    assert "src=" not in page
    assert "a &lt; b" in page
    assert "up to 512" in page
    for chart, bars in zip(charts, (2, 6, 2, 4, 2), strict=True):
        svg = ET.fromstring(chart[chart.index("<svg") : chart.index("</svg>") + len("</svg>")])
        assert len(svg.findall("rect")) == bars


def test_what_was_not_measured_is_said() -> None:
    """A chart without bars says so instead of failing."""
    assert "not measured" in plots.throughput({})
