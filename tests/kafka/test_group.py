"""Who a member is, read from what the client says of it."""

import sys

import pytest
from confluent_kafka import Consumer

from consumer.kafka.group import METADATA_MAGIC, has_joined


def metadata(generation: int, member: bytes) -> bytes:
    """Write group metadata as the client does."""
    return METADATA_MAGIC + generation.to_bytes(4, sys.byteorder, signed=True) + b"group\0" + member + b"\0\0"


def test_a_client_that_has_not_joined_says_so() -> None:
    """Before it joined, a client's own metadata has no generation: a commit with it would be fenced by nothing."""
    client = Consumer({"bootstrap.servers": "127.0.0.1:1", "group.id": "group", "log_level": 0})
    try:
        told = client.consumer_group_metadata()
        assert told.startswith(METADATA_MAGIC), "the client writes another form: `has_joined` has to read it"
        assert not has_joined(told)
    finally:
        client.close()


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (metadata(0, b"member"), True),
        (metadata(7, b"member"), True),
        (metadata(-1, b"member"), False),
        (metadata(7, b""), False),
        (METADATA_MAGIC, False),
        (b"another form", False),
        (b"", False),
    ],
)
def test_only_a_generation_and_a_member_are_a_membership(told: bytes, *, expected: bool) -> None:
    """Anything less is none, and an unknown form is not believed."""
    assert has_joined(told) is expected
