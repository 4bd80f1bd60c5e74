from collections.abc import Callable, Iterator

import numpy as np
import pytest

from benchmarks import PIXELS, mixture, sentences
from benchmarks.records import ID, fresh, requests
from benchmarks.workloads import W1, W1_JSON, W2, W3, W4, WORKLOADS, Workload
from schemas.codecs import MSGPACK, decode_request, encode_request


def test_patched_requests_are_those_that_the_encoder_makes() -> None:
    """The loader's shortcut gives the bytes of the encoder, with an id and an image of its own for each record."""
    names, images = set(), set()
    for value in requests(fresh(50)):
        request = decode_request(value, MSGPACK)
        assert encode_request(request, MSGPACK) == value
        (tensor,) = request.inputs
        assert isinstance(tensor.data, np.ndarray)
        assert tensor.shape == (PIXELS,)
        names.add(request.id)
        images.add(tensor.data.tobytes())
    assert len(names) == len(images) == 50


@pytest.mark.parametrize("workload", WORKLOADS.values(), ids=lambda workload: workload.name)
def test_every_request_carries_an_id_of_its_own_where_a_reader_finds_it(workload: Workload) -> None:
    """The first 32 hexadecimal digits of a value are its id, in each workload and codec."""
    found = set()
    for value in workload.values(fresh(20)):
        match = ID.search(value)
        assert match is not None
        assert decode_request(value, workload.content_type).id == match.group().decode()
        found.add(match.group())
    assert len(found) == 20


@pytest.mark.parametrize(
    ("workload", "name", "datatype", "shape"),
    [
        (W1, "image", "FP32", (784,)),
        (W1_JSON, "image", "FP32", (1, 784)),
        (W2, "picture", "UINT8", (3, 224, 224)),
        (W4, "features", "FP32", (mixture.SIDE,)),
    ],
    ids=lambda each: getattr(each, "name", None),
)
def test_requests_fit_their_networks(workload: Workload, name: str, datatype: str, shape: tuple[int, ...]) -> None:
    """Each workload's requests have the input that its network takes."""
    (value,) = workload.values(fresh(1))
    (tensor,) = decode_request(value, workload.content_type).inputs
    assert (tensor.name, tensor.datatype, tensor.shape) == (name, datatype, shape)


def lengths_of(values: Callable[[Iterator[bytes]], Iterator[bytes]], count: int) -> list[int]:
    """Return how many tokens each request has."""
    return [decode_request(value, MSGPACK).inputs[0].shape[0] for value in values(fresh(count))]


def test_sentences_repeat_in_whole_turns() -> None:
    """The lengths are lognormal within their bounds, and any turn has the same ones."""
    lengths = lengths_of(W3.values, 2 * sentences.DIFFERENT)
    assert lengths[: sentences.DIFFERENT] == lengths[sentences.DIFFERENT :]
    assert sentences.TOKENS_MIN <= min(lengths) < 15
    assert 150 < max(lengths) <= sentences.TOKENS_MAX
    assert 35 <= float(np.median(lengths)) <= 45


def test_models_are_asked_by_zipf() -> None:
    """Shares fall with the rank as Zipf's law says, and the drawn models follow them, the same each time."""
    shares = mixture.shares()
    assert shares.sum() == pytest.approx(1.0)
    assert shares[0] / shares[7] == pytest.approx(8**mixture.ZIPF_EXPONENT)
    drawn = mixture.draw(20_000)
    assert drawn == mixture.draw(20_000)
    for rank, name in enumerate(mixture.MIXTURE):
        assert drawn.count(name) / 20_000 == pytest.approx(shares[rank], abs=0.02)
