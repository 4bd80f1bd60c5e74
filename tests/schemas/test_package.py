"""`schemas` is a package of its own: it installs alone and brings neither torch nor Kafka."""

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "schemas"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a copy of the sources and unpack it, with nothing else beside it."""
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(SOURCE, folder / "sources", ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-build-isolation", "--no-deps", "--no-index"]
    subprocess.run([*command, "--wheel-dir", folder, folder / "sources"], check=True, cwd=folder)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def test_the_wheel_holds_everything_and_nothing_else(installed: Path) -> None:
    """Every module, the type marker, the JSON Schemas and the AsyncAPI document are installed."""
    wanted = {
        path.relative_to(SOURCE)
        for pattern in ("*.py", "py.typed", "json/*.json", "asyncapi.yaml")
        for path in SOURCE.glob(pattern)
    }
    package = installed / "schemas"
    assert {path.relative_to(package) for path in package.rglob("*") if path.is_file()} == wanted


def test_it_works_without_torch_kafka_and_the_program(installed: Path) -> None:
    """From the wheel alone a request is encoded and decoded, and nothing heavy is imported on the way."""
    program = """
import sys
from importlib.resources import files
import schemas
request = schemas.Request("r", (schemas.Tensor.of("x", [[0.5]], "FP32"),))
for content_type in schemas.CONTENT_TYPES:
    assert schemas.decode_request(schemas.encode_request(request, content_type), content_type) == request
assert files(schemas).joinpath("asyncapi.yaml").is_file()
heavy = {"torch", "confluent_kafka", "consumer", "pydantic", "yaml", "structlog"} & set(sys.modules)
print(schemas.__file__, sorted(heavy))
"""
    run = subprocess.run(
        [sys.executable, "-c", program],
        check=True,
        capture_output=True,
        text=True,
        cwd=installed,
        env={"PYTHONPATH": str(installed)},
    )
    assert run.stdout.split() == [str(installed / "schemas" / "__init__.py"), "[]"]


def test_the_readme_works(installed: Path) -> None:
    """The examples of the README run as they stand, one after the other."""
    program = "".join(re.findall(r"```python\n(.*?)```", (SOURCE / "README.md").read_text("utf-8"), re.DOTALL))
    program += "assert (scores.shape, seen) == ((10,), Source('requests', 3, 1041))"
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        check=True,
        capture_output=True,
        text=True,
        cwd=installed,
        env={"PYTHONPATH": str(installed)},
    )
    assert run.stdout == "unreadable bytes follow the msgpack map\n"


def test_its_version_is_the_programs() -> None:
    """Both are released together, and ask for the same libraries."""
    own = tomllib.loads((SOURCE / "pyproject.toml").read_text("utf-8"))["project"]
    program = tomllib.loads((SOURCE.parent / "pyproject.toml").read_text("utf-8"))["project"]
    assert own["version"] == program["version"]
    assert set(own["dependencies"]) <= set(program["dependencies"])
    assert own["requires-python"] == program["requires-python"]
