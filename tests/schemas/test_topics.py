"""Topic names: what they are made of, and which are refused."""

import re

import pytest

from schemas import TopicTemplates
from schemas.topics import name_problem


def test_topics_are_named_by_their_templates() -> None:
    """The defaults, and templates of one's own."""
    assert TopicTemplates().result_topic("fraud") == "results.fraud"
    assert TopicTemplates().dead_letter_topic("requests") == "requests.dead-letters"
    own = TopicTemplates(result="{model}-out", dead_letter="dlq")
    assert own.result_topic("fraud") == "fraud-out"
    assert own.dead_letter_topic("requests") == "dlq"


def test_a_name_is_taken_literally() -> None:
    """A model's ID that looks like a template is none."""
    assert TopicTemplates().result_topic("{model}") == "results.{model}"


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("", "a topic name is not empty"),
        (".", "a topic is not called '.' or '..'"),
        ("..", "a topic is not called '.' or '..'"),
        ("a" * 250, "a topic name has at most 249 characters, this one has 250"),
        ("a b", "a topic name has only the characters a-z A-Z 0-9 . _ -"),
        ("ä", "a topic name has only the characters a-z A-Z 0-9 . _ -"),
        ("a\n", "a topic name has only the characters a-z A-Z 0-9 . _ -"),
        ("a/b", "a topic name has only the characters a-z A-Z 0-9 . _ -"),
        ("a" * 249, None),
        ("...", None),
        ("A.b_c-9", None),
    ],
)
def test_names_that_kafka_refuses_are_refused(name: str, problem: str | None) -> None:
    """Kafka's own rules, each with its words."""
    assert name_problem(name) == problem


def test_right_names_have_no_problems() -> None:
    """Several models and topics, a shared dead-letter topic, a model named twice."""
    assert TopicTemplates().problems(["fraud", "intent", "fraud"], ["requests", "more"]) == []
    assert TopicTemplates(dead_letter="dlq").problems(["fraud"], ["requests", "more"]) == []
    assert TopicTemplates(result="results").problems(["fraud"]) == []


@pytest.mark.parametrize(
    ("templates", "models", "inputs", "problem"),
    [
        (TopicTemplates(), ["a b"], [], "topic 'results.a b' for results of model 'a b': a topic name has only the"),
        (TopicTemplates(result="{model}"), [""], [], "topic '' for results of model '': a topic name is not empty"),
        (
            TopicTemplates(result="results"),
            ["a", "b"],
            [],
            "topic 'results' would carry results of model 'a' and results of model 'b': give each its own",
        ),
        (
            TopicTemplates(result="requests.dead-letters"),
            ["a"],
            ["requests"],
            "would carry results of model 'a' and dead letters of topic 'requests'",
        ),
        (
            TopicTemplates(),
            ["a.b", "a_b"],
            [],
            "topic 'results.a_b' for results of model 'a_b' and topic 'results.a.b' differ in '.' and '_' only",
        ),
        (
            TopicTemplates(result="requests_{model}"),
            ["a"],
            ["requests.a"],
            "topic 'requests_a' for results of model 'a' and topic 'requests.a' differ in '.' and '_' only",
        ),
        (
            TopicTemplates(),
            ["a"],
            ["results.a"],
            "topic 'results.a' for results of model 'a' is an input topic as well",
        ),
        (
            TopicTemplates(dead_letter="{topic}"),
            ["a"],
            ["requests"],
            "topic 'requests' for dead letters of topic 'requests' is an input topic as well",
        ),
        *(
            (
                TopicTemplates(result=template),
                ["a"],
                [],
                f"template result {template!r}: {{model}} is all that may stand",
            )
            for template in ("{topic}", "{}", "{model", "{model!r}", "{{model}}", "{model}}")
        ),
        (TopicTemplates(dead_letter="{model}"), ["a"], [], "template dead_letter '{model}': {topic} is all that may"),
    ],
)
def test_wrong_names_are_refused(templates: TopicTemplates, models: list[str], inputs: list[str], problem: str) -> None:
    """Illegal and equal names, names that collide in the broker's metrics, and outputs that are input."""
    (found,) = templates.problems(models, inputs)
    assert re.search(re.escape(problem), found), found


def test_all_problems_are_found_at_once() -> None:
    """Nobody mends one name to hear of the next."""
    assert len(TopicTemplates().problems(["a b", "c d", "e.f", "e_f"], ["results.e.f", "g h"])) == 5
