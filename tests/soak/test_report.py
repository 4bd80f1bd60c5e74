import json
import math
from collections import Counter
from pathlib import Path

import pytest

from tests.soak.plan import Kind
from tests.soak.report import RECOVERY_S_MAX, Report, Survived
from tests.soak.soak import UNCOMMITTED_S, unexplained


def good() -> Report:
    """Report a run in which nothing is amiss."""
    return Report(
        seed=1,
        minutes=1,
        delivery="at-least-once",
        broker="a broker",
        members=2,
        faults=[Survived(Kind.KILL_SUPERVISOR, 1000.0, 10.0, 2.0, 8.0)],
        sent=100,
        outcomes=Counter(result=110),
        doubled=10,
        doubled_max=100,
        samples=5,
        settled_s=1.0,
    )


def test_a_good_run_has_no_violation() -> None:
    """Faults that were recovered from, and what they explain, are none."""
    report = good()
    assert report.violations() == []
    assert list(report.lines())[-1] == "every promise was kept"


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("lost", 1, "1 of 100 records are lost"),
        ("unanswered", 4, "4 of 100 records wait unanswered"),
        ("wrong", 2, "2 outcomes are wrong"),
        ("doubled", 101, "101 outcomes too many, 100 allowed"),
        ("unexplained", 3, "3 outcomes too many that no fault explains"),
        ("sent", 0, "nothing was sent"),
        ("samples", 0, "commits were never compared with outcomes"),
        ("settled_s", None, "the lag did not come back to 0"),
        ("notes", ["member-1 ended by itself"], "member-1 ended by itself"),
        ("faults", [Survived(Kind.JOIN, 0, 3.0, 1, None)], "recovery from member joined and left at 3 s never ended"),
        (
            "faults",
            [Survived(Kind.JOIN, 0, 3.0, 1, RECOVERY_S_MAX + 1)],
            "recovery from member joined and left at 3 s took 61.0 s",
        ),
    ],
)
def test_whatever_is_amiss_is_a_violation(name: str, value: object, said: str) -> None:
    """Each promise that is not kept is told in a line, and is the last thing that people read."""
    report = good()
    setattr(report, name, value)
    assert said in report.violations()
    assert f"VIOLATION: {said}" in list(report.lines())
    assert "violations" in list(report.lines())[-1]


def test_machines_can_read_it(tmp_path: Path) -> None:
    """The file has the figures, the faults and the violations."""
    report = good()
    report.not_done[Kind.KILL_WORKER] += 1
    report.write(tmp_path / "report.json")
    found = json.loads((tmp_path / "report.json").read_text())
    assert found["outcomes"] == {"result": 110}
    assert found["not_done"] == {"worker killed": 1}
    assert found["faults"][0]["recovery_s"] == 8.0
    assert found["violations"] == []


def test_only_a_fault_between_explains_a_repetition() -> None:
    """An outcome may come again only by a fault that moves partitions, if it was not old or committed by then."""
    kill = Survived(Kind.KILL_SUPERVISOR, at_s=1000.0, began_s=0, lasted_s=2.0, recovery_s=8.0)
    worker = Survived(Kind.KILL_WORKER, at_s=1000.0, began_s=0, lasted_s=2.0, recovery_s=8.0)
    late_s = 1010.0 + 2 * UNCOMMITTED_S
    assert unexplained([999.0], [kill], 998.0) == 0
    assert unexplained([999.0, 1005.0], [kill], 998.0) == 0
    assert unexplained([999.0, 1005.0], [worker], math.inf) == 1
    assert unexplained([999.0, late_s], [kill], 1005.0) == 1
    assert unexplained([999.0, late_s], [kill], late_s) == 0
    assert unexplained([999.0, late_s], [kill], math.inf) == 0
    assert unexplained([1000.0 - 2 * UNCOMMITTED_S, 1005.0, 1006.0], [kill], math.inf) == 2
    assert unexplained([late_s, late_s + 1], [kill], math.inf) == 1
