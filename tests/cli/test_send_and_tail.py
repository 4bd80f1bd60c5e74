import io
import json
import sys
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from confluent_kafka import Message, Producer

from consumer.cli import send, tail
from consumer.demo.broker import Broker
from consumer.errors import ExitCode
from schemas.codecs import JSON, decode_request, encode_result
from schemas.headers import DeadLetter, dead_letter_headers
from schemas.reasons import Reason
from schemas.records import Request, Result, Source, provenance
from schemas.tensors import Tensor
from tests.brokers import new_topic, read_all
from tests.cli.conftest import Call

pytestmark = pytest.mark.broker


@dataclass(frozen=True)
class Stage:
    """Topics and a configuration of a test's own."""

    broker: Broker
    name: str
    config: Path
    call: Call

    @property
    def requests(self) -> str:
        """The input topic."""
        return f"{self.name}.requests"

    def results(self, model: str) -> str:
        """A model's result topic."""
        return f"{self.name}.results.{model}"

    def put(self, topic: str, value: bytes, key: bytes, headers: Sequence[tuple[str, bytes]] = ()) -> None:
        """Produce one record."""
        producer = Producer({"bootstrap.servers": self.broker.bootstrap_servers})
        producer.produce(topic, value, key, headers=list(headers))
        assert producer.flush(20) == 0


@pytest.fixture
def stage(broker: Broker, tmp_path: Path, call: Call) -> Stage:
    """Give an input topic with two partitions, and a configuration of two models."""
    name = f"t-{uuid.uuid4().hex[:12]}"
    new_topic(broker, partitions=2, name=f"{name}.requests")
    config = tmp_path / "consumer.yaml"
    config.write_text(
        f"""
kafka: {{bootstrap.servers: '{broker.bootstrap_servers}', group.id: {name}}}
input: {{topics: [{name}.requests]}}
output: {{result_topic: '{name}.results.{{model}}'}}
models:
  fraud: {{path: a, inputs: [{{name: amounts, datatype: FP32, shape: [2]}}]}}
  intent: {{path: b}}
""",
        encoding="utf-8",
    )
    return Stage(broker, name, config, call)


def result(model: str, number: int) -> bytes:
    """Encode a result."""
    parameters = provenance(Source("in", 1, number), batch_rows=4, queue_ms=1.25, infer_ms=0.5)
    outputs = (Tensor.of("scores", np.array([0.25, 0.75], np.float32)), Tensor.of("label", [b"yes"]))
    return encode_result(Result(f"r{number}", model, "v1", outputs, parameters))


def content_type_of(record: Message) -> bytes | None:
    """Give a record's content-type header."""
    return dict(record.headers() or []).get("content-type")  # type: ignore[return-value]


def test_one_record_from_the_command_line(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    """The elements become the model's input by name and datatype; the key names the model."""
    assert stage.call("send", "fraud", "[1.5, 2.5]", "-c", stage.config) == 0
    assert capsys.readouterr().out.startswith(f"sent 1 records for fraud to {stage.requests} in ")
    (record,) = read_all(stage.broker, stage.requests)
    assert record.key() == b"fraud"
    assert record.headers() is None
    request = decode_request(record.value() or b"")
    assert request.inputs == (Tensor.of("amounts", np.array([1.5, 2.5], np.float32)),)


def test_the_codec_can_be_chosen(stage: Stage) -> None:
    """Another codec than the configured one is told by its header, and the value is in it."""
    assert stage.call("send", "fraud", "[1.5, 2.5]", "-c", stage.config, "--content-type", "application/json") == 0
    (record,) = read_all(stage.broker, stage.requests)
    assert content_type_of(record) == b"application/json"
    assert decode_request(record.value() or b"", JSON).inputs[0].name == "amounts"


def test_files_are_sent_over_and_over_at_a_rate(stage: Stage, tmp_path: Path) -> None:
    """A file's records are repeated until the count is reached, no faster than the rate."""
    np.save(tmp_path / "x.npy", np.arange(6, dtype=np.float32).reshape(3, 2))
    started_s = time.monotonic()
    arguments = ("--file", tmp_path / "x.npy", "--count", "7", "--rate", "20")
    assert stage.call("send", "fraud", "-c", stage.config, *arguments) == 0
    assert time.monotonic() - started_s >= 6 / 20
    records = [decode_request(record.value() or b"") for record in read_all(stage.broker, stage.requests)]
    firsts = sorted(float(record.inputs[0].data[0]) for record in records)
    assert firsts == [0, 0, 0, 2, 2, 4, 4]


def test_standard_input_is_read_line_by_line(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """`-` sends a record for every line."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b'[1, 2]\n{"amounts": [3, 4]}\n')))
    assert stage.call("send", "fraud", "-", "-c", stage.config) == 0
    assert len(read_all(stage.broker, stage.requests)) == 2


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        (("fraud",), ExitCode.CONFIG, "give one record as an argument, - for lines on standard input, or --file"),
        (("fraud", "[1]", "--file", "x"), ExitCode.CONFIG, "give one record as an argument, "),
        (("fraud", "[1"), ExitCode.FAILED, "the record: not valid JSON: "),
        (("fraud", "[1]", "--content-type", "text/plain"), ExitCode.CONFIG, "--content-type: 'text/plain' is not "),
        (("fraud", "[1]", "--topic", "none"), ExitCode.BROKER, "there is no topic none: create it, or name another "),
    ],
)
def test_what_cannot_be_sent_is_one_line(
    stage: Stage, arguments: tuple[str, ...], code: ExitCode, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A mistake of the caller is told before anything is sent."""
    assert stage.call("send", *arguments, "-c", stage.config) == code
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1
    assert told[0].startswith(f"error: {line}")
    assert read_all(stage.broker, stage.requests) == []


@pytest.mark.parametrize(
    ("model_source", "key", "headers"),
    [("header:model", None, [("model", b"fraud")]), ("topic:(.*)[.]requests", None, None)],
)
def test_the_model_is_named_where_the_configuration_looks(
    stage: Stage, model_source: str, key: bytes | None, headers: list[tuple[str, bytes]] | None
) -> None:
    """A header, or the topic itself, names the model where the key does not."""
    text = stage.config.read_text(encoding="utf-8")
    text = text.replace(f"topics: [{stage.requests}]", f"topics: ['^{stage.requests}'], model: '{model_source}'")
    stage.config.write_text(text, encoding="utf-8")
    assert stage.call("send", "fraud", "[1, 2]", "-c", stage.config) == ExitCode.CONFIG  # a pattern is no topic
    assert stage.call("send", "fraud", "[1, 2]", "-c", stage.config, "--topic", stage.requests) == 0
    (record,) = read_all(stage.broker, stage.requests)
    assert record.key() == key
    assert record.headers() == headers


def test_a_record_that_the_broker_refuses_fails_the_command(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    """What was not taken is counted and named, with the broker's exit code."""
    topic = new_topic(stage.broker, settings={"max.message.bytes": "200"})
    value = json.dumps([1.0] * 1_000)
    assert stage.call("send", "intent", value, "-c", stage.config, "--topic", topic) == ExitCode.BROKER
    shown = capsys.readouterr()
    assert shown.out.startswith(f"sent 0 records for intent to {topic}")
    assert shown.err.startswith("error: 1 records were not taken: ")
    assert len(shown.err.splitlines()) == 1


def tailed(stage: Stage, capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    """Tail from the beginning until nothing comes; give the lines."""
    capsys.readouterr()
    assert stage.call("tail", "-c", stage.config, "--from-beginning", "--idle", "2", *arguments) == 0
    return capsys.readouterr().out.splitlines()


def letter(stage: Stage) -> None:
    """Produce a dead letter."""
    about = DeadLetter(
        reason=Reason.WRONG_SHAPE,
        error="RecordError",
        message="3 is not 4",
        attempts=1,
        source=Source(stage.requests, 1, 5),
        timestamp_ms=-1,
        model="fraud",
    )
    stage.put(f"{stage.requests}.dead-letters", b"whatever", b"fraud", dead_letter_headers(about))


def test_results_and_dead_letters_are_printed_as_lines(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    """Every output topic is read; a result, a dead letter and an unreadable value each have their line."""
    for topic in (stage.results("fraud"), stage.results("intent"), f"{stage.requests}.dead-letters"):
        new_topic(stage.broker, name=topic)
    stage.put(stage.results("fraud"), result("fraud", 7), b"r7")
    stage.put(stage.results("intent"), b"\xc1", b"r8")
    letter(stage)
    lines = sorted(tailed(stage, capsys))
    source = f"{stage.requests}-1-5"
    assert lines[0] == (
        f"{stage.requests}.dead-letters-0@0  dead letter for fraud: wrong-shape: 3 is not 4  (from {source})"
    )
    assert lines[1] == (
        f"{stage.results('fraud')}-0@0  fraud r7  scores=[0.25, 0.75]  label=[yes]  "
        "batch_rows 4  queue_ms 1.2  infer_ms 0.5"
    )
    assert lines[2].startswith(f"{stage.results('intent')}-0@0  unreadable: ")
    assert len(lines) == 3


def test_what_is_read_can_be_chosen_and_limited(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    """Models, dead letters and the number of records are the caller's choice."""
    for topic in (stage.results("fraud"), stage.results("intent"), f"{stage.requests}.dead-letters"):
        new_topic(stage.broker, name=topic)
    for number in range(3):
        stage.put(stage.results("fraud"), result("fraud", number), b"r")
        stage.put(stage.results("intent"), result("intent", number), b"r")
    letter(stage)
    assert len(tailed(stage, capsys, "fraud")) == 4
    assert len(tailed(stage, capsys, "fraud", "--no-dead-letters")) == 3
    assert len(tailed(stage, capsys, "--count", "2")) == 2


def test_json_lines_are_whole_records(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    """With --json every line is an object that has everything in it."""
    new_topic(stage.broker, name=stage.results("fraud"))
    new_topic(stage.broker, name=f"{stage.requests}.dead-letters")
    stage.put(stage.results("fraud"), result("fraud", 7), b"r7")
    letter(stage)
    found: list[dict[str, Any]] = [json.loads(line) for line in tailed(stage, capsys, "--json")]
    by_topic = {each["topic"]: each for each in found}
    assert by_topic[stage.results("fraud")]["result"] == {
        "id": "r7",
        "model": "fraud",
        "version": "v1",
        "outputs": {"scores": [0.25, 0.75], "label": ["yes"]},
        "parameters": provenance(Source("in", 1, 7), batch_rows=4, queue_ms=1.25, infer_ms=0.5),
    }
    assert by_topic[f"{stage.requests}.dead-letters"]["dead_letter"] == {
        "reason": "wrong-shape",
        "error": "RecordError",
        "message": "3 is not 4",
        "attempts": 1,
        "model": "fraud",
        "model_version": None,
        "source": f"{stage.requests}-1-5",
    }


def test_topics_that_appear_later_are_read_whole(
    stage: Stage, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A topic that does not exist when the tail begins is found and read from its first record."""
    monkeypatch.setattr(tail, "LOOK_INTERVAL_S", 0.0)
    assigned = tail.Reader._assign
    looks = 0

    def assign(reader: tail.Reader, start: int) -> None:
        nonlocal looks
        assigned(reader, start)
        if looks == 0:
            new_topic(stage.broker, name=stage.results("fraud"))
            stage.put(stage.results("fraud"), result("fraud", 1), b"r1")
        looks += 1

    monkeypatch.setattr(tail.Reader, "_assign", assign)
    capsys.readouterr()
    assert stage.call("tail", "-c", stage.config, "--count", "1", "--idle", "30") == 0
    assert capsys.readouterr().out.startswith(f"{stage.results('fraud')}-0@0  fraud r1  ")


def test_an_unknown_model_is_refused(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    """A misspelt model would be waited for for ever."""
    assert stage.call("tail", "fruad", "-c", stage.config) == ExitCode.CONFIG
    assert capsys.readouterr().err == "error: no model fruad is configured; there are: fraud, intent\n"


def test_ctrl_c_ends_a_tail_well(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupt is the usual end of a tail, and no failure."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(tail, "_limited", interrupted)
    assert stage.call("tail", "-c", stage.config) == 0


def test_a_slow_broker_holds_the_sender_back() -> None:
    """A full queue is waited for, and the record is handed over again; none is dropped."""

    class Slow:
        """A producer whose queue is full at every other record."""

        def __init__(self) -> None:
            self.taken: list[bytes] = []
            self.is_full = False

        def produce(self, _topic: str, value: bytes, _key: bytes | None, **_: object) -> None:
            self.is_full = not self.is_full
            if self.is_full:
                raise BufferError
            self.taken.append(value)

        def poll(self, _timeout_s: float) -> int:
            return 0

        def flush(self, _timeout_s: float) -> int:
            return 1

    producer: Any = Slow()
    address = send.Address(topic="t", key=b"m", headers=[], content_type=JSON)
    requests = [Request(str(number), (Tensor.of("x", [1.0]),)) for number in range(3)]
    deliveries = send._produce(producer, address, requests, 0)
    assert [decode_request(value, JSON).id for value in producer.taken] == ["0", "1", "2"]
    assert (deliveries.failed, list(deliveries.errors)) == (1, ["no answer in 30 s"])
