"""Models that are code: finding it by name, making the model, and calling it by its argument names."""

import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from consumer.errors import ModelError
from consumer.models.options import ModelOptions
from consumer.models.signature import Arguments
from consumer.worker.loaders.outputs import Value

_STARRED = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def one_line(error: BaseException) -> str:
    """Say what an error is in one line: its class and the first line of its message."""
    message = str(error).strip().partition("\n")[0].strip()
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def resolve(key: str, name: str) -> Callable[..., Any]:
    """Import what the option `key` names as `package.module:name`.

    Raises:
        ModelError: the module cannot be imported, has no such name, or it cannot be called.
    """
    module_name, _, path = name.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
    except Exception as error:
        raise ModelError(f"{key}: {name} cannot be imported (see python_path): {one_line(error)}") from error
    for part in path.split("."):
        if not hasattr(found, part):
            raise ModelError(f"{key}: the module {module_name} has no {path}")
        found = getattr(found, part)
    if not callable(found):
        raise ModelError(f"{key}: {name} is a {type(found).__name__}, which cannot be called")
    return found  # type: ignore[no-any-return]  # callable narrows Any to an unnamed type


def make(options: ModelOptions) -> Callable[..., object]:
    """Call a model's factory with its arguments; a module is put into evaluation mode.

    Raises:
        ModelError: the factory is not found, raises, or returns nothing that can be called.
    """
    assert options.factory is not None, "a model made by code has a factory"
    factory = resolve("factory", options.factory)
    try:
        model = factory(**options.arguments)
    except Exception as error:
        raise ModelError(f"factory: {options.factory} raised {one_line(error)}") from error
    if not callable(model):
        raise ModelError(f"factory: {options.factory} returns a {type(model).__name__}, which cannot be called")
    if isinstance(model, nn.Module):
        model.eval()
    return model  # type: ignore[no-any-return]  # callable narrows Any to an unnamed type


def arguments_of(model: Callable[..., object]) -> Arguments:
    """Read the names of a model's arguments, of `forward` where it is a module.

    Raises:
        ModelError: it has none to which inputs could be bound.
    """
    parameters = _parameters(model)
    is_open = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    single = [parameter for parameter in parameters if parameter.kind not in _STARRED]
    if not single and not is_open:
        raise ModelError("the model takes no arguments with names, to which inputs could be bound")
    return Arguments(
        tuple(parameter.name for parameter in single if parameter.default is parameter.empty),
        tuple(parameter.name for parameter in single if parameter.default is not parameter.empty),
        is_open,
    )


def by_name(model: Callable[..., object]) -> Callable[[Mapping[str, Value]], object]:
    """Call a model with named tensors, in its positions where it wants no names.

    Raises:
        ModelError: it does not tell its arguments.
    """
    placed = [parameter.name for parameter in _parameters(model) if parameter.kind is parameter.POSITIONAL_ONLY]

    def run(inputs: Mapping[str, Value]) -> object:
        first = [inputs[name] for name in placed if name in inputs]
        return model(*first, **{name: value for name, value in inputs.items() if name not in placed})

    return run if placed else lambda inputs: model(**inputs)


def on_device(model: Callable[..., object], device: str) -> Callable[..., object]:
    """Put a module on its device; any other callable finds its tensors there and follows them."""
    return model.to(torch.device(device)) if isinstance(model, nn.Module) else model


def _parameters(model: Callable[..., object]) -> list[inspect.Parameter]:
    """Read a model's parameters, those of `forward` where it is a module."""
    function = model.forward if isinstance(model, nn.Module) else model
    try:
        return list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError) as error:
        raise ModelError(f"the model's arguments cannot be read: {one_line(error)}") from error
