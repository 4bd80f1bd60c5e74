"""Makes the environments of the peers below `.bench/`, once. Must not know what runs in them."""

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1] / ".bench"
INSTALL_TIMEOUT_S = 900.0


class UnavailableError(Exception):
    """A peer cannot be installed here; the message says why."""


def run(command: Sequence[str], what: str) -> None:
    """Run a step of an installation.

    Raises:
        UnavailableError: it failed, or its program is not there.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=INSTALL_TIMEOUT_S)
    except FileNotFoundError:
        raise UnavailableError(f"{what}: {command[0]} is not installed") from None
    except subprocess.TimeoutExpired:
        raise UnavailableError(f"{what}: took longer than {INSTALL_TIMEOUT_S:.0f} s") from None
    if done.returncode:
        raise UnavailableError(f"{what}: {(done.stderr or done.stdout).strip()[-500:]}")


def python(name: str) -> Path:
    """Make an environment with what `requirements/NAME.txt` pins; its interpreter.

    Raises:
        UnavailableError: it could not be installed.
    """
    wanted, directory = HERE / "requirements" / f"{name}.txt", ROOT / name
    installed, interpreter = directory / "installed.txt", directory / "bin" / "python"
    if installed.exists() and installed.read_text() == wanted.read_text():
        return interpreter
    shutil.rmtree(directory, ignore_errors=True)
    run([sys.executable, "-m", "venv", str(directory)], f"the environment {name}")
    run([str(interpreter), "-m", "pip", "install", "--quiet", "--requirement", str(wanted)], f"the packages of {name}")
    shutil.copy(wanted, installed)
    return interpreter


def java() -> str:
    """Fetch the jars and compile the peers in Java; their class path.

    Raises:
        UnavailableError: there is no JDK or no Maven, or it could not be installed.
    """
    for tool in ("java", "javac", "mvn"):
        if shutil.which(tool) is None:
            raise UnavailableError(f"the peers in Java: {tool} is not installed")
    pom, sources, directory = HERE / "java" / "pom.xml", sorted((HERE / "java" / "src").glob("*.java")), ROOT / "java"
    jars, classes, installed = directory / "jars", directory / "classes", directory / "installed.xml"
    if not (installed.exists() and installed.read_text() == pom.read_text()):
        shutil.rmtree(directory, ignore_errors=True)
        copy = ["mvn", "--quiet", "--batch-mode", "--file", str(pom), "dependency:copy-dependencies"]
        run([*copy, f"-DoutputDirectory={jars}"], "the jars of the peers")
        shutil.copy(pom, installed)
    run(["javac", "-cp", f"{jars}/*", "-d", str(classes), *map(str, sources)], "the peers in Java")
    return f"{jars}/*:{classes}"


def onnx(interpreter: Path, weights: Path) -> Path:
    """Write the network as ONNX beside its weights.

    Raises:
        UnavailableError: it could not be written.
    """
    path = weights.with_suffix(".onnx")
    if not path.exists():
        run([str(interpreter), str(HERE / "onnx_file.py"), str(weights), str(path)], "the network as ONNX")
    return path
