"""The mock cluster that the Kafka client's own library carries: brokers that answer with errors to order.

Owns the calls into the library. Must not know what is tested. It keeps no offsets of transactions and fences nobody;
what a real broker does is for the other tests.

Source: `rdkafka_mock.h` of librdkafka; the symbols are exported by the wheel's library.
"""

import ctypes
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import confluent_kafka

PRODUCER = 0
ERROR_BYTES = 512


def _library() -> ctypes.CDLL:
    folder = Path(confluent_kafka.__file__).parents[1] / "confluent_kafka.libs"
    library = ctypes.CDLL(str(next(folder.glob("librdkafka-*.so*"))))
    pointer, text, size = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t
    signatures: dict[str, tuple[Any, list[Any]]] = {
        "rd_kafka_conf_new": (pointer, []),
        "rd_kafka_conf_set": (ctypes.c_int, [pointer, text, text, text, size]),
        "rd_kafka_new": (pointer, [ctypes.c_int, pointer, text, size]),
        "rd_kafka_destroy": (None, [pointer]),
        "rd_kafka_handle_mock_cluster": (pointer, [pointer]),
        "rd_kafka_mock_cluster_bootstraps": (text, [pointer]),
        "rd_kafka_mock_topic_create": (ctypes.c_int, [pointer, text, ctypes.c_int, ctypes.c_int]),
        "rd_kafka_mock_push_request_errors_array": (
            None,
            [pointer, ctypes.c_int16, size, ctypes.POINTER(ctypes.c_int)],
        ),
        "rd_kafka_mock_start_request_tracking": (None, [pointer]),
        "rd_kafka_mock_get_requests": (ctypes.POINTER(pointer), [pointer, ctypes.POINTER(size)]),
        "rd_kafka_mock_request_api_key": (ctypes.c_int16, [pointer]),
        "rd_kafka_mock_request_destroy_array": (None, [ctypes.POINTER(pointer), size]),
    }
    for name, (result, arguments) in signatures.items():
        call = getattr(library, name)
        call.restype, call.argtypes = result, arguments
    return library


class MockCluster:
    """One broker with topics of one partition each."""

    def __init__(self, topics: Sequence[str]) -> None:
        """Start it in this process; it notes what it is asked."""
        self._library = _library()
        settings = self._library.rd_kafka_conf_new()
        said = ctypes.create_string_buffer(ERROR_BYTES)
        name, one = b"test.mock.num.brokers", b"1"
        assert self._library.rd_kafka_conf_set(settings, name, one, said, ERROR_BYTES) == 0, said.value
        self._client = self._library.rd_kafka_new(PRODUCER, settings, said, ERROR_BYTES)
        assert self._client, said.value
        self._cluster = self._library.rd_kafka_handle_mock_cluster(self._client)
        self.bootstrap_servers = self._library.rd_kafka_mock_cluster_bootstraps(self._cluster).decode()
        for topic in topics:
            assert self._library.rd_kafka_mock_topic_create(self._cluster, topic.encode(), 1, 1) == 0
        self._library.rd_kafka_mock_start_request_tracking(self._cluster)

    def __enter__(self) -> Self:
        """Be there."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Be gone."""
        self._library.rd_kafka_destroy(self._client)

    def refuse(self, api_key: int, *codes: int) -> None:
        """Answer the next requests of a kind with these error codes, one each."""
        given = (ctypes.c_int * len(codes))(*codes)
        self._library.rd_kafka_mock_push_request_errors_array(self._cluster, api_key, len(codes), given)

    def asked(self) -> list[int]:
        """Return the kinds of all requests, in the order in which they came."""
        count = ctypes.c_size_t()
        requests = self._library.rd_kafka_mock_get_requests(self._cluster, ctypes.byref(count))
        kinds = [int(self._library.rd_kafka_mock_request_api_key(requests[i])) for i in range(count.value)]
        self._library.rd_kafka_mock_request_destroy_array(requests, count)
        return kinds
