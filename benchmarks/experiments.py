"""The experiments on throughput: which subjects run on which records, and which figures come of it.

Must not know how a run is made or how anything is shown.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack

from benchmarks import memory, mixture, subjects
from benchmarks.intervals import interval
from benchmarks.orders import interleaved
from benchmarks.peers import subjects as peers
from benchmarks.plans import Outcome, Plan, speeds
from benchmarks.rawtorch import cores, from_memory
from benchmarks.records import MODEL
from benchmarks.runner import Lab, Loaded, key
from benchmarks.subjects import Subject
from benchmarks.watch import StalledError
from benchmarks.workloads import W1, W1_JSON, W1_JSON_BY_HEADER, W4

RATIOS = {
    # Figure: the subjects whose throughputs are compared.
    "w1_simple_ratio": ("program", "simple"),
    "w1_tuned_ratio": ("program", "tuned"),
    "w1_tuned_kept_pages_ratio": ("program", "tuned-kept-pages"),
    "w1_echo_ratio": ("program", "echo-kept-pages"),
    "w1_java_ratio": ("program", "java-at-least-once"),
    "w1_quix_ratio": ("program", "quix-at-least-once"),
    "w1_kafka_streams_ratio": ("program-exactly-once", "kafka-streams-exactly-once"),
    "w1_json_mlserver_ratio": ("W1 JSON program", "W1 JSON by header mlserver"),
    "exactly_once_ratio": ("program-exactly-once", "program"),
}
QUICK = ("simple", "tuned", "program", "echo-kept-pages")


def crayfish(lab: Lab, plan: Plan, outcome: Outcome) -> None:
    """W1 binary: the program in both modes, the loops, the echo, the peers."""
    lab.write_networks(W1)
    is_full = not (plan.is_quick or plan.only)
    if is_full:
        from_memory(lab, plan, outcome, W1)
    with ExitStack() as stack:
        loaded = lab.load(W1, plan.records)
        stack.callback(lab.unload, loaded)
        rows = best_rows(lab, loaded, outcome) if is_full else 512
        offered = [*subjects.programs(W1, plan.workers), *subjects.loops(MODEL, rows)]
        if is_full or plan.only:
            offered += installed(lab, plan.only or peers.W1_NAMES, outcome)
        wanted = plan.only or (QUICK if plan.is_quick else tuple(each.name for each in offered))
        chosen = [each for each in offered if each.name in wanted]
        by_share = {1.0: loaded}
        for share in sorted({each.share for each in chosen} - by_share.keys()):
            by_share[share] = lab.load(W1, max(round(share * plan.records), 64))
            stack.callback(lab.unload, by_share[share])
        outcome.semantics |= {each.name: each.semantics for each in chosen}
        outcome.fail(lab.rounds([(by_share[each.share], each) for each in chosen], plan.rounds))
    for name, (own, other) in RATIOS.items():
        outcome.compare(name, speeds(lab, own), speeds(lab, other))
        if {own, other} <= {each.name for each in chosen}:
            outcome.reasons.setdefault(name, "its run failed")
    own_cpu, tuned_cpu = ([each.own_cpu_us() for each in lab.runs.get(name, ())] for name in ("program", "tuned"))
    outcome.compare("w1_cpu_ratio", own_cpu, tuned_cpu)
    memory.resident(lab, outcome)


def installed(lab: Lab, wanted: Sequence[str], outcome: Outcome) -> list[Subject]:
    """Install the wanted peers; those that cannot be had are told."""
    found, reasons = peers.offered(lab.directory, wanted)
    outcome.notes += sorted({f"a peer is missing: {reason}" for reason in reasons.values()})
    lacking = {name: each.rsplit(" ", 1)[-1] for name, (_, each) in RATIOS.items()}
    outcome.reasons |= {name: reasons[each] for name, each in lacking.items() if each in reasons}
    return found


def as_json(lab: Lab, plan: Plan, outcome: Outcome) -> None:
    """W1 JSON: the program, a worker a core since decoding is most of it, and MLServer on fewer of the same records."""
    lab.write_networks(W1_JSON)
    from_memory(lab, plan, outcome, W1_JSON)
    with ExitStack() as stack:
        entries = [(lab.load(W1_JSON, plan.share(200_000)), subjects.programs(W1_JSON, cores())[0])]
        stack.callback(lab.unload, entries[0][0])
        for peer in installed(lab, peers.NAMES["mlserver"], outcome):
            entries.append((lab.load(W1_JSON_BY_HEADER, plan.share(15_000)), peer))
            stack.callback(lab.unload, entries[-1][0])
        outcome.semantics |= {key(loaded.workload, each): each.semantics for loaded, each in entries}
        outcome.fail(lab.rounds(entries, plan.rounds))
    own, other = RATIOS["w1_json_mlserver_ratio"]
    outcome.compare("w1_json_mlserver_ratio", speeds(lab, own), speeds(lab, other))


def best_rows(lab: Lab, loaded: Loaded, outcome: Outcome) -> int:
    """Try the tuned loop at each batch size, twice after a round of warm-up; the size at which it was fastest."""
    offered = [subjects.tuned(rows, MODEL) for rows in subjects.ROWS]
    outcome.fail(lab.rounds([(loaded, each) for each in offered], 2))
    tried = {
        rows: interval(speeds(lab, each.name)).median
        for rows, each in zip(subjects.ROWS, offered, strict=True)
        if speeds(lab, each.name)
    }
    for each in offered:
        lab.runs.pop(key(W1, each), None)
    outcome.ceilings["tuned loop by batch size, records/s"] = {str(rows): speed for rows, speed in tried.items()}
    return max(tried, key=lambda rows: tried[rows], default=512)


def mixed(lab: Lab, plan: Plan, outcome: Outcome) -> None:
    """W4: eight models together, and each alone."""
    lab.write_networks(W4)
    subject: Subject = subjects.programs(W4, cores())[0]
    count = plan.share(200_000)
    together = lab.load(W4, count)
    alone: Mapping[str, Loaded] = {name: lab.load(W4, count, name) for name in mixture.MIXTURE}
    own, other = [], []
    steps: list[Callable[[], None]] = [
        lambda: own.append(lab.measure(together, subject)),
        lambda: other.append(count / sum(lab.measure(each, subject).seconds for each in alone.values())),
    ]
    try:
        lab.measure(together, subject)
        for turn in interleaved(steps, plan.rounds):
            for step in turn:
                step()
            lab.console.print(f"W4: together {own[-1].records_per_s:,.0f}/s, one after the other {other[-1]:,.0f}/s")
    except StalledError as error:
        outcome.fail([f"W4: {error}"])
        return
    finally:
        for each in (together, *alone.values()):
            lab.unload(each)
    lab.runs[key(W4, subject)] = own
    outcome.semantics[key(W4, subject)] = subject.semantics
    outcome.compare("w4_aggregate_ratio", [each.records_per_s for each in own], other)
