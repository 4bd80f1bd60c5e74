"""From a tree of values to checked settings.

Owns the order of the checks and the lines that they end as: unknown keys, wrong values and contradictions are all told
at once, one line each. Must not know what the options are for.
"""

import dataclasses
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from consumer.config import grammar
from consumer.config.checks import contradictions
from consumer.config.settings import Settings
from consumer.config.tree import Key, Problem, Tree, overlay, read
from consumer.core.flow import FlowOptions
from consumer.errors import ConfigError
from consumer.kafka.properties import KNOWN

SHOWN_MAX = 60
"""Characters of a wrong value that a line shows."""

_FOREIGN = frozenset({"kafka"})
"""Sections whose values are checked by the client that they are for."""


def load(path: Path, environ: Mapping[str, str] | None = None) -> Settings:
    """Read and check a configuration.

    Args:
        path: The YAML file; relative paths in it start from its directory.
        environ: The variables that override it; the process's own by default.

    Raises:
        ConfigError: With a line for everything that is wrong.
    """
    return _settings(read(path), path.resolve().parent, os.environ if environ is None else environ)


def _settings(tree: Tree, directory: Path, environ: Mapping[str, str]) -> Settings:
    problems = overlay(tree, Settings, environ, KNOWN)
    problems += _strangers(tree.values, Settings, ())
    sections: dict[str, Any] = {}
    for name, option in grammar.options(Settings).items():
        if name in tree.values and name not in _FOREIGN:
            checked, wrong = _check(name, tree.values[name], option.annotation)
            sections |= checked
            problems += wrong
        elif name in tree.values:
            sections[name] = tree.values[name]
        elif option.default is dataclasses.MISSING:
            problems.append(_missing((name,), option))
        else:
            sections[name] = option.default
    _batch_as_told(sections, tree.values)
    problems += contradictions(sections)
    if problems:
        raise ConfigError(*dict.fromkeys(tree.line(problem) for problem in problems))
    return _anchored(Settings(**sections), directory)


def _strangers(value: Any, annotation: Any, key: Key) -> Iterator[Problem]:
    """Find keys that nobody knows, and booleans and infinities where numbers belong, which pydantic would take."""
    known = grammar.children(annotation)
    inner: list[tuple[str | int, Any]] = []
    if isinstance(value, Mapping):
        inner = list(value.items())
    elif isinstance(value, list):
        inner = list(enumerate(value))
    elif grammar.is_number(annotation) and (
        isinstance(value, bool) or (isinstance(value, float) and not math.isfinite(value))
    ):
        yield Problem(key, _not_allowed(value, annotation))
    for name, each in inner:
        of_each = grammar.child(annotation, name)
        if of_each is not None:
            yield from _strangers(each, of_each, (*key, name))
        elif known is not None and isinstance(name, str):
            hint = grammar.nearest(name, known) or f"; there are: {', '.join(known)}"
            yield Problem((*key, name), f" is not known{hint}")


def _check(name: str, value: Any, annotation: Any) -> tuple[dict[str, Any], list[Problem]]:
    """Check one section; give it by its name where nothing is wrong with it."""
    if name == "flow" and isinstance(value, Mapping):
        value = _fetch_as_told(value)
    if name == "models" and isinstance(value, Mapping):
        value = {model: {**own, "id": model} if isinstance(own, Mapping) else own for model, own in value.items()}
    try:
        return {name: TypeAdapter(annotation).validate_python(value)}, []
    except ValidationError as error:
        found: dict[Key, Problem] = {}
        for each in error.errors(include_url=False):
            problem = _translate(each, (name,), annotation)
            found[problem.key] = problem
        # Where members of a union complain, the one that got furthest into the value is the one that was meant.
        deepest = [key for key in found if not any(other[: len(key)] == key and other != key for other in found)]
        return {}, [found[key] for key in deepest]


def _translate(error: Mapping[str, Any], key: Key, annotation: Any) -> Problem:
    """Say what pydantic found in our own words."""
    option = None
    for part in error["loc"]:
        inner = grammar.child(annotation, part)
        if inner is None:
            continue  # the name of a union's member
        known = grammar.children(annotation)
        option = known[part] if known is not None and part in known else None
        key, annotation = (*key, part), inner
    if error["type"] == "missing" and option is not None:
        return _missing(key, option)
    if error["type"] == "value_error":
        # The options' own checks begin with the key that they are about.
        own, _, text = str(error["ctx"]["error"]).partition(": ")
        return Problem((*key, own), f": {text}")
    return Problem(key, _not_allowed(error["input"], annotation))


def _missing(key: Key, option: grammar.Option) -> Problem:
    return Problem(key, f" is missing: {option.meaning}")


def _not_allowed(value: Any, annotation: Any) -> str:
    return f": {_show(value)} is not allowed; allowed: {grammar.allowed(annotation)}"


def _show(value: Any) -> str:
    """Write a wrong value as the file has it, shortened."""
    if value is None or isinstance(value, bool):
        return {None: "nothing", True: "true", False: "false"}[value]
    text = repr(value)
    return text if len(text) <= SHOWN_MAX else f"{text[:SHOWN_MAX]}..."


def _fetch_as_told(flow: Mapping[str, Any]) -> Mapping[str, Any]:
    """Let one fetch bring at most half of what may be in flight, where a limit is told and the fetch is not."""
    told = [flow.get(name) for name in ("records_max", "span_max")]
    halves = [limit // 2 for limit in told if isinstance(limit, int) and limit > 1]
    if "fetch_records_max" in flow or not halves:
        return flow
    return {**flow, "fetch_records_max": min(FlowOptions().fetch_records_max, *halves)}


def _batch_as_told(sections: dict[str, Any], values: Mapping[str, Any]) -> None:
    """Give the models what `batch:` says, where they say nothing themselves."""
    told = values.get("batch")
    if not isinstance(told, Mapping) or "batch" not in sections or "models" not in sections:
        return
    sections["models"] = {
        name: dataclasses.replace(
            model, **{key: getattr(sections["batch"], key) for key in told if key not in values["models"][name]}
        )
        for name, model in sections["models"].items()
    }


def _anchored(settings: Settings, directory: Path) -> Settings:
    """Let relative paths start from the configuration's directory."""

    def anchor(path: str | None) -> str | None:
        return None if path is None else str(directory / path)

    return dataclasses.replace(
        settings,
        models={
            name: dataclasses.replace(model, path=anchor(model.path), warmup=anchor(model.warmup))
            for name, model in settings.models.items()
        },
        python_path=tuple(str(directory / path) for path in settings.python_path or ("",)),
    )
