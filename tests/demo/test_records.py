import numpy as np
import pytest

from consumer.demo import records
from schemas import headers
from schemas.codecs import decode_request
from schemas.errors import RecordError
from schemas.reasons import Reason

IMAGES = np.linspace(0, 1, 40 * 64, dtype=np.float32).reshape(40, 8, 8)


@pytest.fixture(name="sendings")
def make_plan() -> list[records.Sending]:
    """Plan forty images."""
    return records.plan(IMAGES)


def test_every_image_goes_to_every_model_once(sendings: list[records.Sending]) -> None:
    """Each model is asked once for each image, under an id of its own, keyed by model ID."""
    asked = [(sending.key, sending.image) for sending in sendings if sending.reason is None]
    assert sorted(asked) == sorted((model.encode(), image) for model in records.MODELS for image in range(len(IMAGES)))
    assert len({sending.id for sending in sendings}) == len(sendings)


def test_requests_decode_to_their_images(sendings: list[records.Sending]) -> None:
    """What is sent is the image, in both codecs, told apart by the content type."""
    codecs = set()
    for sending in sendings:
        if sending.image is None:
            continue
        assert sending.value is not None
        content_type = headers.content_type(sending.headers)
        request = decode_request(sending.value, content_type)
        (tensor,) = request.inputs
        assert request.id == sending.id
        assert isinstance(tensor.data, np.ndarray)
        np.testing.assert_array_equal(tensor.data.reshape(8, 8), IMAGES[sending.image])
        codecs.add(content_type)
    assert codecs == {None, "application/json"}


def test_broken_records_are_spread_between_good_ones(sendings: list[records.Sending]) -> None:
    """No broken record stands first, last or beside another: each shares its batch with good ones."""
    places = [place for place, sending in enumerate(sendings) if sending.reason is not None]
    gaps = np.diff([-1, *places, len(sendings)])
    assert len(places) == len(records.broken(IMAGES[0]))
    assert gaps.min() > 1
    assert gaps.max() - gaps.min() <= len(places) + 1


def test_each_broken_record_has_its_own_reason() -> None:
    """No two broken records show the same, and each names itself in a header, which its dead letter keeps."""
    broken = records.broken(IMAGES[0])
    assert len({sending.reason for sending in broken}) == len(broken)
    for sending in broken:
        assert dict(sending.headers)[records.ID_HEADER].decode() == sending.id
        assert sending.fault


def test_the_unreadable_record_is_unreadable() -> None:
    """The record that should not decode does not."""
    (sending,) = [each for each in records.broken(IMAGES[0]) if each.reason is Reason.UNREADABLE]
    assert sending.value is not None
    with pytest.raises(RecordError) as refused:
        decode_request(sending.value)
    assert refused.value.reason is Reason.UNREADABLE
