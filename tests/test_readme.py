import re
import subprocess
from pathlib import Path

import pytest

from consumer.config import load
from consumer.errors import ExitCode
from schemas import JSON, Reason, decode_request

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    """Find the code blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("code", blocks("python"))
def test_python_examples_run(code: str) -> None:
    """Every Python example runs, and what it asserts holds."""
    exec(compile(code, "README.md", "exec"), {})


@pytest.mark.parametrize("text", blocks("yaml"))
def test_configurations_load(text: str, tmp_path: Path) -> None:
    """Every configuration in it is one that the program takes."""
    path = tmp_path / "consumer.yaml"
    path.write_text(text)
    assert load(path, {}).models


def test_the_record_to_send_is_a_request() -> None:
    """The JSON that a newcomer sends with kcat decodes, and holds one image for the model that it is keyed by."""
    (value,) = re.findall(r"<<'JSON'\n(.*?)\nJSON\n", README, re.DOTALL)
    request = decode_request(value.encode(), JSON)
    (spec,) = load(ROOT / "consumer.yaml", {}).models["cnn"].inputs or ()
    (tensor,) = request.inputs
    assert request.id == "my-first-digit"
    assert (tensor.name, tensor.datatype, tensor.shape) == (spec.name, spec.datatype, spec.shape)


def test_make_targets_exist() -> None:
    """Every make target that is named can be made."""
    named = set(re.findall(r"`?make ([a-z]+)", README)) - {"the"}
    for target in sorted(named):
        made = subprocess.run(["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True, check=False)
        assert made.returncode == 0, made.stderr


def test_every_exit_code_is_told() -> None:
    """The table of exit codes has the codes of the program, all and no other."""
    table = README.split("| exit code | meaning |")[1].split("\n\n")[0]
    told = {int(number) for cell in re.findall(r"^\| ([\d, ]+) \|", table, re.MULTILINE) for number in cell.split(",")}
    assert told == set(ExitCode)


def test_every_reason_is_told() -> None:
    """The table of reasons has every reason of a dead letter once, and no other."""
    table = README.split("| reason | the record |")[1].split("\n\n")[0]
    told = [reason for row in table.splitlines()[2:] for reason in re.findall(r"`([a-z-]+)`", row.split("|")[1])]
    assert sorted(told) == sorted(Reason)


def test_links_lead_somewhere() -> None:
    """Every relative link names a file of the repository."""
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if "://" not in target:
            assert (ROOT / target).exists(), target


def test_it_opens_with_the_two_commands() -> None:
    """What it is, for whom, and the two commands stand before the first section."""
    opening = README.split("\n## ")[0]
    assert re.findall(r"^make (\w+)", opening, re.MULTILINE) == ["demo", "test"]
