"""Where the parts of a msgpack value stand in its bytes.

Owns the walk over encoded msgpack that template batches need: which bytes are a string's, a tensor's, a number's. Must
not know what the parts mean, and decides nothing about records: whatever it does not understand is a `ValueError`, and
its caller takes the ordinary way through the codec.
"""

import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple, TypeAlias

Path: TypeAlias = tuple[str | int, ...]
"""The map keys and array indices that lead to a part."""

LEAVES_MAX = 512
"""Parts of a value that is worth a template; records of more are decoded one by one."""

DEPTH_MAX = 8
"""Nesting of a value that is worth a template."""


class Leaf(NamedTuple):
    """A part that holds no other: the kind, the position of its format byte, and its content's bytes."""

    kind: str
    """`str`, `bin`, `int`, `float` or `const`."""
    head: int
    first: int
    stop: int

    @property
    def content(self) -> slice:
        """Return the content's place, the format byte and the length left out."""
        return slice(self.first, self.stop)


_NUMBERS = {
    0xCA: ("float", 4),
    0xCB: ("float", 8),
    0xCC: ("int", 1),
    0xCD: ("int", 2),
    0xCE: ("int", 4),
    0xCF: ("int", 8),
    0xD0: ("int", 1),
    0xD1: ("int", 2),
    0xD2: ("int", 4),
    0xD3: ("int", 8),
}
_TEXTS = {0xC4: ("bin", 1), 0xC5: ("bin", 2), 0xC6: ("bin", 4), 0xD9: ("str", 1), 0xDA: ("str", 2), 0xDB: ("str", 4)}
_CONTAINERS = {0xDC: (False, 2), 0xDD: (False, 4), 0xDE: (True, 2), 0xDF: (True, 4)}
_CONSTANTS = frozenset({0xC0, 0xC2, 0xC3})
_LENGTHS = {1: struct.Struct(">B"), 2: struct.Struct(">H"), 4: struct.Struct(">I")}


def leaves(encoded: bytes) -> dict[Path, Leaf]:
    """Find every leaf of a msgpack value.

    Raises:
        ValueError: The bytes are not one msgpack value, or not one that a template can be made of (extension types,
            keys that are no strings or occur twice, more than `LEAVES_MAX` parts).
    """
    found: dict[Path, Leaf] = {}
    try:
        end = _walk(encoded, 0, (), found)
    except (IndexError, struct.error) as error:
        raise ValueError("truncated") from error
    if end != len(encoded):
        raise ValueError("not one value")
    return found


def between(places: Iterable[slice | None], length: int) -> Iterator[slice]:
    """List what lies between the places, which do not overlap."""
    at = 0
    for place in sorted((place.start, place.stop) for place in places if place is not None):
        if at < place[0]:
            yield slice(at, place[0])
        at = place[1]
    if at < length:
        yield slice(at, length)


def _walk(encoded: bytes, at: int, path: Path, found: dict[Path, Leaf]) -> int:
    """Walk one value that begins at `at`, and return where it ends."""
    if len(path) > DEPTH_MAX or len(found) >= LEAVES_MAX:
        raise ValueError("too deep or too many parts")
    container = _container(encoded, at)
    if container is None:
        leaf = _leaf(encoded, at)
        found[path] = leaf
        return leaf.stop
    is_map, count, at = container
    names: set[str] = set()
    for index in range(count):
        step: str | int = index
        if is_map:
            key = _leaf(encoded, at)
            if key.kind != "str":
                raise ValueError("a key that is no string")
            step = encoded[key.content].decode()
            if step in names:
                raise ValueError("a key that occurs twice")
            names.add(step)
            at = key.stop
        at = _walk(encoded, at, (*path, step), found)
    return at


def _container(encoded: bytes, at: int) -> tuple[bool, int, int] | None:
    """Return whether a map or an array begins at `at`, its number of items, and where the first one stands."""
    head = encoded[at]
    if 0x80 <= head <= 0x9F:  # noqa: PLR2004 - msgpack's own numbers: fixmap 0x80-0x8f, fixarray 0x90-0x9f
        return head < 0x90, head & 0x0F, at + 1  # noqa: PLR2004
    if head in _CONTAINERS:
        is_map, size = _CONTAINERS[head]
        return is_map, _LENGTHS[size].unpack_from(encoded, at + 1)[0], at + 1 + size
    return None


def _leaf(encoded: bytes, at: int) -> Leaf:
    """Return the leaf that begins at `at`."""
    head = encoded[at]
    if head < 0x80 or head >= 0xE0:  # noqa: PLR2004 - msgpack's own numbers: fixint is its format byte
        return Leaf("int", at, at, at + 1)
    if head < 0xC0:  # noqa: PLR2004 - fixstr 0xa0-0xbf; containers were told before
        leaf = Leaf("str", at, at + 1, at + 1 + (head & 0x1F))
    elif head in _TEXTS:
        kind, size = _TEXTS[head]
        first = at + 1 + size
        leaf = Leaf(kind, at, first, first + _LENGTHS[size].unpack_from(encoded, at + 1)[0])
    elif head in _NUMBERS:
        kind, size = _NUMBERS[head]
        leaf = Leaf(kind, at, at + 1, at + 1 + size)
    elif head in _CONSTANTS:
        leaf = Leaf("const", at, at + 1, at + 1)
    else:
        raise ValueError("a type that no record has")
    if leaf.stop > len(encoded):
        raise ValueError("truncated")
    return leaf
