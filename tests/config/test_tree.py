from pathlib import Path

import pytest

from consumer.config.settings import Settings
from consumer.config.tree import Problem, overlay, parse, read, spell
from consumer.errors import ConfigError
from consumer.kafka.properties import KNOWN

FILE = """\
kafka:
  bootstrap.servers: b
models:
  fraud-v2: {path: a, rows_max: 1}
"""


def refusal(text: str) -> list[str]:
    """Parse what cannot be parsed; give the lines."""
    with pytest.raises(ConfigError) as refused:
        parse(text, "c.yaml")
    return list(refused.value.problems)


def test_values_remember_their_lines() -> None:
    """Each key knows the line that it was written on; a missing one goes by its section's."""
    tree = parse(FILE, "c.yaml")
    assert tree.values == {"kafka": {"bootstrap.servers": "b"}, "models": {"fraud-v2": {"path": "a", "rows_max": 1}}}
    assert tree.origin(("models", "fraud-v2", "rows_max")) == "c.yaml:4"
    assert tree.origin(("models", "fraud-v2", "factory")) == "c.yaml:4"
    assert tree.origin(("input",)) == "c.yaml"
    assert tree.line(Problem(("kafka", "bootstrap.servers"), ": x")) == "c.yaml:2: kafka.bootstrap.servers: x"


def test_keys_are_spelt_as_people_write_them() -> None:
    """Names are joined by dots, and list items are numbered in brackets."""
    assert spell(("workers", 0, "cores", 3)) == "workers[0].cores[3]"


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n"])
def test_an_empty_file_is_an_empty_tree(text: str) -> None:
    """No content is no error here: what is missing is told by key later."""
    assert parse(text, "c.yaml").values == {}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("kafka: {}\nkafka: {}\n", "c.yaml:2: kafka occurs twice"),
        ("models:\n  a: {path: x}\n  b: {}\n  a: {}\n", "c.yaml:4: models.a occurs twice"),
        ("models:\n  5: {}\n", "c.yaml:2: models.5 is no text: put it in quotes"),
        ("models:\n  on: {}\n", "c.yaml:2: models.on is no text: put it in quotes"),
        ("- a\n", "c.yaml: the configuration is a mapping of sections, such as `kafka:` and `models:`"),
        ("kafka: [\n", "c.yaml:2:1: not valid YAML: expected the node content, but found '<stream end>'"),
        ("kafka: *a\n", "c.yaml:1:8: not valid YAML: found undefined alias 'a'"),
        ("a: !!python/object:os.system {}\n", "c.yaml:1:4: not valid YAML: could not determine a constructor"),
        ("a: !evil x\n", "c.yaml:1:4: not valid YAML: could not determine a constructor for the tag '!evil'"),
        ("a: {b: &x {c: *x}}\n", "c.yaml:1: a.b.c contains itself"),
        ("a: 2024-13-45\n", "c.yaml:1: a is no value: month must be in 1..12"),
        ("a: 1\n--- \nb: 1\n", "c.yaml:2:1: not valid YAML: but found another document"),
        ("a: \x01\n", "c.yaml: not valid YAML: unacceptable character"),
        ("{[1]: 2}\n", "c.yaml:1: a key is no text: put it in quotes"),
    ],
)
def test_a_file_that_cannot_be_read_is_told_with_its_place(text: str, expected: str) -> None:
    """Broken YAML, foreign tags, twin keys and keys that are no text each give a line with a line number."""
    (line,) = refusal(text)
    assert line.startswith(expected)


def test_all_twins_are_told() -> None:
    """Every key that occurs twice has its line."""
    assert refusal("a: 1\na: 2\nb: 1\nb: 2\n") == ["c.yaml:2: a occurs twice", "c.yaml:4: b occurs twice"]


def test_merged_mappings_may_be_overridden() -> None:
    """YAML's merge key works, and what is written beside it wins without counting as a twin."""
    tree = parse("x: &x {a: 1, b: 2}\ny: {<<: *x, b: 3}\n", "c.yaml")
    assert tree.values["y"] == {"a": 1, "b": 3}


def test_missing_and_unreadable_files_are_one_line(tmp_path: Path) -> None:
    """A wrong path says how to name another, a directory and foreign bytes say what is wrong."""
    with pytest.raises(ConfigError, match=r"^.*none\.yaml: no such file; name the configuration with --config$"):
        read(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match=r"^.*: cannot be read: Is a directory$"):
        read(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"a: \xff\n")
    with pytest.raises(ConfigError, match=r"latin\.yaml: cannot be read: 'utf-8' codec"):
        read(tmp_path / "latin.yaml")


@pytest.mark.parametrize(
    ("variable", "text", "key", "value"),
    [
        ("CONSUMER_COMMIT__INTERVAL_MS", "250", ("commit", "interval_ms"), 250),
        ("CONSUMER_INPUT__TOPICS", "[a, b]", ("input", "topics"), ["a", "b"]),
        ("CONSUMER_INPUT__MODEL", "header:model", ("input", "model"), "header:model"),
        ("CONSUMER_LOGGING__LEVEL", "debug", ("logging", "level"), "debug"),
        ("CONSUMER_DELIVERY", "at-least-once", ("delivery",), "at-least-once"),
        ("CONSUMER_WORKERS", "auto", ("workers",), "auto"),
        ("CONSUMER_WORKERS", "[{count: 2}]", ("workers",), [{"count": 2}]),
        ("CONSUMER_KAFKA__BOOTSTRAP_SERVERS", "a:1,b:2", ("kafka", "bootstrap.servers"), "a:1,b:2"),
        ("CONSUMER_KAFKA__SASL_PASSWORD", "0123: #yes", ("kafka", "sasl.password"), "0123: #yes"),
        ("CONSUMER_KAFKA__SSL_CA", "x", ("kafka", "ssl_ca"), "x"),
        ("CONSUMER_KAFKA__LOG_LEVEL", "7", ("kafka", "log_level"), "7"),
        ("CONSUMER_KAFKA__SOME_NEW_SETTING", "x", ("kafka", "some.new.setting"), "x"),
        ("CONSUMER_KAFKA__CONSUMER__FETCH_MIN_BYTES", "9", ("kafka", "consumer", "fetch.min.bytes"), "9"),
        ("CONSUMER_OUTPUT__SETTINGS__RETENTION_MS", "1000", ("output", "settings", "retention.ms"), "1000"),
        ("CONSUMER_MODELS__FRAUD_V2__ROWS_MAX", "64", ("models", "fraud-v2", "rows_max"), 64),
        ("CONSUMER_MODELS__FRAUD_V2__VERSION", "007", ("models", "fraud-v2", "version"), "007"),
        ("CONSUMER_MODELS__FRAUD_V2__ARGUMENTS", "{depth: 3}", ("models", "fraud-v2", "arguments"), {"depth": 3}),
    ],
)
def test_a_variable_overrides_its_key(variable: str, text: str, key: tuple[str, ...], value: object) -> None:
    """Variables reach sections, models and client settings; text stays as it is, the rest is YAML."""
    tree = parse(FILE, "c.yaml")
    assert overlay(tree, Settings, {variable: text}, KNOWN) == []
    found: object = tree.values
    for part in key:
        assert isinstance(found, dict)
        found = found[part]
    assert found == value
    assert tree.origin(key) == variable


@pytest.mark.parametrize(
    ("variable", "text", "expected"),
    [
        ("CONSUMER_COMIT__INTERVAL_MS", "1", ": there is no section 'comit'; did you mean commit?"),
        ("CONSUMER_COMMIT__INTERVAL", "1", ": there is no commit.interval"),
        ("CONSUMER_COMMIT__INTERVAL_MS__MORE", "1", ": there is no commit.interval_ms.more"),
        ("CONSUMER_MODELS__FRUAD__ROWS_MAX", "1", ": there is no models.fruad"),
        ("CONSUMER_COMMIT__INTERVAL_MS", "[", ": not valid YAML; allowed: a number, at least 1"),
    ],
)
def test_a_variable_that_names_nothing_is_a_problem(variable: str, text: str, expected: str) -> None:
    """A misspelt variable is refused like a misspelt key, and changes nothing."""
    tree = parse(FILE, "c.yaml")
    before = parse(FILE, "c.yaml").values
    (problem,) = overlay(tree, Settings, {variable: text}, KNOWN)
    assert problem == Problem((variable,), expected)
    assert tree.line(problem).startswith(f"environment: {variable}: ")
    assert tree.values == before


def test_a_variable_below_a_value_that_is_no_mapping_is_a_problem() -> None:
    """What the file wrote wrongly is not overwritten silently."""
    tree = parse("commit: 5\n", "c.yaml")
    (problem,) = overlay(tree, Settings, {"CONSUMER_COMMIT__INTERVAL_MS": "1"})
    assert problem.text == ": commit is no mapping"


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("CONSUMER_PORT", "tcp://10.0.0.1:8080"),
        ("CONSUMER_SERVICE_HOST", "10.0.0.1"),
        ("COMMIT__INTERVAL_MS", "1"),
        ("CONSUMER_COMMIT__INTERVAL_MS", ""),
    ],
)
def test_other_people_s_and_empty_variables_are_left_alone(variable: str, text: str) -> None:
    """What Kubernetes sets beside a service `consumer`, and a variable that is set to nothing, change nothing."""
    tree = parse(FILE, "c.yaml")
    assert overlay(tree, Settings, {variable: text}) == []
    assert tree.values == parse(FILE, "c.yaml").values
