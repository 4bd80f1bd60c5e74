"""Which worker gets which device, cores and threads.

Owns the plan, a pure decision over facts, and what a worker does with its part of it: the environment to start with
and the pinning that comes before torch is imported. Must not import torch before that.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal, TypeAlias

from annotated_types import Ge

from consumer.errors import ConfigError
from consumer.worker.hardware import Facts

CPU = "cpu"
AUTO_WORKERS_MAX = 8
WORKER_BYTES = 512 * 1024 * 1024
"""What a worker takes before any model: torch's libraries alone are 505 MB resident."""

CORES_TO_SPARE = 2
"""Cores of a worker that decodes while its model computes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerOptions:
    """A group of equal workers."""

    device: str = CPU
    """`cpu`, or `cuda:N`: the N-th device that CUDA_VISIBLE_DEVICES (an index, UUID or MIG instance) lets through."""
    count: Annotated[int, Ge(1)] = 1
    """Worker processes of this group; on a GPU they share it."""
    threads: Annotated[int, Ge(1)] | None = None
    """Threads that a worker computes one operation with, at most and by default as many as it has cores."""
    cores: tuple[Annotated[int, Ge(0)], ...] | None = None
    """The cores that the group's workers divide among themselves; by default an even share of what is left. A worker
    with more than one decodes and encodes while its model computes, where the supervisor has one, too."""


WorkersOptions: TypeAlias = Literal["auto"] | tuple[WorkerOptions, ...]
"""The workers to run, or `auto`: one per visible GPU, else one per core with one thread each, at most eight and no
more than fit half the memory limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSlot:
    """One worker's place."""

    index: int
    device: str
    """As configured, `cpu` or `cuda:N`; inside the worker see `torch_device`."""
    visible_devices: str = ""
    """The worker's CUDA_VISIBLE_DEVICES: one device, or none."""
    cores: tuple[int, ...] = ()
    """The cores it is pinned to; empty: wherever the system puts it."""
    threads: int = 1
    has_spare_core: bool = False
    """Whether a second thread of the worker finds a core, beside the one that computes or waits for a device."""

    @property
    def torch_device(self) -> str:
        """The device's name inside the worker, which sees one GPU at most."""
        return CPU if self.device == CPU else "cuda:0"


def needs_gpu_count(workers: WorkersOptions) -> bool:
    """Tell whether the plan depends on the GPUs that there are."""
    return workers == "auto" or any(group.device != CPU for group in workers)


def plan(workers: WorkersOptions, facts: Facts) -> tuple[WorkerSlot, ...]:
    """Give every worker its device, cores and threads.

    Raises:
        ConfigError: a device that is not there, cores that this process may not use, or more threads than cores.
    """
    gpus = visible(facts)
    groups = _auto(facts, len(gpus)) if workers == "auto" else workers
    problems = [*_problems(groups, facts, gpus)]
    if problems:
        raise ConfigError(*problems)
    is_rationed = _is_rationed(facts)
    # The supervisor needs one as well: on a machine that is busy with both, a worker's two threads only take turns.
    has_enough = _usable(facts) > CORES_TO_SPARE * _count(groups)
    slots: list[WorkerSlot] = []
    for at, (group, shares) in enumerate(zip(groups, _shares(groups, facts), strict=True)):
        for share in shares:
            device = "" if group.device == CPU else gpus[_index(group.device)]
            most = max(1, _usable(facts) // _count(groups)) if is_rationed else len(share)
            threads = group.threads or most
            if threads > most:
                # More of them than cores wait for each other: slower than fewer, and slower for the other workers.
                raise ConfigError(
                    f"workers[{at}].threads: {threads} is more than the cores of a worker; at most {most}"
                )
            slots.append(
                WorkerSlot(
                    index=len(slots),
                    device=group.device,
                    visible_devices=device,
                    cores=share,
                    threads=threads,
                    has_spare_core=has_enough and most >= CORES_TO_SPARE,
                )
            )
    # A quota is time, not cores: pinned to the same first cores, all containers of a machine would share these.
    return tuple(replace(slot, cores=()) if is_rationed else slot for slot in slots)


def visible(facts: Facts) -> tuple[str, ...]:
    """Name the visible GPUs, as CUDA_VISIBLE_DEVICES would name each alone."""
    found = facts.gpus or 0
    if facts.visible_devices is None:
        return tuple(str(index) for index in range(found))
    names = [name.strip() for name in facts.visible_devices.split(",")]
    if any(name.startswith("MIG-") for name in names):
        # A process sees one MIG instance, the first: the count says nothing about the others.
        return tuple(name for name in names if name) if found else ()
    return tuple(names[:found])


def environment(slot: WorkerSlot) -> dict[str, str]:
    """Give the variables that a worker's process is started with, before anything is imported there."""
    threads = str(slot.threads)
    return {
        "CUDA_VISIBLE_DEVICES": slot.visible_devices,
        "OMP_NUM_THREADS": threads,
        "OPENBLAS_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        # torch.export.load falls back to unpickling anything; this stops it (see loaders/exported.py).
        "TORCH_FORCE_WEIGHTS_ONLY_LOAD": "1",
        # glibc gives the memory of every large batch back and the kernel clears its pages anew for the next one, which
        # doubles a small model's cost at 1,024 records of 3 KB (0.8 page faults a record); kept pages cost nothing.
        "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20),
        "MALLOC_TRIM_THRESHOLD_": str(512 * 2**20),
        "MALLOC_TOP_PAD_": str(32 * 2**20),
    }


def pin(slot: WorkerSlot) -> None:
    """Pin this process to its cores, then import torch and set its threads."""
    assert "torch" not in sys.modules, "threads inherit the cores of the one that starts them: pin before torch"
    if slot.cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, slot.cores)
    import torch

    torch.set_num_threads(slot.threads)
    # One operation at a time runs in a worker. The environment does not set this: it stays at 2 even with one core.
    torch.set_num_interop_threads(1)


def summary(slots: Sequence[WorkerSlot], facts: Facts) -> str:
    """Say in one line what the plan makes of the machine."""
    devices = {slot.device: sum(other.device == slot.device for other in slots) for slot in slots}
    threads = sum(slot.threads for slot in slots)
    parts = [f"{count} on {device}" for device, count in devices.items()]
    cores = f"{threads} threads on {_usable(facts)} cores"
    if _is_rationed(facts):
        cores += f" ({facts.quota:g} of {len(facts.cores)} by cgroup quota, not pinned)"
    line = f"{len(slots)} workers ({', '.join(parts)}), {cores}"
    if facts.memory_bytes is not None:
        need, limit = (size / 2**30 for size in (len(slots) * WORKER_BYTES, facts.memory_bytes))
        line += f", {need:.1f} GiB of {limit:.1f} GiB before any model"
    return line


def _auto(facts: Facts, gpus: int) -> tuple[WorkerOptions, ...]:
    """Choose the workers where the configuration leaves it open."""
    if gpus:
        return tuple(WorkerOptions(device=f"cuda:{index}") for index in range(gpus))
    fitting = AUTO_WORKERS_MAX if facts.memory_bytes is None else facts.memory_bytes // 2 // WORKER_BYTES
    return (WorkerOptions(count=max(1, min(_usable(facts), AUTO_WORKERS_MAX, fitting)), threads=1),)


def _problems(groups: Sequence[WorkerOptions], facts: Facts, gpus: Sequence[str]) -> Iterator[str]:
    """Say what the configuration asks for and the machine does not have."""
    if not groups:
        yield "workers: is empty; list at least one worker, or say auto"
    for at, group in enumerate(groups):
        if group.device != CPU:
            index = _index(group.device)
            if index < 0:
                yield f"workers[{at}].device: {group.device!r} is neither cpu nor cuda:N"
            elif index >= len(gpus):
                there = f"cuda:0 to cuda:{len(gpus) - 1}" if gpus else "no GPU"
                yield f"workers[{at}].device: {group.device} is not visible; visible: {there}"
        foreign = sorted(set(group.cores or ()) - set(facts.cores))
        if foreign or group.cores == ():
            allowed = ", ".join(map(str, facts.cores))
            yield f"workers[{at}].cores: {foreign or 'none'}: this process may use the cores {allowed}"


def _shares(groups: Sequence[WorkerOptions], facts: Facts) -> list[list[tuple[int, ...]]]:
    """Divide the cores: named ones within their group, the others among the workers of all other groups."""
    named = {core for group in groups for core in group.cores or ()}
    left = [core for core in facts.cores if core not in named] or list(facts.cores)
    common = iter(_divide(left, _count([group for group in groups if group.cores is None])))
    return [
        [next(common) for _ in range(group.count)] if group.cores is None else _divide(sorted(group.cores), group.count)
        for group in groups
    ]


def _divide(cores: Sequence[int], count: int) -> list[tuple[int, ...]]:
    """Cut cores into contiguous, even shares; where there are more workers than cores, they take turns."""
    if count > len(cores):
        return [(cores[index % len(cores)],) for index in range(count)]
    return [tuple(cores[len(cores) * at // count : len(cores) * (at + 1) // count]) for at in range(count)]


def _usable(facts: Facts) -> int:
    """Count the cores' worth of time that there is."""
    return max(1, min(len(facts.cores), int(facts.quota))) if facts.quota is not None else len(facts.cores)


def _is_rationed(facts: Facts) -> bool:
    """Tell whether a quota grants less than the cores."""
    return facts.quota is not None and facts.quota < len(facts.cores)


def _count(groups: Sequence[WorkerOptions]) -> int:
    """Count the workers of groups."""
    return sum(group.count for group in groups)


def _index(device: str) -> int:
    """Read the N of `cuda:N`; -1 where the name is no such."""
    kind, _, index = device.partition(":")
    return int(index) if kind == "cuda" and index.isdecimal() else -1
