"""Whether an exported program is what it should be: operators, shapes and tensors, and no code of its own.

Owns the inspection of a `.pt2` archive before torch reads it, because torch evaluates parts of it as Python: it
unpickles opaque constants whatever TORCH_FORCE_WEIGHTS_ONLY_LOAD says, evaluates symbolic expressions and guards, looks
up operators as attributes of modules, and writes names into source code. What an honest export never contains is
refused here. Must not know torch. Nothing is evaluated.
"""

import ast
import re
import zipfile
from collections.abc import Iterator
from typing import Any

import orjson

from consumer.errors import ModelError

_PICKLED_PREFIX = "data/constants/opaque_obj"

_OPERATORS = re.compile(
    r"(torch\.ops\.\w+\.\w+(\.\w+)?|_operator\.\w+|math\.\w+|torch\.(_?sym_|_functorch\.predispatch\.)\w+|#\w+:[\w.]+)\Z"
)
_OPERATORS_THAT_CALL = re.compile(r"_operator\.(call|methodcaller|attrgetter)\Z")

_FUNCTIONS = frozenset(
    """
    Symbol Integer Float Rational Add Mul Pow Mod Max Min Abs Eq Ne Lt Le Gt Ge And Or Not Piecewise floor ceiling sqrt
    Equality Unequality StrictLessThan LessThan StrictGreaterThan GreaterThan FloorDiv ModularIndexing Where PythonMod
    CleanDiv CeilToInt FloorToInt CeilDiv LShift RShift PowByNatural FloatPow FloatTrueDiv IntTrueDiv TruncToFloat
    TruncToInt RoundToInt RoundDecimal ToFloat Identity IsNonOverlappingAndDenseIndicator
    max min abs int len isinstance size stride storage_offset dim numel isnan isinf
    """.split()  # noqa: SIM905  # sixty quoted names read worse
)
_ATTRIBUTES = frozenset({"size", "stride", "shape", "storage_offset", "dim", "numel", "dtype", "isnan", "isinf", "inf"})
_NODES = (
    ast.Expression,
    ast.Name,
    ast.Load,
    ast.Constant,
    ast.Tuple,
    ast.Subscript,
    ast.Attribute,
    ast.Call,
    ast.keyword,
    ast.Compare,
    ast.BoolOp,
    ast.BinOp,
    ast.UnaryOp,
    ast.IfExp,
    ast.operator,
    ast.unaryop,
    ast.boolop,
    ast.cmpop,
)


def check(archive: zipfile.ZipFile) -> None:
    """See that an archive holds nothing that torch would execute.

    Raises:
        ModelError: it does, or it is not what torch.export.save writes.
    """
    names = [name.lower() for name in archive.namelist()]
    if len(set(names)) < len(names):
        raise ModelError("a name occurs twice in the archive, so that it could be read in two ways")
    for name in archive.namelist():
        if _PICKLED_PREFIX in name.lower():
            raise ModelError(f"it holds a pickled object ({name}), which could run any code when it is loaded")
        if "models/" in name and name.endswith(".json"):
            try:
                program = orjson.loads(archive.read(name))
            except ValueError as error:
                raise ModelError(f"{name} in it is damaged: {error}") from error
            for fault in _faults(program):
                raise ModelError(f"{name} in it holds {fault}, which no export writes and torch would run as code")


def _faults(program: Any) -> Iterator[str]:
    """Walk a program's JSON and describe what could be code."""
    pending: list[tuple[str, Any]] = [("", program)]
    while pending:
        key, value = pending.pop()
        if isinstance(value, dict):
            pending += value.items()
        elif isinstance(value, list):
            pending += [(key, element) for element in value]
        elif isinstance(value, str) and not _is_harmless(key, value):
            yield f"the {key} {value[:80]!r}"


def _is_harmless(key: str, value: str) -> bool:
    """Tell whether a string is what strings under that key are."""
    if "__enum__" in value or "default_factory_module" in value:
        return False  # torch imports whatever module these name
    match key:
        case "target" | "as_operator":
            return _is_operator(value)
        case "expr_str" | "guards_code":
            return _is_arithmetic(value)
        case "name" | "forward_arg_names":
            return not value or value.lstrip("*").isidentifier()
        case "in_spec":
            return _has_plain_keywords(value)
    return True


def _is_operator(name: str) -> bool:
    """Tell whether a name is that of an operator, and of nothing else that torch's modules hold."""
    return "__" not in name and bool(_OPERATORS.match(name)) and not _OPERATORS_THAT_CALL.match(name)


def _is_arithmetic(expression: str) -> bool:
    """Tell whether an expression computes with sizes and does nothing else."""
    try:
        tree = ast.parse(expression, mode="eval")
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return False
    return all(isinstance(node, _NODES) and _is_plain(node) for node in ast.walk(tree))


def _is_plain(node: ast.AST) -> bool:
    """Tell whether a node calls nothing but known functions, and looks at nothing but sizes."""
    if isinstance(node, ast.Call):
        called = node.func
        name = called.id if isinstance(called, ast.Name) else called.attr if isinstance(called, ast.Attribute) else ""
        return name in _FUNCTIONS
    return not isinstance(node, ast.Attribute) or node.attr in _ATTRIBUTES


def _has_plain_keywords(spec: str) -> bool:
    """Tell whether the keyword arguments of a call specification are names: torch writes them into source code."""
    try:
        _, tree = orjson.loads(spec)
        keywords = orjson.loads(tree["children_spec"][1]["context"])
    except (ValueError, LookupError, TypeError):
        return False
    return isinstance(keywords, list) and all(isinstance(name, str) and name.isidentifier() for name in keywords)
