"""The composition root: makes every part, hands each its options, and runs the loop.

Owns who knows whom, and the order in which things start and end. Decides nothing else.
"""

import gc
import os
import random
import re
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

import structlog

from consumer.config import Settings
from consumer.core.breaker import BreakerOptions, CrashOptions
from consumer.core.dispatcher import Dispatcher
from consumer.core.expiry import ModelExpiry
from consumer.core.limits import ModelLimits
from consumer.core.placement import ModelPlace
from consumer.core.policies import DispatcherOptions, ModelPolicy
from consumer.core.scheduling import ModelShare
from consumer.core.types import TopicPartition
from consumer.errors import ConsumerError, ExitCode
from consumer.kafka.admin import Admin
from consumer.kafka.memory import keep_pages
from consumer.kafka.pretence import examine
from consumer.kafka.settings import ClientSettings, compose
from consumer.kafka.sink import Routes, Sink
from consumer.kafka.source import Source
from consumer.kafka.transactions import TransactionalSink
from consumer.models.options import ModelOptions
from consumer.observe.health import Health
from consumer.observe.http import HttpServer
from consumer.observe.logs import Journal, configure
from consumer.observe.metrics import Metrics
from consumer.supervisor.loop import Loop, Parts
from consumer.supervisor.pool import Launch, Pool, PoolOptions
from consumer.supervisor.signals import StopSignals
from consumer.worker import process
from consumer.worker.device import WorkerSlot, environment, needs_gpu_count, plan, summary
from consumer.worker.hardware import gather
from schemas.topics import TopicTemplates

GC_ALLOCATIONS = 20_000
"""Objects made, and not gone again, between two collections: the supervisor makes a tuple per record, not a cycle."""

_log = structlog.get_logger("consumer.app")


def run(settings: Settings) -> int:
    """Serve until a signal asks for the end, or until it cannot go on; return the exit code.

    Raises:
        ConsumerError: What the program needs to start is not there; one clear line says what.
    """
    configure(settings.logging)
    keep_pages()
    facts = gather(with_gpus=needs_gpu_count(settings.workers))
    slots = plan(settings.workers, facts)
    _log.info("workers.planned", summary=summary(slots, facts))
    clients = compose(settings.kafka, exactly_once=_is_exactly_once(settings), instance=settings.instance)
    topics = Topics(settings, Admin(clients.admin))
    topics.prepare(topics.inputs())
    with StopSignals() as signals, _endpoint(settings) as (metrics, health), _pool(settings, slots) as pool:
        pool.watch(signals.fileno())
        parts = Parts(
            dispatcher=_dispatcher(settings, len(slots)),
            pool=pool,
            sink=_sink(settings, clients, topics),
            signals=signals,
            observers=(metrics, health, Journal()),
            pulse=health,
            prepare=topics.prepare,
        )
        exit_code = _serve(settings, parts, clients, topics)
        has_ended = pool.stop()
    if not has_ended or exit_code is not ExitCode.OK:
        _leave(exit_code)
    return exit_code


def _serve(settings: Settings, parts: Parts, clients: ClientSettings, topics: "Topics") -> ExitCode:
    """Turn the loop to its end; a client that broke for good ends it, too."""
    loop = Loop(parts, settings.shutdown)
    try:
        source = Source(
            clients.consumer,
            settings.input,
            loop.on_revoke,
            never=topics.never_input(),
            topic_id=topics.identity,
            needs_map=_is_exactly_once(settings),
        )
        loop.attach(source)
        _settle_down()
        return loop.run()
    except ConsumerError as error:
        _log.error("supervisor.failed", reason=error.reason, message=str(error))
        return error.exit_code


def _settle_down() -> None:
    """Keep the collector from walking what stays, and from coming after every few hundred records."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_ALLOCATIONS)


def _is_exactly_once(settings: Settings) -> bool:
    """Tell whether outcomes and offsets are committed in one transaction."""
    return settings.delivery == "exactly-once"


def _sink(settings: Settings, clients: ClientSettings, topics: "Topics") -> Sink | TransactionalSink:
    """Make the sink that the kind of delivery asks for."""
    if not _is_exactly_once(settings):
        return Sink(clients.producer, topics.routes())
    routes = topics.routes()
    asking = partial(
        examine, clients.admin, str(clients.producer["transactional.id"]), next(iter(routes.results.values()))
    )
    return TransactionalSink(clients.producer, routes, partial(topics.committed, clients.consumer["group.id"]), asking)


def _leave(exit_code: int) -> None:
    """End at once: a client or a driver that hangs must not keep the interpreter from ending."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(exit_code)


class Topics:
    """The topics that records come from and outcomes go to, as they are on the cluster."""

    def __init__(self, settings: Settings, admin: Admin) -> None:
        """Take the names from the configuration."""
        self._input = settings.input
        self._output = settings.output
        self._admin = admin
        self._templates = TopicTemplates(
            result=settings.output.result_topic, dead_letter=settings.output.dead_letter_topic
        )
        self._results = {model: self._templates.result_topic(model) for model in settings.models}
        self._prepared: set[str] = set()
        self._bytes_max: dict[str, int] = {}

    def inputs(self) -> list[str]:
        """Name the input topics that are known now: those of the configuration, and those a pattern finds."""
        names = [topic for topic in self._input.topics if not topic.startswith("^")]
        patterns = [re.compile(topic) for topic in self._input.topics if topic.startswith("^")]
        if patterns:
            never = [re.compile(pattern) for pattern in self.never_input()]
            names += [
                topic
                for topic in sorted(self._admin.topics())
                if any(each.match(topic) for each in patterns) and not any(each.fullmatch(topic) for each in never)
            ]
        return list(dict.fromkeys(names))

    def never_input(self) -> list[str]:
        """Give the patterns of topics that are outputs, which no input pattern may bring back."""
        dead_letters = re.escape(self._templates.dead_letter).replace(re.escape("{topic}"), ".*")
        return [f"^{re.escape(topic)}$" for topic in self._results.values()] + [f"^{dead_letters}$"]

    def prepare(self, inputs: Collection[str]) -> None:
        """See that everything that records of these input topics may become has a topic.

        Raises:
            BrokerError: One is missing and may not be created.
        """
        wanted = {self._templates.dead_letter_topic(topic) for topic in inputs} | set(self._results.values())
        missing = wanted - self._prepared
        if not missing:
            return
        if created := self._admin.ensure(missing, self._output):
            _log.info("topics.created", topics=created)
        self._prepared |= missing
        self._bytes_max |= self._admin.bytes_max(missing)

    def identity(self, topic: str) -> str:
        """Tell a topic from another one of its name."""
        return self._admin.topic_id(topic)

    def committed(
        self, group: object, partitions: Collection[TopicPartition]
    ) -> Mapping[TopicPartition, tuple[int, str]]:
        """Ask for the offsets that a group has committed."""
        return self._admin.committed(str(group), partitions)

    def routes(self) -> Routes:
        """Say where outcomes go."""
        return Routes(
            results=self._results,
            dead_letters=self._templates.dead_letter_topic,
            key=self._output.key,
            bytes_max=self._bytes_max,
        )


@contextmanager
def _endpoint(settings: Settings) -> Iterator[tuple[Metrics, Health]]:
    """Watch the loop, and tell about it over HTTP where that is wanted."""
    metrics = Metrics(settings.models)
    preloaded = {name: model.preload for name, model in settings.models.items()}
    health = Health(preloaded, stalled_s=settings.http.stalled_s)
    if not settings.http.enabled:
        yield metrics, health
        return
    server = HttpServer(settings.http, health, metrics.registry)
    server.start()
    _log.info("http.started", host=server.address[0], port=server.address[1])
    try:
        yield metrics, health
    finally:
        server.stop()


def _pool(settings: Settings, slots: Sequence[WorkerSlot]) -> Pool[process.WorkerSpec]:
    """Make the pool of workers, none of them started."""
    launches = [
        Launch(
            process.WorkerSpec(
                slot=slot,
                models=settings.models,
                python_path=settings.python_path,
                content_type=settings.input.content_type,
                memory_bytes_max=settings.watchdog.memory_bytes_max,
            ),
            environment(slot),
        )
        for slot in slots
    ]
    options = PoolOptions(
        boot_timeout_s=settings.watchdog.boot_timeout_s, stop_timeout_s=settings.shutdown.worker_timeout_s
    )
    return Pool(process.main, launches, options, settings.transport)


def _dispatcher(settings: Settings, slots: int) -> Dispatcher:
    """Make the core."""
    options = DispatcherOptions(
        exactly_once=_is_exactly_once(settings),
        flow=settings.flow,
        scheduling=settings.scheduling,
        placement=settings.placement,
        commit=settings.commit,
        retry=settings.retry,
        restart=settings.restart,
    )
    models = {name: _policy(model) for name, model in settings.models.items()}
    jitter: Callable[[], float] = random.SystemRandom().random
    return Dispatcher(options, models, slots, jitter, time.monotonic())


def _policy(model: ModelOptions) -> ModelPolicy:
    """Pick what the core wants to know of a model."""
    return ModelPolicy(
        share=ModelShare(
            weight=model.weight,
            priority=model.priority,
            rows_max=model.rows_max * model.calls_gathered,
            limits=ModelLimits(model.in_flight_records_max, model.rate_per_s_max),
        ),
        place=ModelPlace(
            slots=None if model.workers is None else frozenset(model.workers),
            is_preloaded=model.preload,
            breaker=BreakerOptions(backoff_s=model.probe_backoff_s, backoff_s_max=model.probe_backoff_s_max),
            crashes=CrashOptions(budget_s=model.crash_budget_s, window_s=model.crash_window_s),
        ),
        expiry=ModelExpiry(age_s_max=model.age_s_max, is_dropped=model.on_expired == "drop"),
        is_dead_lettered_on_hold=model.on_hold == "dead-letter",
    )
