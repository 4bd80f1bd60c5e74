"""Logins and certificates: those that are right serve, those that are not end the start with one clear line."""

import pytest
from confluent_kafka.admin import ResourceType

from tests.faults.cluster import Cluster
from tests.faults.conftest import StageOf

pytestmark = [pytest.mark.broker, pytest.mark.slow]

RECOVERY_S = 60.0


def test_a_refused_login_says_so(cluster: Cluster, stage_of: StageOf) -> None:
    """A wrong password ends the start with one clear line that never shows it."""
    stage = stage_of(kafka={"sasl.password": "wrong-password"})
    program = stage.start(workers=1)
    assert program.process.wait(40) == 4
    log = program.log.read_text()
    assert "Traceback" not in log
    assert "uthentication failed" in log
    assert "wrong-password" not in log


@pytest.mark.parametrize("suffix", ["", ".spare-1"])
def test_a_forbidden_transactional_id_says_so(cluster: Cluster, stage_of: StageOf, delivery: str, suffix: str) -> None:
    """Without permission for one of its transactional ids the start ends with one line that says what is missing.

    At least once needs neither.
    """
    stage = stage_of(instance="pod-0")
    with cluster.denied(f"{stage.group}-pod-0{suffix}", kind=ResourceType.TRANSACTIONAL_ID):
        program = stage.start(workers=1)
        if delivery == "at-least-once":
            stage.send("a", range(10))
            stage.wait_settled(RECOVERY_S)
            assert program.stop() == 0
            return
        assert program.process.wait(60) == 4
    log = program.log.read_text()
    assert "Traceback" not in log
    assert "TRANSACTIONAL_ID_AUTHORIZATION_FAILED" in log or "ransactional Id authorization failed" in log


def over_tls(cluster: Cluster, authority: str) -> dict[str, str | None]:
    """Say under `kafka:` that the node is reached by TLS, and who vouches for it."""
    return {
        "bootstrap.servers": f"127.0.0.1:{cluster.tls_port}",
        "security.protocol": "SSL",
        "ssl.ca.location": str(cluster.certificates / f"{authority}.pem"),
        **dict.fromkeys(("sasl.mechanism", "sasl.username", "sasl.password")),
    }


def test_tls_serves(cluster: Cluster, stage_of: StageOf) -> None:
    """With the right certificate all clients of the program talk TLS: records in, results, dead letters, commits."""
    stage = stage_of(kafka=over_tls(cluster, "node"))
    program = stage.start(workers=1)
    stage.send("a", range(200))
    stage.wait_settled(RECOVERY_S)
    assert stage.kinds(stage.check()) == {"result": 200}
    assert program.stop() == 0


def test_an_unknown_certificate_says_so(cluster: Cluster, stage_of: StageOf) -> None:
    """A broker for which a stranger vouches ends the start with one line that names the settings to look at."""
    stage = stage_of(kafka=over_tls(cluster, "other"), is_sampled=False)
    program = stage.start(workers=1)
    assert program.process.wait(40) == 4
    log = program.log.read_text()
    assert "Traceback" not in log
    assert "certificate verify failed" in log
    assert "the ssl.* settings" in log
