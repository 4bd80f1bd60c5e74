"""The program, end to end, on the session's broker: each test ends with the universal oracle of `Stage.check`."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from consumer.demo.broker import Broker, Feature
from tests.brokers import need, read_all
from tests.e2e.models_for_tests import KILLER, POISON, SLEEPER
from tests.e2e.stage import Stage, double

pytestmark = [pytest.mark.broker, pytest.mark.slow]

THREE = {"a": double(), "b": double(delay_s=0.002), "c": double()}


@contextmanager
def staged(broker: Broker, directory: Path, models: dict[str, Any] | None = None, **settings: Any) -> Iterator[Stage]:
    """Set up a stage with one model, or with those that are given."""
    with Stage(broker, directory, models or {"a": double()}, settings=settings) as stage:
        yield stage


def test_three_models_on_two_workers_answer_everything_once(broker: Broker, tmp_path: Path) -> None:
    """Inputs = results, each right, once and in its model's topic, though models finish out of order."""
    with staged(broker, tmp_path, THREE) as stage:
        program = stage.start()
        stage.sample()
        for model in THREE:
            stage.send(model, range(500))
        stage.wait_settled()
        outcomes = stage.check()
        assert stage.kinds(outcomes) == {"result": 1500}
        by_topic = dict.fromkeys(THREE, 0)
        for outcome in outcomes.values():
            by_topic[outcome.topic.rpartition(".")[2]] += 1
        assert by_topic == dict.fromkeys(THREE, 500)
        assert sorted(outcome.outputs[0] for outcome in outcomes.values()) == sorted(
            2.0 * number for number in range(500) for _ in THREE
        )
        assert program.stop() == 0


def test_a_killed_worker_loses_nothing(broker: Broker, tmp_path: Path) -> None:
    """SIGKILL of a worker under load: its records go to another one, none is lost, none is doubled."""
    with staged(broker, tmp_path, {"a": double(delay_s=0.01)}) as stage:
        program = stage.start()
        program.wait_ready()
        stage.sample()
        stage.send("a", range(3000))
        deadline_s = time.monotonic() + 30
        while not any(stage.committed().values()):
            assert time.monotonic() < deadline_s
        os.kill(program.workers()[0], signal.SIGKILL)
        stage.wait_settled()
        assert stage.kinds(stage.check()) == {"result": 3000}
        assert sum(worker["restarts"] for worker in program.status()["workers"]) == 1
        assert program.stop() == 0


def test_sigterm_under_load_then_restart_doubles_nothing(broker: Broker, tmp_path: Path) -> None:
    """SIGTERM drains, commits and exits with 0; the next start goes on where it ended, without doing a record twice."""
    with staged(broker, tmp_path, {"a": double(delay_s=0.02)}) as stage:
        program = stage.start()
        program.wait_ready()
        stage.send("a", range(4000))
        deadline_s = time.monotonic() + 30
        while not any(stage.committed().values()):
            assert time.monotonic() < deadline_s
        assert program.stop() == 0
        assert stage.committed() != stage.ends(), "the test wants a stop in the middle"
        stage.start().wait_ready()
        stage.wait_settled()
        assert stage.kinds(stage.check(doubled_max=0)) == {"result": 4000}


def test_a_second_signal_exits_at_once(broker: Broker, tmp_path: Path) -> None:
    """The second SIGTERM does not wait for a slow batch; what was not committed is done by the next start."""
    with staged(broker, tmp_path) as stage:
        program = stage.start(workers=1)
        program.wait_ready()
        stage.send("a", [SLEEPER, *range(99)])
        deadline_s = time.monotonic() + 30
        while not program.status()["in_flight"]["records"]:
            assert time.monotonic() < deadline_s
        began_s = time.monotonic()
        program.process.send_signal(signal.SIGTERM)
        while program.status()["phase"] != "draining":
            assert time.monotonic() < began_s + 2.5
        program.process.send_signal(signal.SIGTERM)
        assert program.process.wait(2) == 128 + signal.SIGTERM
        again = stage.start()
        stage.wait_settled()
        stage.check(doubled_max=100)
        assert again.stop() == 0


def test_a_second_member_joins_and_leaves(broker: Broker, tmp_path: Path) -> None:
    """Partitions move to a new member and back under load; nothing is lost, and little is done twice."""
    with staged(broker, tmp_path, {"a": double(delay_s=0.01)}) as stage:
        first = stage.start(workers=1)
        first.wait_ready()
        stage.sample()
        stage.send("a", range(2000))
        second = stage.start(workers=1)
        deadline_s = time.monotonic() + 60
        while not second.is_ready() or not second.status()["partitions"]:
            assert time.monotonic() < deadline_s, stage.logs()
            stage.send("a", range(100))
        stage.send("a", range(2000))
        assert len(first.status()["partitions"]) + len(second.status()["partitions"]) == 4
        assert second.stop() == 0
        stage.send("a", range(500))
        stage.wait_settled(120)
        outcomes = stage.check(doubled_max=200)
        assert stage.kinds(outcomes) == {"result": len(stage.sent)}
        assert first.stop() == 0


def test_poison_in_the_middle_of_a_batch_is_alone_in_the_dead_letters(broker: Broker, tmp_path: Path) -> None:
    """A record that makes its batch raise becomes a dead letter; every neighbour gets its result."""
    with staged(broker, tmp_path) as stage:
        program = stage.start()
        poison = stage.send("a", [*range(100), POISON, *range(100)])[100]
        stage.send_values(b"a", [("junk", b"\xff\x00 no msgpack"), ("tombstone", None)])
        stage.send_values(b"nobody", [("stranger", b"x")])
        stage.send_values(None, [("keyless", b"x")])
        stage.wait_settled()
        outcomes = stage.check()
        kinds = {stage.sent[place]: outcome.kind for place, outcome in outcomes.items() if outcome.kind != "result"}
        assert kinds == {
            poison: "inference-failed",
            "junk": "unreadable",
            "tombstone": "no-value",
            "stranger": "unknown-model",
            "keyless": "no-model-id",
        }
        assert program.stop() == 0


def test_a_dead_letter_keeps_key_value_and_headers(broker: Broker, tmp_path: Path) -> None:
    """Key and value bytes of a dead letter are the source's, its headers come first, then ours."""
    with staged(broker, tmp_path) as stage:
        stage.start()
        stage.send_values(b"a", [("junk", b"\xc1junk")], headers=[("trace", b"7")])
        stage.wait_settled()
        (letter,) = read_all(broker, f"{stage.requests}.dead-letters")
        assert (letter.key(), letter.value()) == (b"a", b"\xc1junk")
        headers = cast("list[tuple[str, bytes]]", letter.headers() or [])
        assert headers[0] == ("trace", b"7")
        assert dict(headers)["dead-letter-reason"] == b"unreadable"


def test_a_record_that_kills_its_worker_is_found(broker: Broker, tmp_path: Path) -> None:
    """The record that ends its worker becomes a dead letter `crashed-worker`; all others get results."""
    with staged(broker, tmp_path) as stage:
        program = stage.start()
        program.wait_ready()
        killer = stage.send("a", [1.0, KILLER, 2.0, 3.0], partition=0)[1]
        stage.send("a", range(50), partition=1)
        stage.wait_settled(120)
        outcomes = stage.check()
        assert {stage.sent[place]: each.kind for place, each in outcomes.items() if each.kind != "result"} == {
            killer: "crashed-worker"
        }
        assert program.stop() == 0


def test_a_full_output_queue_is_backpressure(broker: Broker, tmp_path: Path) -> None:
    """With room for a handful of results in the client, everything is delivered all the same."""
    with staged(broker, tmp_path) as stage:
        program = stage.start(kafka={"producer": {"queue.buffering.max.messages": 20, "linger.ms": 50}})
        stage.send("a", range(3000))
        stage.wait_settled()
        assert stage.kinds(stage.check()) == {"result": 3000}
        assert program.stop() == 0


def test_a_pattern_that_matches_the_outputs_does_not_eat_them(broker: Broker, tmp_path: Path) -> None:
    """Under a `^regex` that matches result and dead-letter topics, these are never input."""
    with staged(broker, tmp_path) as stage:
        program = stage.start(
            input={"topics": [f"^{stage.name}.*"]},
            kafka={"consumer": {"topic.metadata.refresh.interval.ms": 500}},
        )
        stage.send("a", range(200))
        stage.send_values(b"a", [("junk", b"\xc1")])
        stage.wait_settled()
        # What it would have eaten by now, it would go on eating: everything it has is the input topic.
        program.wait_ready()
        assert {each["topic"] for each in program.status()["partitions"]} == {stage.requests}
        assert stage.kinds(stage.check()) == {"result": 200, "unreadable": 1}
        assert program.stop() == 0


def test_a_broken_model_waits_and_recovers_while_others_go_on(broker: Broker, tmp_path: Path) -> None:
    """A model that fails everything is broken, not its records: they wait, others are served, and all get results."""
    flag = tmp_path / "flag"
    broken = {
        "factory": "models_for_tests:Broken",
        "arguments": {"flag": str(flag)},
        "inputs": double()["inputs"],
        "failures_max": 1,
        "probe_backoff_s": 0.2,
        "probe_backoff_s_max": 0.5,
        "preload": True,
    }
    with staged(broker, tmp_path, {"a": double(), "broken": broken}) as stage:
        program = stage.start()
        program.wait_ready()
        flag.touch()
        stage.send("broken", range(100))
        deadline_s = time.monotonic() + 30
        while program.is_ready():
            assert time.monotonic() < deadline_s, stage.logs()
        states = {model["id"]: model["state"] for model in program.status()["models"]}
        assert states["broken"] == "broken"
        stage.send("a", range(100))
        while len(stage.outcomes()) < 100:
            assert time.monotonic() < deadline_s, stage.logs()
        flag.unlink()
        stage.wait_settled()
        assert stage.kinds(stage.check()) == {"result": 200}
        program.wait_ready()
        assert program.stop() == 0


@pytest.mark.parametrize("delivery", ["at-least-once", "exactly-once"])
def test_expired_records_are_not_inferred(broker: Broker, tmp_path: Path, delivery: str) -> None:
    """What is too old becomes a dead letter or, where a model drops it, only a figure; commits pass both."""
    if delivery == "exactly-once":
        need(broker, Feature.TRANSACTIONS)
    models = {"kept": double(), "dropping": {**double(), "age_s_max": 60, "on_expired": "drop"}}
    with staged(broker, tmp_path, models, delivery=delivery) as stage:
        program = stage.start()
        program.wait_ready()
        long_ago_ms = int(1000 * (time.time() - 3600))
        stage.send("kept", range(10), headers=[("expires-at", str(long_ago_ms).encode())])
        dropped = set(stage.send("dropping", range(20), timestamp_ms=long_ago_ms))
        stage.expect_only(lambda place: stage.sent[place] not in dropped)
        stage.send("kept", range(10), headers=[("expires-at", str(long_ago_ms + 7_200_000).encode())])
        stage.send("dropping", range(10))
        stage.wait_settled()
        assert stage.kinds(stage.check()) == {"expired": 10, "result": 20}
        assert 'consumer_records_settled_total{model="dropping",outcome="dropped"} 20.0' in program.metrics()
        assert program.stop() == 0


def test_a_worker_that_cannot_boot_ends_the_program_with_its_own_exit_code(broker: Broker, tmp_path: Path) -> None:
    """A GPU that is not there is refused before anything is consumed, with one line and exit code 2."""
    with staged(broker, tmp_path) as stage:
        program = stage.start(workers=[{"device": "cuda:7"}])
        assert program.process.wait(60) == 2
        assert "cuda:7" in program.log.read_text()


def test_exactly_once_through_kills_of_workers_and_supervisors(broker: Broker, tmp_path: Path) -> None:
    """Readers of committed records see one outcome of each record, though a worker and then the program are killed."""
    need(broker, Feature.TRANSACTIONS)
    with staged(broker, tmp_path, {"a": double(delay_s=0.01)}, delivery="exactly-once", instance="one") as stage:
        program = stage.start()
        program.wait_ready()
        stage.sample()
        stage.send("a", [*range(1500), POISON])
        deadline_s = time.monotonic() + 30
        while not any(stage.committed().values()):
            assert time.monotonic() < deadline_s, stage.logs()
        os.kill(program.workers()[0], signal.SIGKILL)
        stage.send("a", range(1500))
        program.kill()
        again = stage.start()
        stage.send("a", range(500))
        stage.wait_settled(120)
        assert stage.kinds(stage.check(doubled_max=0)) == {"result": 3500, "inference-failed": 1}
        assert again.stop() == 0
