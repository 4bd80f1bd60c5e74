import socket
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from consumer.cli import check
from consumer.cli.check import Finding, State
from consumer.config import load
from consumer.demo.broker import Broker
from consumer.errors import ExitCode
from consumer.models.options import ModelOptions
from consumer.worker.device import WorkerSlot
from tests.brokers import end_offsets, new_topic
from tests.cli.conftest import Call

MODELS = """\
import os
import torch

class Double(torch.nn.Module):
    def forward(self, x):
        print("models may print")
        return 2 * x

def broken():
    raise RuntimeError("no weights\\nto be found")

def deadly():
    os.write(2, b"about to go\\n\\n")
    os._exit(9)
"""

INPUTS = "inputs: [{name: x, datatype: FP32, shape: [2]}]"


@pytest.fixture
def written(tmp_path: Path) -> Callable[[str], Path]:
    """Give a function that writes a configuration beside a module with models."""

    def _written(text: str) -> Path:
        (tmp_path / "models_of_check.py").write_text(MODELS, encoding="utf-8")
        path = tmp_path / "consumer.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return _written


def unreachable() -> str:
    """Name an address on which nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


def configured(servers: str, topic: str, models: str, more: str = "") -> str:
    """Write a configuration; more is further sections."""
    return (
        f"kafka: {{bootstrap.servers: '{servers}', group.id: g}}\n"
        f"input: {{topics: ['{topic}']}}\nmodels:\n{models}\n{more}\n"
        "workers: [{device: cpu}]\n"
    )


def rows(shown: str) -> list[str]:
    """Give the table's rows with single spaces."""
    return [" ".join(line.split()) for line in shown.splitlines()]


def test_each_model_is_loaded_once_and_each_failure_is_its_own(
    written: Callable[[str], Path], call: Call, capsys: pytest.CaptureFixture[str]
) -> None:
    """Good models are described, a broken one has its line, one that kills the process does not stop the others."""
    models = (
        f"  good: {{factory: 'models_of_check:Double', {INPUTS}}}\n"
        "  broken: {factory: 'models_of_check:broken'}\n"
        "  deadly: {factory: 'models_of_check:deadly'}\n"
        "  unwarmed: {factory: 'models_of_check:Double'}\n"
    )
    path = written(configured(unreachable(), "requests", models))
    assert call("check", "--config", path) == ExitCode.CONFIG
    shown = rows(capsys.readouterr().out)
    assert shown[1] == f"configuration ok {path}"
    assert shown[2].startswith("workers ok 1 workers (1 on cpu), ")
    model_rows = [row for row in shown if row.startswith("model ")]
    assert model_rows[0].startswith("model good ok Python factory; version ")
    assert "; takes x FP32[2]; up to 512 rows a call; loaded in " in model_rows[0]
    assert model_rows[1].startswith("model broken failed ")
    assert "no weights" in model_rows[1]
    assert model_rows[2] == ("model deadly failed loading it ended the worker's process with exit code 9: about to go")
    assert model_rows[3].startswith("model unwarmed ok Python factory; ")
    assert model_rows[4].startswith("model unwarmed note not warmed up")
    assert any(row.startswith("broker failed no answer from Kafka: ") for row in shown)


def test_a_worker_that_cannot_boot_is_told_once() -> None:
    """Cores that are not there fail the worker, not its models."""
    slot = WorkerSlot(index=0, device="cpu", cores=(4_096,))
    options = [ModelOptions(id=name, factory="a:b") for name in ("m1", "m2")]
    (finding,) = check._models(slot, options, ())
    assert (finding.part, finding.state, finding.exit_code) == ("workers", State.FAILED, ExitCode.WORKER_BOOT)
    assert finding.text.startswith("cpu: OSError: ")


def test_a_plan_that_fails_is_a_finding(written: Callable[[str], Path]) -> None:
    """Workers that the machine cannot give are told in the table, with the configuration's code."""
    path = written(configured("b", "t", "  m: {path: a}").replace("device: cpu", "device: 'cuda:99'"))
    (finding,) = check._workers_and_models(load(path, {}))
    assert (finding.part, finding.state, finding.exit_code) == ("workers", State.FAILED, ExitCode.CONFIG)
    assert "cuda:99" in finding.text


@pytest.mark.broker
def test_topics_are_looked_at_and_none_is_made(broker: Broker, written: Callable[[str], Path]) -> None:
    """Existing topics are told with their partitions, missing outputs are only announced."""
    topic = new_topic(broker, partitions=3)
    new_topic(broker, name=f"{topic}.results.m")
    results = f"output: {{result_topic: '{topic}.results.{{model}}'}}"
    settings = load(written(configured(broker.bootstrap_servers, topic, "  m: {path: a}", results)), {})
    expected = [
        Finding(f"input {topic}", State.OK, "3 partitions"),
        Finding(f"output {topic}.results.m", State.OK, "1 partitions"),
        Finding(f"output {topic}.dead-letters", State.OK, "will be created"),
    ]
    assert [*check._topics(settings)][1:] == expected
    assert [*check._topics(settings)][1:] == expected


@pytest.mark.broker
def test_missing_topics_are_failures(broker: Broker, written: Callable[[str], Path]) -> None:
    """An input that is not there fails the check, and so does an output that must not be created."""
    topic = f"none-{uuid.uuid4().hex[:8]}"
    results = f"output: {{create: false, result_topic: '{topic}.results.{{model}}'}}"
    settings = load(written(configured(broker.bootstrap_servers, topic, "  m: {path: a}", results)), {})
    assert [(finding.part, finding.state, finding.exit_code) for finding in check._topics(settings)][1:] == [
        (f"input {topic}", State.FAILED, ExitCode.BROKER),
        (f"output {topic}.results.m", State.FAILED, ExitCode.BROKER),
        (f"output {topic}.dead-letters", State.FAILED, ExitCode.BROKER),
    ]


@pytest.mark.broker
def test_a_pattern_finds_its_topics_and_never_the_outputs(broker: Broker, written: Callable[[str], Path]) -> None:
    """A regular expression is told with what it matches; one that matches nothing yet is no failure."""
    topic = new_topic(broker, partitions=2)
    new_topic(broker, name=f"{topic}.dead-letters")
    text = configured(broker.bootstrap_servers, f"^{topic}", "  m: {path: a}")
    findings = [*check._topics(load(written(text), {}))]
    assert findings[1] == Finding(f"input ^{topic}", State.OK, f"{topic} with 2 partitions")
    assert findings[3].part == f"output {topic}.dead-letters"
    text = configured(broker.bootstrap_servers, "^nothing-like-it", "  m: {path: a}")
    findings = [*check._topics(load(written(text), {}))]
    assert findings[1] == Finding(
        "input ^nothing-like-it", State.NOTE, "no topic matches yet; those that come are read"
    )


@pytest.mark.broker
def test_everything_in_order_is_exit_code_0(
    broker: Broker, written: Callable[[str], Path], call: Call, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a model that loads and topics that are there or will be, `run` would work, and nothing was changed."""
    topic = new_topic(broker, partitions=2)
    models = f"  good: {{factory: 'models_of_check:Double', {INPUTS}}}"
    path = written(configured(broker.bootstrap_servers, topic, models))
    assert call("check", "--config", path) == ExitCode.OK
    assert " failed " not in capsys.readouterr().out
    assert end_offsets(broker, topic) == {0: 0, 1: 0}
