"""The consumer as the demo runs it: a configuration, and a process of its own, as on a server.

Owns the process from its start to its exit. Must not know the records.
"""

import json
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from consumer.demo.broker import Broker

READY_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 60.0
WORKERS = 2

IMAGE = [{"name": "image", "datatype": "FP32", "shape": [8, 8]}]
MODELS: Mapping[str, Mapping[str, Any]] = {
    "linear": {"path": "linear.pt", "inputs": IMAGE},
    "mlp": {"path": "mlp.pt2"},
    "cnn": {"path": "cnn.safetensors", "factory": "consumer.demo.networks:Cnn", "inputs": IMAGE},
}
"""One model in each format; the exported program alone brings its own signature."""


class ServiceError(Exception):
    """The consumer did not do what the demo is to show; the message quotes its last lines."""


@dataclass(frozen=True, slots=True)
class Names:
    """The demo's own topics and group: a broker that is shared keeps its other topics."""

    prefix: str

    @property
    def group(self) -> str:
        """The consumer group."""
        return self.prefix

    @property
    def requests(self) -> str:
        """The input topic."""
        return f"{self.prefix}.requests"

    @property
    def dead_letters(self) -> str:
        """The topic of its dead letters."""
        return f"{self.requests}.dead-letters"

    def results(self, model: str) -> str:
        """The topic of a model's results."""
        return f"{self.prefix}.results.{model}"


def configuration(broker: Broker, names: Names, http_port: int) -> dict[str, Any]:
    """Write the demo's configuration; all that it leaves out is the default."""
    return {
        "kafka": {
            "bootstrap.servers": broker.bootstrap_servers,
            "group.id": names.group,
            "consumer": dict(broker.consumer_settings),
        },
        "input": {"topics": [names.requests]},
        "output": {"result_topic": names.results("{model}"), "dead_letter_topic": "{topic}.dead-letters"},
        "models": {name: dict(model) | {"preload": True} for name, model in MODELS.items()},
        "workers": [{"device": "cpu", "count": WORKERS}],
        "http": {"port": http_port},
    }


class Service:
    """The consumer's process.

    Args:
        directory: Holds the models; the configuration and the log are written there.
        settings: The configuration.
    """

    def __init__(self, directory: Path, settings: Mapping[str, Any]) -> None:
        self.log = directory / "consumer.log"
        self._port = settings["http"]["port"]
        path = directory / "consumer.yaml"
        path.write_text(yaml.safe_dump(dict(settings), sort_keys=False))
        with self.log.open("wb") as log:
            # A session of its own: Ctrl-C is for the demo, which then stops the consumer as an operator would.
            self._process = subprocess.Popen(
                [sys.executable, "-m", "consumer", "run", "--config", str(path)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def wait_ready(self) -> None:
        """Wait until it has joined its group and its workers have loaded the models.

        Raises:
            ServiceError: it ended, or takes too long.
        """
        deadline_s = time.monotonic() + READY_TIMEOUT_S
        while not self._is_ready():
            self.check_running()
            if time.monotonic() > deadline_s:
                raise ServiceError(f"the consumer is not ready after {READY_TIMEOUT_S:.0f} s{self.quote()}")
            time.sleep(0.1)

    def check_running(self) -> None:
        """See that it runs.

        Raises:
            ServiceError: it ended.
        """
        if (code := self._process.poll()) is not None:
            raise ServiceError(f"the consumer ended with exit code {code}{self.quote()}")

    def stop(self) -> int:
        """Ask it to drain and stop; returns its exit code, -9 if it had to be killed."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def quote(self) -> str:
        """Quote the last lines that it printed."""
        lines = self.log.read_text(errors="replace").strip().splitlines()[-8:]
        return "".join(f"\n  | {line}" for line in lines)

    def _is_ready(self) -> bool:
        """Ask for its status: `/readyz` alone is true while models are still being loaded."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/status", timeout=1) as answer:
                status = json.load(answer)
        except OSError:
            return False
        return status["ready"] and all(model["state"] == "loaded" for model in status["models"])


def free_port() -> int:
    """Find a free port on this machine."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port
