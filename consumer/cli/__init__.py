"""The command line: one module per command, every error one line.

`program` puts the commands together and turns errors into exit codes; `run`, `check`, `send`, `tail` and `demo` are the
commands. Importing it brings the Kafka client, but not torch.
"""

from consumer.cli.program import main

__all__ = ["main"]
