"""Values that are allowed each by itself and contradict one another.

Owns the relations between sections, and asks the modules that know about theirs. Must not know how values were written.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from consumer.config.tree import Key, Problem
from consumer.core.commits import CommitOptions
from consumer.core.flow import FlowOptions
from consumer.core.lifecycle import RestartOptions
from consumer.core.retry import RetryOptions
from consumer.core.scheduling import SchedulingOptions
from consumer.errors import ConfigError
from consumer.kafka.options import InputOptions, OutputOptions
from consumer.kafka.settings import compose
from consumer.models.options import ModelOptions
from consumer.supervisor.options import ShutdownOptions
from consumer.transport.channel import ChannelOptions
from consumer.worker.device import WorkersOptions
from schemas.codecs import CONTENT_TYPES, codec_for
from schemas.errors import RecordError
from schemas.topics import TopicTemplates, name_problem

_MAX_POLL_INTERVAL = "max.poll.interval.ms"
_MAX_POLL_INTERVAL_MS = 300_000
"""The client's default."""


def contradictions(sections: Mapping[str, Any]) -> list[Problem]:
    """Find what is wrong between values.

    Args:
        sections: The sections by name, those that could be read; a check that needs another one is left out.
    """
    return [
        problem
        for names, check in _CHECKS
        if sections.keys() >= set(names)
        for problem in check(*(sections[name] for name in names))
    ]


def _client(kafka: Mapping[str, Any], delivery: str, instance: str) -> Iterator[Problem]:
    try:
        compose(kafka, exactly_once=delivery == "exactly-once", instance=instance)
    except ConfigError as error:
        yield from map(_of_line, error.problems)


def _of_line(line: str) -> Problem:
    """Find the key that a line of a module's own begins with."""
    end = min((at for at in (line.find(":"), line.find(" ")) if at >= 0), default=len(line))
    first, *rest = line[:end].split(".")
    if first == "kafka" and rest:
        # A client setting's own name has dots.
        client = rest[:1] if rest[0] in {"consumer", "producer"} and len(rest) > 1 else []
        return Problem((first, *client, ".".join(rest[len(client) :])), line[end:])
    return Problem((first, *rest), line[end:])


def _words(section: InputOptions | OutputOptions) -> Iterator[Problem]:
    yield from map(_of_line, section.problems())


def _input(section: InputOptions) -> Iterator[Problem]:
    for index, topic in enumerate(section.topics):
        wrong = None if topic.startswith("^") or not topic else name_problem(topic)
        if wrong is not None:
            yield Problem(("input", "topics", index), f": {topic!r} is not allowed: {wrong}")
    try:
        codec_for(section.content_type)
    except RecordError:
        yield Problem(
            ("input", "content_type"),
            f": {section.content_type!r} is not allowed; allowed: {' or '.join(CONTENT_TYPES)}",
        )


def _topics(source: InputOptions, sink: OutputOptions, models: Mapping[str, ModelOptions]) -> Iterator[Problem]:
    templates = TopicTemplates(result=sink.result_topic, dead_letter=sink.dead_letter_topic)
    names = [topic for topic in source.topics if not topic.startswith("^") and name_problem(topic) is None]
    for problem in templates.problems(models, names):
        yield Problem(("output",), f": {problem}")


def _slots(models: Mapping[str, ModelOptions], workers: WorkersOptions) -> Iterator[Problem]:
    if workers == "auto":
        for name, model in models.items():
            if model.workers is not None:
                yield Problem(
                    ("models", name, "workers"),
                    f": {list(model.workers)} is not allowed: worker slots have numbers once `workers` lists them, "
                    "with `auto` nobody knows how many there are",
                )
        return
    count = sum(group.count for group in workers)
    for name, model in models.items():
        if any(slot >= count for slot in model.workers or ()):
            yield Problem(
                ("models", name, "workers"),
                f": {list(model.workers or ())} is not allowed; allowed: slots from 0 to {count - 1}, "
                f"for `workers` lists {count}",
            )


def _retry(retry: RetryOptions) -> Iterator[Problem]:
    if retry.backoff_ms > retry.backoff_ms_max:
        yield _above(("retry", "backoff_ms"), retry.backoff_ms, "retry.backoff_ms_max", retry.backoff_ms_max)


def _restart(restart: RestartOptions) -> Iterator[Problem]:
    if restart.backoff_s > restart.backoff_s_max:
        yield _above(("restart", "backoff_s"), restart.backoff_s, "restart.backoff_s_max", restart.backoff_s_max)


def _scheduling(scheduling: SchedulingOptions, transport: ChannelOptions) -> Iterator[Problem]:
    for name, other, limit in (
        ("chunk_bytes_max", "scheduling.worker_bytes_max", scheduling.worker_bytes_max),
        ("worker_bytes_max", "transport.inbox_bytes", transport.inbox_bytes),
    ):
        value = getattr(scheduling, name)
        if value > limit:
            yield _above(("scheduling", name), value, other, limit)


def _commit(commit: CommitOptions, flow: FlowOptions) -> Iterator[Problem]:
    if commit.bytes_max > flow.bytes_max:
        yield _above(("commit", "bytes_max"), commit.bytes_max, "flow.bytes_max", flow.bytes_max)


def _shutdown(kafka: Mapping[str, Any], shutdown: ShutdownOptions) -> Iterator[Problem]:
    consumer = kafka.get("consumer")
    settings = {**kafka, **(consumer if isinstance(consumer, Mapping) else {})}
    try:
        limit_s = float(settings.get(_MAX_POLL_INTERVAL, _MAX_POLL_INTERVAL_MS)) / 1000
    except (TypeError, ValueError):
        return  # the client has something to say about it
    for name in ("drain_timeout_s", "revoke_timeout_s"):
        value = getattr(shutdown, name)
        if value >= limit_s:
            yield Problem(
                ("shutdown", name),
                f": {value:g} is not allowed; allowed: less than {limit_s:g}, "
                f"for after {_MAX_POLL_INTERVAL} the group gives the partitions to others",
            )


def _above(key: Key, value: float, other: str, limit: float) -> Problem:
    return Problem(key, f": {value:.12g} is not allowed; allowed: at most {other} ({limit:.12g})")


_CHECKS: tuple[tuple[tuple[str, ...], Callable[..., Iterator[Problem]]], ...] = (
    (("kafka", "delivery", "instance"), _client),
    (("input",), _words),
    (("input",), _input),
    (("output",), _words),
    (("input", "output", "models"), _topics),
    (("models", "workers"), _slots),
    (("retry",), _retry),
    (("restart",), _restart),
    (("scheduling", "transport"), _scheduling),
    (("commit", "flow"), _commit),
    (("kafka", "shutdown"), _shutdown),
)
