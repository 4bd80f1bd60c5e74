"""The mutation gate: `python -m tests.mutations [NAME ...]`.

Brings each classic bug back, in a copy of the tree, and tells which test notices. Exit code 0: every one is caught; 1:
one survived, or nothing can be said of it; 2: the tests are not green without any bug, so that nothing can be said.
"""

import argparse
import contextlib
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

from consumer.demo.broker import BrokerError, Feature, start
from tests.mutations.catalogue import MUTANTS, Mutant
from tests.mutations.gate import Finding, Run, Tree, Verdict, temporary_directory


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the gate; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutations", description="The mutation gate.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="bugs to bring back (default: all)")
    parser.add_argument("--list", action="store_true", help="list them and end")
    parser.add_argument("--no-broker", action="store_true", help="leave those out that only a broker's tests can catch")
    options = parser.parse_args(arguments)
    unknown = set(options.names) - {each.name for each in MUTANTS}
    if unknown:
        parser.error(f"no such bug: {', '.join(sorted(unknown))}")
    chosen = [each for each in MUTANTS if not options.names or each.name in options.names]
    if options.list:
        for each in chosen:
            _say(f"{each.name:26} {each.promise}  {each.bug}")
        return 0
    if options.no_broker:
        chosen = [each for each in chosen if not each.needs_broker]
    with contextlib.ExitStack() as stack:
        environment = {"CI": ""}
        if any(each.needs_broker for each in chosen):
            try:
                broker = stack.enter_context(start())
            except BrokerError as error:
                _say(f"no broker: {error}")
                return 2
            if broker.lacks & {Feature.TOPIC_LIMITS, Feature.COMMIT_METADATA}:
                _say(f"{broker.reason} is not enough for some tests; a real Apache Kafka is needed, or --no-broker")
                return 2
            environment["KAFKA_BOOTSTRAP_SERVERS"] = broker.bootstrap_servers
        tree = Tree(Path(stack.enter_context(temporary_directory())), environment)
        return _judge_all(tree, chosen)


class Judging(Protocol):
    """A tree in which tests run, with a bug and without."""

    def test(self, tests: Iterable[str], *, is_first_enough: bool) -> Run:
        """Run tests without any bug."""

    def judge(self, mutant: Mutant) -> Finding:
        """Run a bug's tests with the bug."""


def _judge_all(tree: Judging, chosen: Sequence[Mutant]) -> int:
    """See that the tests are green, then that each bug turns them red."""
    tests = list(dict.fromkeys(test for each in chosen for test in each.tests))
    began_s = time.monotonic()
    untouched = tree.test(tests, is_first_enough=False)
    if untouched.exit_code != 0 or not untouched.passed:
        _say(untouched.output[-6000:])
        _say("the tests are not green without any bug: nothing can be said")
        return 2
    _say(f"{untouched.passed} tests pass without any bug ({time.monotonic() - began_s:.0f} s)")
    findings: dict[str, Finding] = {}
    for each in chosen:
        began_s = time.monotonic()
        found = findings[each.name] = tree.judge(each)
        _say(f"{found.verdict:9} {each.name:26} {each.promise}  {found.by}  ({time.monotonic() - began_s:.0f} s)")
        if found.message:
            _say(f"{'':39} {found.message[:160]}")
    missed = [name for name, found in findings.items() if found.verdict is not Verdict.CAUGHT]
    _say(f"{len(findings) - len(missed)} of {len(findings)} bugs caught")
    for name in missed:
        _say(f"not caught: {name}")
    return 1 if missed else 0


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - the gate's report


if __name__ == "__main__":
    sys.exit(main())
