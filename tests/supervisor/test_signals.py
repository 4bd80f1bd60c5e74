"""Stop signals, real ones."""

import os
import select
import signal
import subprocess
import sys
import threading

import pytest

from consumer.supervisor.signals import StopSignals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_becomes_a_flag(number: signal.Signals) -> None:
    """The first signal is remembered, interrupts nothing and wakes whoever waits; afterwards handlers are as before."""
    before = signal.getsignal(number)
    with StopSignals() as stop:
        assert not stop.requested
        assert select.select([stop], [], [], 0.0)[0] == []
        timer = threading.Timer(0.05, os.kill, (os.getpid(), number))
        timer.start()
        assert select.select([stop], [], [], 20.0)[0] == [stop]
        timer.join()
        assert stop.requested is number
        assert select.select([stop], [], [], 0.0)[0] == [stop], "it stays readable"
    assert signal.getsignal(number) is before


@pytest.mark.parametrize(
    ("first", "second", "exit_code"),
    [(signal.SIGINT, signal.SIGINT, 130), (signal.SIGTERM, signal.SIGINT, 130), (signal.SIGINT, signal.SIGTERM, 143)],
)
def test_the_second_signal_ends_the_program_at_once(first: int, second: int, exit_code: int) -> None:
    """No clean-up, no exit handlers: the program ends with 128 + the number of the second signal."""
    code = f"""
import atexit, os
from consumer.supervisor.signals import StopSignals
atexit.register(print, "cleaned up")
try:
    with StopSignals():
        os.kill(os.getpid(), {int(first)})
        print("still here", flush=True)
        os.kill(os.getpid(), {int(second)})
        print("not reached", flush=True)
finally:
    print("cleaned up", flush=True)
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (exit_code, "still here\n", "")
