"""The demo, from an empty directory to its verdict.

Owns the order of the steps and the verdict. Must not know torch: the training is a program of its own, and the consumer
another, as they would be elsewhere.
"""

import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from consumer.demo import broker as brokers
from consumer.demo import show, traffic
from consumer.demo.digits import load_digits
from consumer.demo.records import Sending, plan
from consumer.demo.service import Names, Service, ServiceError, configuration, free_port
from consumer.demo.tally import Tally
from consumer.errors import BrokerError

PATIENCE_S = 20.0
"""Without a new outcome for so long, what is still missing is missing."""
RATE = 1_000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoOptions:
    """What can be asked of the demo."""

    broker: brokers.Kind | None = None
    """The broker to use; by default the first kind that is to be had."""
    rate: float = RATE
    """Records sent a second; 0 means as fast as it goes."""


def run(options: DemoOptions, console: Console) -> int:
    """Show the program at work on real input; returns 0 if every record got its outcome, else 1.

    Raises:
        ConfigError: the extra `demo` is not installed.
        BrokerError: there is no broker, or not the one that was asked for.
    """
    digits = load_digits()
    sendings = plan(digits.images)
    tally = Tally(sendings, digits)
    with tempfile.TemporaryDirectory(prefix="inference-consumer-demo-") as name:
        directory = Path(name)
        console.print("[bold]1[/] training three classifiers on handwritten digits")
        training = subprocess.Popen(
            [sys.executable, "-m", "consumer.demo.training", str(directory)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            with _broker(options.broker) as broker:
                printed = training.communicate()[0].strip()
                console.print("".join(f"  {line}\n" for line in printed.splitlines()), end="", markup=False)
                if training.returncode != 0:
                    console.print("[red]the training failed")
                    return 1
                console.print(f"[bold]2[/] broker: {escape(broker.reason)}")
                return _serve(broker, directory, _Run(sendings, tally, options.rate, console))
        finally:
            training.kill()
            training.wait()


def _broker(wanted: brokers.Kind | None) -> brokers.Broker:
    try:
        return brokers.start(wanted)
    except brokers.BrokerError as error:
        raise BrokerError(str(error)) from error


@dataclass(frozen=True, slots=True)
class _Run:
    """What the steps after the preparation share."""

    sendings: Sequence[Sending]
    tally: Tally
    rate: float
    console: Console


def _serve(broker: brokers.Broker, directory: Path, run: _Run) -> int:
    """Serve the models, send everything, read everything, stop, and judge."""
    names = Names(f"demo-{uuid.uuid4().hex[:8]}")
    traffic.create_requests(broker, names)
    service = Service(directory, configuration(broker, names, free_port()))
    try:
        run.console.print(f"[bold]3[/] the consumer with {len(run.tally.books)} models in two workers")
        service.wait_ready()
        run.console.print(f"[bold]4[/] {len(run.sendings):,} records, keyed by model ID, some of them broken")
        ends, problems = _exchange(broker, names, service, run)
        code = service.stop()
        if code != 0:
            problems.append(f"the consumer ended with exit code {code}{service.quote()}")
        offsets = list(zip(traffic.committed(broker, names), ends, strict=True))
    except ServiceError as error:
        run.console.print(f"[red]{escape(str(error))}")
        return 1
    finally:
        service.stop()
        if broker.kind is brokers.Kind.GIVEN:
            traffic.delete_topics(broker, names)
    return _judge(run, problems, offsets)


def _exchange(broker: brokers.Broker, names: Names, service: Service, run: _Run) -> tuple[list[int], list[str]]:
    """Send and read until every record has its outcome, or nothing comes any more.

    Returns:
        The end of each partition, and what went wrong.
    """
    reader = traffic.Reader(broker, names, run.tally)
    sender = traffic.Sender(broker, names.requests, run.sendings, run.rate, run.tally)
    with show.Display(run.console, run.tally) as display:
        sender.start()
        moved_at_s = time.monotonic()
        while run.tally.missing and time.monotonic() - moved_at_s < PATIENCE_S:
            if reader.read(0.1) or sender.is_alive():
                moved_at_s = time.monotonic()
            service.check_running()
            display.refresh()
        sender.join()
    reader.close()
    undelivered = len(run.sendings) - sender.delivered
    return sender.ends, [f"the broker did not take {undelivered} records"] if undelivered else []


def _judge(run: _Run, problems: list[str], offsets: Sequence[tuple[int, int]]) -> int:
    """Print the tables and the verdict."""
    tally, console = run.tally, run.console
    for table in (show.models_table(tally.summaries()), show.letters_table(tally), show.offsets_table(offsets)):
        console.print()
        console.print(table)
    problems += tally.problems
    problems += [
        f"partition {partition}: committed {committed}, and its end is {end}"
        for partition, (committed, end) in enumerate(offsets)
        if committed != end
    ]
    if tally.missing:
        named = ", ".join(list(tally.missing)[:5])
        problems.append(f"{len(tally.missing)} of {len(run.sendings)} records have no outcome: {named} ...")
    if tally.duplicates:
        console.print(f"{tally.duplicates} outcomes came twice, which at-least-once delivery allows")
    for problem in problems:
        console.print(f"[red]{escape(problem)}")
    if not problems:
        console.print(f"\n[green]All {len(run.sendings):,} records have their outcome, and every offset is committed.")
    return 1 if problems else 0
