"""Headers: what stands in them, and the way of a record to a dead letter and back."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import DeadLetter, Reason, RecordError, Source, dead_letter_headers, parse_dead_letter, without_dead_letter
from schemas.headers import content_type, expires_at_ms
from tests.strategies import UNHURRIED

DEAD = DeadLetter(
    reason=Reason.WRONG_SHAPE,
    error="RecordError",
    message="inputs[0].shape has a negative axis",
    attempts=1,
    source=Source("requests", 3, 1042),
    timestamp_ms=1_767_225_600_000,
    model="fraud",
    model_version="3f9a1c20",
)
ORIGINAL: list[tuple[str, bytes | None]] = [
    ("content-type", b"application/json"),
    ("x", None),
    ("x", b"\xff"),
    ("dead-lettered", b"no prefix"),
]
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


def test_the_headers_of_a_dead_letter_are_these() -> None:
    """Names and values are a contract with those who read dead letters."""
    assert dead_letter_headers(DEAD) == [
        ("dead-letter-reason", b"wrong-shape"),
        ("dead-letter-error", b"RecordError"),
        ("dead-letter-message", b"inputs[0].shape has a negative axis"),
        ("dead-letter-attempts", b"1"),
        ("dead-letter-model", b"fraud"),
        ("dead-letter-model-version", b"3f9a1c20"),
        ("dead-letter-source-topic", b"requests"),
        ("dead-letter-source-partition", b"3"),
        ("dead-letter-source-offset", b"1042"),
        ("dead-letter-source-timestamp", b"1767225600000"),
    ]
    assert dead_letter_headers(replace(DEAD, model=None, model_version=None, omitted_size=7))[4:] == [
        ("dead-letter-source-topic", b"requests"),
        ("dead-letter-source-partition", b"3"),
        ("dead-letter-source-offset", b"1042"),
        ("dead-letter-source-timestamp", b"1767225600000"),
        ("dead-letter-omitted-size", b"7"),
    ]


@UNHURRIED
@given(
    st.builds(
        DeadLetter,
        reason=st.sampled_from(Reason),
        error=TEXTS,
        message=TEXTS.map(lambda text: " ".join(text.split())),
        attempts=st.integers(0, 100),
        source=st.builds(Source, TEXTS, st.integers(0, 2**31 - 1), st.integers(0, 2**63 - 1)),
        timestamp_ms=st.integers(-1, 2**63 - 1),
        model=st.none() | TEXTS,
        model_version=st.none() | TEXTS,
        omitted_size=st.none() | st.integers(0, 2**40),
    )
)
def test_a_dead_letter_survives_its_headers(dead_letter: DeadLetter) -> None:
    """Reading the headers gives what was written, and taking them away gives the record's own."""
    headers = [*ORIGINAL, *dead_letter_headers(dead_letter)]
    assert parse_dead_letter(headers) == dead_letter
    assert without_dead_letter(headers) == ORIGINAL


def test_a_record_is_no_dead_letter() -> None:
    """Headers without the prefix say nothing of a dead letter."""
    assert parse_dead_letter(ORIGINAL) is None
    assert parse_dead_letter(None) is None
    assert without_dead_letter(None) == []


def test_of_two_deaths_the_last_counts() -> None:
    """Where a dead letter's headers occur twice, the later ones are read and all of them are taken away."""
    twice = [*dead_letter_headers(replace(DEAD, reason=Reason.EXPIRED)), *ORIGINAL, *dead_letter_headers(DEAD)]
    assert parse_dead_letter(twice) == DEAD
    assert without_dead_letter(twice) == ORIGINAL


def test_messages_are_one_line_of_limited_length() -> None:
    """A dead letter's message cannot grow its record by much, nor break a log line."""
    headers = dict(dead_letter_headers(replace(DEAD, message="a\r\n b\t" + "c" * 2000)))
    assert headers["dead-letter-message"] == b"a b " + b"c" * 996
    assert dict(dead_letter_headers(replace(DEAD, message="\ud800")))["dead-letter-message"] == b"?"


@pytest.mark.parametrize("missing", [name for name, _ in dead_letter_headers(DEAD) if "model" not in name])
def test_an_incomplete_dead_letter_is_refused(missing: str) -> None:
    """The missing header is named."""
    headers = [(name, raw) for name, raw in dead_letter_headers(DEAD) if name != missing]
    with pytest.raises(RecordError, match=f"a dead letter without its header {missing}"):
        parse_dead_letter(headers)
    with pytest.raises(RecordError, match=f"a dead letter without its header {missing}"):
        parse_dead_letter([*headers, (missing, None)])


@pytest.mark.parametrize(
    ("name", "raw"),
    [
        ("dead-letter-reason", b"bad-luck"),
        ("dead-letter-attempts", b"many"),
        ("dead-letter-source-offset", b""),
        ("dead-letter-source-offset", b"9" * 5000),
        ("dead-letter-message", b"\xff"),
        ("dead-letter-omitted-size", b"1.5"),
    ],
)
def test_a_malformed_dead_letter_is_refused(name: str, raw: bytes) -> None:
    """A header that is not what it should be is an error, never a guess."""
    with pytest.raises(RecordError, match="a dead letter with a header that is malformed") as refused:
        parse_dead_letter([*dead_letter_headers(DEAD), (name, raw)])
    assert refused.value.reason is Reason.UNREADABLE


def test_the_content_type_is_the_last_of_its_headers() -> None:
    """Kafka allows a header twice; the last one counts, as everywhere in Kafka."""
    assert content_type(None) is None
    assert content_type([("x", b"y")]) is None
    assert content_type([("content-type", b"a"), ("content-type", b"b")]) == "b"
    with pytest.raises(RecordError, match="header content-type is not UTF-8") as refused:
        content_type([("content-type", b"\xff")])
    assert refused.value.reason is Reason.UNSUPPORTED_CONTENT_TYPE


@pytest.mark.parametrize("raw", [b"", b"-1", b"1.5", b"soon", b"\xb2", b"9" * 20])
def test_an_expiry_that_is_no_time_is_refused(raw: bytes) -> None:
    """Only epoch milliseconds in digits are an expiry."""
    with pytest.raises(RecordError, match="header expires-at is not epoch milliseconds") as refused:
        expires_at_ms([("expires-at", raw)])
    assert refused.value.reason is Reason.UNREADABLE


def test_an_expiry_is_epoch_milliseconds() -> None:
    """A record without the header never expires."""
    assert expires_at_ms(None) is None
    assert expires_at_ms([("expires-at", None)]) is None
    assert expires_at_ms([("expires-at", b"1767225600000")]) == 1_767_225_600_000


def test_an_error_survives_pickling() -> None:
    """Errors cross process boundaries."""
    import pickle

    error = pickle.loads(pickle.dumps(RecordError(Reason.EXPIRED, "too late")))
    assert (error.reason, error.message, str(error)) == (Reason.EXPIRED, "too late", "too late")
