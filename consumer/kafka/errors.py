"""What the Kafka client complains about, as values: each kind once, in words that say what to do.

Owns the collection of complaints and their wording. Must not know what follows from one.
"""

from collections import OrderedDict
from collections.abc import Iterable

from confluent_kafka import KafkaError, Message

from consumer.errors import Complaint

KINDS_MAX = 100
"""Different complaints kept between two calls of `take`; more are counted with the last."""

ADVICE = {
    "UNKNOWN_TOPIC_OR_PART": "create the topic, or correct its name",
    "TOPIC_AUTHORIZATION_FAILED": "the user lacks a permission (ACL) for the topic",
    "GROUP_AUTHORIZATION_FAILED": "the user lacks the permission (ACL) to read with this group.id",
    "CLUSTER_AUTHORIZATION_FAILED": "the user lacks the permission (ACL) to produce idempotently",
    "SASL_AUTHENTICATION_FAILED": "correct sasl.mechanism, sasl.username and sasl.password",
    "_AUTHENTICATION": "correct the sasl.* settings",
    "_SSL": "correct security.protocol and the ssl.* settings",
    "_ALL_BROKERS_DOWN": "no broker answers: start them, or correct bootstrap.servers",
    "_TRANSPORT": "a broker does not answer: start it, or correct bootstrap.servers",
    "_RESOLVE": "correct the host names in bootstrap.servers, and in the brokers' advertised.listeners",
    "TRANSACTIONAL_ID_AUTHORIZATION_FAILED": "the user lacks the permission (ACL) to write with this transactional.id",
    "INVALID_TRANSACTION_TIMEOUT": "lower kafka.transaction.timeout.ms to the brokers' transaction.max.timeout.ms",
    "_UNSUPPORTED_FEATURE": "use brokers that can, or set delivery: at-least-once",
    "UNSTABLE_OFFSET_COMMIT": "an earlier member's transaction is open: it ends by its transaction.timeout.ms",
    "_MAX_POLL_EXCEEDED": "the loop did not poll for max.poll.interval.ms: the machine is overloaded or was frozen",
}
"""What an operator can do, by the error's name."""


def one_line(error: KafkaError) -> str:
    """Return what the client says of an error."""
    return " ".join(error.str().split())


def described(error: KafkaError) -> str:
    """Return what the client says of an error, and what can be done about it."""
    # The client tells some failures of TLS as the end of a connection.
    name = "_SSL" if "SSL routines:" in error.str() else error.name()
    advice = ADVICE.get(name)
    return f"{one_line(error)} ({advice})" if advice else one_line(error)


class Complaints:
    """Errors since they were last taken."""

    def __init__(self) -> None:
        """Start with none."""
        self._kinds: OrderedDict[tuple[str, str | None], Complaint] = OrderedDict()
        self.fatal: str | None = None
        """The error after which the client is of no use."""
        self.fatal_name = ""

    def note(self, error: KafkaError, topic: str | None = None) -> None:
        """Take an error; also as the client's `error_cb`."""
        if error.fatal() or error.code() == KafkaError._FATAL:  # noqa: SLF001 - its name
            self.break_down(error)
        self.add(error.name(), described(error), topic)

    def sift(self, messages: Iterable[Message]) -> list[Message]:
        """Take the errors out of what a fetch brought; return the records."""
        records = []
        for message in messages:
            if (error := message.error()) is not None:
                self.note(error, message.topic())
            else:
                records.append(message)
        return records

    def break_down(self, error: KafkaError) -> None:
        """Take an error after which the client is of no use, whatever it says of it."""
        self.fatal, self.fatal_name = f"{error.name()}: {one_line(error)}", error.name()

    def add(self, name: str, message: str, topic: str | None = None) -> None:
        """Take a complaint in words."""
        kind = (name, topic)
        if kind in self._kinds:
            self._kinds[kind].count += 1
        elif len(self._kinds) < KINDS_MAX:
            self._kinds[kind] = Complaint(name, message, topic)
        else:
            self._kinds[next(reversed(self._kinds))].count += 1

    def take(self) -> list[Complaint]:
        """Return and forget them."""
        taken, self._kinds = list(self._kinds.values()), OrderedDict()
        return taken
