"""A batch of one model: collated, inferred, split, and what fails alone."""

from collections.abc import Callable, Mapping
from typing import Any

import msgpack
import numpy as np
import pytest
import torch

from consumer.core.types import Disposition
from consumer.models.signature import Arguments, Signature, TensorSpec
from consumer.worker.failures import DeviceLostError
from consumer.worker.loaders.program import Rows
from consumer.worker.runner import CALLS_BEFORE_GROWTH
from consumer.worker.spans import Columns, Span
from schemas.codecs import JSON
from schemas.tensors import Tensor
from tests.worker.building import X, linear, loaded, read, request, run, run_batch, runner, whole, work

ONE = np.ones(4, np.float32)
OK = np.array([0.0, 1.0, 2.0, 3.0], np.float32)
BAD = np.array([-1.0, 0.0, 0.0, 0.0], np.float32)


class Recorder:
    """A model that remembers the shapes it was called with."""

    def __init__(self, function: Callable[[Mapping[str, Any]], Any]) -> None:
        self.function = function
        self.calls: list[dict[str, Any]] = []

    def __call__(self, inputs: Mapping[str, Any]) -> object:
        """Remember, then run."""
        self.calls.append(
            {name: tuple(value.shape) if isinstance(value, torch.Tensor) else value for name, value in inputs.items()}
        )
        return self.function(inputs)


def refuses_negatives(inputs: Mapping[str, Any]) -> object:
    """Raise where the first number of a row is negative."""
    if bool((inputs["x"][:, 0] < 0).any()):
        raise ValueError("negative")
    return inputs["x"]


# --- Form and rows


def test_the_result_has_the_form_of_the_record() -> None:
    """One example without an axis of rows gets a result without it; rows get rows, also one and none."""
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    chunk = work([request("a", x=x[0]), request("b", x=x), request("c", x=x[:1]), request("d", x=x[:0])])
    model = Recorder(linear())
    ran = run(loaded(model), chunk)
    expected = linear()({"x": torch.from_numpy(x)})
    assert ran.failures == {}
    assert [ran.results[i].outputs[0].shape for i in range(4)] == [(3,), (3, 3), (1, 3), (0, 3)]
    assert np.array_equal(ran.output(1), expected)
    assert np.array_equal(ran.output(0), expected[0])
    assert model.calls == [{"x": (5, 4)}]


def test_a_scalar_per_row_has_no_axis() -> None:
    """An output of one number per row is a tensor without axes in the result of one example."""
    ran = run(loaded(lambda inputs: inputs["x"].sum(dim=1)), work([request("a", x=OK), request("b", x=OK[None])]))
    assert [ran.results[i].outputs[0].shape for i in range(2)] == [(), (1,)]
    assert ran.output(0) == 6


def test_results_tell_where_they_come_from() -> None:
    """Id, model, version, source, rows and times stand in the result; the key is the id."""
    chunk = work([request("a", x=OK), request(None, x=OK)], sources=[("in", 3, 1), ("in", 4, 1)], offsets=[70, 7])
    ran = run(loaded(linear()), chunk)
    assert [(ran.results[i].id, ran.keys[i]) for i in range(2)] == [("a", b"a"), ("in-4-7", b"in-4-7")]
    result = ran.results[0]
    assert (result.model_name, result.model_version) == ("digits", "7")
    assert result.source == ("in", 3, 70)
    assert result.parameters["batch_rows"] == 2
    assert result.parameters["queue_ms"] >= 0
    assert result.parameters["infer_ms"] > 0


def test_more_rows_than_a_call_takes_are_put_together_again() -> None:
    """A record of many rows is inferred in slices, and its result has all rows in their order."""
    x = np.arange(40, dtype=np.float32).reshape(10, 4)
    model = Recorder(linear())
    ran = run(loaded(model, rows_max=4), work([request("a", x=x), request("b", x=x[9])]))
    assert np.array_equal(ran.output(0), linear()({"x": torch.from_numpy(x)}))
    assert ran.results[0].parameters["batch_rows"] == 10
    assert sorted(call["x"] for call in model.calls) == [(1, 4), (2, 4), (4, 4), (4, 4)]


def test_calls_have_at_most_rows_max_rows() -> None:
    """Records of several rows share calls as far as they fit, whole."""
    model = Recorder(linear())
    chunk = work([request(str(i), x=np.full((3, 4), i, np.float32)) for i in range(5)])
    ran = run(loaded(model, rows_max=7), chunk)
    assert len(ran.results) == 5
    assert [call["x"] for call in model.calls] == [(6, 4), (6, 4), (3, 4)]


def test_a_program_of_fixed_rows_gets_exactly_those() -> None:
    """A program with a fixed batch is filled up and cut, and more rows are run in turn."""
    model = Recorder(linear())
    chunk = work([request(str(i), x=np.full(4, i, np.float32)) for i in range(10)])
    ran = run(loaded(model, rows=Rows(least=4, most=4)), chunk)
    assert [call["x"] for call in model.calls] == [(4, 4)] * 3
    assert [ran.output(i).tolist() for i in range(10)] == [
        linear()({"x": torch.full((1, 4), float(i))})[0].tolist() for i in range(10)
    ]


def test_without_batches_every_record_is_a_call_of_its_own() -> None:
    """`batch: false` hands tensors over as sent and returns outputs as they are."""
    model = Recorder(lambda inputs: {"total": inputs["x"].sum(), "texts": [b"a", b"b"]})
    takes = Signature((TensorSpec("x", "FP32", ("n",)),))
    values = [request("a", x=OK), request("b", x=OK[2:]), request("c", x=OK[None]), request("d", x=OK * 2)]
    ran = run(loaded(model, takes, batch=False), work(values))
    assert model.calls == [{"x": (4,)}, {"x": (4,)}, {"x": (2,)}]
    assert ran.reasons() == {2: "wrong-shape"}
    assert [float(ran.output(i, "total")) for i in (0, 1, 3)] == [6.0, 5.0, 12.0]
    assert ran.results[0].outputs[0].shape == ()
    assert ran.results[1].outputs[1] == Tensor("texts", "BYTES", (2,), [b"a", b"b"])


def test_a_model_without_a_signature_takes_axis_0_as_rows() -> None:
    """Records are concatenated; those of other shapes or datatypes get calls of their own."""
    model = Recorder(lambda inputs: inputs["x"] * 2)
    chunk = work(
        [
            request("a", x=np.ones((2, 3), np.float32)),
            request("b", x=np.ones((1, 3), np.float32)),
            request("c", x=np.ones((1, 2), np.float32)),
            request("d", x=np.ones((1, 3), np.float64)),
            request("e", x=np.float32(1)),
        ]
    )
    ran = run(loaded(model, Arguments(("x",))), chunk)
    assert model.calls == [{"x": (3, 3)}, {"x": (1, 2)}, {"x": (1, 3)}]
    assert ran.reasons() == {4: "wrong-shape"}
    assert [ran.results[i].outputs[0].shape for i in range(4)] == [(2, 3), (1, 3), (1, 2), (1, 3)]
    assert ran.results[3].outputs[0].datatype == "FP64"


@pytest.mark.parametrize(
    ("datatype", "content"),
    [
        ("BOOL", [True, False]),
        ("UINT8", [0, 255]),
        ("UINT16", [0, 2**16 - 1]),
        ("UINT32", [0, 2**32 - 1]),
        ("UINT64", [0, 2**64 - 1]),
        ("INT8", [-128, 127]),
        ("INT16", [-(2**15), 5]),
        ("INT32", [-(2**31), 5]),
        ("INT64", [-(2**63), 5]),
        ("FP16", [0.5, -2.0]),
        ("FP32", [0.5, 1e30]),
        ("FP64", [0.5, 1e300]),
        ("BF16", [0x3F80, 0x4000]),
    ],
)
@pytest.mark.parametrize("count", [1, 20])
def test_every_datatype_passes_through_unchanged(datatype: str, content: list[Any], count: int) -> None:
    """Bits in are bits out, in templates as well as singly."""
    tensor = Tensor.of("x", np.array(content, np.uint64 if datatype == "UINT64" else None), datatype)
    model = Recorder(lambda inputs: inputs["x"])
    chunk = work([request(f"{i:04}", x=tensor) for i in range(count)])
    ran = run(loaded(model, Signature((TensorSpec("x", datatype, (2,)),))), chunk)
    assert ran.failures == {}
    assert ran.results[count - 1].outputs[0] == tensor._replace(name="output")


# --- Free axes

TOKENS = Signature(
    (TensorSpec("ids", "INT64", ("tokens",), pad=-7, mask="mask"), TensorSpec("mask", "FP32", ("tokens",))),
    (TensorSpec("same", "INT64", ("tokens",)), TensorSpec("count", "FP32", ())),
)


def echo_tokens(inputs: Mapping[str, Any]) -> object:
    """Return what came, padding included, and how many tokens were real."""
    return {"same": inputs["ids"], "count": inputs["mask"].sum(dim=1)}


@pytest.mark.parametrize("copies", [1, 10])
def test_records_of_different_lengths_share_a_call(copies: int) -> None:
    """They are padded, masked, and their outputs cut to their own length again, in templates as well as singly."""
    seen: list[torch.Tensor] = []

    def echo(inputs: Mapping[str, Any]) -> object:
        seen.append(inputs["ids"].clone())
        return echo_tokens(inputs)

    model = Recorder(echo)
    lengths = [2, 5, 3]
    values = [request(f"{i:04}", ids=np.arange(n)) for n in lengths for i in range(copies)]
    values.append(request("rows", ids=np.arange(8).reshape(2, 4)))
    ran = run(loaded(model, TOKENS), work(values))
    assert model.calls == [{"ids": (3 * copies + 2, 5), "mask": (3 * copies + 2, 5)}]
    assert sorted((row == -7).sum().item() for row in seen[0]) == sorted([3, 0, 2] * copies + [1, 1])
    for at, length in enumerate(lengths):
        for index in range(at * copies, (at + 1) * copies):
            assert ran.output(index, "same").tolist() == list(range(length))
            assert ran.output(index, "count") == length
    assert ran.output(3 * copies, "same").tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert ran.output(3 * copies, "count").tolist() == [4, 4]


def test_a_mask_that_a_record_brings_is_used() -> None:
    """A record's own mask is padded with zeros."""
    mask = np.array([1, 0], np.float32)
    chunk = work([request("a", ids=np.arange(2), mask=mask), request("b", ids=np.arange(3))])
    ran = run(loaded(echo_tokens, TOKENS), chunk)
    assert (ran.output(0, "count"), ran.output(1, "count")) == (1, 3)


def test_bf16_is_padded_with_its_own_bits() -> None:
    """A pad value is a number, whatever the datatype."""
    takes = Signature((TensorSpec("x", "BF16", ("n",), pad=1.0),))
    chunk = work([request("a", x=Tensor.of("x", [0, 0, 0], "BF16")), request("b", x=Tensor.of("x", [0], "BF16"))])
    ran = run(loaded(lambda inputs: inputs["x"].float().sum(dim=1), takes), chunk)
    assert [float(ran.output(i)) for i in range(2)] == [0.0, 2.0]


def test_without_a_pad_only_equal_lengths_share_a_call() -> None:
    """A free axis that is not padded divides the batch."""
    takes = Signature((TensorSpec("x", "FP32", ("n",)),), (TensorSpec("y", "FP32", ("n",)),))
    model = Recorder(lambda inputs: {"y": inputs["x"]})
    chunk = work([request(str(i), x=np.zeros(n, np.float32)) for i, n in enumerate((2, 3, 2))])
    ran = run(loaded(model, takes, outputs=takes.outputs), chunk)
    assert sorted(call["x"] for call in model.calls) == [(1, 3), (2, 2)]
    assert [ran.results[i].outputs[0].shape for i in range(3)] == [(2,), (3,), (2,)]


# --- Texts, hooks, codecs


def test_texts_reach_a_model_as_lists_and_come_back() -> None:
    """BYTES are flat lists in row-major order, on both ways."""
    takes = Signature((TensorSpec("t", "BYTES", (2,)),), (TensorSpec("u", "BYTES", (2,)), TensorSpec("n", "BYTES")))
    model = Recorder(lambda inputs: {"u": [text.upper() for text in inputs["t"]], "n": inputs["t"][::2]})
    values = [
        request("a", t=np.array([b"x", b"yy"], object)),
        request("b", t=np.array([[b"p", b"q"], [b"r", b"s"]], object)),
    ]
    ran = run(loaded(model, takes, outputs=takes.outputs), work(values))
    assert model.calls == [{"t": [b"x", b"yy", b"p", b"q", b"r", b"s"]}]
    assert ran.results[0].outputs == (Tensor("u", "BYTES", (2,), [b"X", b"YY"]), Tensor("n", "BYTES", (), [b"x"]))
    assert ran.results[1].outputs[0] == Tensor("u", "BYTES", (2, 2), [b"P", b"Q", b"R", b"S"])
    assert ran.results[1].outputs[1] == Tensor("n", "BYTES", (2,), [b"p", b"r"])


def test_texts_of_many_rows_are_sliced_and_put_together() -> None:
    """Lists are cut into calls of at most rows_max rows as tensors are."""
    takes = Signature((TensorSpec("t", "BYTES", (2,)), X))
    model = Recorder(lambda inputs: {"first": inputs["t"][::2], "x": inputs["x"]})
    texts = np.array([[b"%d" % i, b"-"] for i in range(5)], object)
    ran = run(loaded(model, takes, rows_max=2), work([request("a", t=texts, x=np.zeros((5, 4), np.float32))]))
    assert [len(call["t"]) for call in model.calls] == [4, 4, 2]
    assert ran.output(0, "first") == [b"0", b"1", b"2", b"3", b"4"]


def test_hooks_see_one_record_and_fail_alone() -> None:
    """`preprocess` makes the inputs, `postprocess` the outputs; where one raises, its record alone has no result."""

    def preprocess(tensors: dict[str, Any]) -> dict[str, Any]:
        text = tensors["text"][0].decode()
        return {"x": np.array([float(part) for part in text.split()], np.float32)}

    def postprocess(tensors: dict[str, Any]) -> dict[str, Any]:
        tensors["output"] += 1  # what it gets is its own
        if tensors["output"][0] == 100:
            raise KeyError("hundred")
        return {"y": tensors["output"], "label": [b"good"]}

    texts = [b"1 2 3 4", b"secret-number 2", b"99 0 0 0", b"5 6 7 8", b"1 2"]
    chunk = work([request(str(i), text=np.array([text], object)) for i, text in enumerate(texts)])
    ran = run(loaded(lambda inputs: inputs["x"], preprocess=preprocess, postprocess=postprocess), chunk)
    assert ran.reasons() == {1: "inference-failed", 2: "inference-failed", 4: "wrong-shape"}
    assert (ran.failures[1].error, ran.failures[2].error) == ("ValueError", "KeyError")
    assert "secret" not in ran.failures[1].message
    assert ran.output(0, "y").tolist() == [2, 3, 4, 5]
    assert ran.results[3].outputs[1] == Tensor("label", "BYTES", (1,), [b"good"])


def test_bf16_keeps_its_datatype_through_hooks() -> None:
    """Hooks see the 16 bits; a model's BF16 input and output stay what they are."""
    takes = Signature((TensorSpec("x", "BF16", (2,)),))
    seen: list[Any] = []

    def hook(tensors: dict[str, Any]) -> dict[str, Any]:
        seen.append({name: value.dtype for name, value in tensors.items()})
        return tensors

    model = loaded(lambda inputs: inputs["x"], takes, preprocess=hook, postprocess=hook)
    ran = run(model, work([request("a", x=Tensor.of("x", [1, 2], "BF16"))]))
    assert seen == [{"x": np.uint16}, {"output": np.uint16}]
    assert ran.results[0].outputs[0] == Tensor.of("output", [1, 2], "BF16")


def test_a_result_has_the_codec_of_its_record() -> None:
    """JSON in, JSON out; what a record does not say is the configured default."""
    values = [request("a", JSON, x=OK), request("b", x=OK), request("c", JSON, x=OK), request("d", x=OK)]
    chunk = work(values, content_types=[None, "application/msgpack", "Application/JSON; v=2", "text/plain"])
    ran = run(loaded(linear()), chunk, JSON)
    assert ran.reasons() == {3: "unsupported-content-type"}
    assert [value[:1] for value in ran.values.values()] == [b"{", b"\x85", b"{"]
    assert all(np.array_equal(ran.output(i), ran.output(0)) for i in range(3))


def test_a_result_that_its_codec_cannot_carry_fails_alone() -> None:
    """NaN in a JSON result is a failure of that record; msgpack carries it."""
    nan = np.full(4, np.nan, np.float32)
    values = [request("a", JSON, x=OK), request("b", x=nan), request("c", x=OK)]
    values += [msgpack.packb({"id": "d", "inputs": [{"name": "x", "datatype": "FP32", "shape": [4], "data": [1] * 4}]})]
    chunk = work(values, content_types=[JSON, None, None, None])
    model = loaded(lambda inputs: inputs["x"] / (inputs["x"] * 0 + torch.tensor([0.0, 1, 1, 1])))
    ran = run(model, chunk)
    assert ran.reasons() == {0: "unencodable-output"}
    assert np.isnan(ran.output(1)).all()


def test_what_is_no_request_never_reaches_the_model() -> None:
    """Each record that cannot be used has its own reason; the others are inferred."""
    good = request("ok", x=OK)
    values = [
        good,
        None,
        b"",
        b"junk",
        good[:-1],
        request("a", y=OK),
        request("b", x=OK.astype(np.float64)),
        request("c", x=np.zeros((2, 2), np.float32)),
        request("d", x=OK, z=OK),
        good,
    ]
    model = Recorder(linear())
    ran = run(loaded(model), work(values))
    assert ran.reasons() == {
        1: "no-value",
        2: "unreadable",
        3: "unreadable",
        4: "unreadable",
        5: "wrong-input",
        6: "wrong-datatype",
        7: "wrong-shape",
        8: "wrong-input",
    }
    assert model.calls == [{"x": (2, 4)}]
    assert all(failure.disposition is Disposition.POISON for failure in ran.failures.values())


# --- Isolation


@pytest.mark.parametrize("form", ["template", "single"])
def test_culprits_are_found_and_the_others_get_their_results(form: str) -> None:
    """A batch that raises is divided until what fails is alone."""
    bad = {3, 17, 18, 63}
    identity = "{:04}" if form == "template" else "{:d}" * 1
    values = [request(identity.format(i), x=BAD if i in bad else OK * i) for i in range(64)]
    model = Recorder(refuses_negatives)
    ran = run(loaded(model), work(values))
    assert set(ran.failures) == bad
    assert set(ran.reasons().values()) == {"inference-failed"}
    assert all(np.array_equal(ran.output(i), OK * i) for i in range(64) if i not in bad)
    assert len(model.calls) <= 1 + 2 * len(bad) * 6


def test_a_record_of_many_rows_fails_as_a_whole() -> None:
    """One bad row of a record that is inferred in slices fails the record, once."""
    x = np.tile(OK, (9, 1))
    x[7, 0] = -1
    ran = run(loaded(refuses_negatives, rows_max=2), work([request("a", x=x), request("b", x=OK)]))
    assert ran.reasons() == {0: "inference-failed"}
    assert np.array_equal(ran.output(1), OK)


def needs_memory(rows_that_fit: int) -> Callable[[Mapping[str, Any]], object]:
    """Make a model that runs out of memory above so many rows."""

    def model(inputs: Mapping[str, Any]) -> object:
        if len(inputs["x"]) > rows_that_fit:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return inputs["x"]

    return model


def test_too_little_memory_halves_the_batch_and_is_remembered() -> None:
    """What does not fit is run in halves; later calls are that small from the start, until enough of them passed."""
    model = Recorder(needs_memory(20))
    ran = runner(loaded(model, rows_max=64))
    chunk = work([request(f"{i:04}", x=OK) for i in range(64)])
    first = read(run_batch(ran, [whole(chunk)])[0])
    assert len(first.results) == 64
    assert [call["x"][0] for call in model.calls] == [64, 32, 16, 16, 32, 16, 16]
    model.calls.clear()
    assert len(read(run_batch(ran, [whole(chunk)])[0]).results) == 64
    assert [call["x"][0] for call in model.calls] == [16] * 4
    model.calls.clear()
    for _ in range(CALLS_BEFORE_GROWTH // 4):
        run_batch(ran, [whole(chunk)])
    assert 32 in [call["x"][0] for call in model.calls[-12:]]
    assert [call["x"][0] for call in model.calls[:200]] == [16] * 200


def test_a_record_that_needs_too_much_memory_alone_is_the_only_one_to_fail() -> None:
    """Its neighbours get results, and later batches are not smaller for its sake."""

    def model(inputs: Mapping[str, Any]) -> object:
        if bool((inputs["x"][:, 0] < 0).any()):
            raise MemoryError
        return inputs["x"]

    recorder = Recorder(model)
    ran = runner(loaded(recorder))
    first = read(run_batch(ran, [whole(work([request(str(i), x=BAD if i == 5 else OK) for i in range(16)]))])[0])
    assert first.reasons() == {5: "out-of-memory"}
    recorder.calls.clear()
    run_batch(ran, [whole(work([request(str(i), x=OK) for i in range(16)]))])
    assert recorder.calls == [{"x": (16, 4)}]


def test_a_record_of_many_rows_is_sliced_smaller_where_memory_is_short() -> None:
    """Slices are halved until they fit."""
    model = Recorder(needs_memory(3))
    ran = run(loaded(model, rows_max=16), work([request("a", x=np.tile(OK, (40, 1)))]))
    assert ran.results[0].outputs[0].shape == (40, 4)
    assert max(call["x"][0] for call in model.calls[-20:]) == 2


def test_a_lost_device_ends_the_worker() -> None:
    """A CUDA error that spoils the context is no failure of a record."""

    def model(inputs: Mapping[str, Any]) -> object:
        raise torch.AcceleratorError("CUDA error: device-side assert triggered")

    with pytest.raises(DeviceLostError, match="device-side assert"):
        run_batch(runner(loaded(model)), [whole(work([request("a", x=OK)]))])


def test_outputs_without_a_row_for_each_row_are_a_failure() -> None:
    """A model that drops rows fails; nothing is answered with another record's row."""
    ran = run(loaded(lambda inputs: inputs["x"][:1]), work([request(str(i), x=OK * i) for i in range(4)]))
    assert ran.failures == {}  # bisected: alone, a single row is right
    ran = run(loaded(lambda inputs: inputs["x"].sum()), work([request(str(i), x=OK) for i in range(2)]))
    assert ran.reasons() == {0: "inference-failed", 1: "inference-failed"}


def test_a_model_may_write_to_its_inputs() -> None:
    """What a model gets is its own, not the shared memory."""

    def model(inputs: Mapping[str, Any]) -> object:
        return inputs["x"].mul_(2)

    takes = Signature((TensorSpec("x", "FP32", (4,)),))
    for batch in (True, False):
        ran = run(loaded(model, takes, batch=batch), work([request("a", x=OK)]))
        assert np.array_equal(ran.output(0), OK * 2)


# --- Broken or poisoned


class Moody:
    """A model that can be told to fail everything, or certain records."""

    def __init__(self) -> None:
        self.is_broken = False
        self.calls = 0

    def __call__(self, inputs: Mapping[str, Any]) -> object:
        """Fail, or echo."""
        self.calls += 1
        if self.is_broken:
            raise RuntimeError("weights are gone")
        return refuses_negatives(inputs)


def good() -> Span:
    """A batch that passes."""
    return whole(work([request(str(i), x=OK) for i in range(4)]))


def poison() -> Span:
    """A batch of records that the model fails."""
    return whole(work([request(str(i), x=BAD) for i in range(4)]))


def test_poisoned_batches_are_dead_lettered_once_the_model_has_passed_its_probe() -> None:
    """A model that answers its probe is not at fault, however many batches fail."""
    moody = Moody()
    ran = runner(loaded(moody, failures_max=2))
    run_batch(ran, [good()])
    for batch in range(5):
        before = moody.calls
        sheets, broken = run_batch(ran, [poison()])
        assert broken is None
        assert set(read(sheets).reasons().values()) == {"inference-failed"}
        assert moody.calls - before == (7 if batch == 0 else 8), "one probe for a batch, however often it is divided"


@pytest.mark.parametrize("probe", ["warm-up input", "last answered record"])
def test_a_broken_model_keeps_its_records(probe: str) -> None:
    """From the batch on that fails for the failures_max-th time, records are given back and nothing is charged."""
    moody = Moody()
    model = loaded(moody, failures_max=3)
    if probe == "warm-up input":
        model.probe_inputs = {"x": torch.zeros(1, 4)}
    ran = runner(model)
    assert run_batch(ran, [good()])[1] is None
    moody.is_broken = True
    for _ in range(2):
        sheets, broken = run_batch(ran, [good()])
        assert broken is None
        assert {failure.disposition for failure in read(sheets).failures.values()} == {Disposition.POISON}
    for _ in range(2):
        before = moody.calls
        sheets, broken = run_batch(ran, [good(), good()])
        assert broken is not None
        assert (broken.reason, broken.message) == ("model-unavailable", "weights are gone")
        assert broken.disposition is Disposition.UNAVAILABLE
        assert [failure for sheet in sheets for failure in sheet.failures.values()] == [broken] * 8
        assert moody.calls - before == 2, "the batch is not divided for a model that fails its probe"
    assert ran.probe() == broken
    moody.is_broken = False
    assert ran.probe() is None
    assert len(read(run_batch(ran, [good()])[0]).results) == 4
    assert read(run_batch(ran, [poison()])[0]).reasons()[0] == "inference-failed"


def test_what_is_refused_before_the_model_does_not_make_it_suspect() -> None:
    """Unreadable records say nothing about the model."""
    moody = Moody()
    ran = runner(loaded(moody, failures_max=2))
    for _ in range(4):
        run_batch(ran, [whole(work([b"junk", request("a", y=OK)]))])
    moody.is_broken = True
    sheets, broken = run_batch(ran, [good()])
    assert broken is None
    assert read(sheets).reasons()[0] == "inference-failed"


def test_a_model_that_never_answered_cannot_be_called_broken() -> None:
    """Without a warm-up input and an answered record there is nothing to ask, so the records are at fault."""
    moody = Moody()
    moody.is_broken = True
    ran = runner(loaded(moody, failures_max=1))
    sheets, broken = run_batch(ran, [good()])
    assert broken is None
    assert set(read(sheets).reasons().values()) == {"inference-failed"}


def test_records_that_passed_before_the_model_broke_keep_their_results() -> None:
    """Only what has no outcome yet is given back."""
    takes = Signature((TensorSpec("x", "FP32", ("n",)),))
    moody = Moody()

    def model(inputs: Mapping[str, Any]) -> object:
        moody.is_broken = inputs["x"].shape[1] == 3 or moody.is_broken
        return moody(inputs)

    loaded_model = loaded(model, takes, failures_max=1)
    loaded_model.probe_inputs = {"x": torch.zeros(1, 4)}
    values = [request("a", x=OK), request("b", x=OK[:3]), b"junk", request("c", x=OK)]
    sheets, broken = run_batch(runner(loaded_model), [whole(work(values))])
    assert broken is not None
    ran = read(sheets)
    assert set(ran.results) == {0, 3}
    assert ran.reasons() == {1: "model-unavailable", 2: "unreadable"}


# --- Several spans


def test_a_batch_of_several_chunks_is_one_call_and_a_sheet_for_each() -> None:
    """Stretches of chunks share a call; each is answered for itself."""
    model = Recorder(linear())
    chunks = [work([request(f"{n}{i:03}", x=OK * i) for i in range(12)], chunk=n) for n in range(3)]
    spans = [Span(Columns(chunks[0]), 4, 12), Span(Columns(chunks[1]), 0, 12), Span(Columns(chunks[2]), 0, 1)]
    sheets, _ = run_batch(runner(loaded(model)), spans)
    assert model.calls == [{"x": (21, 4)}]
    assert [sheet.columns.work.chunk for sheet in sheets] == [0, 1, 2]
    whole_s = sum(sheet.infer_s for sheet in sheets)
    assert [sheet.infer_s / whole_s for sheet in sheets] == pytest.approx([8 / 21, 12 / 21, 1 / 21])
    for n, (sheet, span) in enumerate(zip(sheets, spans, strict=True)):
        assert (sheet.rows, sheet.infer_s > 0, sheet.queue_s >= 0) == (21, True, True)
        ran = read([sheet])
        assert sorted(ran.results) == list(range(span.first, span.stop))
        for i, result in ran.results.items():
            assert result.id == f"{n}{i:03}"
            assert np.array_equal(ran.output(i), linear()({"x": torch.from_numpy(OK * i)[None]})[0])
