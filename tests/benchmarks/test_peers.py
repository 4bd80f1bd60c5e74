import sys
from pathlib import Path

import pytest

from benchmarks.peers import environments
from benchmarks.peers import subjects as peers
from benchmarks.peers.environments import UnavailableError
from benchmarks.subjects import Run, Subject


def test_what_cannot_be_installed_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A peer without its tools, or whose installation fails, is missing with a reason, and the others are there."""

    def refuse(_directory: Path) -> list[Subject]:
        raise UnavailableError("javac is not installed")

    there = peers.peer("quix", ["quix"], tmp_path, "at-least-once")
    monkeypatch.setattr(peers, "MAKERS", {"java": refuse, "quix": lambda _: [there]})
    made, reasons = peers.offered(tmp_path, (*peers.NAMES["java"], *peers.NAMES["quix"]))
    assert made == [there]
    assert reasons == dict.fromkeys(peers.NAMES["java"], "javac is not installed")


def test_only_wanted_peers_are_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where subjects are named, no environment is made for others."""
    monkeypatch.setattr(peers, "MAKERS", {})
    assert peers.offered(tmp_path, ("tuned",)) == ([], {})


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (["no-such-program-here"], "a step: no-such-program-here is not installed"),
        ([sys.executable, "-c", "raise SystemExit('no room')"], "a step: no room"),
    ],
)
def test_a_failed_step_says_why(command: list[str], reason: str) -> None:
    """An installation that fails names the step and the last words of its program."""
    with pytest.raises(UnavailableError) as caught:
        environments.run(command, "a step")
    assert str(caught.value) == reason


def test_every_peer_states_its_guarantee(tmp_path: Path) -> None:
    """The name, the argument and the stated semantics of a peer agree."""
    for guarantee, semantics in peers.GUARANTEES.items():
        subject = peers.peer("java", ["java", "Loop"], tmp_path / "mlp.onnx", guarantee)
        assert subject.name == ("java" if guarantee == "none" else f"java-{guarantee}")
        assert subject.commits == (guarantee != "none")
        run = Run(name="run", bootstrap="here:1", sources=("source",), directory=tmp_path)
        assert subject.semantics == semantics
        assert subject.counts_markers == (guarantee == "exactly-once")
        wanted = ["java", "Loop", "here:1", "run", "source", "run.mlp", str(tmp_path / "mlp.onnx"), guarantee]
        assert subject.command(run)[:-1] == wanted
        (tmp_path / "run.state").rmdir()


def test_every_peer_can_be_asked_for() -> None:
    """Each environment has what makes its subjects, and MLServer, which takes JSON, is none of W1 binary's."""
    assert peers.MAKERS.keys() == peers.NAMES.keys()
    assert "mlserver" not in peers.W1_NAMES
    assert {*peers.W1_NAMES, "mlserver"} == {each for names in peers.NAMES.values() for each in names}


def test_every_python_environment_is_pinned() -> None:
    """What an environment is installed from names exact versions only."""
    files = sorted((environments.HERE / "requirements").glob("*.txt"))
    assert [each.stem for each in files] == ["mlserver", "mosec", "python"]
    for each in files:
        lines = [line for line in each.read_text().splitlines() if line and not line.startswith("#")]
        assert all(line.count("==") == 1 for line in lines)
