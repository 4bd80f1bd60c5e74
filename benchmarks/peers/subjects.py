"""The peers as subjects: how each is started, and what a crash may do to its records."""

from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks import WEIGHTS
from benchmarks.peers import environments
from benchmarks.peers.environments import UnavailableError
from benchmarks.records import MODEL
from benchmarks.subjects import Command, Run, Subject

JVM = ("-Xms512m", "-Xmx512m", "-XX:+UseParallelGC", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn")
TERMINATED = frozenset({0, 143})
"""How a JVM ends when it is asked to."""
GUARANTEES = {
    "at-least-once": "at least once",
    "exactly-once": "exactly once",
    "none": "commits nothing: a crash loses records",
}


def adapter(start: list[str], model: Path, guarantee: str) -> Command:
    """Start an adapter; all take the same arguments."""

    def command(run: Run) -> list[str]:
        (source,) = run.sources
        state = run.directory / f"{run.name}.state"
        state.mkdir()
        return [*start, run.bootstrap, run.name, source, run.target(MODEL), str(model), guarantee, str(state)]

    return command


def peer(name: str, start: list[str], model: Path, guarantee: str, share: float = 1.0) -> Subject:
    """Name a peer with its guarantee, and with the part of the records that it gets."""
    return Subject(
        name=name if guarantee == "none" else f"{name}-{guarantee}",
        command=adapter(start, model, guarantee),
        role=name,
        semantics=GUARANTEES[guarantee],
        stop_codes=TERMINATED,
        counts_markers=guarantee == "exactly-once",
        commits=guarantee != "none",
        share=share,
    )


NAMES = {
    "java": ("java-at-least-once", "java-exactly-once", "kafka-streams-exactly-once"),
    "quix": ("quix-at-least-once",),
    "mosec": ("mosec-bridge-at-least-once",),
    "mlserver": ("mlserver",),
}
"""The subjects by the environment that they need."""
W1_NAMES = tuple(each for name, subjects in NAMES.items() if name != "mlserver" for each in subjects)
"""Those that take W1's records as they are; MLServer takes JSON."""


def scripted(environment: str, script: str, directory: Path) -> tuple[list[str], Path]:
    """Say how to start a script of ours in an environment, and where the network is for it.

    Raises:
        UnavailableError: the environment cannot be installed.
    """
    model = environments.onnx(environments.python("python"), directory / WEIGHTS)
    return [str(environments.python(environment)), str(environments.HERE / script)], model


def quix(directory: Path) -> list[Subject]:
    """Quix Streams.

    Raises:
        UnavailableError: it cannot be installed.
    """
    start, model = scripted("python", "quix.py", directory)
    return [peer("quix", start, model, "at-least-once", share=0.25)]


def mosec(directory: Path) -> list[Subject]:
    """Mosec behind a bridge.

    Raises:
        UnavailableError: it cannot be installed.
    """
    start, model = scripted("mosec", "mosec_bridge.py", directory)
    return [peer("mosec-bridge", start, model, "at-least-once", share=0.05)]


def mlserver(directory: Path) -> list[Subject]:
    """MLServer's Kafka mode.

    Raises:
        UnavailableError: it cannot be installed.
    """
    start, model = scripted("mlserver", "mlserver_kafka.py", directory)
    return [peer("mlserver", start, model, "none")]


def java(directory: Path) -> list[Subject]:
    """The loop by hand in both modes, and Kafka Streams in its exactly-once mode.

    Raises:
        UnavailableError: they cannot be installed.
    """
    model = environments.onnx(environments.python("python"), directory / WEIGHTS)
    machine = ["java", *JVM, "-cp", environments.java()]
    return [
        peer("java", [*machine, "Loop"], model, "at-least-once"),
        peer("java", [*machine, "Loop"], model, "exactly-once"),
        peer("kafka-streams", [*machine, "Streams"], model, "exactly-once"),
    ]


MAKERS: dict[str, Callable[[Path], list[Subject]]] = {"java": java, "quix": quix, "mosec": mosec, "mlserver": mlserver}


def offered(directory: Path, wanted: Sequence[str]) -> tuple[list[Subject], dict[str, str]]:
    """Make the peers of which a subject is wanted; and why others cannot be had, by subject."""
    made: list[Subject] = []
    reasons: dict[str, str] = {}
    for name, subjects in NAMES.items():
        if not set(wanted) & set(subjects):
            continue
        try:
            made += MAKERS[name](directory)
        except UnavailableError as error:
            reasons |= dict.fromkeys(subjects, str(error))
    return made, reasons
