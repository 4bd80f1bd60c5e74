"""The documentation of every key and figure, written from the code.

Owns the Markdown tables of the README, between `<!-- NAME:begin -->` and `<!-- NAME:end -->`.
`python -m consumer.config.reference README.md` writes them anew. Must not know what the keys are for.
"""

import dataclasses
import sys
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from consumer.config import grammar
from consumer.config.settings import Settings
from consumer.observe.catalogue import catalogue_table

_HEAD = ["| key | default | allowed | meaning |", "|---|---|---|---|"]


def reference() -> str:
    """Write every key with its default, what is allowed and what it means, one Markdown table per section."""
    parts = []
    single = []
    for option in grammar.options(Settings).values():
        rows = list(_rows(option.name, option.annotation))
        if not rows:
            single.append(_row(option.name, option))
            continue
        if grammar.children(option.annotation) is None:
            rows.insert(0, _row(option.name, option))  # a list or a mapping of sections
        parts.append("\n".join([f"**`{option.name}:`** {option.meaning}", "", *_HEAD, *rows]))
    return "\n\n".join(["\n".join([*_HEAD, *single]), *parts]) + "\n"


def _rows(path: str, annotation: Any) -> Iterator[str]:
    """Write a row per key of a section; nothing where it has none of its own."""
    for suffix, section in _sections(annotation):
        for option in grammar.options(section).values():
            key = f"{path}{suffix}.{option.name}"
            yield _row(key, option)
            yield from _rows(key, option.annotation)


def _sections(annotation: Any) -> Iterator[tuple[str, type]]:
    """Find the dataclasses in an annotation, each with how its key goes on."""
    base, _ = grammar.bare(annotation)
    origin, arguments = typing.get_origin(base), typing.get_args(base)
    if dataclasses.is_dataclass(base) and isinstance(base, type):
        yield "", base
    elif origin is tuple:
        yield from ((f"[]{suffix}", section) for suffix, section in _sections(arguments[0]))
    elif isinstance(origin, type) and issubclass(origin, Mapping):
        yield from ((f".<id>{suffix}", section) for suffix, section in _sections(arguments[1]))
    elif arguments:
        for member in arguments:
            yield from _sections(member)


def _row(key: str, option: grammar.Option) -> str:
    cells = (f"`{key}`", _default(option), grammar.allowed(option.annotation), option.meaning)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _default(option: grammar.Option) -> str:
    """Write a default as the file would have it."""
    value = option.default
    if value is dataclasses.MISSING:
        return "required"
    if value is None or (isinstance(value, Mapping | tuple) and not value):
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, float):
        return f"`{value:g}`"
    return f"`{value}`" if isinstance(value, int | str) else ""


def update(text: str) -> str:
    """Put the tables into a document; those that it has no markers for are left out."""
    for name, table in (("configuration", reference()), ("figures", catalogue_table())):
        begin, end = f"<!-- {name}:begin -->\n", f"<!-- {name}:end -->"
        before, found, rest = text.partition(begin)
        if found:
            _, found, after = rest.partition(end)
            assert found, f"{begin.strip()} without {end}"
            text = f"{before}{begin}{table}{end}{after}"
    return text


def main() -> None:
    """Write the tables into the documents that are named."""
    for path in map(Path, sys.argv[1:]):
        path.write_text(update(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
