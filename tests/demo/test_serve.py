import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from confluent_kafka.admin import AdminClient

from consumer.demo.broker import Broker
from consumer.demo.service import free_port
from tests.demo.conftest import Trained

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 60.0
TOPICS = ("requests", "requests.dead-letters", "results.linear", "results.mlp", "results.cnn")
pytestmark = [pytest.mark.slow, pytest.mark.broker]


class Served(NamedTuple):
    """A consumer that `make run` would start."""

    process: subprocess.Popen[str]
    bootstrap_servers: str


@pytest.fixture(name="served")
def serve(broker: Broker, trained: Trained) -> Iterator[Served]:
    """Serve the repository's consumer.yaml beside the trained models, and wait until it is ready."""
    shutil.copy(ROOT / "consumer.yaml", trained.directory.parent)
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "consumer.demo.serve", str(trained.directory.parent / "consumer.yaml")],
        env={**os.environ, "KAFKA_BOOTSTRAP_SERVERS": broker.bootstrap_servers, "CONSUMER_HTTP__PORT": str(port)},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        deadline_s = time.monotonic() + TIMEOUT_S
        while not is_ready(port):
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline_s
            time.sleep(0.1)
        yield Served(process, broker.bootstrap_servers)
    finally:
        process.terminate()
        process.communicate(timeout=TIMEOUT_S)
        admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers})
        for deleted in admin.delete_topics(list(TOPICS)).values():
            deleted.exception(TIMEOUT_S)


def is_ready(port: int) -> bool:
    """Ask a consumer whether it is ready."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=1):
            return True
    except OSError:
        return False


def shell(commands: str, directory: Path) -> str:
    """Run commands as they stand in the README; what they print."""
    return subprocess.run(["bash", "-euc", commands], cwd=directory, capture_output=True, text=True, check=True).stdout


def until_printed(commands: str, directory: Path) -> str:
    """Run commands until they print something: a result takes a moment."""
    deadline_s = time.monotonic() + TIMEOUT_S
    while not (printed := shell(commands, directory)):
        assert time.monotonic() < deadline_s, f"nothing from: {commands}"
        time.sleep(0.2)
    return printed


def test_the_commands_of_the_readme_work(served: Served, tmp_path: Path) -> None:
    """The README's kcat commands send a record and read its result, and a dead letter with its reason."""
    if shutil.which("kcat") is None:
        assert not os.environ.get("CI"), "CI needs kcat"
        pytest.skip("kcat is not installed")
    section = (ROOT / "README.md").read_text().split("## Send a record by hand")[1].split("\n## ")[0]
    first, second = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)
    address = f"KAFKA={served.bootstrap_servers}\n"
    sending, reading = first.replace("KAFKA=localhost:9092", address).strip().rsplit("\n", 1)
    shell(sending, tmp_path)
    result = json.loads(until_printed(address + reading, tmp_path))
    assert result["id"] == "my-first-digit"
    (scores,) = result["outputs"]
    (row,) = [scores["data"]] if scores["shape"] == [10] else scores["data"]
    assert row.index(max(row)) == 3

    sending, reading = second.strip().rsplit("\n", 1)
    shell(address + sending, tmp_path)
    assert "dead-letter-reason=unknown-model" in until_printed(address + reading, tmp_path)


def test_sigterm_drains_and_ends_with_0(served: Served) -> None:
    """SIGTERM reaches the consumer behind the broker's starter, which hands its exit code on."""
    served.process.send_signal(signal.SIGTERM)
    assert served.process.wait(TIMEOUT_S) == 0
