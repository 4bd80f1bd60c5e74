"""From a model's options to the file and the format to load it by.

Owns the rule that a format is told by a file's content and never by its suffix, digests, versions, and the refusal of
pickles. Must not know torch: nothing is loaded here, and no byte of a model is ever executed or unpickled.
"""

import hashlib
import json
import zipfile
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from consumer.errors import ModelError
from consumer.models import archive
from consumer.models.options import ModelOptions

_PICKLE_START = b"\x80"
_SAFETENSORS_HEADER_BYTES_MAX = 100_000_000
"""The format's own limit."""


class Format(Enum):
    """The ways to make a model."""

    TORCHSCRIPT = "TorchScript"
    EXPORTED = "exported program"
    WEIGHTS = "safetensors with a factory"
    PYTHON = "Python factory"


@dataclass(frozen=True, slots=True)
class Artifact:
    """What a model's options point at."""

    format: Format
    path: Path | None
    sha256: str | None
    """The file's digest in hex; None where there is no file."""
    version: str | None
    """The declared version, else the digest's first 12 digits; None where there is neither."""


def find(options: ModelOptions) -> Artifact:
    """Look at a model's file and decide how to load it.

    Raises:
        ModelError: no such file, an unknown format, a pickle, or options that do not go with the format.
    """
    if options.path is None:
        return Artifact(Format.PYTHON, None, None, options.version)
    path = Path(options.path)
    try:
        found = _format(path)
        if found is Format.WEIGHTS and options.factory is None:
            raise ModelError(
                f"{path} holds weights alone: name the code that makes the model, factory: package.module:name"
            )
        if found is not Format.WEIGHTS and options.factory is not None:
            raise ModelError(f"{path} is a whole model ({found.value}): leave factory out, or give safetensors weights")
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(f"path: {path}: {error.strerror or error}") from error
    return Artifact(found, path, sha256, options.version or sha256[:12])


def _format(path: Path) -> Format:
    """Tell a file's format by its content."""
    with path.open("rb") as file:
        head = file.read(9)
    if head.startswith(b"PK"):
        try:
            with zipfile.ZipFile(path) as opened:
                found = _archive_format(path, opened.namelist())
                if found is Format.EXPORTED:
                    _inspect(path, opened)
                return found
        except zipfile.BadZipFile as error:
            raise ModelError(f"{path} is a damaged zip archive: {error}") from error
    if head.startswith(_PICKLE_START):
        raise ModelError(_pickled(path))
    length = int.from_bytes(head[:8], "little")
    if head[8:] == b"{" and length <= min(_SAFETENSORS_HEADER_BYTES_MAX, path.stat().st_size - 8):
        _check_safetensors(path, length)
        return Format.WEIGHTS
    raise ModelError(f"{path} is of no known format: TorchScript, an exported program (.pt2) or safetensors are")


def _archive_format(path: Path, names: list[str]) -> Format:
    """Tell the format of a zip archive by its members, which torch puts into one folder."""
    members = {name.partition("/")[2] for name in names} | set(names)
    if any(name.startswith("data/aotinductor/") for name in members):
        raise ModelError(
            f"{path} is an AOTInductor package, compiled code for one machine: save the program with torch.export.save"
        )
    if "archive_format" in members and "models/model.json" in members:
        return Format.EXPORTED
    if "constants.pkl" in members and any(name.startswith("code/") for name in members):
        return Format.TORCHSCRIPT
    if "serialized_exported_program.json" in members:
        raise ModelError(f"{path} was saved by an old torch: save it again with torch.export.save of the torch in use")
    if "archive_format" in members:
        raise ModelError(f"{path} holds no program named 'model': save one program with torch.export.save")
    if "data.pkl" in members:
        raise ModelError(_pickled(path))
    raise ModelError(f"{path} is a zip archive, but neither TorchScript nor an exported program")


def _inspect(path: Path, opened: zipfile.ZipFile) -> None:
    """Refuse a program with code of its own."""
    try:
        archive.check(opened)
    except ModelError as error:
        raise ModelError(f"{path} is refused: {error}") from error


def _check_safetensors(path: Path, length: int) -> None:
    """See that the header is the JSON map that the format promises."""
    with path.open("rb") as file:
        file.seek(8)
        header = file.read(length)
    try:
        tensors = json.loads(header)
    except ValueError:
        tensors = None
    if not isinstance(tensors, dict):
        raise ModelError(f"{path} looks like safetensors, but its header is damaged")


def _pickled(path: Path) -> str:
    """Refuse a pickle, and say how to go on."""
    return (
        f"{path} is a pickle (made by torch.save), which could run any code when it is loaded, and is refused; "
        "where you trust it, convert it once: "
        f"""safetensors.torch.save_model(model, "{path.with_suffix(".safetensors").name}") and name its factory, """
        "or torch.export.save(torch.export.export(model, ...), ...)"
    )
