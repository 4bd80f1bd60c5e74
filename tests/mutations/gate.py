"""Brings one bug at a time into a copy of the tree and sees whether the tests notice.

Owns the copy, the runs of pytest in it and the verdict on each. Must not know what the bugs are.

A verdict is worth something only if the same tests pass without the bug: they run once in the untouched copy first, and
whatever is not green there is told and ends the gate. A bug counts as *caught* only by a test that failed, or by one
that ran out of time; a copy that cannot even be imported proves nothing about the tests, so that is *unproven*, like
tests of which none ran.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from tests.mutations.catalogue import ROOT, Mutant

COPIED = ("consumer", "schemas", "tests", "pyproject.toml", "constraints.txt", "Makefile", "README.md", "LICENSE")
SCHEDULES = "64"
"""Schedules of the simulation for each bug: those it catches, it catches within the first few."""
TIMEOUT_S = 600.0
"""For all tests of one bug."""
UNTOUCHED_TIMEOUT_S = 3600.0
"""For all tests without any bug."""


class Verdict(StrEnum):
    """What became of a bug."""

    CAUGHT = "caught"
    SURVIVED = "SURVIVED"
    UNPROVEN = "UNPROVEN"


@dataclass(frozen=True, slots=True)
class Finding:
    """A verdict, and what it rests on."""

    verdict: Verdict
    by: str
    """The test that failed first; else why there is none."""
    message: str = ""
    """What that test said."""


@dataclass(frozen=True, slots=True)
class Run:
    """One run of pytest."""

    exit_code: int | None
    """None where it took too long."""
    passed: int
    failures: Sequence[tuple[str, str]]
    """Tests that failed, each with its message."""
    output: str


class Tree:
    """A copy of the tree in which bugs come and go."""

    def __init__(self, directory: Path, environment: Mapping[str, str]) -> None:
        """Copy the tree as it lies here, uncommitted changes included; `environment` adds to that of the tests."""
        self.directory = directory
        self._environment = {
            **os.environ,
            # The copy, never the checkout that the environment's editable install points to.
            "PYTHONPATH": str(directory),
            "PYTHONDONTWRITEBYTECODE": "1",
            "SIMULATION_SCHEDULES": SCHEDULES,
            **environment,
        }
        ignored = shutil.ignore_patterns("__pycache__", "*.egg-info", ".*")
        for name in COPIED:
            origin = ROOT / name
            if origin.is_dir():
                shutil.copytree(origin, directory / name, ignore=ignored)
            else:
                shutil.copy(origin, directory / name)
        found = self._python("-c", "import consumer, schemas; print(consumer.__file__, schemas.__file__)").stdout
        inside = [Path(each).is_relative_to(directory) for each in found.split()]
        assert inside == [True, True], f"the tests would import another tree: {found}"

    def test(self, tests: Iterable[str], *, is_first_enough: bool) -> Run:
        """Run tests; with `is_first_enough` up to the first that fails."""
        report = self.directory / "report.xml"
        report.unlink(missing_ok=True)
        arguments = [
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "--tb=short",
            f"--junit-xml={report}",
        ]
        arguments += ["-x"] if is_first_enough else []
        try:
            done = self._python(*arguments, *tests, timeout_s=TIMEOUT_S if is_first_enough else UNTOUCHED_TIMEOUT_S)
        except subprocess.TimeoutExpired as error:
            output = error.stdout.decode(errors="replace") if isinstance(error.stdout, bytes) else ""
            return Run(None, 0, [], output)
        passed, failures = _read(report) if report.exists() else (0, [])
        return Run(done.returncode, passed, failures, done.stdout)

    def judge(self, mutant: Mutant) -> Finding:
        """Bring a bug in, run its tests, and take it out again."""
        path = self.directory / mutant.path
        source = path.read_text()
        path.write_text(mutant.applied(source))
        try:
            return verdict(self.test(mutant.tests, is_first_enough=True))
        finally:
            path.write_text(source)

    def _python(self, *arguments: str, timeout_s: float = TIMEOUT_S) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=self.directory,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=timeout_s,
        )


def temporary_directory() -> tempfile.TemporaryDirectory[str]:
    """Make the place for a copy."""
    return tempfile.TemporaryDirectory(prefix="inference-consumer-mutants-")


def verdict(run: Run) -> Finding:
    """Say what a run with a bug in it means."""
    if run.exit_code is None:
        return Finding(Verdict.CAUGHT, f"no end within {TIMEOUT_S:.0f} s")
    if run.exit_code == 1 and run.failures:
        return Finding(Verdict.CAUGHT, *run.failures[0])
    if run.exit_code == 1 and "Timeout" in run.output:
        return Finding(Verdict.CAUGHT, "a test that ran out of time")
    if run.exit_code == 0 and run.passed:
        return Finding(Verdict.SURVIVED, f"{run.passed} tests passed")
    lines = run.output.strip().splitlines()
    return Finding(Verdict.UNPROVEN, lines[-1] if lines else f"pytest ended with {run.exit_code}")


def _read(report: Path) -> tuple[int, list[tuple[str, str]]]:
    """Count the tests that passed, and list those that failed (not those that could not be set up)."""
    passed, failures = 0, []
    for case in ET.parse(report).getroot().iter("testcase"):
        failure = case.find("failure")
        if failure is not None:
            name = f"{case.get('classname', '').rpartition('.')[2]}::{case.get('name')}"
            failures.append((name, " ".join((failure.get("message") or "").split())))
        elif case.find("error") is None and case.find("skipped") is None:
            passed += 1
    return passed, failures
