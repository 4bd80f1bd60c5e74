import json
import os
import subprocess
import sys
from typing import cast

import pytest

from benchmarks import run as benchmark
from benchmarks.experiments import RATIOS
from benchmarks.goals import GOALS
from benchmarks.plans import Outcome, Plan
from benchmarks.run import BASELINE, EXPERIMENTS, FIGURES, OUT, arguments, measure, planned
from benchmarks.runner import Lab
from benchmarks.watch import StalledError
from consumer.demo.broker import Broker
from tests.brokers import need

RECORDS = 4_000
SUBJECTS = ("program", "tuned", "echo-kept-pages")


@pytest.mark.slow
@pytest.mark.broker
def test_the_benchmark_measures_what_it_is_asked_for(broker: Broker) -> None:
    """A short run measures loop, echo and program, finds every record's result, and writes its report and plots."""
    need(broker, *broker.lacks)
    (OUT / "report.json").unlink(missing_ok=True)
    shown = subprocess.run(
        [
            *(sys.executable, "-m", "benchmarks.run", "--quick", "--records", str(RECORDS), "--rounds", "1"),
            *(option for subject in SUBJECTS for option in ("--only", subject)),
        ],
        env={**os.environ, "KAFKA_BOOTSTRAP_SERVERS": broker.bootstrap_servers},
        capture_output=True,
        text=True,
        check=False,
        timeout=170,
    )
    assert shown.returncode == 0, shown.stdout + shown.stderr
    report = json.loads((OUT / "report.json").read_text())
    assert report["records"] == RECORDS
    assert set(report["runs"]) == set(SUBJECTS)
    for (run,) in report["runs"].values():
        assert run["records"] == RECORDS
    assert set(report["runs"]["program"][0]["cpu_us"]) == {"supervisor", "workers"}
    assert [each["name"] for each in report["figures"]] == [goal.name for goal in GOALS]
    assert {each["name"] for each in report["figures"] if each["value"] is not None} >= {
        "w1_tuned_ratio",
        "w1_echo_ratio",
        "w1_cpu_ratio",
        "supervisor_mb",
    }
    assert "<svg" in (OUT / "report.html").read_text()


def test_the_full_run_has_enough_pairs() -> None:
    """By default at least five pairs are measured, and everything; a quick run takes fewer of a few."""
    full, quick = planned(arguments([])), planned(arguments(["--quick"]))
    assert full.rounds >= 5
    assert full.experiments == tuple(EXPERIMENTS)
    assert quick.experiments == ("throughput",)
    assert not full.is_quick
    assert not full.only
    assert quick.is_quick
    assert quick.records < full.records


def test_one_subject_runs_beside_the_baseline() -> None:
    """`--only` measures that subject and the loop that it is compared with."""
    assert planned(arguments(["--only", "simple"])).only == ("simple", BASELINE)
    assert planned(arguments(["--only", "tuned"])).only == ("tuned",)
    assert planned(arguments(["--only", "tuned"])).experiments == ("throughput",)
    assert planned(arguments(["--experiment", "crash", "--experiment", "flood"])).experiments == ("crash", "flood")


def test_every_figure_belongs_to_an_experiment() -> None:
    """No figure is left over that no experiment of the full run could give."""
    given = {*RATIOS, *(figure for each in FIGURES.values() for figure in each)}
    given |= {"w1_cpu_ratio", "supervisor_mb", "worker_extra_mb"}
    assert given == {goal.name for goal in GOALS}
    assert FIGURES.keys() < EXPERIMENTS.keys()


@pytest.mark.parametrize("error", [StalledError("stuck"), OSError("no room")])
def test_an_experiment_that_fails_leaves_the_others_alone(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those after it run, its figures say that its run failed, and so does the whole."""
    ran: list[str] = []

    def fails(_lab: Lab, _plan: Plan, _outcome: Outcome) -> None:
        raise error

    def works(_lab: Lab, _plan: Plan, _outcome: Outcome) -> None:
        ran.append("works")

    monkeypatch.setattr(benchmark, "EXPERIMENTS", {"growth": fails, "throughput": works})
    plan = Plan(records=1, rounds=1, workers=1, experiments=("growth", "throughput"))
    outcome = measure(cast("Lab", None), plan)
    assert ran == ["works"]
    assert outcome.has_failed
    assert str(error) in outcome.notes[0]
    assert outcome.reasons["growth_mb"] == "its run failed"
