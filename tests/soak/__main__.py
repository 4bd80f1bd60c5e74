"""The soak: `python -m tests.soak --minutes 10 --seed 1`, or `--kills 100` for nothing but kills.

Several supervisors serve eight models while members, workers and the broker are killed, frozen and replaced at random.
Prints what was survived; the exit code is 0 if every promise was kept, 1 if one was not, 2 if there is no broker.
"""

import argparse
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from consumer.demo.broker import BrokerError, start
from tests.soak.soak import PROPERTIES, Options, soak


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a soak; return the exit code."""
    defaults = Options()
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description="The soak.")
    parser.add_argument("--minutes", type=float, default=defaults.minutes)
    parser.add_argument(
        "--kills",
        type=int,
        default=0,
        metavar="N",
        help="N times SIGKILL to supervisors and workers, however long it takes",
    )
    parser.add_argument("--seed", type=int, default=defaults.seed, help="equal seeds give equal faults")
    parser.add_argument("--members", type=int, default=defaults.members, help="supervisors")
    parser.add_argument("--workers", type=int, default=defaults.workers, help="worker processes of each (at least 2)")
    parser.add_argument("--rate", type=float, default=defaults.rate, help="records per second")
    parser.add_argument("--gap", type=float, default=defaults.gap_s, help="mean seconds between two faults")
    parser.add_argument("--delivery", choices=["at-least-once", "exactly-once"], default=defaults.delivery)
    parser.add_argument("--report", type=Path, default=None, help="write the figures there, too, as JSON")
    parser.add_argument("--logs", type=Path, default=None, help="keep configurations and logs there")
    given = parser.parse_args(arguments)
    # However it ends, what it started ends with it.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    options = Options(
        seed=given.seed,
        minutes=given.minutes,
        kills=given.kills,
        members=given.members,
        workers=given.workers,
        rate=given.rate,
        gap_s=given.gap,
        delivery=given.delivery,
    )
    with tempfile.TemporaryDirectory(prefix="inference-consumer-soak-") as scratch:
        directory = Path(scratch)
        if given.logs is not None:
            given.logs.mkdir(parents=True, exist_ok=True)
            directory = given.logs
        try:
            broker = start(properties=PROPERTIES)
        except BrokerError as error:
            print(error, file=sys.stderr)  # noqa: T201 - the command's answer
            return 2
        with broker:
            report = soak(options, broker, directory, lambda line: print(line, file=sys.stderr, flush=True))  # noqa: T201
    print("\n".join(report.lines()))  # noqa: T201 - the command's answer
    if given.report is not None:
        report.write(given.report)
    return 1 if report.violations() else 0


if __name__ == "__main__":
    sys.exit(main())
