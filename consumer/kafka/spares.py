"""Transactional ids that stand in for one whose last transaction has no end yet.

Owns which of them are free. Must not know what they are taken for.

Theory of operation. The coordinator lets an id begin nothing before every partition of its last transaction has a mark
of the end, and a partition without a leader, or with too few replicas, takes none. Nobody can add to that transaction
any more, so another id may go on. One that was found without an end waits behind all others.
"""

from collections import deque

SPARES = 64
"""One for every topic that is tried apart, and one for the sink. A coordinator keeps an id for a week."""


class Spares:
    """The spare ids of one process. Threads may take and put back."""

    def __init__(self, transactional_id: str) -> None:
        """Derive them from the process's own id, so that one permission for the prefix allows all."""
        self._free = deque(f"{transactional_id}.spare-{number}" for number in range(1, SPARES + 1))

    def __len__(self) -> int:
        """Count those that are free."""
        return len(self._free)

    def take(self) -> str | None:
        """Take one; None if none is free."""
        try:
            return self._free.popleft()
        except IndexError:
            return None

    def put_back(self, transactional_id: str, *, has_ended: bool) -> None:
        """Have an id back; `has_ended` tells whether its last transaction is known to have an end."""
        if has_ended:
            self._free.appendleft(transactional_id)
        else:
            self._free.append(transactional_id)
