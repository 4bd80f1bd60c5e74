"""Whether the program lives and is ready, and what its parts are doing.

Owns what `/healthz`, `/readyz` and `/status` say. It is fed by the supervisor's loop and read by the HTTP thread: the
rare facts that change it are noted under a lock, everything else passes by. Must not know who asks.
"""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from consumer.core import actions, events
from consumer.core.types import ModelId, TopicPartition, WorkerId
from consumer.errors import Complaint
from consumer.observe.observer import Snapshot

COMPLAINT_S = 60.0
"""How long an error of a Kafka client is shown after it was last told of."""
COMPLAINTS_MAX = 50
"""Kinds of errors that are remembered."""


@dataclass(slots=True)
class _Worker:
    """What is known of a worker slot."""

    worker: WorkerId
    device: str | None = None
    """None until the worker is ready, and again once it has exited."""
    restarts: int = 0


@dataclass(slots=True)
class _Model:
    """What is known of a configured model."""

    is_preloaded: bool
    """Whether the program is not ready before the model is."""
    version: str | None = None
    """None until a worker has loaded it."""
    broken: str | None = None
    """Why its breaker is open."""
    waiting: int = 0
    """Records that wait for a worker."""
    is_limited: bool = False
    """Whether its own limits let nothing through."""


class Health:
    """Follows the loop and answers for it.

    Args:
        models: The configured models; True for those that are to be loaded before the program is ready.
        stalled_s: After so long without a turn the loop counts as stuck.
        clock: Monotonic seconds.
    """

    def __init__(
        self, models: Mapping[ModelId, bool], *, stalled_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        self._stalled_s = stalled_s
        self._started_s = self._turned_s = clock()
        self._lock = threading.Lock()
        self._phase = "starting"
        self._has_joined = False
        self._partitions: dict[TopicPartition, int | None] = {}
        self._paused: set[TopicPartition] = set()
        self._workers: dict[int, _Worker] = {}
        self._models = {model: _Model(is_preloaded) for model, is_preloaded in models.items()}
        self._parked: dict[str, str] = {}
        """Output topics that take nothing now, and why."""
        self._complaints: dict[tuple[str, str | None], tuple[float, str]] = {}
        """When each kind of error was last told of, oldest first, and its words."""
        self._in_flight = (0, 0)
        self._events: Mapping[type, Callable[[Any], None]] = {
            events.Assigned: self._assign,
            events.Revoked: self._revoke,
            events.WorkerReady: self._worker_ready,
            events.WorkerExited: self._worker_exited,
            events.ModelLoaded: self._model_loaded,
            events.Drain: self._drain,
        }
        self._actions: Mapping[type, Callable[[Any], None]] = {
            actions.Pause: self._pause,
            actions.Resume: self._resume,
            actions.Spawn: self._spawn,
            actions.Note: self._note,
            actions.Stop: self._stop,
        }

    def turned(self) -> None:
        """Note that the loop has turned once more."""
        self._turned_s = self._clock()

    def observe(self, event: events.Event) -> None:
        """Note a fact that changes the state."""
        note = self._events.get(type(event))
        if note is not None:
            with self._lock:
                note(event)

    def observe_action(self, action: actions.Action) -> None:
        """Note an action that changes the state."""
        note = self._actions.get(type(action))
        if note is not None:
            with self._lock:
                note(action)

    def complain(self, complaint: Complaint) -> None:
        """Note what a client complains about, the newest of each kind."""
        with self._lock:
            kind = (complaint.name, complaint.topic)
            self._complaints.pop(kind, None)
            self._complaints[kind] = (self._clock(), complaint.message)
            if len(self._complaints) > COMPLAINTS_MAX:
                del self._complaints[next(iter(self._complaints))]

    def publish(self, snapshot: Snapshot) -> None:
        """Note the levels of the moment."""
        with self._lock:
            self._in_flight = (snapshot.in_flight_records, snapshot.in_flight_bytes)
            for partition in self._partitions:
                self._partitions[partition] = snapshot.lag.get(partition)
            for model, each in self._models.items():
                each.waiting, each.is_limited = snapshot.waiting.get(model, 0), model in snapshot.limited

    def stalled(self) -> str | None:
        """Say why the program counts as dead; None while its loop turns."""
        still_s = self._clock() - self._turned_s
        if still_s <= self._stalled_s:
            return None
        return f"the supervisor's loop has not turned for {still_s:.0f} s"

    def not_ready(self) -> list[str]:
        """List what keeps the program from being ready; empty when it is."""
        with self._lock:
            return self._not_ready()

    def status(self) -> dict[str, Any]:
        """Describe the program and its parts, ready to be written as JSON."""
        with self._lock:
            reasons = self._not_ready()
            records, size = self._in_flight
            return {
                "phase": self._phase,
                "ready": not reasons,
                "reasons": reasons,
                "uptime_s": round(self._clock() - self._started_s, 1),
                "in_flight": {"records": records, "bytes": size},
                "partitions": [
                    {
                        "topic": partition.topic,
                        "partition": partition.partition,
                        "lag_records": lag,
                        "paused": partition in self._paused,
                    }
                    for partition, lag in sorted(self._partitions.items(), key=lambda item: item[0])
                ],
                "workers": [
                    {"slot": slot, "ready": each.device is not None, "device": each.device, "restarts": each.restarts}
                    for slot, each in sorted(self._workers.items())
                ],
                "models": [
                    {
                        "id": model,
                        "state": "broken" if each.broken else "loaded" if each.version is not None else "not loaded",
                        "version": each.version,
                        "failure": each.broken,
                        "waiting_records": each.waiting,
                        "limited": each.is_limited,
                    }
                    for model, each in self._models.items()
                ],
                "complaints": [
                    {"error": error, "topic": topic, "message": message, "ago_s": round(self._clock() - at_s, 1)}
                    for (error, topic), (at_s, message) in self._complaints.items()
                    if self._clock() - at_s <= COMPLAINT_S
                ],
                "parked_topics": [{"topic": topic, "failure": why} for topic, why in sorted(self._parked.items())],
            }

    def _not_ready(self) -> list[str]:
        reasons = []
        if self._phase in {"draining", "stopped"}:
            reasons.append(self._phase)
        if not self._has_joined:
            reasons.append("the consumer group is not joined yet")
        up = sum(each.device is not None for each in self._workers.values())
        if not self._workers or up < len(self._workers):
            reasons.append(f"{up} of {len(self._workers)} workers are up")
        for model, each in self._models.items():
            if each.broken:
                reasons.append(f"model {model!r} is broken: {each.broken}")
            elif each.is_preloaded and each.version is None:
                reasons.append(f"model {model!r} is not loaded yet")
        stalled = self.stalled()
        return reasons if stalled is None else [*reasons, stalled]

    def _assign(self, event: events.Assigned) -> None:
        self._has_joined = True
        self._partitions.update(dict.fromkeys(event.partitions))
        if self._phase == "starting":
            self._phase = "running"

    def _revoke(self, event: events.Revoked) -> None:
        for partition in event.partitions:
            self._partitions.pop(partition, None)
            self._paused.discard(partition)

    def _pause(self, action: actions.Pause) -> None:
        self._paused.update(action.partitions)

    def _resume(self, action: actions.Resume) -> None:
        self._paused.difference_update(action.partitions)

    def _spawn(self, action: actions.Spawn) -> None:
        before = self._workers.get(action.slot)
        self._workers[action.slot] = _Worker(action.worker, restarts=0 if before is None else before.restarts + 1)

    def _worker_ready(self, event: events.WorkerReady) -> None:
        for each in self._workers.values():
            if each.worker == event.worker:
                each.device = event.device

    def _worker_exited(self, event: events.WorkerExited) -> None:
        for each in self._workers.values():
            if each.worker == event.worker:
                each.device = None

    def _model_loaded(self, event: events.ModelLoaded) -> None:
        self._models[event.model].version = event.version

    def _note(self, action: actions.Note) -> None:
        """Take the core's word on breakers and topics.

        One worker that cannot load a model breaks nothing yet, and one that can mends nothing that workers died of.
        """
        fields = action.fields
        match action.name:
            case "model.broken":
                self._models[str(fields["model"])].broken = str(fields["message"])
            case "model.recovered":
                self._models[str(fields["model"])].broken = None
            case "topic.parked":
                self._parked[str(fields["topic"])] = str(fields["message"])
            case "topic.resumed":
                self._parked.pop(str(fields["topic"]), None)

    def _drain(self, _event: events.Drain) -> None:
        self._phase = "draining"

    def _stop(self, _action: actions.Stop) -> None:
        self._phase = "stopped"
