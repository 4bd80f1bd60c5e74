"""The subjects: what can be measured, and how each is started. Must not know when, or what comes of it."""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from benchmarks.workloads import Workload

KEPT_PAGES = {
    # For glibc what the program asks of it by itself: large blocks come from the heap, and the heap keeps its pages.
    "MALLOC_MMAP_THRESHOLD_": "1073741824",
    "MALLOC_TRIM_THRESHOLD_": "4294967296",
    "MALLOC_TOP_PAD_": "67108864",
}
ROWS = (256, 512, 1024, 2048)
"""The batch sizes that the tuned loop is tried at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What one run works on; its group and its topics are named after it."""

    name: str
    bootstrap: str
    sources: Sequence[str]
    directory: Path

    def target(self, model: str) -> str:
        """Name the topic of a model's results."""
        return f"{self.name}.{model}"


Command = Callable[[Run], list[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """One thing that is measured."""

    name: str
    command: Command
    role: str = "loop"
    """What to call its main process."""
    environment: Mapping[str, str] = field(default_factory=dict)
    semantics: str = "at least once"
    """What a crash may do to its records."""
    stop_codes: frozenset[int] = frozenset({0})
    """How it may end when it is asked to."""
    counts_markers: bool = False
    """Whether its result topics hold the markers of transactions beside results."""
    commits: bool = True
    """Whether it commits offsets; one that does not has done its work when its last result is delivered."""
    share: float = 1.0
    """The part of a workload's records that it gets: one that is much slower needs fewer."""


def loop(kind: str, model: str, *options: str) -> Command:
    """Start a hand-written loop on one model's records."""

    def command(run: Run) -> list[str]:
        (source,) = run.sources
        ends = [run.bootstrap, run.name, source, run.target(model), str(run.directory)]
        return [sys.executable, "-m", "benchmarks.loops", kind, *ends, *options]

    return command


def program(workload: Workload, workers: int, *, exactly_once: bool = False) -> Command:
    """Start the program on a workload, with what its users would write down and no more."""

    def command(run: Run) -> list[str]:
        configuration = {
            "kafka": {"bootstrap.servers": run.bootstrap, "group.id": run.name},
            "delivery": "exactly-once" if exactly_once else "at-least-once",
            "input": {"topics": list(run.sources), "content_type": workload.content_type},
            "output": {"result_topic": run.target("{model}")},
            "models": {name: dict(model) for name, model in workload.models(run.directory).items()},
            # One thread each, as the loops have.
            "workers": [{"device": "cpu", "count": workers, "threads": 1}],
            "http": {"enabled": False},
            **workload.settings,
        }
        path = run.directory / f"{run.name}.yaml"
        path.write_text(yaml.safe_dump(configuration))
        return [sys.executable, "-m", "consumer", "run", "--config", str(path)]

    return command


def tuned(rows: int, model: str) -> Subject:
    """Name the tuned loop at a batch size."""
    return Subject(name=f"tuned-{rows}", command=loop("tuned", model, "--rows", str(rows)))


def programs(workload: Workload, workers: int) -> list[Subject]:
    """The program in both delivery modes."""
    return [
        Subject(name="program", command=program(workload, workers), role="supervisor"),
        Subject(
            name="program-exactly-once",
            command=program(workload, workers, exactly_once=True),
            role="supervisor",
            semantics="exactly once",
            counts_markers=True,
        ),
    ]


def loops(model: str, rows: int) -> list[Subject]:
    """The ceiling and the baselines of W1, the tuned loop at the batch size where it was best."""
    at_best = ("--rows", str(rows))
    loses = "may lose records: its flush is left out"
    return [
        Subject(name="echo", command=loop("echo", model)),
        Subject(name="echo-kept-pages", command=loop("echo", model), environment=KEPT_PAGES),
        Subject(name="simple", command=loop("simple", model, "--rows", "256")),
        Subject(name="tuned", command=loop("tuned", model, *at_best)),
        Subject(name="tuned-kept-pages", command=loop("tuned", model, *at_best), environment=KEPT_PAGES),
        Subject(name="simple-no-flush", command=loop("simple", model, "--rows", "256", "--no-flush"), semantics=loses),
        Subject(name="tuned-no-flush", command=loop("tuned", model, *at_best, "--no-flush"), semantics=loses),
    ]
