"""The machine that was measured on, what disturbed it meanwhile, and what a process of the benchmarks cost itself."""

import os
import platform
import resource
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import psutil

SETTINGS = ("OMP_NUM_THREADS", "OPENBLAS_CORETYPE", "MALLOC_ARENA_MAX")
"""Of the environment, what may change a figure."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a reader has to know before comparing a figure with one of another machine."""

    processor: str
    cores: int
    memory_gb: float
    kernel: str
    python: str
    packages: dict[str, str]
    settings: dict[str, str]


def facts() -> Facts:
    """Look at the machine."""
    return Facts(
        processor=processor(Path("/proc/cpuinfo").read_text()),
        cores=len(os.sched_getaffinity(0)),
        memory_gb=round(psutil.virtual_memory().total / 1e9, 1),
        kernel=platform.release(),
        python=platform.python_version(),
        packages={name: version(name) for name in ("torch", "confluent-kafka", "numpy", "msgpack", "orjson")},
        settings={name: os.environ[name] for name in SETTINGS if name in os.environ},
    )


def processor(cpuinfo: str) -> str:
    """Find the processor's name in /proc/cpuinfo."""
    names = [line.split(":", 1)[1].strip() for line in cpuinfo.splitlines() if line.startswith("model name")]
    return names[0] if names else platform.machine()


def spent() -> dict[str, float]:
    """Tell what this process has cost so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {"cpu_s": used.ru_utime + used.ru_stime, "peak_mb": used.ru_maxrss * 1024 / 1e6}


class Disturbance:
    """Watches over a stretch of time how much of the machine went elsewhere."""

    def __init__(self) -> None:
        self._before = psutil.cpu_times()

    def since(self) -> dict[str, float]:
        """Return the share of CPU time stolen by other machines, the share left idle, and the load."""
        now = psutil.cpu_times()
        spent = sum(now) - sum(self._before)
        return {
            "steal_share": round((now.steal - self._before.steal) / spent, 4) if spent else 0.0,
            "idle_share": round((now.idle - self._before.idle) / spent, 4) if spent else 0.0,
            "load_1m": round(os.getloadavg()[0], 2),
        }
