import pytest
from confluent_kafka import KafkaError

from consumer.kafka.errors import described

VERIFY_FAILED = "ssl://localhost:9093/bootstrap: error:0A000086:SSL routines::certificate verify failed"


@pytest.mark.parametrize(
    ("code", "said", "advised"),
    [
        (KafkaError._SSL, VERIFY_FAILED, "the ssl.* settings"),
        (KafkaError._TRANSPORT, VERIFY_FAILED, "the ssl.* settings"),
        (KafkaError._TRANSPORT, "Connect to localhost:9093 failed: Connection refused", "bootstrap.servers"),
    ],
)
def test_advice_fits_what_happened(code: int, said: str, advised: str) -> None:
    """A certificate that is not trusted sends nobody to look for a broker that is down, however it is reported."""
    line = described(KafkaError(code, said))
    assert line.startswith(said)
    assert advised in line.removeprefix(said)
