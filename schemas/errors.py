"""The one error that decoding and encoding records raise."""

from schemas.reasons import Reason


class RecordError(Exception):
    """A record that cannot be decoded, encoded or used, and why.

    Attributes:
        reason: the slug that a dead letter and the metrics show.
        message: one clear line. It says where the fault is (`inputs[0].shape`) and never quotes the payload.
    """

    reason: Reason
    message: str

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(reason, message)
        self.reason = reason
        self.message = message

    def __str__(self) -> str:
        """Show the message alone."""
        return self.message
