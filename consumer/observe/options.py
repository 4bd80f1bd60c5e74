"""What can be configured about figures and logs.

Owns the options only, so that reading a configuration starts no HTTP server and imports none.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, MinLen


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpOptions:
    """The endpoint for health and figures."""

    enabled: bool = True
    """Whether `/healthz`, `/readyz`, `/status` and `/metrics` are served."""
    host: Annotated[str, MinLen(1)] = "127.0.0.1"
    """The address to listen on; `0.0.0.0` lets other machines in, which containers need."""
    port: Annotated[int, Ge(0), Le(65535)] = 8080
    """The port to listen on; 0 takes a free one, which the log then names."""
    stalled_s: Annotated[float, Gt(0)] = 30.0
    """`/healthz` fails when the supervisor's loop has not turned for so long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggingOptions:
    """What is logged, and how; lines go to standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """The least level that is logged; `debug` writes a line per batch."""
    format: Literal["auto", "json", "console"] = "auto"
    """One JSON object a line, or text for people; `auto` is text on a terminal and JSON elsewhere."""
    repeat_s: Annotated[float, Ge(0)] = 10.0
    """A warning or error like the last one is logged once in so long, with the count of those left out."""
