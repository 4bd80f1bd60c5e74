"""Compose file, image and workflow, as far as no engine is needed to see that they are right."""

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from consumer.config import load
from consumer.demo import service

ROOT = Path(__file__).resolve().parents[2]
SECONDS = {"s": 1, "m": 60}


@pytest.fixture(name="compose")
def read_compose() -> dict[str, Any]:
    """Read the compose file."""
    content: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return content


def dockerfile() -> list[tuple[str, str]]:
    """Read the image's instructions."""
    text = (ROOT / "deploy" / "Dockerfile").read_text().replace("\\\n", " ")
    lines = (line.split(maxsplit=1) for line in text.splitlines() if line and not line.startswith("#"))
    return [(name, rest) for name, rest in lines]


def check(schema: str, path: Path) -> subprocess.CompletedProcess[str]:
    """Check a file against a schema that comes with the tool; nothing is downloaded."""
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("schema", "file"),
    [
        ("vendor.compose-spec", "docker-compose.yml"),
        ("vendor.github-workflows", ".github/workflows/check.yml"),
    ],
)
def test_files_match_their_published_schemas(schema: str, file: str) -> None:
    """The compose file and the workflow match the schemas that their readers publish."""
    checked = check(schema, ROOT / file)
    assert checked.returncode == 0, checked.stdout


def test_the_schema_refuses_a_misspelt_key(tmp_path: Path) -> None:
    """The schema check can fail: a misspelt key of a service is refused."""
    wrong = tmp_path / "docker-compose.yml"
    wrong.write_text((ROOT / "docker-compose.yml").read_text().replace("stop_grace_period", "stop_grace_periods"))
    checked = check("vendor.compose-spec", wrong)
    assert checked.returncode == 1
    assert "stop_grace_periods" in checked.stdout


def test_services_wait_for_what_they_need(compose: dict[str, Any]) -> None:
    """The consumer starts after Kafka is healthy and the topics are made, and every named volume is declared."""
    services = compose["services"]
    assert services["consumer"]["depends_on"] == {
        "kafka": {"condition": "service_healthy"},
        "topics": {"condition": "service_completed_successfully"},
    }
    assert services["topics"]["depends_on"] == {"kafka": {"condition": "service_healthy"}}
    assert "healthcheck" in services["kafka"]
    assert services["kafka"]["image"] == services["topics"]["image"]
    assert re.fullmatch(r"apache/kafka:\d+\.\d+\.\d+", services["kafka"]["image"])
    named = {each.split(":")[0] for one in services.values() for each in one.get("volumes", ()) if each[0] != "."}
    assert named == set(compose["volumes"])


def test_clients_find_kafka_by_what_it_advertises(compose: dict[str, Any]) -> None:
    """Every listener has a protocol and an address, and the addresses that the services use are advertised."""
    services = compose["services"]
    environment = services["kafka"]["environment"]

    def listeners(key: str) -> dict[str, str]:
        return dict(each.split("://") for each in environment[key].split(","))

    protocols = dict(each.split(":") for each in environment["KAFKA_LISTENER_SECURITY_PROTOCOL_MAP"].split(","))
    advertised = listeners("KAFKA_ADVERTISED_LISTENERS")
    assert set(protocols) == set(listeners("KAFKA_LISTENERS"))
    assert set(advertised) == set(protocols) - {"CONTROLLER"}
    assert advertised["INTERNAL"] == services["consumer"]["environment"]["CONSUMER_KAFKA__BOOTSTRAP_SERVERS"]
    assert f"--bootstrap-server={advertised['INTERNAL']}" in services["topics"]["command"]
    assert advertised["HOST"] == load(ROOT / "consumer.yaml", {}).kafka["bootstrap.servers"]


def test_the_consumer_has_time_to_drain(compose: dict[str, Any]) -> None:
    """Compose waits longer before it kills than the whole end of the program may take."""
    number, unit = re.fullmatch(r"(\d+)([sm])", compose["services"]["consumer"]["stop_grace_period"]).groups()  # type: ignore[union-attr]
    shutdown = load(ROOT / "consumer.yaml", {}).shutdown
    longest_s = shutdown.drain_timeout_s + shutdown.close_timeout_s + shutdown.worker_timeout_s
    assert int(number) * SECONDS[unit] > longest_s


def test_health_is_asked_where_it_is_served(compose: dict[str, Any]) -> None:
    """The health check, the published port and the configuration agree; other containers and the host can reach it."""
    consumer = compose["services"]["consumer"]
    environ = {key: str(value) for key, value in consumer["environment"].items()}
    http = load(ROOT / "consumer.yaml", environ).http
    assert http.enabled
    assert http.host == "0.0.0.0"
    assert f"http://127.0.0.1:{http.port}/readyz" in consumer["healthcheck"]["test"][-1]
    assert [each.rsplit(":", 1)[1] for each in consumer["ports"]] == [str(http.port)]
    compile(consumer["healthcheck"]["test"][-1], "healthcheck", "exec")


def test_the_input_topic_is_created(compose: dict[str, Any]) -> None:
    """Compose creates the topic that consumer.yaml reads."""
    (topic,) = load(ROOT / "consumer.yaml", {}).input.topics
    assert f"--topic={topic}" in compose["services"]["topics"]["command"]


def test_the_image_runs_as_nobody_and_serves_the_mounted_file(compose: dict[str, Any]) -> None:
    """The image's user is not root, and its command reads the file that compose mounts."""
    instructions = dockerfile()
    last_stage = instructions[max(i for i, (name, _) in enumerate(instructions) if name == "FROM") :]
    user = dict(last_stage)["USER"]
    assert user not in {"root", "0"}
    assert any(name == "RUN" and rest.startswith("useradd") and rest.endswith(user) for name, rest in last_stage)
    (mount,) = compose["services"]["consumer"]["volumes"]
    source, target, mode = mount.split(":")
    assert (ROOT / source).is_file()
    assert target in dict(last_stage)["CMD"]
    assert mode == "ro"


def test_the_image_finds_what_it_copies() -> None:
    """Every path that the image copies is there, and .dockerignore lets it through."""
    ignore = (ROOT / ".dockerignore").read_text().split()
    for name, rest in dockerfile():
        if name != "COPY" or rest.startswith("--from"):
            continue
        for source in shlex.split(rest)[:-1]:
            assert (ROOT / source).exists(), source
            assert f"!{source}" in ignore, source


def test_the_image_holds_the_models_that_the_configuration_names() -> None:
    """The models are copied to where consumer.yaml, in the image's directory, looks for them."""
    copied = [shlex.split(rest) for name, rest in dockerfile() if name == "COPY" and "/models" in rest]
    assert [each[-1] for each in copied] == ["/app/models"]
    for model in load(ROOT / "consumer.yaml", {}).models.values():
        assert model.path is not None
        assert Path(model.path).parent == ROOT / "models"


def test_consumer_yaml_serves_the_demos_models() -> None:
    """The written configuration and the demo's own describe the same three models."""
    written = yaml.safe_load((ROOT / "consumer.yaml").read_text())["models"]
    assert list(written) == list(service.MODELS)
    for name, model in service.MODELS.items():
        assert Path(written[name]["path"]).name == model["path"]
        assert written[name].get("factory") == model.get("factory")
        assert written[name].get("inputs") == model.get("inputs")


def test_kafka_is_one_version_everywhere(compose: dict[str, Any]) -> None:
    """Compose runs the Kafka that the tests run on."""
    pom = (ROOT / "tests" / "kafka" / "pom.xml").read_text()
    (version,) = re.findall(r"<kafka\.version>([^<]+)<", pom)
    assert compose["services"]["kafka"]["image"] == f"apache/kafka:{version}"
