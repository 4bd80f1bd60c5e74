"""The options that commands share."""

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

ConfigPath: TypeAlias = Annotated[
    Path,
    typer.Option("--config", "-c", metavar="FILE", help="The configuration. Variables named CONSUMER_... override it."),
]

DEFAULT_CONFIG = Path("consumer.yaml")
