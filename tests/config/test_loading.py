from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from consumer.config import Settings, load
from consumer.errors import ConfigError, ExitCode

SIX_LINES = """\
kafka: {bootstrap.servers: "localhost:9092", group.id: inference}
input: {topics: [requests]}
models:
  fraud: {path: models/fraud.pt2}
  intent: {path: models/intent.safetensors, factory: "acme.models:intent"}
"""

Load = Callable[..., Settings]
Problems = Callable[..., list[str]]


@pytest.fixture
def loaded(tmp_path: Path) -> Load:
    """Give a function that loads a configuration from text and variables."""

    def _load(text: str, environ: Mapping[str, str] | None = None) -> Settings:
        path = tmp_path / "consumer.yaml"
        path.write_text(text, encoding="utf-8")
        return load(path, environ or {})

    return _load


@pytest.fixture
def problems(loaded: Load, tmp_path: Path) -> Problems:
    """Give a function that loads what cannot be loaded and gives the lines, without the directory."""

    def _problems(text: str, environ: Mapping[str, str] | None = None) -> list[str]:
        with pytest.raises(ConfigError) as refused:
            loaded(text, environ)
        assert refused.value.exit_code is ExitCode.CONFIG
        return [line.replace(f"{tmp_path}/consumer.yaml", "FILE") for line in refused.value.problems]

    return _problems


def with_line(line: str) -> str:
    """Put a line behind the six."""
    return f"{SIX_LINES}{line}\n"


def test_six_lines_are_enough(loaded: Load, tmp_path: Path) -> None:
    """The shortest configuration loads, and everything else has its default."""
    settings = loaded(SIX_LINES)
    assert settings.kafka == {"bootstrap.servers": "localhost:9092", "group.id": "inference"}
    assert settings.input.topics == ("requests",)
    assert {name: model.id for name, model in settings.models.items()} == {"fraud": "fraud", "intent": "intent"}
    assert settings.models["intent"].factory == "acme.models:intent"
    assert settings.workers == "auto"
    assert settings.commit.records_max == 25_000
    assert settings.http.host == "127.0.0.1"


def test_relative_paths_start_from_the_configuration_s_directory(loaded: Load, tmp_path: Path) -> None:
    """Models, warm-up files and modules are found wherever the program is started."""
    settings = loaded(SIX_LINES)
    assert settings.models["fraud"].path == str(tmp_path / "models/fraud.pt2")
    assert settings.python_path == (str(tmp_path),)
    text = (
        "kafka: {bootstrap.servers: b, group.id: g}\ninput: {topics: [t]}\n"
        "models: {a: {path: /abs/a.pt2, warmup: w.json}}\npython_path: [lib, /opt/lib]\n"
    )
    settings = loaded(text)
    assert settings.models["a"].path == "/abs/a.pt2"
    assert settings.models["a"].warmup == str(tmp_path / "w.json")
    assert settings.python_path == (str(tmp_path / "lib"), "/opt/lib")


def test_every_section_reaches_its_options(loaded: Load) -> None:
    """Values of nested sections, lists of sections and pass-through mappings end where they belong."""
    settings = loaded(
        """
kafka: {bootstrap.servers: b, group.id: g, consumer: {fetch.min.bytes: 10}}
input: {topics: ["^requests-.*"], model: "header:model"}
output: {settings: {retention.ms: "1000"}, create: false}
models:
  m:
    factory: "acme.models:make"
    arguments: {depth: 3, names: [a, b]}
    inputs: [{name: x, datatype: FP32, shape: [tokens, 4], pad: 0}]
    workers: [1]
workers: [{device: cpu, count: 2, threads: 1, cores: [0, 1]}]
http: {enabled: false}
logging: {level: debug}
"""
    )
    assert settings.kafka["consumer"] == {"fetch.min.bytes": 10}
    assert settings.output.settings == {"retention.ms": "1000"}
    model = settings.models["m"]
    assert model.arguments == {"depth": 3, "names": ["a", "b"]}
    assert model.inputs is not None
    assert model.inputs[0].shape == ("tokens", 4)
    assert model.workers == (1,)
    assert settings.workers != "auto"
    assert settings.workers[0].cores == (0, 1)
    assert settings.http.enabled is False


def test_batch_is_the_default_of_every_model(loaded: Load) -> None:
    """What `batch:` says holds for the models that say nothing themselves, and what it leaves out stays a default."""
    settings = loaded(
        "kafka: {bootstrap.servers: b, group.id: g}\ninput: {topics: [t]}\n"
        "models: {a: {path: a, rows_max: 7}, b: {path: b}}\nbatch: {rows_max: 64, delay_ms_max: 5}\n"
    )
    assert [(model.rows_max, model.delay_ms_max) for model in settings.models.values()] == [(7, 5.0), (64, 5.0)]
    assert settings.models["a"].bytes_max == settings.batch.bytes_max


PORT = "allowed: a whole number, at least 0, at most 65535"
GROUP = "for after max.poll.interval.ms the group gives the partitions to others"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("comit: {}", "comit is not known; did you mean commit?"),
        ("commit: {interval: 5}", "commit.interval is not known; did you mean interval_ms?"),
        ("http: {colour: red}", "http.colour is not known; there are: enabled, host, port, stalled_s"),
        ("http: {port: 70000}", f"http.port: 70000 is not allowed; {PORT}"),
        ("http: {port:}", f"http.port: nothing is not allowed; {PORT}"),
        ("http: {enabled: maybe}", "http.enabled: 'maybe' is not allowed; allowed: true or false"),
        ("commit: {interval_ms: true}", "commit.interval_ms: true is not allowed; allowed: a number, at least 1"),
        ("commit: {interval_ms: .inf}", "commit.interval_ms: inf is not allowed; allowed: a number, at least 1"),
        ("http: [1]", "http: [1] is not allowed; allowed: a mapping of enabled, host, port, stalled_s"),
        ("logging: {level: loud}", "logging.level: 'loud' is not allowed; allowed: debug, info, warning or error"),
        ("delivery: exactly-twice", "delivery: 'exactly-twice' is not allowed; allowed: at-least-once or exactly-once"),
        (
            "workers: some",
            "workers: 'some' is not allowed; allowed: auto, or a list of mappings of device, count, threads, cores",
        ),
        ("workers: [{count: 0}]", "workers[0].count: 0 is not allowed; allowed: a whole number, at least 1"),
        ("workers: [{cuont: 1}]", "workers[0].cuont is not known; did you mean count?"),
        ("output: {key: colour}", "output.key: 'colour' is not allowed: id, source-key or header:NAME"),
        (
            "retry: {backoff_ms: 500, backoff_ms_max: 100}",
            "retry.backoff_ms: 500 is not allowed; allowed: at most retry.backoff_ms_max (100)",
        ),
        (
            "restart: {backoff_s: 5, backoff_s_max: 1}",
            "restart.backoff_s: 5 is not allowed; allowed: at most restart.backoff_s_max (1)",
        ),
        (
            "flow: {records_max: 100, fetch_records_max: 2000}",
            "flow.fetch_records_max: 2000 is more than half of records_max (100); at most 50 is allowed",
        ),
        (
            "scheduling: {worker_bytes_max: 99999999}",
            "scheduling.worker_bytes_max: 99999999 is not allowed; allowed: at most transport.inbox_bytes (16777216)",
        ),
        (
            "scheduling: {worker_bytes_max: 4000}",
            "scheduling.chunk_bytes_max: 4194304 is not allowed; allowed: at most scheduling.worker_bytes_max (4000)",
        ),
        (
            "commit: {bytes_max: 99999999}",
            "commit.bytes_max: 99999999 is not allowed; allowed: at most flow.bytes_max (67108864)",
        ),
        (
            "shutdown: {drain_timeout_s: 300}",
            f"shutdown.drain_timeout_s: 300 is not allowed; allowed: less than 300, {GROUP}",
        ),
        (
            "output: {dead_letter_topic: 'requests'}",
            "output: topic 'requests' for dead letters of topic 'requests' is an input topic as well",
        ),
        (
            "output: {result_topic: 'all'}",
            "output: topic 'all' would carry results of model 'fraud' and results of model 'intent': give each its own",
        ),
    ],
)
def test_a_mistake_is_one_line_with_place_key_value_and_what_is_allowed(
    problems: Problems, line: str, expected: str
) -> None:
    """Each wrong key or value is told in one line that says what to write instead."""
    assert problems(with_line(line)) == [f"FILE:6: {expected}"]


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("{}", "models.m.path: give path, factory or both"),
        ("{path: a, rows_mx: 3}", "models.m.rows_mx is not known; did you mean rows_max?"),
        ("{path: a, id: b}", "models.m.id is not known; there are: path, factory, arguments"),
        ("{path: a, rows_max: 0}", "models.m.rows_max: 0 is not allowed; allowed: a whole number, at least 1"),
        ("a.pt2", "models.m: 'a.pt2' is not allowed; allowed: a mapping of path, factory"),
        (
            "{path: a, inputs: [{datatype: FP32}]}",
            "models.m.inputs[0].name is missing: The input's or output's",
        ),
        ("{path: a, inputs: [{name: x, datatype: FP33}]}", "models.m.inputs[0].datatype: 'FP33' is none of"),
        ("{path: a, workers: [0]}", "models.m.workers: [0] is not allowed: worker slots have numbers once"),
        (
            "{path: a, workers: [2]}\nworkers: [{count: 2}]",
            "models.m.workers: [2] is not allowed; allowed: slots from 0 to 1",
        ),
    ],
)
def test_a_model_s_mistakes_name_the_model(problems: Problems, model: str, expected: str) -> None:
    """Mistakes inside a model carry its full key, also those that the model's options find themselves."""
    text = f"kafka: {{bootstrap.servers: b, group.id: g}}\ninput: {{topics: [t]}}\nmodels:\n  m: {model}\n"
    (line,) = problems(text)
    assert line.startswith(f"FILE:4: {expected}")


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ("{topics: ['a b']}", "input.topics[0]: 'a b' is not allowed: a topic name has only the characters"),
        ("{topics: ['']}", 'input.topics: "" is no topic'),
        ("{topics: ['^(']}", "input.topics: '^(' is no regular expression"),
        (
            "{topics: [t], content_type: text/plain}",
            "input.content_type: 'text/plain' is not allowed; allowed: application/msgpack or application/json",
        ),
        ("{topics: [t], model: value}", "input.model: 'value' is not allowed: key, header:NAME or topic:REGEX"),
    ],
)
def test_the_input_s_mistakes_are_found_before_it_is_read(problems: Problems, section: str, expected: str) -> None:
    """Topic names, patterns, codecs and the model's source are checked in words of their own."""
    (line,) = problems(f"kafka: {{bootstrap.servers: b, group.id: g}}\ninput: {section}\nmodels: {{m: {{path: a}}}}\n")
    assert line.startswith(f"FILE:2: {expected}")


def test_the_group_s_patience_bounds_a_drain(problems: Problems) -> None:
    """The consumer's own max.poll.interval.ms counts, and both waits of a shutdown stay below it."""
    kafka = (
        "kafka: {bootstrap.servers: b, group.id: g, consumer: {max.poll.interval.ms: 6000, session.timeout.ms: 6000}}"
    )
    lines = problems(
        f"{kafka}\ninput: {{topics: [t]}}\nmodels: {{m: {{path: a}}}}\nshutdown: {{revoke_timeout_s: 6}}\n"
    )
    assert [line.partition(" is not")[0] for line in lines] == [
        "FILE:4: shutdown.drain_timeout_s: 25",
        "FILE:4: shutdown.revoke_timeout_s: 6",
    ]


def test_a_model_id_that_is_no_topic_name_is_refused(problems: Problems) -> None:
    """An ID that would make an illegal result topic is found before anything is consumed."""
    text = "kafka: {bootstrap.servers: b, group.id: g}\ninput: {topics: [t]}\nmodels: {'a b': {path: x}}\n"
    (line,) = problems(text)
    assert line.startswith("FILE: output: topic 'results.a b' for results of model 'a b'")


@pytest.mark.parametrize(
    ("kafka", "expected"),
    [
        ("{group.id: g}", "kafka.bootstrap.servers is missing"),
        ("{bootstrap.servers: b}", "kafka.group.id is missing"),
        ("{bootstrap.servers: b, group.id: g, acks: 0}", "kafka.acks: 0 is not allowed"),
        (
            "{bootstrap.servers: b, group.id: g, max.poll.interval.ms: soon}",
            "kafka.max.poll.interval.ms: 'soon' is not allowed",
        ),
        (
            "{bootstrap.servers: b, group.id: g, consumer: {enable.auto.commit: true}}",
            "kafka.consumer.enable.auto.commit: True is not allowed",
        ),
        (
            "{bootstrap.servers: b, group.id: g, fetch.mn.bytes: 3}",
            "kafka.fetch.mn.bytes is no setting of the Kafka client; did you mean fetch.min.bytes?",
        ),
    ],
)
def test_client_settings_are_checked_at_once(problems: Problems, kafka: str, expected: str) -> None:
    """Missing, owned and misspelt client settings are configuration errors, with their own dotted names."""
    (line,) = problems(f"kafka: {kafka}\ninput: {{topics: [t]}}\nmodels: {{m: {{path: a}}}}\n")
    assert line.startswith(f"FILE:1: {expected}")


def test_all_mistakes_are_told_at_once(problems: Problems) -> None:
    """Unknown keys, wrong values, contradictions and wrong variables of one configuration come together."""
    lines = problems(
        "kafka: {bootstrap.servers: b, group.id: g, acks: 0}\n"
        "input: {topics: requests}\n"
        "models: {m: {path: a, rows_max: 0, colour: red}}\n"
        "flow: {records_max: 10, fetch_records_max: 6}\n"
        "retry: {attempts_max: 0, backoff_ms: 20000}\n",
        {"CONSUMER_COMIT__INTERVAL_MS": "3", "CONSUMER_HTTP__PORT": "-1"},
    )
    assert {line.split(" ")[1].rstrip(":") for line in lines} == {
        "kafka.acks",
        "input.topics",
        "models.m.rows_max",
        "models.m.colour",
        "flow.fetch_records_max",
        "retry.attempts_max",
        "CONSUMER_COMIT__INTERVAL_MS",
        "http.port",
    }


@pytest.mark.parametrize(
    ("flow", "records"),
    [
        ("{}", 2_000),
        ("{bytes_max: 99999999}", 2_000),
        ("{records_max: 4000}", 2_000),
        ("{records_max: 3999}", 1_999),
        ("{records_max: 2}", 1),
        ("{span_max: 100}", 50),
        ("{records_max: 300, span_max: 100}", 50),
        ("{records_max: 300, fetch_records_max: 20}", 20),
    ],
)
def test_a_small_window_makes_fetches_small(loaded: Load, flow: str, records: int) -> None:
    """Who tells only how much may be in flight gets the default of a fetch, or half of the window where it is less."""
    assert loaded(with_line(f"flow: {flow}")).flow.fetch_records_max == records


def test_a_small_window_of_the_environment_makes_fetches_small(loaded: Load) -> None:
    """A variable that tells the window counts like the file."""
    assert loaded(SIX_LINES, {"CONSUMER_FLOW__RECORDS_MAX": "100"}).flow.fetch_records_max == 50


@pytest.mark.parametrize("limit", ["1", "0", "-5", "true", "ten", "null"])
def test_a_wrong_window_is_told_once(problems: Problems, limit: str) -> None:
    """A limit that is not allowed itself is the only thing that is told: nothing follows from it."""
    (line,) = problems(with_line(f"flow: {{records_max: {limit}}}"))
    assert " flow.records_max: " in line


def test_required_sections_are_named(problems: Problems) -> None:
    """An empty file says what a configuration needs."""
    assert [line.split(": ")[1].split(" is missing")[0] for line in problems("")] == ["kafka", "input", "models"]
    assert problems("kafka: {bootstrap.servers: b, group.id: g}\ninput: {}\nmodels: {}\n") == [
        "FILE:2: input.topics is missing: Topics by name, or by a regular expression that starts with `^`.",
        "FILE:3: models: {} is not allowed; allowed: a mapping, at least 1",
    ]


def test_long_values_are_cut(problems: Problems) -> None:
    """A line stays a line, whatever was written."""
    (line,) = problems(with_line(f"logging: {{level: {'x' * 1000}}}"))
    assert len(line) < 200


def test_values_of_client_settings_are_never_repeated_by_other_sections(problems: Problems) -> None:
    """A password in the client's settings stays out of every line about something else."""
    text = "kafka: {bootstrap.servers: b, group.id: g, sasl.password: hunter2}\ninput: {topics: []}\nmodels: {}\n"
    lines = problems(text, {"CONSUMER_KAFKA__SSL_KEY_PASSWORD": "hunter3"})
    assert lines
    assert not any("hunter" in line for line in lines)
