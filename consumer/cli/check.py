"""`check`: everything that `run` needs, tried before it matters.

Owns the order of the checks, the table and the exit code. Loads every model once in a worker's surroundings
(`examine`), reaches the broker, looks at topics. Changes nothing anywhere.
"""

import os
import pickle
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from typing import IO

import orjson
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from consumer.app import Topics
from consumer.cli.examine import Errand, Report
from consumer.cli.options import DEFAULT_CONFIG, ConfigPath
from consumer.config import Settings, load
from consumer.errors import BrokerError, ConfigError, ConsumerError, ExitCode
from consumer.kafka.admin import Admin
from consumer.kafka.settings import compose
from consumer.models.options import ModelOptions
from consumer.worker.device import WorkerSlot, environment, needs_gpu_count, plan, summary
from consumer.worker.hardware import gather
from schemas.topics import TopicTemplates

EXAMINE = "from consumer.cli.examine import main; main()"
"""What the child runs; as a module it would be there twice."""

FILE_WIDTH = 160
"""Columns of the table where no terminal says how many there are."""


class State(Enum):
    """What came of a check; the value is how the table shows it."""

    OK = "[green]ok[/]"
    NOTE = "[yellow]note[/]"
    FAILED = "[red]failed[/]"


@dataclass(frozen=True, slots=True)
class Finding:
    """One row of the table."""

    part: str
    state: State
    text: str
    exit_code: ExitCode = ExitCode.OK


def check(config: ConfigPath = DEFAULT_CONFIG) -> int:
    """Check the configuration, load every model once, reach the broker and look at the topics.

    Prints one table and changes nothing. The exit code is 0 if `run` would work, 2 if the configuration or a model
    cannot be used, 3 if workers cannot boot, 4 if the broker or a topic is not there.
    """
    settings = load(config)
    console = Console()
    if not console.is_terminal:
        console.width = FILE_WIDTH
    findings = [Finding("configuration", State.OK, str(config))]
    with console.status("checking"):
        findings += _workers_and_models(settings)
        findings += _topics(settings)
    table = Table(box=None, pad_edge=False)
    for heading in ("part", "", "finding"):
        table.add_column(heading, overflow="fold")
    for finding in findings:
        table.add_row(finding.part, finding.state.value, escape(finding.text))
    console.print(table)
    return next((finding.exit_code for finding in findings if finding.exit_code is not ExitCode.OK), ExitCode.OK)


def _failed(part: str, error: ConsumerError) -> Finding:
    return Finding(part, State.FAILED, str(error), error.exit_code)


# Workers and models.


def _workers_and_models(settings: Settings) -> Iterator[Finding]:
    """Plan the workers, and load each model in one that may serve it."""
    try:
        facts = gather(with_gpus=needs_gpu_count(settings.workers))
        slots = plan(settings.workers, facts)
    except ConfigError as error:
        yield _failed("workers", error)
        return
    yield Finding("workers", State.OK, summary(slots, facts))
    by_slot: dict[int, list[ModelOptions]] = {}
    for model in settings.models.values():
        by_slot.setdefault(model.workers[0] if model.workers else 0, []).append(model)
    for slot, models in by_slot.items():
        yield from _models(slots[slot], models, settings.python_path)


def _models(slot: WorkerSlot, models: Sequence[ModelOptions], python_path: Sequence[str]) -> Iterator[Finding]:
    """Load models in a child; one that takes the child with it is told, and the others are loaded by the next child."""
    waiting = {model.id: model for model in models}
    while waiting:
        with tempfile.TemporaryFile() as stderr:
            child, reports = _start(Errand(slot=slot, models=list(waiting.values()), python_path=python_path), stderr)
            with reports:
                for line in reports:
                    report: Report = orjson.loads(line)
                    if report["model"] is None:
                        error = f"{slot.device}: {report['error']}"
                        yield Finding("workers", State.FAILED, error, ExitCode.WORKER_BOOT)
                        waiting.clear()
                        break
                    del waiting[report["model"]]
                    yield from _of_model(report)
            exit_code = child.wait()
            if waiting:
                name = next(iter(waiting))
                del waiting[name]
                yield Finding(f"model {name}", State.FAILED, _died(exit_code, stderr), ExitCode.CONFIG)


def _start(errand: Errand, stderr: IO[bytes]) -> tuple[subprocess.Popen[bytes], IO[bytes]]:
    """Start the child; give it and the stream of its reports."""
    receiving, sending = os.pipe()
    try:
        child = subprocess.Popen(
            [sys.executable, "-c", EXAMINE, str(sending)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            pass_fds=[sending],
            env={**os.environ, **environment(errand.slot)},
        )
    finally:
        os.close(sending)
    assert child.stdin is not None, "it was asked for"
    with suppress(BrokenPipeError), child.stdin:  # a child that died already shows itself by its silence
        child.stdin.write(pickle.dumps(errand))
    return child, os.fdopen(receiving, "rb")


def _of_model(report: Report) -> Iterator[Finding]:
    """Write a report as a row, and one more for each note."""
    part = f"model {report['model']}"
    if "error" in report:
        yield Finding(part, State.FAILED, report["error"], ExitCode.CONFIG)
        return
    said = [report["format"], f"version {report['version']}", f"takes {', '.join(report['takes'])}"]
    if report["gives"]:
        said.append(f"gives {', '.join(report['gives'])}")
    said += [report["rows"], f"loaded in {report['load_s']:.1f} s"]
    yield Finding(part, State.OK, "; ".join(said))
    for note in report["notes"]:
        yield Finding(part, State.NOTE, note)


def _died(exit_code: int, stderr: IO[bytes]) -> str:
    """Say how a child ended that should have reported, with the last line that it wrote."""
    stderr.seek(0)
    lines = stderr.read().decode(errors="replace").split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
    how = f"by signal {-exit_code}" if exit_code < 0 else f"with exit code {exit_code}"
    return f"loading it ended the worker's process {how}: {last}"


# The broker and the topics.


def _topics(settings: Settings) -> Iterator[Finding]:
    """Reach the broker, and see that every topic is there or will be."""
    admin = Admin(compose(settings.kafka).admin)
    try:
        topics = admin.topics()
        inputs = Topics(settings, admin).inputs()
    except BrokerError as error:
        yield _failed("broker", error)
        return
    yield Finding("broker", State.OK, f"{settings.kafka['bootstrap.servers']}; topics visible: {len(topics)}")
    for topic in settings.input.topics:
        yield _of_input(topic, inputs, topics)
    templates = TopicTemplates(result=settings.output.result_topic, dead_letter=settings.output.dead_letter_topic)
    for topic in [*map(templates.result_topic, settings.models), *map(templates.dead_letter_topic, inputs)]:
        yield _of_output(topic, topics, is_created=settings.output.create)


def _of_input(topic: str, inputs: Sequence[str], topics: Mapping[str, int]) -> Finding:
    part = f"input {topic}"
    if topic.startswith("^"):
        found = [name for name in inputs if re.match(topic, name) and name in topics]
        if not found:
            return Finding(part, State.NOTE, "no topic matches yet; those that come are read")
        return Finding(part, State.OK, ", ".join(f"{name} with {topics[name]} partitions" for name in found))
    if topic in topics:
        return Finding(part, State.OK, f"{topics[topic]} partitions")
    text = "there is no such topic: create it, or correct input.topics"
    return Finding(part, State.FAILED, text, ExitCode.BROKER)


def _of_output(topic: str, topics: Mapping[str, int], *, is_created: bool) -> Finding:
    part = f"output {topic}"
    if topic in topics:
        return Finding(part, State.OK, f"{topics[topic]} partitions")
    if is_created:
        return Finding(part, State.OK, "will be created")
    text = "there is no such topic: create it, or set output.create: true"
    return Finding(part, State.FAILED, text, ExitCode.BROKER)
