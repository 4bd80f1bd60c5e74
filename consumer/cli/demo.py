"""`demo`: see it work, on real input and a real broker protocol."""

from typing import Annotated

import typer
from rich.console import Console

from consumer.demo.broker import Kind
from consumer.demo.run import RATE, DemoOptions
from consumer.demo.run import run as run_demo


def demo(
    broker: Annotated[
        Kind | None, typer.Option(help="The broker to use; by default the first kind that is to be had.")
    ] = None,
    rate: Annotated[float, typer.Option(min=0, help="Records sent a second; 0: as fast as it goes.")] = RATE,
) -> int:
    """Send 5,391 handwritten digits through three models, and see that none is lost.

    Trains three small classifiers, starts a broker and the consumer with two workers, sends every image to all three
    models and a few broken records beside, and prints what came of each. Ends by itself; the exit code is 1 if a record
    is missing.
    """
    return run_demo(DemoOptions(broker=broker, rate=rate), Console())
