"""How a worker's process comes into being.

Owns everything around the start of a spawned process: its environment, its arguments, its signals, and that the program
that starts it is not run again inside. Must not know what the process does then. Nothing is ever forked: the Kafka
client's and torch's threads would not survive it.
"""

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.context import SpawnProcess
from types import ModuleType
from typing import TypeVar

from consumer.transport.ends import WorkerEnds
from consumer.transport.memory import Parcel

Spec = TypeVar("Spec")

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""Ctrl-C and service managers reach the whole process group; a worker ends by end of file instead."""


def spawn(
    entry: Callable[[Spec, WorkerEnds], None],
    spec: Spec,
    ends: WorkerEnds,
    *,
    environment: Mapping[str, str],
    name: str,
) -> SpawnProcess:
    """Start a process that calls `entry(spec, ends)` and ends with it. Call from the main thread.

    Args:
        entry: A function of a module that the child can import; what that module imports, the child imports.
        spec: Anything that can be pickled.
        ends: What the worker talks through.
        environment: Set in the child before its interpreter starts, beside what this process has.
        name: Shown in tracebacks.

    Raises:
        OSError: No process, descriptor or memory is left.
    """
    parcel = Parcel(spec)
    try:
        process = multiprocessing.get_context("spawn").Process(target=_enter, args=(entry, parcel, ends), name=name)
        resource_tracker.ensure_running()  # its own start would unblock the signals again
        with _signals_blocked(), _environment(environment), _no_main_module():
            process.start()
    finally:
        parcel.close()
    return process


def _enter(entry: Callable[[Spec, WorkerEnds], None], parcel: Parcel[Spec], ends: WorkerEnds) -> None:
    """Run in the child, which was born with the stop signals blocked: ignore them before they can arrive."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    entry(parcel.open(), ends)


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """Keep the stop signals pending; a child inherits that, so none ends it while it boots."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _no_main_module() -> Iterator[None]:
    """Hide the main module: a spawned child would import it, and with it the command line and the Kafka client."""
    before = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = before
