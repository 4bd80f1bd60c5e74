"""Runs the program, and tells where its supervisor's CPU time went.

    python -m benchmarks.sampler OUT ARGUMENTS...

Owns the samples. A timer interrupts the process after each millisecond of its CPU time; what the main thread, and no
other, has used since the sample before is put down to the function of the program that it is in. What a client's call
takes counts for the function that calls. The client's own threads are told apart, by the kernel's account of them.
"""

import json
import os
import signal
import sys
import threading
import time
from collections import defaultdict
from pathlib import Path
from types import FrameType

from consumer.cli import main as program

INTERVAL_S = 0.001
OURS = ("consumer.", "schemas.")
LOOP = "Loop.run"
"""Only what is called by it counts: not what the start takes."""


def place(frame: FrameType | None) -> str | None:
    """Name the innermost function of the program that a frame belongs to; None outside of the supervisor's loop."""
    found = None
    while frame is not None:
        module, name = str(frame.f_globals.get("__name__")), frame.f_code.co_qualname
        if found is None and module.startswith(OURS):
            found = f"{module}.{name}"
        if name == LOOP:
            return found
        frame = frame.f_back
    return None


class Sampler:
    """The samples so far."""

    def __init__(self) -> None:
        """Begin."""
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._last_s = time.thread_time()

    def sample(self, _signal: int, frame: FrameType | None) -> None:
        """Put down what the main thread has used since the sample before."""
        now_s = time.thread_time()
        found = place(frame)
        if found is not None:
            self.seconds[found] += now_s - self._last_s
        self._last_s = now_s


def threads() -> dict[str, float]:
    """Read the CPU seconds of all threads but the main one together, by the names that they gave themselves."""
    seconds: defaultdict[str, float] = defaultdict(float)
    for task in Path("/proc/self/task").iterdir():
        if int(task.name) != threading.main_thread().native_id:
            name, _, fields = (task / "stat").read_text().partition("(")[2].rpartition(")")
            user, system = fields.split()[11:13]
            seconds[name] += (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")
    return dict(seconds)


def main() -> None:
    """Run the program to its end, and write the seconds of its functions and threads."""
    out, *arguments = sys.argv[1:]
    sampler = Sampler()
    signal.signal(signal.SIGPROF, sampler.sample)
    signal.setitimer(signal.ITIMER_PROF, INTERVAL_S, INTERVAL_S)
    try:
        program(arguments)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        Path(out).write_text(json.dumps({"functions": sampler.seconds, "threads": threads()}))


if __name__ == "__main__":
    main()
