"""The names of result and dead-letter topics, and which names Kafka and the configuration allow."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

NAME_LENGTH_MAX: Final = 249
"""Characters of a topic name."""

_LEGAL: Final = re.compile(r"[a-zA-Z0-9._-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicTemplates:
    """How output topics are named."""

    result: str = "results.{model}"
    """The topic of a model's results; `{model}` is the model's ID."""
    dead_letter: str = "{topic}.dead-letters"
    """The topic of dead letters; `{topic}` is the topic that the record came from."""

    def result_topic(self, model: str) -> str:
        """Name the topic of a model's results."""
        return self.result.replace("{model}", model)

    def dead_letter_topic(self, topic: str) -> str:
        """Name the topic of the dead letters of an input topic."""
        return self.dead_letter.replace("{topic}", topic)

    def problems(self, models: Iterable[str], input_topics: Iterable[str] = ()) -> list[str]:
        """Find everything wrong with the output topics of these models and input topics, one line each.

        Args:
            models: the configured models' IDs.
            input_topics: names of input topics, as far as they are known (a `^regex` is none).
        """
        problems = _template_problems("result", self.result, "model")
        problems += _template_problems("dead_letter", self.dead_letter, "topic")
        if problems:
            return problems
        inputs = list(dict.fromkeys(input_topics))
        owners: dict[str, list[str]] = {}
        for model in dict.fromkeys(models):
            owners.setdefault(self.result_topic(model), []).append(f"results of model {model!r}")
        for topic in inputs:
            owner = owners.setdefault(self.dead_letter_topic(topic), [])
            if not any(other.startswith("dead letters") for other in owner):
                owner.append(f"dead letters of topic {topic!r}")
        for name, names_owners in owners.items():
            if (problem := name_problem(name)) is not None:
                problems.append(f"topic {name!r} for {names_owners[0]}: {problem}")
            if len(names_owners) > 1:
                problems.append(f"topic {name!r} would carry {' and '.join(names_owners)}: give each its own")
            if name in inputs:
                problems.append(f"topic {name!r} for {names_owners[0]} is an input topic as well")
        return problems + _collisions({name: names[0] for name, names in owners.items()}, inputs)


def name_problem(name: str) -> str | None:
    """Say why Kafka refuses a topic name; None where it is legal."""
    if not name:
        return "a topic name is not empty"
    if name in {".", ".."}:
        return "a topic is not called '.' or '..'"
    if len(name) > NAME_LENGTH_MAX:
        return f"a topic name has at most {NAME_LENGTH_MAX} characters, this one has {len(name)}"
    if _LEGAL.fullmatch(name) is None:
        return "a topic name has only the characters a-z A-Z 0-9 . _ -"
    return None


def _template_problems(key: str, template: str, field: str) -> list[str]:
    """Find what is wrong with a template itself."""
    if not {"{", "}"}.isdisjoint(template.replace(f"{{{field}}}", "")):
        return [f"template {key} {template!r}: {{{field}}} is all that may stand in braces"]
    return []


def _collisions(owners: Mapping[str, str], inputs: Iterable[str]) -> list[str]:
    """Find names that differ in '.' and '_' only: the broker refuses to create the second."""
    seen: dict[str, str] = {name.replace(".", "_"): name for name in inputs}
    problems = []
    for name, owner in owners.items():
        other = seen.setdefault(name.replace(".", "_"), name)
        if other != name:
            problems.append(f"topic {name!r} for {owner} and topic {other!r} differ in '.' and '_' only: rename one")
    return problems
