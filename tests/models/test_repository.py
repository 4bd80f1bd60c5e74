"""Telling formats by content, digests, versions, refused pickles."""

import hashlib
import pickle
import zipfile
from pathlib import Path

import pytest
import torch

from consumer.errors import ModelError
from consumer.models.options import ModelOptions
from consumer.models.repository import Format, find
from tests.worker.networks import BATCH, Classifier, export, script, weights


def refusal(path: Path, **options: str) -> str:
    """Look at a file that must be refused, and return why."""
    with pytest.raises(ModelError) as caught:
        find(ModelOptions(id="m", path=str(path), **options))  # type: ignore[arg-type]
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


@pytest.mark.parametrize("suffix", [".pt2", ".pt", ".safetensors", ".bin", ""])
def test_formats_are_told_by_content_whatever_the_suffix(tmp_path: Path, suffix: str) -> None:
    """Every format is recognised under every other format's suffix."""
    file, true = tmp_path / f"model{suffix}", tmp_path / "true.pt2"
    export(true, Classifier(), torch.zeros(2, 4), dynamic=(BATCH,))
    file.write_bytes(true.read_bytes())
    assert find(ModelOptions(id="m", path=str(file))).format is Format.EXPORTED
    script(file, Classifier())
    assert find(ModelOptions(id="m", path=str(file))).format is Format.TORCHSCRIPT
    weights(file, Classifier())
    assert find(ModelOptions(id="m", path=str(file), factory="acme:Model")).format is Format.WEIGHTS


def test_the_version_is_the_start_of_the_files_digest(tmp_path: Path) -> None:
    """By default a version is the first 12 hex digits of the file's SHA-256."""
    file = tmp_path / "model"
    script(file, Classifier())
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    artifact = find(ModelOptions(id="m", path=str(file)))
    assert (artifact.sha256, artifact.version) == (digest, digest[:12])


def test_a_declared_version_wins(tmp_path: Path) -> None:
    """The configuration may name the version; the digest stays the file's."""
    file = tmp_path / "model"
    script(file, Classifier())
    artifact = find(ModelOptions(id="m", path=str(file), version="2024-06"))
    assert artifact.version == "2024-06"
    assert artifact.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()


def test_a_factory_alone_is_a_python_model() -> None:
    """Without a file there is neither a digest nor a version to make of it."""
    artifact = find(ModelOptions(id="m", factory="acme:Model"))
    assert (artifact.format, artifact.path, artifact.sha256, artifact.version) == (Format.PYTHON, None, None, None)


def test_a_state_dict_is_refused_and_its_conversion_explained(tmp_path: Path) -> None:
    """torch.save writes a zip archive too, with a pickle in it."""
    file = tmp_path / "model.pt"
    torch.save(Classifier().state_dict(), file)
    message = refusal(file)
    assert "is a pickle" in message
    assert 'safetensors.torch.save_model(model, "model.safetensors")' in message
    assert "torch.export.save" in message


@pytest.mark.parametrize("protocol", [2, 5])
def test_a_bare_pickle_is_refused(tmp_path: Path, protocol: int) -> None:
    """So is what torch wrote before it used zip archives, and any other pickle."""
    file = tmp_path / "model.pth"
    file.write_bytes(pickle.dumps({"weight": [1.0]}, protocol))
    assert "is a pickle" in refusal(file)
    torch.save(Classifier().state_dict(), file, _use_new_zipfile_serialization=False)
    assert "is a pickle" in refusal(file)


def test_weights_without_a_factory_are_refused(tmp_path: Path) -> None:
    """Weights are no model: code must make one."""
    file = tmp_path / "model.safetensors"
    weights(file, Classifier())
    assert "name the code that makes the model, factory: package.module:name" in refusal(file)


def test_a_factory_beside_a_whole_model_is_refused(tmp_path: Path) -> None:
    """A file that brings its own code has no use for a factory."""
    file = tmp_path / "model.pt"
    script(file, Classifier())
    assert "is a whole model (TorchScript): leave factory out" in refusal(file, factory="acme:Model")


@pytest.mark.parametrize(
    ("members", "message"),
    [
        (["m/data/aotinductor/model/a.so", "m/archive_format"], "is an AOTInductor package, compiled code"),
        (["serialized_exported_program.json", "version"], "was saved by an old torch"),
        (["m/archive_format", "m/models/other.json"], "holds no program named 'model'"),
        (["a.txt"], "is a zip archive, but neither TorchScript nor an exported program"),
    ],
)
def test_archives_of_other_kinds_are_named(tmp_path: Path, members: list[str], message: str) -> None:
    """What shares the container but is not supported gets its own message."""
    file = tmp_path / "model.pt2"
    with zipfile.ZipFile(file, "w") as archive:
        for member in members:
            archive.writestr(member, "")
    assert message in refusal(file)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is of no known format"),
        (b"\x08ONNX", "is of no known format"),
        (b"PK\x03\x04 and no more", "is a damaged zip archive"),
        ((20).to_bytes(8, "little") + b"{}", "is of no known format"),
        ((4).to_bytes(8, "little") + b"{]]}", "looks like safetensors, but its header is damaged"),
    ],
)
def test_files_of_no_format_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    """Damaged and foreign files are told apart."""
    file = tmp_path / "model"
    file.write_bytes(content)
    assert message in refusal(file)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """The message has the path and the system's reason."""
    assert refusal(tmp_path / "nowhere.pt2").endswith("nowhere.pt2: No such file or directory")
    assert "Is a directory" in refusal(tmp_path)
