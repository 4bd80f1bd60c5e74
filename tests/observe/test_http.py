import http.client
import json
import socket
from collections.abc import Iterator

import pytest

from consumer.core import actions, events
from consumer.core.types import WorkerId
from consumer.errors import ConfigError
from consumer.observe.health import Health
from consumer.observe.http import HttpServer
from consumer.observe.metrics import Metrics
from consumer.observe.options import HttpOptions
from tests.observe.clock import Clock


@pytest.fixture
def clock() -> Clock:
    """Give a clock that stands still."""
    return Clock()


@pytest.fixture
def health(clock: Clock) -> Health:
    """Give the health of a program that is just starting."""
    return Health({"fraud": False}, stalled_s=5.0, clock=clock)


@pytest.fixture
def server(health: Health) -> Iterator[HttpServer]:
    """Give a server on a free port, stopped at the end."""
    server = HttpServer(HttpOptions(port=0), health, Metrics(["fraud"]).registry)
    server.start()
    yield server
    server.stop()


def get(server: HttpServer, path: str, **headers: str) -> tuple[int, str, str]:
    """Ask for a path; give status, content type and text."""
    connection = http.client.HTTPConnection(*server.address, timeout=10)
    try:
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        return response.status, response.headers["content-type"], response.read().decode()
    finally:
        connection.close()


def test_healthz_is_about_the_loop_alone(server: HttpServer, health: Health, clock: Clock) -> None:
    """It is 200 while the loop turns, ready or not, and 503 with the reason when it stands still."""
    assert get(server, "/healthz") == (200, "text/plain; charset=utf-8", "ok\n")
    clock.now += 6
    assert get(server, "/healthz")[::2] == (503, "the supervisor's loop has not turned for 6 s\n")
    health.turned()
    assert get(server, "/healthz")[0] == 200


def test_readyz_names_each_reason_and_turns_200_with_the_last(server: HttpServer, health: Health) -> None:
    """It lists what is missing, one reason a line, and is 503 again while draining."""
    assert get(server, "/readyz")[::2] == (503, "the consumer group is not joined yet\n0 of 0 workers are up\n")
    health.observe_action(actions.Spawn(0, WorkerId(1)))
    health.observe(events.WorkerReady(WorkerId(1), "cpu"))
    health.observe(events.Assigned({}))
    assert get(server, "/readyz")[::2] == (200, "ok\n")
    health.observe(events.Drain())
    assert get(server, "/readyz")[::2] == (503, "draining\n")


def test_status_is_json(server: HttpServer, health: Health) -> None:
    """It is what the health says of every part."""
    status, content_type, text = get(server, "/status")
    assert (status, content_type) == (200, "application/json")
    assert json.loads(text) == health.status()


@pytest.mark.parametrize("accept", ["", "application/openmetrics-text; version=1.0.0"])
def test_metrics_speak_the_format_that_was_asked_for(server: HttpServer, accept: str) -> None:
    """Both text formats of Prometheus are served."""
    status, content_type, text = get(server, "/metrics", accept=accept)
    assert status == 200
    assert content_type.startswith("application/openmetrics-text" if accept else "text/plain")
    assert 'consumer_model_available{model="fraud"} 0.0' in text
    assert text.endswith("# EOF\n") == bool(accept)


def test_other_paths_are_404(server: HttpServer) -> None:
    """Nothing else is served."""
    assert get(server, "/")[0] == 404


def test_a_port_in_use_is_one_clear_line(server: HttpServer, health: Health) -> None:
    """The error names the address and the keys that choose another."""
    port = server.address[1]
    with pytest.raises(ConfigError, match=rf"^http: cannot listen on 127\.0\.0\.1:{port} .*http\.port.*$"):
        HttpServer(HttpOptions(port=port), health, Metrics([]).registry)


def test_stopping_frees_the_port(health: Health) -> None:
    """After `stop` the same port can be listened on again."""
    first = HttpServer(HttpOptions(port=0), health, Metrics([]).registry)
    first.start()
    assert get(first, "/healthz")[0] == 200
    first.stop()
    with socket.create_server(first.address) as again:
        assert again.getsockname() == first.address
