"""From YAML and the environment to one tree of values, each with the place that it came from.

Owns reading: where a value was written, which keys occur twice, how a variable's name becomes a key. Must not know what
the keys mean (`grammar` does), nor whether a value is allowed.

The environment overrides the file: `CONSUMER_COMMIT__INTERVAL_MS` is `commit.interval_ms`, `CONSUMER_KAFKA__GROUP_ID`
is `kafka: {group.id: ...}`, `CONSUMER_MODELS__FRAUD__ROWS_MAX` belongs to the model `fraud` of the file. Text is taken
as it is, anything else is read as YAML. An empty variable counts as not set. Variables without a double underscore
that name no section are somebody else's (`CONSUMER_PORT` is what Kubernetes sets beside a service `consumer`).
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from consumer.config import grammar
from consumer.errors import ConfigError

PREFIX = "CONSUMER_"

_MAP, _SEQUENCE, _TEXT, _NULL = (f"tag:yaml.org,2002:{kind}" for kind in ("map", "seq", "str", "null"))

Key: TypeAlias = tuple[str | int, ...]
"""The way from the root to a value."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: where, and what."""

    key: Key
    text: str
    """Follows the key directly: starts with `:` or a space."""


@dataclass(slots=True)
class Tree:
    """Values as they were written, and where."""

    values: dict[str, Any] = field(default_factory=dict)
    origins: dict[Key, str] = field(default_factory=dict)

    def origin(self, key: Key) -> str:
        """Say where a value was written; of a missing one, where its section was."""
        for length in range(len(key), -1, -1):
            if key[:length] in self.origins:
                return self.origins[key[:length]]
        raise AssertionError("the root has an origin")

    def line(self, problem: Problem) -> str:
        """Write a problem as one line."""
        return f"{self.origin(problem.key)}: {spell(problem.key)}{problem.text}"


def spell(key: Key) -> str:
    """Write a key as people do: `models.fraud.inputs[0].name`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in key).removeprefix(".")


def read(path: Path) -> Tree:
    """Read a YAML file.

    Raises:
        ConfigError: There is no such file, it is no YAML, its root is no mapping, or a key is no text or occurs twice.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; name the configuration with --config") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    return parse(text, str(path))


def parse(text: str, name: str) -> Tree:
    """Parse YAML text; `name` is what its lines are told apart by. Raises as `read` does."""
    try:
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
        tree = Tree(origins={(): name})
        if root is None or root.tag == _NULL:
            return tree
        if root.tag != _MAP:
            raise ConfigError(f"{name}: the configuration is a mapping of sections, such as `kafka:` and `models:`")
        builder = _Builder(loader, name, tree.origins)
        tree.values = builder.value(root, ())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark else name
        raise ConfigError(f"{where}: not valid YAML: {error.problem}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{name}: not valid YAML: {' '.join(str(error).split())}") from error
    if builder.problems:
        raise ConfigError(*builder.problems)
    return tree


class _Builder:
    """Makes values of YAML nodes and notes the line of each; PyYAML itself lets the last of two equal keys win."""

    def __init__(self, loader: yaml.SafeLoader, name: str, origins: dict[Key, str]) -> None:
        self._loader = loader
        self._name = name
        self._origins = origins
        self._above: list[yaml.Node] = []
        self.problems: list[str] = []

    def value(self, node: yaml.Node, key: Key) -> Any:
        """Make the value of a node."""
        if key:
            self._origins[key] = f"{self._name}:{node.start_mark.line + 1}"
        if any(node is above for above in self._above):
            self._refuse(node, key, "contains itself")
            return None
        self._above.append(node)
        try:
            if isinstance(node, yaml.MappingNode) and node.tag == _MAP:
                return dict(self._pairs(node, key))
            if node.tag == _SEQUENCE:
                return [self.value(item, (*key, index)) for index, item in enumerate(node.value)]
            return self._loader.construct_object(node)
        except ValueError as error:
            self._refuse(node, key, f"is no value: {error}")
            return None
        finally:
            self._above.pop()

    def _pairs(self, node: yaml.MappingNode, key: Key) -> Iterator[tuple[str, Any]]:
        self._refuse_twins(node, key)
        self._loader.flatten_mapping(node)
        for name_node, value_node in node.value:
            if name_node.tag == _TEXT:
                yield name_node.value, self.value(value_node, (*key, name_node.value))
            else:
                name = name_node.value if isinstance(name_node.value, str) else "a key"
                self._refuse(name_node, (*key, name), "is no text: put it in quotes")

    def _refuse_twins(self, node: yaml.MappingNode, key: Key) -> None:
        seen: set[str] = set()
        for name_node, _ in node.value:
            if name_node.tag == _TEXT:
                if name_node.value in seen:
                    self._refuse(name_node, (*key, name_node.value), "occurs twice")
                seen.add(name_node.value)

    def _refuse(self, node: yaml.Node, key: Key, text: str) -> None:
        self.problems.append(f"{self._name}:{node.start_mark.line + 1}: {spell(key)} {text}")


def overlay(tree: Tree, root: type, environ: Mapping[str, str], settings: Collection[str] = ()) -> list[Problem]:
    """Put the environment's values into a tree.

    Args:
        tree: What the file says; changed in place.
        root: The dataclass that the whole tree is to become.
        environ: The variables.
        settings: Names of client settings, to tell which one a variable means: it has no dots.

    Returns:
        A problem for each variable that names no key, or has a value that cannot be read.
    """
    sections = grammar.options(root)
    by_variable = {_flat(name): name for name in settings}
    problems = []
    for variable, text in sorted(environ.items()):
        if not variable.startswith(PREFIX) or not text:
            continue
        parts = variable.removeprefix(PREFIX).lower().split("__")
        if parts[0] in sections:
            wrong = _override(tree, variable, text, _resolve(parts, root, tree.values, by_variable))
        elif len(parts) > 1:
            wrong = f"there is no section {parts[0]!r}{grammar.nearest(parts[0], sections)}"
        else:
            continue
        if wrong is not None:
            tree.origins[variable,] = "environment"
            problems.append(Problem((variable,), f": {wrong}"))
    return problems


def _override(tree: Tree, variable: str, text: str, meant: tuple[Key, Any]) -> str | None:
    """Set the value that a variable means; say why where that cannot be."""
    key, annotation = meant
    if annotation is None:
        return f"there is no {spell(key)}"
    try:
        value = text if grammar.is_text(annotation) else yaml.safe_load(text)
    except yaml.YAMLError:
        return f"not valid YAML; allowed: {grammar.allowed(annotation)}"
    if not _place(tree.values, key, value):
        return f"{spell(key[:-1])} is no mapping"
    tree.origins[key] = variable
    return None


def _resolve(parts: Sequence[str], root: type, values: Any, by_variable: Mapping[str, str]) -> tuple[Key, Any]:
    """Find the key that a variable means, and its annotation; None where there is no such key."""
    key: list[str] = []
    annotation: Any = root
    for part in parts:
        here = values if isinstance(values, Mapping) else {}
        known = grammar.children(annotation)
        if known is not None:
            name = part
        elif grammar.is_pass_through(annotation):
            name = part if part in here or part in {"consumer", "producer"} else by_variable.get(part, _dots(part))
        else:
            name = next((written for written in here if _flat(written) == part), part)
            if grammar.child(annotation, name) is not None and name not in here:
                return (*key, name), None  # a model that the file does not have
        key.append(name)
        annotation = grammar.child(annotation, name)
        values = here.get(name)
        if annotation is None:
            break
    return tuple(key), annotation


def _flat(name: str) -> str:
    """Write a name as a variable can, in small letters."""
    return re.sub(r"[^a-z0-9]", "_", name.lower())


def _dots(part: str) -> str:
    return part.replace("_", ".")


def _place(values: dict[str, Any], key: Key, value: Any) -> bool:
    """Set a value, making the mappings on the way; False where something else is in the way."""
    here: Any = values
    for name in key[:-1]:
        here = here.setdefault(name, {})
        if not isinstance(here, dict):
            return False
    here[key[-1]] = value
    return True
