"""What the program has resident at full load, beside a process that has torch and the network alone.

Such a process loads the same file as the worker: torch imports much more for that than to run a module. Shared memory
is left out, since the ring between supervisor and worker would count for both.
"""

import subprocess
import sys

from benchmarks import EXPORTED
from benchmarks.intervals import interval
from benchmarks.plans import Outcome
from benchmarks.runner import Lab

BARE = """
import sys
import torch
torch.set_num_threads(1)
torch.set_num_interop_threads(1)
def resident():
    return int(open("/proc/self/status").read().split("VmRSS:")[1].split()[0])
torch.zeros(1) + 1
print(resident())
network = torch.export.load(sys.argv[1]).module()
with torch.inference_mode():
    network(torch.zeros(512, 784))
print(resident())
"""


def resident(lab: Lab, outcome: Outcome) -> None:
    """Compare the resident memory of supervisor and worker with what they may take."""
    runs = lab.runs.get("program", ())
    if not runs:
        return
    outcome.measured["supervisor_mb"] = interval([each.peak_private_mb["supervisor"] for each in runs])
    command = [sys.executable, "-c", BARE, str(lab.directory / EXPORTED)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    imported_mb, ran_mb = (int(each) * 1024 / 1e6 for each in printed.split())
    outcome.ceilings["a process with torch alone, resident MB"] = {
        "imported": imported_mb,
        "has run the network": ran_mb,
    }
    outcome.measured["worker_extra_mb"] = interval([each.peak_private_mb["workers"] - ran_mb for each in runs])
