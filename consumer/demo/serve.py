"""Serves a configuration on a broker that is there for it: what `make run` does.

    python -m consumer.demo.serve consumer.yaml

Owns what stands before the consumer on a developer's machine: a broker, as in the demo, and the input topics. Must not
know the models.
"""

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from confluent_kafka.admin import AdminClient, NewTopic
from rich.console import Console
from rich.markup import escape

from consumer.config import load
from consumer.demo import broker as brokers
from consumer.demo.traffic import PARTITIONS, TIMEOUT_S
from consumer.errors import ConsumerError, ExitCode


def create_missing(bootstrap_servers: str, topics: Sequence[str]) -> list[str]:
    """Create those of the topics that do not exist; returns them. Regular expressions name topics that do."""
    admin = AdminClient({"bootstrap.servers": bootstrap_servers})
    existing = admin.list_topics(timeout=TIMEOUT_S).topics
    missing = [topic for topic in topics if topic not in existing and not topic.startswith("^")]
    if missing:
        created = admin.create_topics([NewTopic(topic, PARTITIONS, 1) for topic in missing])
        for future in created.values():
            future.result(TIMEOUT_S)
    return missing


def serve(path: Path, console: Console) -> int:
    """Find or start a broker, create the input topics, and run the consumer until it ends; returns its exit code.

    Raises:
        ConfigError: the configuration cannot be used.
        BrokerError: there is no broker.
    """
    settings = load(path)
    with brokers.start() as broker:
        console.print(f"broker: {escape(broker.reason)}")
        for topic in create_missing(broker.bootstrap_servers, settings.input.topics):
            console.print(f"created topic {topic}")
        console.print(f"[bold]KAFKA={broker.bootstrap_servers}[/]  (Ctrl-C drains and stops)")
        environ = {"CONSUMER_KAFKA__BOOTSTRAP_SERVERS": broker.bootstrap_servers}
        for setting, value in broker.consumer_settings.items():
            environ[f"CONSUMER_KAFKA__CONSUMER__{setting.upper().replace('.', '_')}"] = str(value)
        consumer = subprocess.Popen(
            [sys.executable, "-m", "consumer", "run", "--config", str(path)], env={**os.environ, **environ}
        )

        def forward(number: int, _frame: FrameType | None) -> None:
            consumer.send_signal(number)

        # Ctrl-C reaches the consumer by itself, which then drains; the broker has to outlive it.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, forward)
        return consumer.wait()


def main() -> int:
    """Parse the arguments and serve."""
    parser = argparse.ArgumentParser(prog="python -m consumer.demo.serve", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("configuration", type=Path)
    console = Console(stderr=True)
    try:
        return serve(parser.parse_args().configuration, console)
    except ConsumerError as error:
        console.print(f"[red]{escape(str(error))}")
        return error.exit_code
    except brokers.BrokerError as error:
        console.print(f"[red]{escape(str(error))}")
        return ExitCode.BROKER


if __name__ == "__main__":
    sys.exit(main())
