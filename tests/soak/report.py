"""What a soak found, for people and for machines.

Owns the figures and what counts as a violation of them. Must not know how they came about.
"""

import json
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.soak.plan import Kind
from tests.soak.vitals import Trend

RECOVERY_S_MAX = 60.0
"""How long it may take from a fault's end until everything that was sent before has its outcome."""


@dataclass(frozen=True, slots=True)
class Survived:
    """One fault and what followed."""

    kind: Kind
    at_s: float
    """Seconds since the epoch."""
    began_s: float
    """Seconds since the faults began."""
    lasted_s: float
    recovery_s: float | None = None
    """From the fault's end until everything that was sent by then had its outcome; None where that did not come."""

    @property
    def span_s(self) -> tuple[float, float]:
        """When it began and when all was well again, in seconds since the epoch."""
        return self.at_s, self.at_s + self.lasted_s + (self.recovery_s or 0.0)


@dataclass(slots=True)
class Report:
    """Everything about one run."""

    seed: int
    minutes: float
    delivery: str
    broker: str
    members: int
    faults: list[Survived] = field(default_factory=list)
    not_done: Counter[str] = field(default_factory=Counter)
    """Faults of the plan for which there was no victim at their time."""
    sent: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    """Results and dead letters, by kind."""
    lost: int = 0
    """Records without an outcome that commits have passed."""
    unanswered: int = 0
    """Records without an outcome that nobody has passed: still to be done when the run was given up."""
    wrong: int = 0
    """Outcomes that are not what the record calls for, and outcomes of records that nobody sent."""
    doubled: int = 0
    doubled_max: int = 0
    unexplained: int = 0
    """Those of the doubled outcomes that no fault explains."""
    samples: int = 0
    """Times that an independent client compared commits with outcomes."""
    settled_s: float | None = None
    """From the end of the load until everything was committed; None where that did not come."""
    trends: list[Trend] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """Violations that were seen while it ran, each in a line."""

    def violations(self) -> list[str]:
        """List everything that must not be."""
        amiss = [
            (self.lost, f"{self.lost} of {self.sent} records are lost"),
            (self.unanswered, f"{self.unanswered} of {self.sent} records wait unanswered"),
            (self.wrong, f"{self.wrong} outcomes are wrong"),
            (self.doubled > self.doubled_max, f"{self.doubled} outcomes too many, {self.doubled_max} allowed"),
            (self.unexplained, f"{self.unexplained} outcomes too many that no fault explains"),
            (not self.sent, "nothing was sent"),
            (not self.samples, "commits were never compared with outcomes"),
            (self.settled_s is None, "the lag did not come back to 0"),
        ]
        found = [*self.notes, *(line for is_amiss, line in amiss if is_amiss)]
        for fault in self.faults:
            if fault.recovery_s is None or fault.recovery_s > RECOVERY_S_MAX:
                took = "never ended" if fault.recovery_s is None else f"took {fault.recovery_s:.1f} s"
                found.append(f"recovery from {fault.kind} at {fault.began_s:.0f} s {took}")
        return found + [violation for each in self.trends for violation in each.violations()]

    def lines(self) -> Iterator[str]:
        """Write it for people."""
        yield f"{self.minutes:.1f} min, seed {self.seed}, {self.delivery}, {self.members} members, {self.broker}"
        yield ""
        yield f"{'fault':28} {'times':>5} {'recovery median':>16} {'max':>8}"
        by_kind: dict[Kind, list[Survived]] = defaultdict(list)
        for fault in self.faults:
            by_kind[fault.kind].append(fault)
        for kind, faults in sorted(by_kind.items()):
            ended = [each.recovery_s for each in faults if each.recovery_s is not None]
            figures = f"{statistics.median(ended):14.1f} s {max(ended):6.1f} s" if ended else "never"
            yield f"{kind:28} {len(faults):5} {figures}"
        if self.not_done:
            yield f"not done, for want of a victim: {sum(self.not_done.values())}"
        yield ""
        yield f"sent {self.sent}, lost {self.lost}, unanswered {self.unanswered}, wrong {self.wrong}"
        yield f"doubled {self.doubled} ({self.doubled_max} allowed), of which no fault explains {self.unexplained}"
        yield "outcomes: " + ", ".join(f"{kind} {count}" for kind, count in self.outcomes.most_common())
        settled = "not settled" if self.settled_s is None else f"settled {self.settled_s:.1f} s after the last record"
        yield f"{settled}; commits compared with outcomes {self.samples} times"
        yield ""
        if not self.trends:
            yield "memory: no process lived for long enough to say anything"
        for each in self.trends:
            yield (
                f"{each.name:32} {each.observed_s:5.0f} s  own memory {each.first_mib:6.1f} -> {each.last_mib:6.1f} MiB"
                f"  ({each.slope_mib_h:+.1f} +- {2 * each.error_mib_h:.1f} MiB/h)"
                f"  descriptors {each.descriptors[0]} -> {each.descriptors[1]}"
                f"  threads {each.threads[0]} -> {each.threads[1]}"
            )
        yield ""
        violations = self.violations()
        yield from (f"VIOLATION: {violation}" for violation in violations)
        yield f"{len(violations)} violations" if violations else "every promise was kept"

    def write(self, path: Path) -> None:
        """Write it for machines."""
        # Python's own way makes counters of pairs of counters.
        counters = {"outcomes": dict(self.outcomes), "not_done": dict(self.not_done)}
        found = {**asdict(self), **counters, "violations": self.violations()}
        path.write_text(json.dumps(found, indent=2) + "\n")
