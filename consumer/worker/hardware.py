"""What the machine, the container and the environment grant this program.

Owns reading: CPU affinity, cgroup quotas (versions 1 and 2), the memory limit, and the count of GPUs, for which a
short-lived child imports torch so that the supervisor never does. Must not decide what is made of it.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from consumer.errors import ConfigError

_PROBE = """
import ctypes, os, sys
def has_driver():
    if os.path.exists("/dev/kfd"):
        return True
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True
count = 0
if has_driver():  # without one, torch need not be imported to know
    import torch
    count = torch.cuda.device_count()
print("gpus:", count)
"""
_PROBE_TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What there is to share among workers."""

    cores: tuple[int, ...]
    """The cores that this process may run on."""
    quota: float | None = None
    """Cores' worth of time that the cgroup grants; None: no quota."""
    memory_bytes: int | None = None
    """The cgroup's memory limit, or the machine's memory where that is less."""
    gpus: int | None = None
    """The GPUs that a process with this environment sees; None: not counted."""
    visible_devices: str | None = None
    """CUDA_VISIBLE_DEVICES as inherited; None: not set."""


def gather(*, with_gpus: bool) -> Facts:
    """Read the facts; counting GPUs takes a child process and seconds.

    Raises:
        ConfigError: the child that counts GPUs failed.
    """
    return Facts(
        cores=cores(),
        quota=cpu_quota(),
        memory_bytes=memory_limit(),
        gpus=count_gpus() if with_gpus else None,
        visible_devices=os.environ.get("CUDA_VISIBLE_DEVICES"),
    )


def cores() -> tuple[int, ...]:
    """Name the cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def cpu_quota(root: Path = Path("/")) -> float | None:
    """Read how many cores' worth of time the cgroup and those around it grant; None: as much as there is."""
    quotas: list[float] = []
    for folder in _cgroups(root, "cpu"):
        words = _words(folder / "cpu.max") or _words(folder / "cpu.cfs_quota_us") + _words(folder / "cpu.cfs_period_us")
        if len(words) == 2 and words[0].isdigit():  # noqa: PLR2004  # quota and period; "max" and -1 mean none
            quotas.append(int(words[0]) / int(words[1]))
    return min(quotas, default=None)


def memory_limit(root: Path = Path("/")) -> int | None:
    """Read the memory that this program may use in bytes: the tightest cgroup limit, at most the machine's memory."""
    limits = [
        int(words[0])
        for folder in _cgroups(root, "memory")
        if (words := _words(folder / "memory.max") or _words(folder / "memory.limit_in_bytes")) and words[0].isdigit()
    ]
    kilobytes = [line.split()[1] for line in _lines(root / "proc/meminfo") if line.startswith("MemTotal:")]
    limits += [int(size) * 1024 for size in kilobytes]
    return min(limits, default=None)


def count_gpus(timeout_s: float = _PROBE_TIMEOUT_S) -> int:
    """Count the GPUs that torch sees in a process with this environment.

    Raises:
        ConfigError: the child that counts ended with an error, or not in time.
    """
    try:
        probe = subprocess.run(
            [sys.executable, "-c", _PROBE], capture_output=True, text=True, timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired:
        raise ConfigError(f"workers: auto: counting the GPUs took longer than {timeout_s:g} s; list workers") from None
    for line in probe.stdout.splitlines():
        if line.startswith("gpus: "):
            return int(line.removeprefix("gpus: "))
    last = (probe.stderr.strip().splitlines() or [f"exit code {probe.returncode}"])[-1]
    raise ConfigError(f"workers: auto: counting the GPUs failed ({last}); list workers, or set CUDA_VISIBLE_DEVICES")


def _cgroups(root: Path, controller: str) -> Iterator[Path]:
    """Name the folders of this process' cgroup and of those around it, for one controller."""
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        top = root / "sys/fs/cgroup" / (controller if controllers else "")
        inner = top / path.lstrip("/")
        # Inside a container the path may be the host's: then only the folders that do exist count, the top among them.
        yield from (folder for folder in (inner, *inner.parents) if folder.is_relative_to(top))


def _lines(path: Path) -> list[str]:
    """Read a file that may be missing."""
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


def _words(path: Path) -> list[str]:
    """Read the words of a file that may be missing."""
    return " ".join(_lines(path)).split()
