"""A soak: a crew under load and faults, watched from outside, then judged.

Owns the order of a run. Decides nothing about faults (the plan) or their doing (the crew).
"""

import math
import shutil
import threading
import time
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice, takewhile
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, KafkaException, TopicPartition

from consumer.demo.broker import Broker
from tests.e2e.oracle import Outcome, Place, Sampler
from tests.e2e.stage import INPUTS, Stage, double
from tests.soak.crew import Crew
from tests.soak.load import Load, Sent
from tests.soak.plan import KILLS, REBALANCING, Fault, Kind, plan
from tests.soak.report import Report, Survived
from tests.soak.vitals import Vitals

MODELS_FILE = Path(__file__).with_name("models_for_soak.py")
PROPERTIES = {"log.message.timestamp.type": "LogAppendTime"}
"""Settings of a node that is started for a soak: records then tell when the broker took them."""
WINDOW = 500
"""Records in flight of one member."""
UNCOMMITTED_MAX = 3 * WINDOW
"""Outcomes that one member may have delivered and not committed: a commit's interval of records, then a window."""
UNCOMMITTED_S = 5.0
"""How long an outcome may be uncommitted: a fault can double no older one."""
SEEN_S_MAX = 1.0
"""How much later than a commit, by another clock, an outcome may seem that was on its way before."""
SETTLED_S_MAX = 120.0
"""How long after the last record everything may take to be committed, the search for the last culprit included."""
MARKS_INTERVAL_S = 0.25
SAMPLES_TOLD = 20
"""Violations of the sampler that are told."""
BACKLOG_S = 240.0
"""How much of the load members find at their start: no later backlog is as large, so that what a process keeps for the
largest one does not look like a leak."""
QUIET_S = 10.0
"""After the members have started and before they end: no faults."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How hard and how long."""

    seed: int = 0
    minutes: float = 10.0
    """How long faults may begin; not asked where `kills` is given."""
    kills: int = 0
    """So many kills of supervisors and workers, and no other faults, however long it takes; 0 for all kinds."""
    members: int = 3
    workers: int = 2
    rate: float = 150.0
    """Records per second over all models."""
    gap_s: float = 8.0
    """Mean pause between two faults."""
    delivery: str = "at-least-once"


def soak(options: Options, broker: Broker, directory: Path, say: Callable[[str], None] = lambda _: None) -> Report:
    """Run a soak on a broker, with its files in a directory; `say` hears how it goes."""
    report = Report(options.seed, options.minutes, options.delivery, broker.reason, options.members)
    began_s = time.monotonic()
    flag = directory / "broken"
    settings = {
        "flow": {"records_max": WINDOW, "fetch_records_max": 100},
        "commit": {"interval_ms": 100, "records_max": WINDOW},
        # A culprit is found among few.
        "scheduling": {"chunk_records_max": 16},
        **({"delivery": options.delivery} if options.delivery != "at-least-once" else {}),
    }
    shutil.copy(MODELS_FILE, directory)
    models = _models(flag)
    if options.kills:
        # Workers are to die by the plan alone.
        del models["crashing"]
    with Stage(broker, directory, models, partitions=8, settings=settings) as stage:
        rates = dict.fromkeys(models, options.rate / len(models))
        load = Load(broker.bootstrap_servers, stage.requests, stage.partitions, rates, stage.sent)
        load.pile_up(BACKLOG_S)
        crew = Crew(stage, options.members, options.workers, flag)
        crew.wait_ready()
        vitals, marks = Vitals(crew.processes), Marks(stage)
        sampler = Sampler(
            lambda: stage.committed(2.0), stage.archive, stage.sent, is_transactional=stage.is_transactional
        )
        for thread in (vitals, marks, sampler):
            thread.start()
        if marks.wait(load.ends, SETTLED_S_MAX) is None:
            report.notes.append(f"what was there at the start was not done within {SETTLED_S_MAX:.0f} s")
        load.start()
        time.sleep(QUIET_S / 2)
        _let_faults_come(options, crew, report, say)
        if crew.has_lost_broker:
            report.notes.append("the broker could not be started again after it was killed: nothing more can be said")
            vitals.stop()
            return report
        load.stop()
        report.minutes = (time.monotonic() - began_s) / 60
        report.settled_s = marks.wait(load.ends, SETTLED_S_MAX)
        vitals.stop()
        crew.end()
        marks.stop()
        report.trends = vitals.trends()
        sampler.stop()
        report.samples = sampler.samples
        report.notes += [*load.failures, *crew.violations, *sampler.violations[:SAMPLES_TOLD]]
        _judge(stage, load, marks, report)
    return report


def _models(flag: Path) -> dict[str, dict[str, Any]]:
    """Eight models: four plain, one slow, one flaky, one that is broken at times, one that some records crash."""
    broken = {"factory": "models_for_tests:Broken", "arguments": {"flag": str(flag)}, "inputs": INPUTS}
    return {
        **{f"plain-{number}": double() for number in range(4)},
        "slow": double(delay_s=0.05),
        "flaky": {"factory": "models_for_soak:Flaky", "inputs": INPUTS},
        # Its records wait, however many: behind a backlog those of some seconds fill their partitions.
        "fragile": {
            **broken,
            "failures_max": 1,
            "probe_backoff_s": 0.2,
            "probe_backoff_s_max": 1.0,
            "on_hold": "wait",
        },
        # Not on the first worker: that one is to live.
        "crashing": {**double(), "workers": [1]},
    }


def _let_faults_come(options: Options, crew: Crew, report: Report, say: Callable[[str], None]) -> None:
    """Do the faults of the plan at their times."""
    began_s = time.monotonic()

    def suffer(fault: Fault) -> None:
        try:
            at_s, fault_began_s = time.time(), time.monotonic()
            heal = crew.do(fault)
            if heal is None:
                report.not_done[fault.kind] += 1
                return
            time.sleep(fault.lasts_s)
            heal()
            lasted_s = time.monotonic() - fault_began_s
            report.faults.append(Survived(fault.kind, at_s, fault_began_s - began_s, lasted_s))
            say(f"{fault_began_s - began_s:6.1f} s  {fault.kind}, for {lasted_s:.1f} s")
        except Exception as error:  # noqa: BLE001 - a fault that cannot be done as planned is told in the report
            report.notes.append(f"{fault.kind} at {fault.at_s:.0f} s: {type(error).__name__}: {error}")

    def come(some: Iterable[Fault], until_s: float = 0.0) -> None:
        running: list[threading.Thread] = []
        for fault in some:
            _wait_until(began_s + fault.at_s, crew)
            if crew.has_lost_broker:
                break
            thread = threading.Thread(target=suffer, args=[fault], name=f"fault-{fault.kind}", daemon=True)
            thread.start()
            running.append(thread)
        _wait_until(began_s + until_s, crew)
        for thread in running:
            thread.join()
        crew.look()

    if options.kills:
        faults = plan(options.seed, options.gap_s, KILLS)
        # Some may find no victim at their time: others come in their place.
        while (missing := options.kills - len(report.faults)) and not report.notes and not crew.has_lost_broker:
            come(islice(faults, missing))
    else:
        duration_s = 60 * options.minutes
        faults = plan(options.seed, options.gap_s, _possible(crew))
        come(takewhile(lambda fault: fault.at_s < max(1.0, duration_s - QUIET_S), faults), duration_s)


def _possible(crew: Crew) -> frozenset[Kind]:
    """Say what can go wrong here: a broker that is not ours, or keeps everything in memory, is left alone."""
    if crew.may_hurt_broker:
        return frozenset(Kind)
    return frozenset(Kind) - {Kind.KILL_BROKER, Kind.FREEZE_BROKER}


def _wait_until(at_s: float, crew: Crew) -> None:
    while (left_s := at_s - time.monotonic()) > 0 and not crew.has_lost_broker:
        crew.look()
        time.sleep(min(left_s, 0.5))


def _judge(stage: Stage, load: Load, marks: "Marks", report: Report) -> None:
    """Apply the oracle: what was sent has its outcome, the right one, and no more than explained twice."""
    report.sent = len(stage.sent)
    outcomes = stage.archive.read(whole=True)
    times = [(load.records[uid], outcomes.get(place)) for place, uid in stage.sent.items()]
    report.faults = [replace(fault, recovery_s=_recovery_s(fault, times)) for fault in report.faults]
    committed = stage.committed()
    # The time that faults are told by.
    began_at_s = min((fault.at_s - fault.began_s for fault in report.faults), default=0.0)
    missing = [place for place in stage.sent if place not in outcomes]
    report.lost = sum(offset < committed[partition] for partition, offset in missing)
    report.unanswered = len(missing) - report.lost
    examples: dict[str, list[str]] = defaultdict(list)
    for place, found in outcomes.items():
        report.doubled += len(found) - 1
        times_s = sorted(each.at_s for each in found)
        if too_many := unexplained(times_s, report.faults, marks.committed_at_s(place)):
            report.unexplained += too_many
            since_s = ", ".join(f"{at_s - began_at_s:.1f}" for at_s in times_s)
            sent = load.records[stage.sent[place]] if place in stage.sent else None
            report.notes.append(f"{place} of {sent and sent.model}: outcomes at {since_s} s")
        for outcome in found:
            report.outcomes[outcome.kind] += 1
            if (problem := _problem(stage, load, place, outcome)) is not None:
                report.wrong += 1
                examples[problem].append(f"{place}")
    report.notes += [f"{problem}: {len(places)}, such as {places[0]}" for problem, places in examples.items()]
    rebalances = sum(fault.kind in REBALANCING for fault in report.faults)
    report.doubled_max = 0 if stage.is_transactional else rebalances * UNCOMMITTED_MAX
    if committed != stage.ends():
        report.notes.append(f"committed {committed} of {stage.ends()}")


def _recovery_s(fault: Survived, sent: Iterable[tuple[Sent, list[Outcome] | None]]) -> float | None:
    """Say how long after a fault's end the last record had its outcome that was sent before.

    Records of the model that some of them crash are left out: the search for the culprit takes the time that it takes,
    whatever else goes wrong, and only they wait for it.
    """
    healed_s = fault.at_s + fault.lasted_s
    last_s = healed_s
    for record, found in sent:
        if record.at_s < healed_s and record.model != "crashing":
            if not found:
                return None
            last_s = max(last_s, min(outcome.at_s for outcome in found))
    return last_s - healed_s


def unexplained(times_s: Sequence[float], faults: Iterable[Survived], committed_at_s: float) -> int:
    """Count the repetitions of an outcome that no fault explains.

    A fault explains one whose first outcome came shortly before it or while it was being recovered from, where the
    repetition came in that time as well, or later while the record was not committed yet: whoever takes over begins
    there, and may have to wait, for another fault or for the search for a culprit.

    Args:
        times_s: when the outcomes of one record came, in order, in seconds since the epoch.
        faults: all of the run.
        committed_at_s: when its commit was seen.
    """
    first_s = times_s[0]
    spans = [each.span_s for each in faults if each.kind in REBALANCING]
    ends_s = [end_s + UNCOMMITTED_S for began_s, end_s in spans if began_s - UNCOMMITTED_S <= first_s]
    ends_s = [end_s for end_s in ends_s if first_s <= end_s]
    return sum(not ends_s or at_s > max(*ends_s, committed_at_s + SEEN_S_MAX) for at_s in times_s[1:])


def _problem(stage: Stage, load: Load, place: Place, outcome: Outcome) -> str | None:
    """Say what is wrong with an outcome; None where it is what its record calls for."""
    uid = stage.sent.get(place)
    if uid is None:
        return "an outcome of a record that nobody sent"
    sent = load.records[uid]
    if outcome.kind not in sent.kinds:
        return f"{sent.model}: {outcome.kind} instead of {'/'.join(sorted(sent.kinds))}"
    if outcome.kind == "result" and (outcome.id != uid or outcome.outputs != (2 * sent.number,)):
        return f"{sent.model}: a result that is not its record's"
    return None


class Marks(threading.Thread):
    """Follows the committed offsets, to see when the group has caught up."""

    def __init__(self, stage: Stage) -> None:
        super().__init__(name="marks", daemon=True)
        self._client = Consumer(
            {"bootstrap.servers": stage.broker.bootstrap_servers, "group.id": stage.group, "log_level": 0}
        )
        self._places = [TopicPartition(stage.requests, number) for number in range(stage.partitions)]
        self._changed = threading.Condition()
        self._marks: dict[int, int] = {}
        self._history: dict[int, list[tuple[int, float]]] = defaultdict(list)
        """Of each partition, every offset seen and when, in seconds since the epoch."""
        self._stopping = threading.Event()

    def run(self) -> None:
        """Ask until told to stop."""
        while not self._stopping.wait(MARKS_INTERVAL_S):
            try:
                found = self._client.committed(self._places, timeout=2)
            except KafkaException:
                continue
            with self._changed:
                for each in found:
                    if each.error is None and each.offset > self._marks.get(each.partition, -1):
                        self._marks[each.partition] = each.offset
                        self._history[each.partition].append((each.offset, time.time()))
                self._changed.notify_all()
        self._client.close()

    def stop(self) -> None:
        """End the thread."""
        self._stopping.set()
        self.join(30)

    def committed_at_s(self, place: Place) -> float:
        """Say when a record was first seen committed, in seconds since the epoch; infinity for one that never was."""
        partition, offset = place
        history = self._history[partition]
        number = bisect_right(history, (offset, math.inf))
        return history[number][1] if number < len(history) else math.inf

    def wait(self, ends: Mapping[int, int], timeout_s: float) -> float | None:
        """Wait until everything below these offsets is committed; return the seconds, None if it is not in time."""
        began_s = time.monotonic()
        with self._changed:
            has_come = self._changed.wait_for(
                lambda: all(self._marks.get(partition, -1) >= end for partition, end in ends.items() if end), timeout_s
            )
        return time.monotonic() - began_s if has_come else None
