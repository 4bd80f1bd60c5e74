"""Models that a factory makes and a safetensors file fills."""

import safetensors
import safetensors.torch
import torch
from torch import nn

from consumer.errors import ModelError
from consumer.models.options import ModelOptions
from consumer.models.repository import Artifact
from consumer.worker.loaders import code, declared
from consumer.worker.loaders.program import Program


def load(options: ModelOptions, artifact: Artifact, device: str) -> Program:
    """Make the model and load its weights, strictly: the same names, shapes and datatypes in both.

    Raises:
        ModelError: the factory fails or makes no module, the weights do not fit it, or the declared inputs are not
            the model's.
    """
    assert artifact.path is not None, "weights have a file"
    model = code.make(options)
    if not isinstance(model, nn.Module):
        raise ModelError(f"factory: {options.factory} returns a {type(model).__name__}, weights need a torch.nn.Module")
    try:
        weights = safetensors.torch.load_file(artifact.path)
        _check_dtypes(options, model, weights)
        # It knows that tensors which share memory are saved once, and refuses whatever is missing or left over.
        safetensors.torch.load_model(model, artifact.path, strict=True)
    except (RuntimeError, OSError, safetensors.SafetensorError) as error:
        raise ModelError(f"{artifact.path} does not fit {options.factory}: {_brief(error)}") from error
    code.on_device(model, device)
    return Program(
        run=code.by_name(model),
        takes=declared.against_arguments(options, code.arguments_of(model)),
        preprocess=getattr(model, "preprocess", None),
        postprocess=getattr(model, "postprocess", None),
    )


def _check_dtypes(options: ModelOptions, model: nn.Module, weights: dict[str, torch.Tensor]) -> None:
    """See that no weight would be cast, which torch does without a word."""
    own = model.state_dict()
    for name, weight in weights.items():
        if name in own and own[name].dtype != weight.dtype:
            kinds = [str(dtype).removeprefix("torch.") for dtype in (weight.dtype, own[name].dtype)]
            raise ModelError(
                f"{options.path}: {name} is {kinds[0]} in the file and {kinds[1]} in the module that {options.factory} "
                "makes: make both the same"
            )


def _brief(error: Exception) -> str:
    """Put torch's list of misfits, which stands below its first line, into one line."""
    return " ".join(str(error).split())
