import os
import subprocess
import sys
from pathlib import Path

import pytest

from consumer.cli import program
from consumer.errors import BrokerError, ConfigError, ExitCode

COMMANDS = ("run", "check", "send", "tail", "demo")


def called(*arguments: str, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
    """Call the program as a user does."""
    return subprocess.run(
        [sys.executable, "-m", "consumer", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout_s,
        env={**os.environ, "COLUMNS": "120", "NO_COLOR": "1", "TERM": "dumb"},
    )


def code_of(*arguments: str) -> int:
    """Call the program in this process; give its exit code."""
    with pytest.raises(SystemExit) as ended:
        program.main(arguments)
    assert isinstance(ended.value.code, int)
    return ended.value.code


def replaced(monkeypatch: pytest.MonkeyPatch, error: BaseException | None, code: int = 0) -> None:
    """Have `run` do nothing but raise, or return a code."""

    def run() -> int:
        """Serve."""
        if error is not None:
            raise error
        return code

    monkeypatch.setattr(program, "run", run)


def test_help_names_every_command_and_every_exit_code() -> None:
    """A newcomer sees what there is, in which order to use it, and what exit codes mean."""
    done = called("--help")
    assert done.returncode == 0
    assert [name for name in COMMANDS if f" {name} " not in done.stdout] == []
    text = " ".join(done.stdout.split())
    assert "Begin with `demo`" in text
    for code in ExitCode:
        assert f" {code.value} " in text.partition("Exit codes:")[2]


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`--help` of every command says what it does, in sentences, and every option has a help text."""
    assert code_of(command, "--help") == 0
    shown = capsys.readouterr().out
    assert f"Usage: inference-consumer {command}" in shown
    assert "Exit codes:" in shown


def test_no_arguments_show_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    """Called bare, the program says how to call it."""
    assert code_of() == 2
    assert "Usage: inference-consumer" in capsys.readouterr().out


def test_a_missing_configuration_is_one_line() -> None:
    """The first thing that goes wrong for a newcomer is one line with exit code 2, and no traceback."""
    done = called("run", "--config", "none.yaml")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: none.yaml: no such file; name the configuration with --config\n"


def test_every_mistake_of_a_configuration_is_a_line(tmp_path: Path) -> None:
    """All that is wrong is told at once, before anything is consumed."""
    path = tmp_path / "consumer.yaml"
    path.write_text("kafka: {group.id: g}\ninput: {topics: [t]}\nmodels: {m: {path: a}}\nhtpp: {}\n", encoding="utf-8")
    done = called("run", "-c", str(path))
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        f"error: {path}:4: htpp is not known; did you mean http?",
        f'error: {path}:1: kafka.bootstrap.servers is missing: the brokers to ask first, such as "localhost:9092"',
    ]


def test_wrong_arguments_are_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    """An unknown command or option is the caller's mistake."""
    assert code_of("sevre") == 2
    assert code_of("run", "--colour", "red") == 2
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "lines"),
    [
        (ConfigError("first", "second"), 2, ["error: first", "error: second"]),
        (BrokerError("the topic is gone"), 4, ["error: the topic is gone"]),
        (KeyboardInterrupt(), 130, []),
        (
            ZeroDivisionError("by\nzero"),
            1,
            ["error: unexpected ZeroDivisionError: by zero (inference-consumer --debug shows where)"],
        ),
    ],
)
def test_errors_become_lines_and_codes(
    error: BaseException,
    code: int,
    lines: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Operating errors carry their own code, an interrupt is 130, and what nobody expected is one line as well."""
    replaced(monkeypatch, error)
    assert code_of("run") == code
    assert capsys.readouterr().err.splitlines() == lines


def test_a_command_s_code_is_the_program_s(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a command returns is what the shell sees."""
    replaced(monkeypatch, None, code=3)
    assert code_of("run") == 3


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    """With --debug an error goes up as it is."""
    replaced(monkeypatch, ConfigError("first"))
    with pytest.raises(ConfigError, match="first"):
        program.main(["--debug", "run"])


def test_a_closed_pipe_ends_quietly() -> None:
    """Whoever reads only the first line of the output causes no complaint."""
    code = (
        "import consumer.cli.program as p\n"
        "def run() -> int:\n"
        "    '''Serve.'''\n"
        "    while True: print('line', flush=True)\n"
        "p.run = run\n"
        "p.main(['run'])\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stderr is not None
    assert child.stdout.readline() == b"line\n"
    child.stdout.close()
    assert child.wait(30) == 0
    assert child.stderr.read() == b""
    child.stderr.close()


def test_the_command_line_brings_no_torch() -> None:
    """Every command starts without torch: only workers and the child of `check` load it."""
    code = "import sys, consumer.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
