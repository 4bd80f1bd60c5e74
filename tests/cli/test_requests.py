from pathlib import Path

import numpy as np
import pytest

from consumer.cli.requests import Maker, RequestError
from consumer.models.signature import TensorSpec
from schemas.records import Request
from schemas.tensors import Tensor

IMAGE = TensorSpec("image", "UINT8", (2,))
MASK = TensorSpec("mask", "BOOL", (2,))


def made(text: str, *specs: TensorSpec, datatype: str | None = None) -> Request:
    """Make a request of a JSON value."""
    return Maker(specs, datatype).of_json(text.encode(), "the record")


def refusal(text: str, *specs: TensorSpec) -> str:
    """Give the line that refuses a JSON value."""
    with pytest.raises(RequestError) as refused:
        made(text, *specs)
    return str(refused.value)


@pytest.mark.parametrize(
    ("text", "tensor"),
    [
        ("[0.5, 1.5]", Tensor.of("", np.array([0.5, 1.5], np.float32))),
        ("[[1, 2]]", Tensor.of("", np.array([[1, 2]], np.int64))),
        ("[true, false]", Tensor.of("", np.array([True, False]))),
        ('["a", "b"]', Tensor.of("", [b"a", b"b"])),
        ("7.5", Tensor.of("", np.float32(7.5))),
    ],
)
def test_bare_elements_become_the_one_input(text: str, tensor: Tensor) -> None:
    """Without a configured input the name is left out, and the elements tell the datatype."""
    assert made(text) == Request(None, (tensor,))


def test_a_configured_input_tells_name_and_datatype() -> None:
    """What the configuration says of the model's one input is taken from there."""
    assert made("[1, 2]", IMAGE).inputs == (Tensor.of("image", np.array([1, 2], np.uint8)),)


def test_a_told_datatype_comes_first() -> None:
    """What the command line says is stronger than configuration and elements."""
    assert made("[1, 2]", IMAGE, datatype="FP16").inputs == (Tensor.of("image", np.array([1, 2], np.float16)),)


def test_an_object_names_its_inputs() -> None:
    """Each key is an input; those that are configured have their datatype, the others their elements'."""
    request = made('{"image": [1, 2], "mask": [true, false], "more": [1]}', IMAGE, MASK)
    assert [(tensor.name, tensor.datatype) for tensor in request.inputs] == [
        ("image", "UINT8"),
        ("mask", "BOOL"),
        ("more", "INT64"),
    ]


def test_a_whole_request_is_taken_as_it_is() -> None:
    """An Open Inference Protocol V2 request keeps its id, names and datatypes."""
    text = '{"id": "r1", "inputs": [{"name": "x", "datatype": "FP64", "shape": [2], "data": [1, 2]}]}'
    assert made(text, IMAGE) == Request("r1", (Tensor.of("x", np.array([1.0, 2.0])),))


@pytest.mark.parametrize(
    ("text", "specs", "line"),
    [
        ("[1,", (), "the record: not valid JSON: "),
        ("[[1], [2, 3]]", (), "the record: "),
        ("[300, 1]", (IMAGE,), "the record: an array of int64 holds what UINT8 cannot"),
        ("[1, 2]", (IMAGE, MASK), "the model has the inputs image, mask: give a JSON object with these keys"),
        ('{"inputs": [{"name": "x"}]}', (), "the record: "),
    ],
)
def test_what_is_no_request_is_one_line(text: str, specs: tuple[TensorSpec, ...], line: str) -> None:
    """Broken JSON, ragged lists, elements that do not fit and missing names each say what is wrong."""
    refused = refusal(text, *specs)
    assert refused.startswith(line)
    assert "\n" not in refused


def test_lines_are_records_and_empty_ones_are_none(tmp_path: Path) -> None:
    """A JSON-lines file makes a request of every line; a wrong line is told with its number."""
    path = tmp_path / "records.jsonl"
    path.write_text("[1, 2]\n\n[3, 4]\nnothing\n", encoding="utf-8")
    requests = Maker([IMAGE]).of_file(path)
    assert next(requests).inputs[0].data == pytest.approx(np.array([1, 2]))
    assert next(requests).inputs[0].data == pytest.approx(np.array([3, 4]))
    with pytest.raises(RequestError, match=r"records\.jsonl:4: not valid JSON: "):
        next(requests)


def test_an_array_is_a_record_per_item(tmp_path: Path) -> None:
    """Along the first axis of a .npy file each item is a record, in the array's own datatype."""
    path = tmp_path / "images.npy"
    np.save(path, np.arange(6, dtype=np.int16).reshape(3, 2))
    requests = list(Maker([]).of_file(path))
    assert requests == [Request(None, (Tensor.of("", np.array(pair, np.int16)),)) for pair in ([0, 1], [2, 3], [4, 5])]


def test_files_that_are_no_records_are_one_line(tmp_path: Path) -> None:
    """A missing file, a single number, a pickle and foreign bytes are refused, and no pickle is ever opened."""
    np.save(tmp_path / "number.npy", np.array(3))
    np.save(tmp_path / "pickle.npy", np.array([{}], dtype=object), allow_pickle=True)
    (tmp_path / "foreign.npy").write_bytes(b"nothing of numpy")
    for name, line in (
        ("none.jsonl", "cannot be read: No such file or directory"),
        ("number.npy", "a single number: each item along the first axis is one record"),
        ("pickle.npy", "no array: "),
        ("foreign.npy", "no array: "),
    ):
        with pytest.raises(RequestError) as refused:
            list(Maker([]).of_file(tmp_path / name))
        assert str(refused.value).startswith(f"{tmp_path / name}: {line}")
