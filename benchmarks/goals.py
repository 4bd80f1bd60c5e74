"""The figures to reach, and whether each is. Pure.

Every figure is reported, also one that was not measured: with the reason why it was not.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from benchmarks.intervals import Interval


@dataclass(frozen=True, slots=True)
class Goal:
    """One figure's goal."""

    name: str
    title: str
    value: float
    direction: Literal["at least", "at most"] = "at least"

    def is_reached_by(self, value: float) -> bool:
        """Tell whether a value is good enough."""
        return value >= self.value if self.direction == "at least" else value <= self.value


GOALS = (
    Goal("w1_simple_ratio", "W1 binary, throughput ÷ simple Python loop", 2.5),
    Goal("w1_tuned_ratio", "W1 binary, throughput ÷ tuned Python loop", 1.7),
    Goal("w1_tuned_kept_pages_ratio", "W1 binary, throughput ÷ tuned Python loop with the same malloc settings", 1.5),
    Goal("w1_cpu_ratio", "W1 binary, CPU per record of all our processes ÷ the tuned Python loop's", 0.6, "at most"),
    Goal("w1_java_ratio", "W1 binary, throughput ÷ tuned Java loop, at least once both", 1.0),
    Goal("w1_echo_ratio", "W1 binary, throughput ÷ echo with the same malloc settings", 0.6),
    Goal("w1_json_mlserver_ratio", "W1 JSON, throughput ÷ MLServer's Kafka mode", 40.0),
    Goal("w1_quix_ratio", "W1 binary, throughput ÷ Quix Streams", 14.0),
    Goal("w1_kafka_streams_ratio", "W1 binary, throughput ÷ Kafka Streams with ONNX, exactly once both", 1.7),
    Goal("w2_torch_ratio", "W2, throughput ÷ raw torch on the same cores", 0.93),
    Goal("w3_torch_ratio", "W3, throughput ÷ raw torch on the same cores", 0.93),
    Goal("w3_bucketed_ratio", "W3, lengths bucketed ÷ padded to the batch's maximum", 1.5),
    Goal("w4_aggregate_ratio", "W4, aggregate ÷ the models run alone one after the other", 0.95),
    Goal("w4_flood_p99_ratio", "W4, p99 of a quiet model beside a flood ÷ without it", 2.0, "at most"),
    Goal("w5_p99_ratio", "W5 at 50 %, p99 beyond the batch's own compute ÷ p99 of the echo", 3.0, "at most"),
    Goal("w7_lost_records", "W7, records lost when a worker is killed under load", 0.0, "at most"),
    Goal("exactly_once_ratio", "W1, exactly once ÷ at least once, default interval", 0.9),
    Goal("supervisor_mb", "W1 at full load, supervisor's resident MB without shared memory", 300.0, "at most"),
    Goal("worker_extra_mb", "W1 at full load, worker's resident MB beyond torch with the network", 64.0, "at most"),
    Goal("growth_mb", "W1, growth of supervisor and workers over 10 million records, MB", 16.0, "at most"),
)


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure as reported."""

    name: str
    title: str
    goal: float
    direction: str
    value: float | None
    low: float | None
    high: float | None
    is_reached: bool | None
    """None where it was not measured."""
    reason: str | None
    """Why it was not."""


def figures(measured: Mapping[str, Interval], reasons: Mapping[str, str]) -> list[Figure]:
    """Report every goal: with what was measured, or with why it was not."""
    assert measured.keys() <= {goal.name for goal in GOALS}, "a figure without a goal"
    reported = []
    for goal in GOALS:
        found = measured.get(goal.name)
        reported.append(
            Figure(
                name=goal.name,
                title=goal.title,
                goal=goal.value,
                direction=goal.direction,
                value=found.median if found else None,
                low=found.low if found else None,
                high=found.high if found else None,
                is_reached=None if found is None else goal.is_reached_by(found.median),
                reason=None if found else reasons.get(goal.name, "not part of this run"),
            )
        )
    return reported
