"""The program `inference-consumer`: its commands, and what becomes of their errors.

Owns the one place where an exception turns into a line and an exit code. Must not know what the commands do.
"""

import functools
import os
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, NoReturn, ParamSpec

import typer

from consumer.cli.check import check
from consumer.cli.demo import demo
from consumer.cli.run import run
from consumer.cli.send import send
from consumer.cli.tail import tail
from consumer.errors import ConsumerError, ExitCode

Parameters = ParamSpec("Parameters")

NAME = "inference-consumer"

EXIT_CODES = (
    "Exit codes: 0 done; 1 failed; 2 the configuration or a model cannot be used; 3 a worker cannot boot; "
    "4 the broker refuses what is needed; 5 the Kafka client broke for good; 6 another copy has this one's instance; "
    "130 and 143 ended at once by SIGINT or SIGTERM."
)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit.

    Args:
        arguments: What follows the program's name; by default what it was called with.
    """
    given = sys.argv[1:] if arguments is None else list(arguments)
    application()(given, prog_name=NAME)
    raise AssertionError("every command exits")


def application() -> typer.Typer:
    """Put the commands together."""
    is_debug = False
    app = typer.Typer(
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["--help", "-h"]},
    )

    @app.callback(epilog=EXIT_CODES)
    def program(
        *,
        debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    ) -> None:
        """Turn Kafka topics into a multi-model PyTorch inference service.

        Begin with `demo`, which needs nothing else. Then write a consumer.yaml, `check` it and `run` it, `send` it
        records and `tail` their results.
        """
        nonlocal is_debug
        is_debug = debug

    for command in (run, check, send, tail, demo):
        app.command(epilog=EXIT_CODES)(_exiting(command, lambda: is_debug))
    return app


def _exiting(command: Callable[Parameters, int], is_debug: Callable[[], bool]) -> Callable[Parameters, None]:
    """Have a command end the program with the code that it returns, or with that of its error.

    Args:
        command: The command.
        is_debug: Asked at an error, whether to let it through with its traceback.
    """

    @functools.wraps(command)
    def exiting(*arguments: Parameters.args, **options: Parameters.kwargs) -> None:
        try:
            code = command(*arguments, **options)
        except KeyboardInterrupt:
            code = ExitCode.INTERRUPTED
        except BrokenPipeError:
            # Whoever read the output has enough. Python's own flush at the end would complain.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            code = ExitCode.OK
        except Exception as error:
            if is_debug():
                raise
            code = _tell(error)
        raise typer.Exit(code)

    return exiting


def _tell(error: Exception) -> ExitCode:
    """Write an error as one line for each thing that is wrong."""
    if isinstance(error, ConsumerError):
        for line in str(error).splitlines():
            typer.echo(f"error: {line}", err=True)
        return error.exit_code
    text = " ".join(str(error).split())
    typer.echo(f"error: unexpected {type(error).__name__}: {text} ({NAME} --debug shows where)", err=True)
    return ExitCode.FAILED
