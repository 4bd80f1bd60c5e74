import numpy as np

from benchmarks import PIXELS
from benchmarks.load import requests
from schemas.codecs import MSGPACK, decode_request, encode_request


def test_patched_requests_are_those_that_the_encoder_makes() -> None:
    """The loader's shortcut gives the bytes of the encoder, with an id and an image of its own for each record."""
    names, images = set(), set()
    for value in requests(50):
        request = decode_request(value, MSGPACK)
        assert encode_request(request, MSGPACK) == value
        (tensor,) = request.inputs
        assert isinstance(tensor.data, np.ndarray)
        assert tensor.shape == (PIXELS,)
        names.add(request.id)
        images.add(tensor.data.tobytes())
    assert len(names) == len(images) == 50
