import os
import subprocess
import sys
from collections.abc import Mapping

import pytest

from consumer.demo import records
from consumer.demo.broker import Broker

pytestmark = [pytest.mark.slow, pytest.mark.broker]


def demo(environ: Mapping[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the demo as a user does."""
    return subprocess.run(
        [sys.executable, "-m", "consumer", "demo", *arguments],
        env={**os.environ, "COLUMNS": "140", **environ},
        capture_output=True,
        text=True,
        check=False,
        timeout=170,
    )


def check_shown(shown: subprocess.CompletedProcess[str]) -> None:
    """See that every table is there, with nothing missing in it."""
    assert shown.returncode == 0, shown.stdout + shown.stderr
    for model in records.MODELS:
        assert f"{model}" in shown.stdout
    assert shown.stdout.count("1,797 │") == len(records.MODELS)
    for reason in ("unknown-model", "wrong-shape", "no-value", "expired"):
        assert reason in shown.stdout
    assert "All 5,400 records have their outcome, and every offset is committed." in shown.stdout


def test_the_demo_succeeds_on_the_sessions_broker(broker: Broker) -> None:
    """On a real Kafka every record gets its outcome, every offset is committed, and the exit code is 0."""
    check_shown(demo({"KAFKA_BOOTSTRAP_SERVERS": broker.bootstrap_servers}))


def test_the_demo_succeeds_on_the_embedded_broker() -> None:
    """On the embedded broker it shows the same."""
    shown = demo({}, "--broker", "embedded", "--rate", "0")
    check_shown(shown)
    assert "Tansu" in shown.stdout


def test_a_broker_that_does_not_answer_is_told_in_a_line() -> None:
    """A broker that was asked for and is not there ends the demo with the broker's exit code and one line."""
    shown = demo({"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"})
    assert shown.returncode == 4
    assert shown.stderr.startswith("error: KAFKA_BOOTSTRAP_SERVERS=127.0.0.1:1 does not answer")
    assert shown.stderr.count("\n") == 1
