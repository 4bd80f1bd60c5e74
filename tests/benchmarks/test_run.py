import json
import os
import subprocess
import sys

import pytest

from benchmarks.run import OUT, SUBJECTS
from consumer.demo.broker import Broker
from tests.brokers import need

RECORDS = 4_000


@pytest.mark.slow
@pytest.mark.broker
def test_the_benchmark_measures_every_subject(broker: Broker) -> None:
    """A short run measures both loops and the program, delivers and commits every record, and writes its report."""
    need(broker, *broker.lacks)
    (OUT / "report.json").unlink(missing_ok=True)
    shown = subprocess.run(
        [sys.executable, "-m", "benchmarks.run", "--records", str(RECORDS), "--rounds", "1"],
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
