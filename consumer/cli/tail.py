"""`tail`: read results and dead letters, as a downstream service would."""

import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, cast

import numpy as np
import orjson
import typer
from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, Consumer, Message, TopicPartition

from consumer.app import Topics
from consumer.cli.options import DEFAULT_CONFIG, ConfigPath
from consumer.config import Settings, load
from consumer.errors import ConfigError
from consumer.kafka.admin import Admin
from consumer.kafka.errors import Complaints
from consumer.kafka.settings import compose
from schemas.codecs import decode_result
from schemas.errors import RecordError
from schemas.headers import content_type, parse_dead_letter
from schemas.records import BATCH_ROWS, INFER_MS, QUEUE_MS
from schemas.tensors import Tensor
from schemas.topics import TopicTemplates

LOOK_INTERVAL_S = 2.0
"""How often new topics and partitions are looked for."""
WAIT_S = 0.2
ELEMENTS_SHOWN = 8


def tail(  # noqa: PLR0913 - a command's options are its user's arguments
    models: Annotated[list[str] | None, typer.Argument(help="Only these models' results; by default all.")] = None,
    *,
    config: ConfigPath = DEFAULT_CONFIG,
    from_beginning: Annotated[
        bool, typer.Option("--from-beginning", help="Begin with the oldest records instead of the next ones.")
    ] = False,
    dead_letters: Annotated[bool, typer.Option(help="Whether dead letters are shown, too.")] = True,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
    count: Annotated[int | None, typer.Option("--count", "-n", min=1, help="End after so many records.")] = None,
    idle_s: Annotated[
        float | None, typer.Option("--idle", min=0, help="End when nothing has come for so many seconds.")
    ] = None,
) -> int:
    """Print results and dead letters as they come, decoded, until Ctrl-C.

    Belongs to no consumer group and commits nothing: it disturbs nobody.
    """
    settings = load(config)
    unknown = sorted(set(models or ()) - set(settings.models))
    if unknown:
        raise ConfigError(f"no model {', '.join(unknown)} is configured; there are: {', '.join(settings.models)}")
    reader = Reader(settings, models or list(settings.models), has_dead_letters=dead_letters)
    write = _as_json if json else _as_text
    try:
        for message in _limited(reader.read(OFFSET_BEGINNING if from_beginning else OFFSET_END), count, idle_s):
            typer.echo(write(message))
    except KeyboardInterrupt:
        pass
    finally:
        reader.close()
    return 0


class Reader:
    """Reads output topics from outside the group, those that appear later as well.

    Raises:
        BrokerError: No broker answers.
    """

    def __init__(self, settings: Settings, models: Sequence[str], *, has_dead_letters: bool) -> None:
        clients = compose(settings.kafka)
        self._admin = Admin(clients.admin)
        self._topics = Topics(settings, self._admin)
        self._templates = TopicTemplates(
            result=settings.output.result_topic, dead_letter=settings.output.dead_letter_topic
        )
        self._results = [self._templates.result_topic(model) for model in models]
        self._has_dead_letters = has_dead_letters
        self._complaints = Complaints()
        self._assigned: set[tuple[str, int]] = set()
        self._consumer = Consumer(
            {
                **clients.consumer,
                "group.id": f"inference-consumer-tail-{uuid.uuid4().hex[:8]}",  # asked for by the client, never joined
                "error_cb": self._complaints.note,
            }
        )

    def read(self, start: int) -> Iterator[Message | None]:
        """Give records as they come, and None now and then while none does.

        Args:
            start: Where partitions begin that are there now; those that appear later are read whole.
        """
        look_at_s = 0.0
        while True:
            if time.monotonic() >= look_at_s:
                self._assign(start)
                start = OFFSET_BEGINNING
                look_at_s = time.monotonic() + LOOK_INTERVAL_S
            message = self._consumer.poll(WAIT_S)
            for complaint in self._complaints.take():
                typer.echo(f"kafka: {complaint.message}", err=True)
            if message is None or message.error() is None:
                yield message

    def close(self) -> None:
        """Leave."""
        self._consumer.close()

    def _assign(self, start: int) -> None:
        topics = self._admin.topics()
        wanted = list(self._results)
        if self._has_dead_letters:
            wanted += map(self._templates.dead_letter_topic, self._topics.inputs())
        found = {(topic, partition) for topic in wanted for partition in range(topics.get(topic, 0))}
        new = sorted(found - self._assigned)
        if new:
            self._consumer.incremental_assign([TopicPartition(topic, partition, start) for topic, partition in new])
            self._assigned |= found


def _limited(messages: Iterator[Message | None], count: int | None, idle_s: float | None) -> Iterator[Message]:
    """End after a number of records, or when none has come for a while."""
    seen = 0
    last_s = time.monotonic()
    for message in messages:
        if message is not None:
            yield message
            seen += 1
            last_s = time.monotonic()
        if seen == count or (idle_s is not None and time.monotonic() - last_s >= idle_s):
            return


# One record as people and as programs read it.


def _decode(message: Message) -> dict[str, Any]:
    """Say everything about a record: a dead letter, a result, or why it is neither."""
    about: dict[str, Any] = {
        "topic": message.topic(),
        "partition": message.partition(),
        "offset": message.offset(),
        "key": (message.key() or b"").decode(errors="replace"),
    }
    # The client gives headers as pairs of names and bytes; its annotations allow for what it takes as well.
    headers = cast("list[tuple[str, bytes | None]] | None", message.headers())
    try:
        letter = parse_dead_letter(headers)
        if letter is not None:
            source = letter.source
            return about | {
                "dead_letter": {
                    "reason": letter.reason,
                    "error": letter.error,
                    "message": letter.message,
                    "attempts": letter.attempts,
                    "model": letter.model,
                    "model_version": letter.model_version,
                    "source": f"{source.topic}-{source.partition}-{source.offset}",
                }
            }
        result = decode_result(message.value() or b"", content_type(headers))
    except RecordError as error:
        return about | {"unreadable": str(error)}
    return about | {
        "result": {
            "id": result.id,
            "model": result.model_name,
            "version": result.model_version,
            "outputs": {output.name: _elements(output) for output in result.outputs},
            "parameters": dict(result.parameters),
        }
    }


def _elements(tensor: Tensor) -> Any:
    """Give a tensor's elements as JSON has them."""
    if isinstance(tensor.data, list):
        texts = [element.decode(errors="replace") for element in tensor.data]
        return np.array(texts, dtype=object).reshape(tensor.shape).tolist()
    return tensor.data.tolist()


def _as_json(message: Message) -> str:
    return orjson.dumps(_decode(message), option=orjson.OPT_NON_STR_KEYS).decode()


def _as_text(message: Message) -> str:
    """Write a record as one line that fits a screen."""
    about = _decode(message)
    where = f"{about['topic']}-{about['partition']}@{about['offset']}"
    writers: Mapping[str, Callable[[dict[str, Any]], str]] = {"dead_letter": _letter_text, "result": _result_text}
    for kind, write in writers.items():
        if kind in about:
            return f"{where}  {write(about[kind])}"
    return f"{where}  unreadable: {about['unreadable']}"


def _letter_text(letter: dict[str, Any]) -> str:
    model = f" for {letter['model']}" if letter["model"] else ""
    return f"dead letter{model}: {letter['reason']}: {letter['message']}  (from {letter['source']})"


def _result_text(result: dict[str, Any]) -> str:
    outputs = "  ".join(f"{name}={_short(elements)}" for name, elements in result["outputs"].items())
    parameters = result["parameters"]
    figures = "  ".join(
        f"{name} {round(parameters[name], 1)}" for name in (BATCH_ROWS, QUEUE_MS, INFER_MS) if name in parameters
    )
    return f"{result['model']} {result['id']}  {outputs}  {figures}"


def _short(elements: Any) -> str:
    """Write the first elements of a tensor."""
    flat = np.asarray(elements, dtype=object).reshape(-1)
    shown = ", ".join(f"{each:.4g}" if isinstance(each, float) else str(each) for each in flat[:ELEMENTS_SHOWN])
    return f"[{shown}{', ...' if len(flat) > ELEMENTS_SHOWN else ''}]"
