"""From a model's options to a loaded model: one module per format, one kind of result.

Only a worker's process imports this; torch comes with it. Must not know records' encodings, batches or the channel.
"""

from dataclasses import replace
from typing import Protocol

from consumer.models import repository
from consumer.models.options import ModelOptions
from consumer.models.repository import Artifact, Format
from consumer.worker.loaders import code, exported, python, torchscript, weights
from consumer.worker.loaders.loaded import LoadedModel
from consumer.worker.loaders.outputs import Value
from consumer.worker.loaders.program import Program

__all__ = ["LoadedModel", "Value", "load"]


class _Loader(Protocol):
    """A format's way from options to a program."""

    def __call__(self, options: ModelOptions, artifact: Artifact, device: str) -> Program: ...


_LOADERS: dict[Format, _Loader] = {
    Format.TORCHSCRIPT: torchscript.load,
    Format.EXPORTED: exported.load,
    Format.WEIGHTS: weights.load,
    Format.PYTHON: python.load,
}


def load(options: ModelOptions, device: str) -> LoadedModel:
    """Load a model onto a device (`cpu`, `cuda:0`), in evaluation mode; it is not warmed up yet.

    Raises:
        ModelError: one line that says what is wrong with the file, the code or the options.
    """
    artifact = repository.find(options)
    program = _LOADERS[artifact.format](options, artifact, device)
    if options.preprocess is not None:
        program = replace(program, preprocess=code.resolve("preprocess", options.preprocess))
    if options.postprocess is not None:
        program = replace(program, postprocess=code.resolve("postprocess", options.postprocess))
    return LoadedModel(options=options, artifact=artifact, program=program, device=device, notes=program.notes)
