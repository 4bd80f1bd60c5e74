"""Worker entries for the pool's tests."""

from consumer.transport.ends import WorkerEnds
from tests.transport import children


def echo(spec: object, ends: WorkerEnds) -> None:
    """Echo."""
    children.echo(ends)
