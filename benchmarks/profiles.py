"""The experiment that tells what stands in the way: where the CPU time of one record goes, at full load.

Owns the run under the sampler and what is told of it. Nothing is compared here, since the sampler has its cost.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from benchmarks import subjects
from benchmarks.plans import Outcome, Plan
from benchmarks.rawtorch import cores
from benchmarks.runner import Lab
from benchmarks.subjects import Command, Run, Subject
from benchmarks.watch import Measurement
from benchmarks.workloads import W1, W1_JSON

FUNCTIONS = 16
"""So many are told one by one; the others together."""


def profile(lab: Lab, plan: Plan, outcome: Outcome) -> None:
    """Profile the program on W1, binary and JSON."""
    for workload, workers, count in ((W1, plan.workers, plan.records), (W1_JSON, cores(), plan.share(200_000))):
        lab.write_networks(workload)
        loaded = lab.load(workload, count)
        path = lab.directory / f"{workload.name}-profile.json"
        subject: Subject = subjects.programs(workload, workers)[0]
        try:
            measured = lab.measure(loaded, replace(subject, command=under_sampler(subject.command, path)))
        finally:
            lab.unload(loaded)
        outcome.profiles[workload.name] = split(measured, json.loads(path.read_text()))


def under_sampler(command: Command, path: Path) -> Command:
    """Start a subject by the sampler, which writes to `path` in the end."""

    def started(run: Run) -> list[str]:
        interpreter, option, program, *arguments = command(run)
        assert (option, program) == ("-m", "consumer"), "the sampler runs the program only"
        return [interpreter, option, "benchmarks.sampler", str(path), *arguments]

    return started


def split(measured: Measurement, seconds: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Split the CPU microseconds of one record: by role, and the supervisor's by thread and function.

    Args:
        measured: the run.
        seconds: what the sampler wrote: CPU seconds of `functions` of the main thread, and of the other `threads`.
    """
    per_record = 1e6 / measured.records
    functions = sorted(seconds["functions"].items(), key=lambda each: -each[1])
    told = {f"  {name}": used * per_record for name, used in functions[:FUNCTIONS]}
    told["  all other functions"] = sum(used for _, used in functions[FUNCTIONS:]) * per_record
    return {
        **measured.cpu_us,
        "supervisor's main thread": sum(used for _, used in functions) * per_record,
        **told,
        "supervisor's other threads (the client's)": sum(seconds["threads"].values()) * per_record,
    }
