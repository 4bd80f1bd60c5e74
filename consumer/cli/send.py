"""`send`: put records into the input topic, as an upstream service would."""

import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path
from typing import Annotated

import typer
from confluent_kafka import KafkaError, Message, Producer

from consumer.cli.options import DEFAULT_CONFIG, ConfigPath
from consumer.cli.requests import Maker
from consumer.config import Settings, load
from consumer.errors import BrokerError, ConfigError
from consumer.kafka.admin import Admin
from consumer.kafka.errors import described
from consumer.kafka.settings import compose
from schemas.codecs import codec_for
from schemas.errors import RecordError
from schemas.headers import CONTENT_TYPE
from schemas.records import Request

FLUSH_TIMEOUT_S = 30.0
STDIN = "-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where a model's records go, and what names the model in them."""

    topic: str
    key: bytes | None
    headers: list[tuple[str, str | bytes | None]]
    content_type: str


@dataclass(slots=True)
class Deliveries:
    """What the broker said."""

    delivered: int = 0
    failed: int = 0
    errors: dict[str, None] = field(default_factory=dict)
    """One line for each kind of failure."""

    def note(self, error: KafkaError | None, _message: Message) -> None:
        """Take a delivery report."""
        if error is None:
            self.delivered += 1
        else:
            self.failed += 1
            self.errors[described(error)] = None


def send(  # noqa: PLR0913 - a command's options are its user's arguments
    model: Annotated[str, typer.Argument(help="The model that the records are for.")],
    value: Annotated[
        str | None,
        typer.Argument(help="One record as JSON: its elements, its inputs by name, or a V2 request; - reads lines."),
    ] = None,
    *,
    config: ConfigPath = DEFAULT_CONFIG,
    file: Annotated[Path | None, typer.Option("--file", "-f", help="JSON lines, or a .npy array of records.")] = None,
    topic: Annotated[str | None, typer.Option(help="The topic; by default the first configured one.")] = None,
    content_type: Annotated[str | None, typer.Option(help="The codec; by default the configured one.")] = None,
    datatype: Annotated[str | None, typer.Option(help="The elements' datatype, such as FP32 or INT64.")] = None,
    count: Annotated[int | None, typer.Option(min=1, help="Send so many, over and over again.")] = None,
    rate: Annotated[float, typer.Option(min=0, help="Records a second; 0: as fast as it goes.")] = 0,
) -> int:
    """Send records to a model: one from the command line, or many from a file or standard input.

    Examples:
    inference-consumer send fraud '[0.5, 1.5, 2.5]'

    inference-consumer send fraud --file images.npy --rate 100

    generate | inference-consumer send fraud -
    """
    settings = load(config)
    address = _address(settings, model, topic, content_type)
    specs = (settings.models[model].inputs if model in settings.models else None) or ()
    requests = _requests(Maker(specs, datatype), value, file)
    if count is not None:
        requests = islice(cycle(requests), count)
    clients = compose(settings.kafka)
    if address.topic not in Admin(clients.admin).topics():
        raise BrokerError(f"there is no topic {address.topic}: create it, or name another with --topic")
    producer = Producer({**clients.producer, "delivery.report.only.error": False})
    started_s = time.monotonic()
    deliveries = _produce(producer, address, requests, rate)
    took_s = time.monotonic() - started_s
    typer.echo(f"sent {deliveries.delivered} records for {model} to {address.topic} in {took_s:.2f} s")
    if deliveries.failed:
        raise BrokerError(f"{deliveries.failed} records were not taken: {'; '.join(deliveries.errors)}")
    return 0


def _address(settings: Settings, model: str, topic: str | None, content_type: str | None) -> Address:
    """Find out what makes a record one of this model's."""
    if topic is None:
        topic = settings.input.topics[0]
        if topic.startswith("^"):
            raise ConfigError(f"input.topics has the pattern {topic}: say with --topic which topic to send to")
    kind, _, name = settings.input.model.partition(":")
    headers: list[tuple[str, str | bytes | None]] = [(name, model.encode())] if kind == "header" else []
    chosen = content_type or settings.input.content_type
    try:
        codec_for(chosen)
    except RecordError as error:
        raise ConfigError(f"--content-type: {chosen!r} is not allowed: {error}") from None
    if chosen != settings.input.content_type:
        headers.append((CONTENT_TYPE, chosen.encode()))
    return Address(topic=topic, key=model.encode() if kind == "key" else None, headers=headers, content_type=chosen)


def _requests(maker: Maker, value: str | None, file: Path | None) -> Iterable[Request]:
    """Pick where the requests come from: exactly one of the three."""
    if (value is None) == (file is None):
        raise ConfigError("give one record as an argument, - for lines on standard input, or --file")
    if file is not None:
        return maker.of_file(file)
    assert value is not None, "one of the two is given"
    if value == STDIN:
        return maker.of_lines(sys.stdin.buffer, "standard input")
    return [maker.of_json(value.encode(), "the record")]


def _produce(producer: Producer, address: Address, requests: Iterable[Request], rate: float) -> Deliveries:
    """Produce at a steady rate, and wait for what the broker says."""
    deliveries = Deliveries()
    for request in _paced(requests, producer, rate):
        value = codec_for(address.content_type).encode_request(request)
        while True:
            try:
                producer.produce(
                    address.topic, value, address.key, headers=address.headers, on_delivery=deliveries.note
                )
                break
            except BufferError:
                producer.poll(0.1)  # the broker is slower than we are
    left = producer.flush(FLUSH_TIMEOUT_S)
    if left:
        deliveries.failed += left
        deliveries.errors[f"no answer in {FLUSH_TIMEOUT_S:g} s"] = None
    return deliveries


def _paced(requests: Iterable[Request], producer: Producer, rate: float) -> Iterator[Request]:
    """Let requests through when their time has come, and hear the broker meanwhile."""
    started_s = time.monotonic()
    for number, request in enumerate(requests):
        while rate and (wait_s := started_s + number / rate - time.monotonic()) > 0:
            producer.poll(wait_s)
        producer.poll(0)
        yield request
