"""What a single record may ask of the one who decodes it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits of a record's size, counts and depth; beyond them decoding raises `RecordError`.

    With the defaults decoding takes at most about 80 times the value's size in memory up to 1 MiB (Kafka's own default
    limit of a record), and at most about 40 times beyond it, for the most wasteful bytes that can be made up. The
    parsers themselves limit how deep a value may be nested: 1,024 levels.
    """

    size_max: int = 128 * 1024 * 1024
    """Bytes of a value."""
    json_size_max: int = 8 * 1024 * 1024
    """Bytes of a JSON value. JSON costs many times its size in memory; large tensors travel as msgpack."""
    tensors_max: int = 256
    """Tensors of a record."""
    rank_max: int = 32
    """Axes of a tensor."""
    text_length_max: int = 1024
    """Characters of an id or a tensor's name."""
    containers_max: int = 65_536
    """Lists and maps in a msgpack value of more than 1 MiB."""
    empty_rows_max: int = 65_536
    """Product of the other axes of a tensor that has an axis of length 0: rows that no byte pays for."""


DEFAULT_LIMITS = Limits()
