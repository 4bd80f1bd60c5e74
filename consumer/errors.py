"""The errors an operator can meet, and the exit codes they end the program with.

Owns one small hierarchy, and the shape of an error that a part gets over by itself. Each class carries its `reason`, a
slug that logs and metrics use as it is, and its `exit_code`, should it reach the command line. What goes wrong with a
single record is no exception here but a value, a `core.types.Failure`: it becomes a dead letter, never the end of the
program. What a programmer did wrong is an `assert`. Must not know who raises or who reports; imports nothing of the
package.

    ConsumerError            failed                    1   base; raised only through its subclasses
      ConfigError            bad-configuration         2   before anything is consumed
      ModelError             model-unavailable         2   a model cannot be loaded, or is refused as it is
      BrokerError            broker-refused            4   unknown topic, refused login, missing permission
      ClientError            client-failed             5   the Kafka client is broken for good
      FencedError            fenced                    6   another instance has the same transactional.id
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar


class ExitCode(IntEnum):
    """What the program tells the shell that started it."""

    OK = 0
    FAILED = 1
    CONFIG = 2
    WORKER_BOOT = 3
    """A worker cannot boot, and would not if it were started again."""
    BROKER = 4
    CLIENT = 5
    FENCED = 6
    """Another instance with the same transactional.id has taken over."""
    INTERRUPTED = 130
    """A second SIGINT ended it at once."""
    TERMINATED = 143
    """A second SIGTERM ended it at once."""


class ConsumerError(Exception):
    """An operating error: one clear line that says what to do, without a payload and without a traceback."""

    reason: ClassVar[str] = "failed"
    exit_code: ClassVar[ExitCode] = ExitCode.FAILED


class ConfigError(ConsumerError):
    """The configuration cannot be used: every problem at once, one line each.

    Args:
        problems: Lines that name the key, its value and what is allowed.
    """

    reason = "bad-configuration"
    exit_code = ExitCode.CONFIG

    def __init__(self, *problems: str) -> None:
        assert problems, "a configuration error names at least one problem"
        super().__init__(*problems)
        self.problems = problems

    def __str__(self) -> str:
        """Put one problem on each line."""
        return "\n".join(self.problems)


class ModelError(ConsumerError):
    """A model cannot be loaded, or is refused as it is; the others are served."""

    reason = "model-unavailable"
    exit_code = ExitCode.CONFIG


class BrokerError(ConsumerError):
    """The broker refuses what the program needs: a topic, a login, a permission."""

    reason = "broker-refused"
    exit_code = ExitCode.BROKER


class ClientError(ConsumerError):
    """The Kafka client met an error that it says is fatal: only a new process goes on."""

    reason = "client-failed"
    exit_code = ExitCode.CLIENT


class FencedError(ConsumerError):
    """Another instance with the same transactional.id has taken over: to come back would only fence that one.

    Args:
        transactional_id: The id that both have.
    """

    reason = "fenced"
    exit_code = ExitCode.FENCED

    def __init__(self, transactional_id: str) -> None:
        super().__init__(
            f"another instance has taken over transactional.id {transactional_id}: give each copy its own `instance`"
        )


@dataclass(slots=True)
class Complaint:
    """One kind of error that the Kafka client gets over by itself, or waits to, and how often it came."""

    name: str
    """The client's name of the error, such as `TOPIC_AUTHORIZATION_FAILED`."""
    message: str
    """One line."""
    topic: str | None
    count: int = 1
