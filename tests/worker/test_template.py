"""Template batches: the same bytes as record by record, in a fraction of the work."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import msgpack
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from consumer.core.types import Failure
from consumer.models.signature import Signature, TensorSpec
from consumer.transport.worker_end import Work
from consumer.worker import decoding, encoding, runner, stencil, template
from consumer.worker.binding import Binder
from consumer.worker.decoding import Decoder, Groups
from consumer.worker.spans import Columns, Sheet, Span
from consumer.worker.template import RECORDS_MIN, Block, Template
from schemas.codecs import decode_request, decode_result
from schemas.records import BATCH_ROWS
from tests.worker.building import X, loaded, read, request, run, run_batch, whole, work
from tests.worker.building import runner as runner_of

SIGNATURE = Signature((X, TensorSpec("n", "INT16", (2,))))
NEVER = 10**9


def model(inputs: Any) -> Any:
    """Compute two outputs, row by row."""
    x, n = inputs["x"], inputs["n"]
    return {"sum": x.sum(dim=1), "both": x[:, :2] * n}


@contextmanager
def frozen_clocks(**limits: int) -> Iterator[None]:
    """Have every batch take the same time, so that results can be compared, and set limits of the ways to work."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "time", SimpleNamespace(monotonic=lambda: 1e6, perf_counter=lambda: 1.0))
        for name, value in limits.items():
            for module in (template, decoding, encoding, stencil):
                if hasattr(module, name):
                    patch.setattr(module, name, value)
        yield


def outcomes(
    chunk: Work, spans: Sequence[tuple[int, int]], rows_max: int = 10_000, before: Sequence[Work] = (), **limits: int
) -> list[Any]:
    """Run a chunk in several batches, after others that a runner had before; list what each record gets."""
    with frozen_clocks(**limits):
        runs = runner_of(loaded(model, SIGNATURE, rows_max=rows_max))
        for other in before:
            run_batch(runs, [whole(other)])
        columns = Columns(chunk)
        found: list[Any] = []
        for first, stop in spans:
            sheets, broken = run_batch(runs, [Span(columns, first, stop)])
            assert broken is None
            ran = read(sheets)
            found += [ran.failures.get(i) or (ran.values[i], ran.keys[i]) for i in range(first, stop)]
    return found


IDS = (
    st.none()
    | st.integers(0, 99).map(lambda number: f"id-{number:04}")
    | st.text(max_size=6)
    | st.sampled_from(["", "é" * 4, "a" * 40])
)
ROWS = st.sampled_from([None, None, None, 1, 2, 3, 20, 0])


@st.composite
def payloads(draw: st.DrawFn) -> bytes:
    """A request that fits the model, or nearly."""
    rows = draw(ROWS)
    lead = () if rows is None else (rows,)
    seed = draw(st.integers(0, 2**32 - 1))
    random = np.random.default_rng(seed)
    x = random.standard_normal((*lead, draw(st.sampled_from([4, 4, 4, 4, 5]))), np.float32)
    n = random.integers(-9, 9, (*lead, 2)).astype(draw(st.sampled_from(["<i2", "<i2", "<i2", "<i4"])))
    value = request(draw(IDS), x=x, n=n)
    fault = draw(st.sampled_from(["none"] * 6 + ["cut", "flip", "more"]))
    if fault == "cut":
        return value[: draw(st.integers(0, len(value) - 1))]
    if fault == "flip":
        at = draw(st.integers(0, len(value) - 1))
        return value[:at] + bytes([value[at] ^ draw(st.integers(1, 255))]) + value[at + 1 :]
    return value + b"\xc0" if fault == "more" else value


@st.composite
def chunks(draw: st.DrawFn) -> Work:
    """A chunk of several partitions in which records recur with other ids and numbers."""
    kinds = draw(st.lists(payloads(), min_size=1, max_size=4))
    values: list[bytes | None] = []
    for _ in range(draw(st.integers(1, 6))):
        kind = draw(st.sampled_from(kinds))
        values += [kind] * draw(st.sampled_from([1, 2, RECORDS_MIN, 20]))
    for at in draw(st.lists(st.integers(0, len(values) - 1), max_size=4)):
        values[at] = draw(payloads() | st.none())
    cut = draw(st.integers(0, len(values)))
    topics = draw(st.sampled_from([("a", "a"), ("a", "other-topic"), ("ab", "cd")]))
    partitions = draw(st.tuples(*[st.sampled_from([0, 9, 10, 127, 128, 300])] * 2))
    start = draw(st.sampled_from([0, 5, 95, 120, 250, 65_530, 2**32 - 3, 10**12]))
    return work(
        values,
        sources=[
            (topic, partition, count)
            for topic, partition, count in zip(topics, partitions, (cut, len(values) - cut), strict=True)
            if count
        ],
        offsets=[start + i if i < cut else 7 * i for i in range(len(values))],
    )


@settings(max_examples=200, deadline=None)
@given(chunk=chunks(), cuts=st.lists(st.integers(1, 60), max_size=3))
def test_templates_and_tables_change_no_byte(chunk: Work, cuts: list[int]) -> None:
    """However a chunk is cut into batches, every record gets the same result bytes, key or failure in every way."""
    bounds = sorted({0, len(chunk), *(cut for cut in cuts if cut < len(chunk))})
    spans = list(pairwise(bounds))
    fast = outcomes(chunk, spans)
    assert fast == outcomes(chunk, spans, RECORDS_MIN=NEVER)
    assert fast == outcomes(chunk, spans, RECORDS_MIN=1, TABLE_RECORDS_MIN=1, RUN_RECORDS_MIN=NEVER)
    assert fast == outcomes(chunk, spans, RUN_RECORDS_MIN=0)
    assert fast == outcomes(chunk, spans, RECORDS_MIN=NEVER, TABLE_RECORDS_MIN=NEVER)


@settings(max_examples=100, deadline=None)
@given(chunk=chunks(), before=st.lists(chunks(), min_size=1, max_size=3))
def test_what_is_remembered_of_earlier_records_and_results_changes_no_byte(chunk: Work, before: list[Work]) -> None:
    """Whatever a runner had before, it writes the results of a chunk as one that has seen nothing."""
    spans = [(0, len(chunk))]
    slow = outcomes(chunk, spans, RECORDS_MIN=NEVER, TABLE_RECORDS_MIN=NEVER)
    assert outcomes(chunk, spans, before=before) == slow
    assert outcomes(chunk, spans, before=before, RECORDS_MIN=1, TABLE_RECORDS_MIN=1) == slow
    assert outcomes(chunk, spans, before=before, STENCIL_BYTES_MAX=0) == slow


def test_outputs_may_look_otherwise_in_every_batch() -> None:
    """Name, datatype and shape of an output are the batch's own, though the records are as before."""
    ways: list[tuple[str, Callable[[Any], Any]]] = [
        ("a", lambda x: x),
        ("b", lambda x: x),
        ("b", lambda x: x.view(torch.int32)),
        ("b", lambda x: x.reshape(-1, 2, 2)),
        ("a", lambda x: x),
    ]
    due = iter(ways)

    def answer(inputs: Any) -> Any:
        name, change = next(due)
        return {name: change(inputs["x"])}

    runs = runner_of(loaded(answer))
    for name, change in ways:
        sheets, _ = run_batch(runs, [whole(work(rows(20)))])
        ran = read(sheets)
        for index in range(20):
            (output,) = ran.results[index].outputs
            expected = change(torch.full((1, 4), float(index)))[0].numpy()
            assert output.name == name
            assert (output.data.dtype, output.data.shape) == (expected.dtype, expected.shape)  # type: ignore[union-attr]
            assert output.data.tobytes() == expected.tobytes()  # type: ignore[union-attr]


@settings(max_examples=100, deadline=None)
@given(chunk=chunks())
def test_calls_of_few_rows_change_nothing_but_the_rows_that_results_name(chunk: Work) -> None:
    """Templates and tables that are cut into several calls give what single records give, beside other neighbours."""
    spans = [(0, len(chunk))]
    fast = outcomes(chunk, spans, rows_max=16)
    slow = outcomes(chunk, spans, rows_max=16, RECORDS_MIN=NEVER, TABLE_RECORDS_MIN=NEVER)
    assert [without_rows(outcome) for outcome in fast] == [without_rows(outcome) for outcome in slow]


def without_rows(outcome: Any) -> Any:
    """Decode an outcome, and drop what depends on the neighbours."""
    if isinstance(outcome, Failure):
        return outcome
    value, key = outcome
    result = decode_result(value)
    parameters = {name: content for name, content in result.parameters.items() if name != BATCH_ROWS}
    return key, result._replace(parameters=parameters)


def blocks(chunk: Work, decoder: Decoder | None = None) -> list[Block]:
    """Decode a chunk; list the blocks that were found."""
    groups: Groups = {}
    decoder = decoder or Decoder(Signature((X,)), content_type="application/msgpack")
    decoder.decode(Sheet(whole(chunk), 0.0), groups)
    return [portion for portions in groups.values() for portion in portions if isinstance(portion, Block)]


def rows(count: int, identity: str = "{:032x}") -> list[bytes]:
    """Make requests of one length."""
    return [request(identity.format(i), x=np.full(4, i, np.float32)) for i in range(count)]


def test_records_of_one_producer_are_one_block() -> None:
    """Equal lengths and equal fixed bytes make a single block, in place: no payload is copied."""
    chunk = work(rows(50))
    (block,) = blocks(chunk)
    assert block.records == 50
    assert np.shares_memory(block.table, np.frombuffer(chunk.buffer, np.uint8))
    assert block.elements(0).tolist() == [[float(i)] * 4 for i in range(50)]


def test_ids_of_several_lengths_make_a_block_each() -> None:
    """Records that differ in length are sorted out, wherever they stand."""
    chunk = work(rows(120, "{}"))
    found = blocks(chunk)
    assert sorted(block.records for block in found) == [10, 20, 90]
    assert sorted(np.concatenate([block.indices for block in found]).tolist()) == list(range(120))


def test_records_of_two_producers_are_told_apart_though_they_have_one_length() -> None:
    """Each finds its own template, wherever the records stand."""
    values = rows(40)
    values[::2] = [msgpack.packb(dict(reversed(msgpack.unpackb(value).items()))) for value in values[::2]]
    values[7::8] = [value[:-1] for value in values[7::8]]
    found = blocks(work(values))
    odd = [index for index in range(1, 40, 2) if index % 8 != 7]
    assert [block.indices.tolist() for block in found] == [list(range(0, 40, 2)), odd]
    assert [block.elements(0)[1, 0] for block in found] == [2.0, 3.0]


@pytest.mark.parametrize("identity", ["{:04}", None])
def test_a_block_of_several_partitions_tells_each_records_source(identity: str | None) -> None:
    """Partition and offset in a result are its own record's, and so is the id that is made of them."""
    values = [request(None if identity is None else identity.format(i), x=np.ones(4, np.float32)) for i in range(40)]
    chunk = work(values, sources=[("in", 3, 10), ("in", 5, 20), ("out", 5, 10)], offsets=[*range(1000, 1040)])
    ran = run(loaded(lambda inputs: inputs["x"]), chunk)
    for index, (topic, partition) in enumerate([("in", 3)] * 10 + [("in", 5)] * 20 + [("out", 5)] * 10):
        assert ran.results[index].source == (topic, partition, 1000 + index)
        made = f"{topic}-{partition}-{1000 + index}"
        assert ran.results[index].id == (made if identity is None else identity.format(index))
        assert ran.keys[index] == ran.results[index].id.encode()  # type: ignore[union-attr]


def test_one_odd_record_leaves_the_others_in_their_block() -> None:
    """A record that only looks like the others is decoded on its own, and gets its own failure."""
    values = rows(20)
    values[7] = values[7].replace(b"FP32", b"INT8")
    assert sorted(blocks(work(values))[0].indices.tolist()) == [i for i in range(20) if i != 7]
    ran = run(loaded(lambda inputs: inputs["x"]), work(values))
    assert ran.reasons() == {7: "wrong-size"}
    assert len(ran.results) == 19


def test_an_id_that_is_no_text_is_refused_like_any() -> None:
    """Bytes above ASCII in an id go the codec's way, which refuses what is not UTF-8."""
    values = rows(20)
    values[3] = values[3].replace(b"00003", b"0000\xff")
    assert run(loaded(lambda inputs: inputs["x"]), work(values)).reasons() == {3: "unreadable"}


@pytest.mark.parametrize(
    "document",
    [
        {"id": "i", "inputs": [{"name": "x", "datatype": "FP32", "shape": [4], "data": [1.0, 2.0, 3.0, 4.0]}]},
        {"id": "i", "inputs": [{"name": "x", "datatype": "BOOL", "shape": [4], "data": bytes(4)}]},
        {"id": "i", "inputs": [{"name": "x", "datatype": "BYTES", "shape": [1], "data": [b"text"]}]},
        {"id": "i", "inputs": [{"name": "x", "datatype": "FP32", "shape": [0, 4], "data": b""}]},
    ],
    ids=["list", "bool", "bytes", "empty"],
)
def test_what_the_codec_has_to_look_at_makes_no_template(document: dict[str, Any]) -> None:
    """Elements that are listed, checked or of any length are decoded record by record."""
    record = msgpack.packb(document)
    tensor = decode_request(record).inputs[0]
    shape = tensor.shape[1:] if 0 in tensor.shape else tensor.shape
    binder = Binder(Signature((TensorSpec("x", tensor.datatype, shape),)), is_batched=True)
    with pytest.raises(ValueError, match="raw numbers"):
        Template(record, decode_request(record), binder.bind((tensor,)))


def test_a_length_whose_records_have_little_in_common_is_left_alone() -> None:
    """Templates that match nothing are tried ever more rarely."""
    decoder = Decoder(Signature((X,)), content_type="application/msgpack")
    tried: list[int] = []
    learn = decoder._learn

    def note(columns: Columns, index: int) -> Template | None:
        tried.append(batch)
        return learn(columns, index)

    decoder._learn = note  # type: ignore[method-assign]
    x = np.zeros(4, np.float32)
    for batch in range(64):
        values = [
            msgpack.packb(msgpack.unpackb(request("id", x=x)) | {"parameters": {"at": f"{batch:04}-{i:04}"}})
            for i in range(RECORDS_MIN)
        ]
        assert blocks(work(values), decoder) == []
    assert tried == [0, 2, 5, 10, 19, 36]


def test_json_records_are_left_to_their_codec() -> None:
    """A chunk in which one record is JSON is decoded record by record, each by its own codec."""
    x = np.ones(4, np.float32)
    values = [*rows(10), request("json", "application/json", x=x)]
    chunk = work(values, content_types=[None] * 10 + ["application/json; charset=utf-8"])
    assert blocks(chunk) == []
    ran = run(loaded(lambda inputs: inputs["x"]), chunk)
    assert ran.failures == {}
    assert ran.values[10].startswith(b"{")
    assert ran.values[0].startswith(b"\x85")


def test_records_that_are_not_finite_leave_their_block() -> None:
    """Where the model forbids NaN, a record that has one fails alone, in a block as well as on its own."""
    for count in (3, 20):
        values = rows(count)
        values[1] = request(f"{1:032x}", x=np.array([0, np.nan, 0, 0], np.float32))
        values[2] = request(f"{2:032x}", x=np.array([0, 0, 0, -np.inf], np.float32))
        ran = run(loaded(lambda inputs: inputs["x"], finite=True), work(values))
        assert ran.reasons() == {1: "not-finite", 2: "not-finite"}
        assert len(ran.results) == count - 2


def test_a_block_of_which_nothing_is_finite_does_not_reach_the_model() -> None:
    """All records refused leave nothing to infer."""
    values = [request(f"{i:032x}", x=np.full(4, np.nan, np.float32)) for i in range(20)]
    ran = run(loaded(lambda _: pytest.fail("called"), finite=True), work(values))
    assert set(ran.reasons().values()) == {"not-finite"}
    assert all(isinstance(failure, Failure) for failure in ran.failures.values())
