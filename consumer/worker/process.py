"""A worker's process, from its first line to its exit code.

Owns the order in which a worker comes up (parent watched, code found, device pinned, torch imported) and what its end
means. Must not know batches or models. Imported by the supervisor, too, so torch comes only inside `main`.
"""

import ctypes
import faulthandler
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing import parent_process
from typing import Final, NoReturn

from consumer.core.types import ModelId
from consumer.errors import ExitCode
from consumer.models.options import ModelOptions
from consumer.transport.board import TRACE_SIGNAL
from consumer.transport.controls import BootFailed, Ready
from consumer.transport.ends import WorkerEnds
from consumer.transport.worker_end import WorkerEnd
from consumer.worker.device import WorkerSlot, pin
from schemas.codecs import MSGPACK

EXIT_DEVICE_LOST: Final = 70
"""The device does not answer any more; a new process may use it again."""

_PR_SET_PDEATHSIG: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSpec:
    """What a worker is started with. Whoever starts it also sets `device.environment(slot)` before."""

    slot: WorkerSlot
    models: Mapping[ModelId, ModelOptions]
    """Every model that the worker may be asked to load."""
    python_path: tuple[str, ...] = ()
    """Directories in which the models' code is looked for first."""
    content_type: str = MSGPACK
    """What records are that do not say it themselves."""
    memory_bytes_max: int | None = None
    """Resident memory of the process after which another one takes its place; None for any."""


def main(spec: WorkerSpec, ends: WorkerEnds) -> None:
    """Serve until the supervisor closes its end or is gone; then return.

    Raises:
        SystemExit: with `ExitCode.WORKER_BOOT` where a restart would not help, `EXIT_DEVICE_LOST` where it would.
    """
    _die_with_parent()
    end = WorkerEnd(ends)
    faulthandler.enable(end.board.traces)
    faulthandler.register(TRACE_SIGNAL, end.board.traces, all_threads=True, chain=False)
    try:
        _boot(spec, end)
        _serve(spec, end)
    except EOFError:
        end.close()
        _leave(ExitCode.OK)


def _boot(spec: WorkerSpec, end: WorkerEnd) -> None:
    """Pin the process, then import torch; what fails here fails again."""
    try:
        sys.path[:0] = spec.python_path
        pin(spec.slot)
        import torch

        torch.zeros(1, device=spec.slot.torch_device)  # a device that is there but does not work shows itself here
    except Exception as error:  # noqa: BLE001 - drivers and libraries fail in many ways
        first = next(iter(str(error).splitlines()), "")
        end.send(BootFailed(f"{spec.slot.device}: {type(error).__name__}: {first}"))
        _leave(ExitCode.WORKER_BOOT)
    end.send(Ready(spec.slot.device))


def _serve(spec: WorkerSpec, end: WorkerEnd) -> None:
    """Run the loop."""
    from consumer.worker.failures import DeviceLostError
    from consumer.worker.loop import Loop, OutgrownError

    try:
        Loop(
            end,
            spec.models,
            spec.slot.torch_device,
            spec.content_type,
            spec.memory_bytes_max,
            has_spare_core=spec.slot.has_spare_core,
        ).run()
    except OutgrownError as error:
        sys.stderr.write(f"worker: {spec.slot.device} gets a new process: {error}\n")
        _leave(ExitCode.OK)
    except DeviceLostError as error:
        sys.stderr.write(f"worker: {spec.slot.device} is lost: {error}\n")
        _leave(EXIT_DEVICE_LOST)


def _die_with_parent() -> None:
    """Have the kernel end this process when its parent ends, however: a long batch would not notice.

    To the kernel the parent is the thread that started this process, which is the supervisor's main one. Elsewhere than
    on Linux the closed channel alone ends a worker, after the batch that it runs.
    """
    parent = parent_process()
    if parent is None or not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent.pid:
        _leave(ExitCode.OK)  # it had ended before it was watched


def _leave(code: int) -> NoReturn:
    """End the process without the interpreter's own way out, which a thread that loads a model can crash."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
