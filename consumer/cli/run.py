"""`run`: serve until a signal asks for the end."""

from consumer import app
from consumer.cli.options import DEFAULT_CONFIG, ConfigPath
from consumer.config import load


def run(config: ConfigPath = DEFAULT_CONFIG) -> int:
    """Serve the configured models until SIGTERM or Ctrl-C.

    The first signal drains: records in flight are finished, delivered and committed. A second one ends the program at
    once; nothing is lost, what was not committed is read again.
    """
    return app.run(load(config))
