"""What can be configured about topics: where records come from and where outcomes go.

Owns the options and the check of what they say in words. Must not know the client's own settings (`settings`).
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated

from annotated_types import Ge, MinLen


@dataclass(frozen=True, slots=True, kw_only=True)
class InputOptions:
    """Where records come from."""

    topics: Annotated[tuple[str, ...], MinLen(1)]
    """Topics by name, or by a regular expression that starts with `^`."""
    model: str = "key"
    """What names a record's model: `key`, `header:NAME`, or `topic:REGEX` (its first group, matched from the start)."""
    content_type: Annotated[str, MinLen(1)] = "application/msgpack"
    """The codec of records without a `content-type` header."""

    def problems(self) -> list[str]:
        """Return one line for each value that cannot be used."""
        found = []
        for topic in self.topics:
            if not topic:
                found.append('input.topics: "" is no topic: a name, or a regular expression that starts with ^')
            elif topic.startswith("^") and (wrong := _wrong_regex(topic)):
                found.append(f"input.topics: {topic!r} is no regular expression: {wrong}")
        kind, _, rest = self.model.partition(":")
        if kind == "topic" and rest:
            if wrong := _wrong_regex(rest):
                found.append(f"input.model: {rest!r} is no regular expression: {wrong}")
            elif re.compile(rest).groups < 1:
                found.append(f"input.model: {rest!r} has no group: put the part that is the model's name in ( )")
        elif self.model != "key" and not (kind == "header" and rest):
            found.append(f"input.model: {self.model!r} is not allowed: key, header:NAME or topic:REGEX")
        return found

    def never_read(self, never: Iterable[str], settings: Mapping[str, object]) -> dict[str, str]:
        """Return the client setting that keeps topics from being read; nothing where topics are named one by one.

        Args:
            never: topics, or regular expressions that start with `^`.
            settings: the client's, which may have topics of their own there.
        """
        if not any(topic.startswith("^") for topic in self.topics):
            return {}
        patterns = [topic if topic.startswith("^") else f"^{topic.replace('.', '[.]')}$" for topic in never]
        return {"topic.blacklist": ",".join(filter(None, [str(settings.get("topic.blacklist", "")), *patterns]))}


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputOptions:
    """Where results and dead letters go."""

    result_topic: Annotated[str, MinLen(1)] = "results.{model}"
    """The topic of a model's results; `{model}` stands for its name."""
    dead_letter_topic: Annotated[str, MinLen(1)] = "{topic}.dead-letters"
    """The topic of dead letters; `{topic}` stands for the topic that the record came from."""
    key: str = "id"
    """The key of a result: `id` (the record's, or topic-partition-offset), `source-key`, or `header:NAME`."""
    create: bool = True
    """Whether missing topics are created; otherwise one that is missing ends the program at its start."""
    partitions: Annotated[int, Ge(1)] | None = None
    """Partitions of a topic that is created; by default as many as the broker says."""
    replication_factor: Annotated[int, Ge(1)] | None = None
    """Replicas of a topic that is created; by default as many as the broker says."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """Topic settings of a topic that is created, such as `retention.ms`."""

    def problems(self) -> list[str]:
        """Return one line for each value that cannot be used."""
        kind, _, name = self.key.partition(":")
        if self.key in ("id", "source-key") or (kind == "header" and name):
            return []
        return [f"output.key: {self.key!r} is not allowed: id, source-key or header:NAME"]


def _wrong_regex(pattern: str) -> str | None:
    try:
        re.compile(pattern)
    except re.error as error:
        return str(error)
    return None
