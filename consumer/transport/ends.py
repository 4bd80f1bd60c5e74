"""What a worker is given at birth: its end of the socket, the two shared areas, and the board.

Owns nothing but their journey into the child. Imported by both sides, so it stays free of what only one of them needs.
"""

import socket
from dataclasses import dataclass

from consumer.transport.memory import Descriptor


@dataclass(frozen=True, slots=True)
class WorkerEnds:
    """An argument for the process that is spawned; `worker_end.WorkerEnd` makes it usable there."""

    socket: socket.socket
    inbox: Descriptor
    outbox: Descriptor
    board: Descriptor

    def close(self) -> None:
        """Close all of it in this process."""
        self.socket.close()
        self.inbox.close()
        self.outbox.close()
        self.board.close()
