"""What may be written where, read off the options' annotations.

Owns the questions that errors and the reference ask of a type: which keys it has, what it allows in words, which key
is the nearest to a misspelt one. Must not know values or files.
"""

import ast
import dataclasses
import difflib
import inspect
import textwrap
import types
import typing
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from typing import Annotated, Any, Literal, Union

import annotated_types

HIDDEN = frozenset({"id"})
"""Fields that the tree's own structure gives: a model's ID is its key."""


@dataclasses.dataclass(frozen=True, slots=True)
class Option:
    """One key of a section."""

    name: str
    annotation: Any
    default: Any
    """`dataclasses.MISSING` where it has to be given."""
    meaning: str
    """The docstring under the field."""


@cache
def options(section: type) -> Mapping[str, Option]:
    """List the keys of a dataclass, in their order."""
    hints = typing.get_type_hints(section, include_extras=True)
    meanings = _meanings(section)
    found = {}
    for each in dataclasses.fields(section):
        if each.name in HIDDEN or not each.init:
            continue
        default = each.default
        if default is dataclasses.MISSING and each.default_factory is not dataclasses.MISSING:
            default = each.default_factory()
        found[each.name] = Option(each.name, hints[each.name], default, meanings.get(each.name, ""))
    return types.MappingProxyType(found)


def _meanings(section: type) -> dict[str, str]:
    """Read the string literals under a dataclass's fields."""
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(section))).body
    assert isinstance(definition, ast.ClassDef)
    meanings = {}
    for before, after in zip(definition.body, definition.body[1:], strict=False):
        if (
            isinstance(before, ast.AnnAssign)
            and isinstance(before.target, ast.Name)
            and isinstance(after, ast.Expr)
            and isinstance(after.value, ast.Constant)
            and isinstance(after.value.value, str)
        ):
            meanings[before.target.id] = " ".join(after.value.value.split())
    return meanings


def bare(annotation: Any) -> tuple[Any, tuple[Any, ...]]:
    """Take `Annotated` and `| None` off an annotation; give what is left, and the bounds."""
    bounds: tuple[Any, ...] = ()
    while True:
        if typing.get_origin(annotation) is Annotated:
            bounds += annotation.__metadata__
            annotation = annotation.__origin__
            continue
        members = [member for member in _members(annotation) if member is not types.NoneType]
        if len(members) != 1 or members[0] is annotation:
            return annotation, bounds
        annotation = members[0]


def _members(annotation: Any) -> tuple[Any, ...]:
    if typing.get_origin(annotation) in {Union, types.UnionType}:
        return typing.get_args(annotation)
    return (annotation,)


def children(annotation: Any) -> Mapping[str, Option] | None:
    """List the keys of a section; None for anything but a dataclass."""
    base, _ = bare(annotation)
    return options(base) if dataclasses.is_dataclass(base) and isinstance(base, type) else None


def child(annotation: Any, name: str | int) -> Any:
    """Give the annotation of what a key holds; None where there is no such key.

    Of a union the first member that has such a key decides.
    """
    base, _ = bare(annotation)
    for member in (bare(each)[0] for each in _members(base)):
        known = children(member)
        if known is not None and isinstance(name, str) and name in known:
            return known[name].annotation
        origin = typing.get_origin(member)
        if origin is tuple and isinstance(name, int):
            return typing.get_args(member)[0]
        if _is_mapping(origin) and isinstance(name, str):
            return typing.get_args(member)[1]
        if member is Any:
            return Any
    return None


def _is_mapping(origin: Any) -> bool:
    return isinstance(origin, type) and issubclass(origin, Mapping)


def is_pass_through(annotation: Any) -> bool:
    """Tell whether a mapping's keys are somebody else's (client and topic settings, a factory's arguments)."""
    base, _ = bare(annotation)
    return any(
        member is Any or (_is_mapping(typing.get_origin(member)) and children(typing.get_args(member)[1]) is None)
        for member in _members(base)
    )


def is_text(annotation: Any) -> bool:
    """Tell whether a value may be any text or is a word of ours, so that a variable's value is taken as it is."""
    base, _ = bare(annotation)
    return str in _members(base) or typing.get_origin(base) is Literal


def is_number(annotation: Any) -> bool:
    """Tell whether a value is a number, for which YAML's `true` and `.inf` are none."""
    return bare(annotation)[0] in {int, float}


def allowed(annotation: Any) -> str:
    """Say in words what may be written."""
    base, bounds = bare(annotation)
    words = _allowed(base)
    limits = [limit for bound in bounds if (limit := _limit(bound, base))]
    return ", ".join([words, *limits])


def _allowed(base: Any) -> str:
    origin, arguments = typing.get_origin(base), typing.get_args(base)
    if origin in {Union, types.UnionType}:
        return ", or ".join(allowed(member) for member in arguments if member is not types.NoneType)
    if origin is Literal:
        *most, last = [value if isinstance(value, str) else repr(value) for value in arguments]
        return f"{', '.join(most)} or {last}" if most else last
    if origin is tuple:
        return f"a list of {_plural(arguments[0])}"
    if _is_mapping(origin):
        return "a mapping"
    known = children(base)
    if known is not None:
        return f"a mapping of {', '.join(known)}"
    simple = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
    return simple.get(base, "a value")


def _plural(annotation: Any) -> str:
    base, bounds = bare(annotation)
    plurals = {int: "whole numbers", float: "numbers", str: "texts"}
    if typing.get_origin(base) in {Union, types.UnionType}:
        return " and ".join(_plural(member) for member in typing.get_args(base))
    if base not in plurals:
        known = children(base)
        return "values" if known is None else f"mappings of {', '.join(known)}"
    return ", ".join([plurals[base], *(limit for bound in bounds if (limit := _limit(bound, base)))])


def _limit(bound: Any, base: Any) -> str:
    """Say in words what one of the annotated bounds demands."""
    if isinstance(bound, annotated_types.Ge):
        return f"at least {bound.ge}"
    if isinstance(bound, annotated_types.Gt):
        return f"more than {bound.gt}"
    if isinstance(bound, annotated_types.Le):
        return f"at most {bound.le}"
    if isinstance(bound, annotated_types.MinLen):
        if base is str:
            return "not empty"
        return f"at least {bound.min_length}"
    raise AssertionError(f"no words for {bound!r}")


def nearest(name: str, known: Collection[str]) -> str:
    """Suggest the known key that a misspelt one is nearest to: a clause for the end of a line, or nothing."""
    close: Sequence[str] = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]}?" if close else ""
