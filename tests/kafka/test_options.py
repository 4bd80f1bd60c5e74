"""What topics options say in words."""

import pytest

from consumer.kafka.options import InputOptions, OutputOptions


@pytest.mark.parametrize("model", ["key", "header:model", r"topic:requests\.(.+)", "topic:(?P<m>.+)-in"])
def test_model_rules_that_are_allowed(model: str) -> None:
    """Key, header and topic rules pass."""
    assert InputOptions(topics=("requests", "^in-.*"), model=model).problems() == []


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"topics": ("",)}, 'input.topics: "" is no topic'),
        ({"topics": ("^(",)}, "input.topics: '^(' is no regular expression"),
        ({"topics": ("a",), "model": "value"}, "input.model: 'value' is not allowed: key, header:NAME or topic:REGEX"),
        ({"topics": ("a",), "model": "header:"}, "input.model: 'header:' is not allowed"),
        ({"topics": ("a",), "model": "topic:"}, "input.model: 'topic:' is not allowed"),
        ({"topics": ("a",), "model": "topic:a("}, "input.model: 'a(' is no regular expression"),
        ({"topics": ("a",), "model": "topic:a.*"}, "input.model: 'a.*' has no group"),
    ],
)
def test_input_problems_name_key_and_value(options: dict[str, object], line: str) -> None:
    """Each wrong value gives one line that starts with its key."""
    (problem,) = InputOptions(**options).problems()  # type: ignore[arg-type]
    assert problem.startswith(line)


@pytest.mark.parametrize("key", ["id", "source-key", "header:order"])
def test_key_rules_that_are_allowed(key: str) -> None:
    """Id, source key and a header pass."""
    assert OutputOptions(key=key).problems() == []


@pytest.mark.parametrize("key", ["", "value", "header:", "id:x"])
def test_key_rules_that_are_refused(key: str) -> None:
    """Anything else gives one line that says what is allowed."""
    assert OutputOptions(key=key).problems() == [f"output.key: {key!r} is not allowed: id, source-key or header:NAME"]
