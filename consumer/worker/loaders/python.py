"""Models that a factory makes: any callable from named, batched tensors to tensors."""

import hashlib
import inspect
from pathlib import Path

from consumer.models.options import ModelOptions
from consumer.models.repository import Artifact
from consumer.worker.loaders import code, declared
from consumer.worker.loaders.program import Program


def load(options: ModelOptions, artifact: Artifact, device: str) -> Program:
    """Make the model; its version is the declared one, else the digest of the source file of its factory.

    Raises:
        ModelError: the factory fails, or the declared inputs are not the model's.
    """
    assert options.factory is not None, "a Python model has a factory"
    assert artifact.path is None, "a Python model has no file"
    model = code.on_device(code.make(options), device)
    return Program(
        run=code.by_name(model),
        takes=declared.against_arguments(options, code.arguments_of(model)),
        preprocess=getattr(model, "preprocess", None),
        postprocess=getattr(model, "postprocess", None),
        version=_source_version(code.resolve("factory", options.factory)),
    )


def _source_version(factory: object) -> str | None:
    """Digest the source file of a factory; None where there is none to read."""
    try:
        source = inspect.getsourcefile(factory)  # type: ignore[arg-type]  # a TypeError is one of the answers
    except TypeError:
        return None
    if source is None or not Path(source).is_file():
        return None
    return hashlib.sha256(Path(source).read_bytes()).hexdigest()[:12]
