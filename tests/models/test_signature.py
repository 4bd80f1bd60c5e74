"""Binding a record to a model's signature."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.models.signature import Arguments, Form, Signature, TensorSpec
from schemas.errors import RecordError
from schemas.reasons import Reason
from schemas.tensors import Tensor

PLAIN = Signature((TensorSpec("x", "FP32", (2, 3)), TensorSpec("k", "INT64")))
TOKENS = Signature(
    (
        TensorSpec("ids", "INT64", ("tokens",), pad=7, mask="mask"),
        TensorSpec("mask", "BOOL", ("tokens",)),
    ),
    (TensorSpec("each", "FP32", ("tokens", 4)), TensorSpec("whole", "FP32", (4,))),
    bounds={"tokens": (1, 8)},
)


def zeros(name: str, *shape: int, dtype: str = "f4") -> Tensor:
    """Make a tensor of zeros."""
    return Tensor.of(name, np.zeros(shape, dtype))


def refusal(takes: Signature | Arguments, *inputs: Tensor, is_batched: bool = True) -> RecordError:
    """Bind what must be refused."""
    with pytest.raises(RecordError) as caught:
        takes.bind(inputs, is_batched=is_batched)
    assert "\n" not in caught.value.message
    return caught.value


def test_a_tensor_of_an_examples_rank_is_one_row() -> None:
    """Rank decides: an example's shape is one row without an axis for it."""
    bound = PLAIN.bind((zeros("x", 2, 3), zeros("k", dtype="i8")))
    assert (bound.rows, bound.form) == (1, Form.EXAMPLE)


def test_one_axis_more_in_front_is_rows() -> None:
    """Rank decides: one axis more counts rows."""
    bound = PLAIN.bind((zeros("x", 5, 2, 3), zeros("k", 5, dtype="i8")))
    assert (bound.rows, bound.form) == (5, Form.ROWS)


@pytest.mark.parametrize("rows", [0, 1])
def test_no_row_and_one_row_are_rows(rows: int) -> None:
    """A record in the form of rows may have none, or one."""
    bound = PLAIN.bind((zeros("x", rows, 2, 3), zeros("k", rows, dtype="i8")))
    assert (bound.rows, bound.form) == (rows, Form.ROWS)


def test_inputs_are_bound_by_name_in_the_models_order() -> None:
    """The order in a record means nothing."""
    bound = PLAIN.bind((zeros("k", dtype="i8"), zeros("x", 2, 3)))
    assert [tensor.name for tensor in bound.inputs] == ["x", "k"]


def test_a_single_input_without_a_name_is_the_models_single_input() -> None:
    """One input without a name is bound alone."""
    bound = Signature((TensorSpec("x", "FP32", (3,)),)).bind((zeros("", 3),))
    assert [tensor.name for tensor in bound.inputs] == ["x"]


def test_a_single_input_without_a_name_is_the_one_that_no_mask_makes() -> None:
    """A mask that is made when it is not sent does not count."""
    bound = TOKENS.bind((zeros("", 3, dtype="i8"),))
    assert [tensor.name for tensor in bound.inputs] == ["ids", "mask"]


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ((), "input 'x' is missing; the model takes 'x', 'k'"),
        ((zeros("x", 2, 3),), "input 'k' is missing; the model takes 'x', 'k'"),
        ((zeros("", 2, 3), zeros("k", dtype="i8")), "input number 1 has no name; the model takes 'x', 'k'"),
        ((zeros("", 2, 3),), "input number 1 has no name; the model takes 'x', 'k'"),
        (
            (zeros("x", 2, 3), zeros("secret", 1)),
            "input number 2 has a name that the model does not know; the model takes 'x', 'k'",
        ),
        (
            (zeros("x", 2, 3), zeros("x", 2, 3)),
            "input number 2 has the name of an earlier one; the model takes 'x', 'k'",
        ),
    ],
)
def test_missing_unknown_and_repeated_inputs_are_refused(inputs: tuple[Tensor, ...], message: str) -> None:
    """Names must be exactly the model's, and what the record calls them is not repeated."""
    error = refusal(PLAIN, *inputs)
    assert (error.reason, error.message) == (Reason.WRONG_INPUT, message)


@pytest.mark.parametrize("dtype", ["f8", "f2", "i4", "u1", "?"])
def test_nothing_is_cast(dtype: str) -> None:
    """Another datatype than the model's is refused, however near."""
    error = refusal(PLAIN, zeros("x", 2, 3, dtype=dtype), zeros("k", dtype="i8"))
    assert error.reason is Reason.WRONG_DATATYPE
    assert error.message.startswith("input 'x' is ")
    assert error.message.endswith(", the model takes FP32")


@pytest.mark.parametrize("shape", [(3,), (2, 4), (1, 2, 4), (1, 1, 2, 3), ()])
def test_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    """A shape is an example's, with or without rows in front, and no other."""
    error = refusal(PLAIN, zeros("x", *shape), zeros("k", dtype="i8"))
    expected = f"input 'x' has shape {list(shape)}, the model takes [2, 3] or [rows, 2, 3]"
    assert (error.reason, error.message) == (Reason.WRONG_SHAPE, expected)


def test_inputs_in_different_forms_are_refused() -> None:
    """Every input of a record is in the same form."""
    error = refusal(PLAIN, zeros("x", 1, 2, 3), zeros("k", dtype="i8"))
    assert error.message == "input 'k' has no axis of rows, the first one has 1 rows"
    assert error.reason is Reason.WRONG_SHAPE


def test_unequal_rows_are_refused() -> None:
    """Every input of a record has the same number of rows."""
    error = refusal(PLAIN, zeros("x", 2, 2, 3), zeros("k", 3, dtype="i8"))
    assert error.message == "input 'k' has 3 rows, the first one has 2 rows"
    assert error.reason is Reason.WRONG_SHAPE


def test_without_batches_tensors_must_be_as_declared() -> None:
    """A model that is not batched gets its tensors as sent: there is no axis of rows."""
    bound = PLAIN.bind((zeros("x", 2, 3), zeros("k", dtype="i8")), is_batched=False)
    assert (bound.rows, bound.form) == (1, Form.WHOLE)
    error = refusal(PLAIN, zeros("x", 1, 2, 3), zeros("k", 1, dtype="i8"), is_batched=False)
    assert error.message == "input 'x' has shape [1, 2, 3], the model takes [2, 3]"


def test_a_free_axis_has_one_length_in_a_record() -> None:
    """Inputs that share a free axis agree about its length."""
    error = refusal(TOKENS, zeros("ids", 3, dtype="i8"), zeros("mask", 4, dtype="?"))
    assert (error.reason, error.message) == (
        Reason.WRONG_SHAPE,
        "axis 'tokens' is 4 long in input 'mask' and 3 in another one",
    )


@pytest.mark.parametrize("length", [0, 9])
def test_lengths_out_of_bounds_are_refused_before_the_call(length: int) -> None:
    """The bounds that a program was exported with are ours to check."""
    error = refusal(TOKENS, zeros("ids", length, dtype="i8"))
    assert error.message == f"axis 'tokens' of input 'ids' is {length} long, allowed is 1 to 8"


def test_a_mask_that_was_not_sent_is_made() -> None:
    """A generated mask has the record's rows and length, and ones only."""
    bound = TOKENS.bind((zeros("ids", 2, 3, dtype="i8"),))
    assert bound.inputs[1] == Tensor.of("mask", np.ones((2, 3), "?"))


def test_a_mask_of_bf16_is_made_of_its_bits() -> None:
    """One, as BF16, has the bits 3F80."""
    signature = Signature((TensorSpec("x", "FP32", ("n",), 0, "m"), TensorSpec("m", "BF16", ("n",))))
    assert signature.bind((zeros("x", 2),)).inputs[1].data.tolist() == [0x3F80, 0x3F80]  # type: ignore[union-attr]


def test_a_mask_that_was_sent_is_used() -> None:
    """The record's own mask wins."""
    mask = Tensor.of("mask", np.array([True, False, True]))
    assert TOKENS.bind((zeros("ids", 3, dtype="i8"), mask)).inputs[1] is mask


def test_masks_are_padded_with_zero() -> None:
    """A mask states no pad: beyond its record there is nothing real."""
    assert TOKENS.inputs[1].pad == 0


def test_records_of_different_lengths_share_a_batch_along_padded_axes_only() -> None:
    """The group keeps apart what cannot be padded."""
    free = Signature((TensorSpec("ids", "INT64", ("tokens",)),))
    short, long = zeros("ids", 2, dtype="i8"), zeros("ids", 3, dtype="i8")
    assert TOKENS.bind((short,)).group == TOKENS.bind((long,)).group
    assert free.bind((short,)).group != free.bind((long,)).group
    assert TOKENS.bind((long,)).lengths == {"tokens": 3}


def test_outputs_that_share_a_padded_axis_are_cut() -> None:
    """The cut names the axis of an example, and the length to cut it to."""
    assert TOKENS.cuts == {"each": ((0, "tokens"),)}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TensorSpec("", "FP32"), "name: a tensor needs"),
        (lambda: TensorSpec("x", "float32"), "datatype: 'float32' is none of BOOL"),
        (lambda: TensorSpec("x", "FP32", (-1, 3)), r"shape: -1 is negative; a free axis is written as a name"),
        (lambda: TensorSpec("x", "FP32", ("",)), "shape: the name of a free axis"),
        (lambda: TensorSpec("x", "FP32", (3,), pad=0), "pad: 'x' has no free axis"),
        (lambda: TensorSpec("x", "BYTES", ("n",), pad=0), "pad: 'x' has no free axis of numbers"),
        (lambda: TensorSpec("x", "FP32", ("n",), mask="m"), "mask: 'x' states no pad"),
        (lambda: Signature(()), "inputs: a model needs at least one"),
        (lambda: Signature((TensorSpec("x", "FP32"), TensorSpec("x", "FP32"))), "inputs: x, x: a name may occur only"),
        (lambda: Signature((TensorSpec("x", "FP32", ("n",), 0, "m"),)), "mask: 'x' names 'm', which is no other"),
        (lambda: Signature((TensorSpec("x", "FP32", ("n",), 0, "x"),)), "mask: 'x' names 'x', which is no other"),
        (
            lambda: Signature((TensorSpec("x", "FP32", ("n",), 0, "m"), TensorSpec("m", "FP32", ("n", 2)))),
            "mask: 'm' may have free axes of 'x' only",
        ),
        (
            lambda: Signature((TensorSpec("x", "FP32", ("n",), 0), TensorSpec("y", "FP32", ("n",)))),
            "pad: another input pads an axis of 'y'",
        ),
        (
            lambda: Signature((TensorSpec("x", "FP32"),), (TensorSpec("y", "FP32", ("n",), 0),)),
            "outputs: pad and mask belong to inputs, not to 'y'",
        ),
        (
            lambda: Signature((TensorSpec("x", "FP32", ("n",), 0),), (TensorSpec("y", "BYTES", ("n",)),)),
            "outputs: 'y' is BYTES, which cannot be cut",
        ),
    ],
)
def test_a_signature_that_contradicts_itself_is_refused(make: Callable[[], object], message: str) -> None:
    """Each contradiction has its own message, which starts with the key at fault."""
    with pytest.raises(ValueError, match=f"^{message}"):
        make()


class TestArguments:
    """A model without a signature knows names alone."""

    takes = Arguments(("a",), ("b",))

    def test_axis_0_is_rows(self) -> None:
        """The protocol's meaning: axis 0 counts rows, whatever the rank."""
        bound = self.takes.bind((zeros("b", 4, 2), zeros("a", 4, 5, 6)))
        assert ([tensor.name for tensor in bound.inputs], bound.rows, bound.form) == (["a", "b"], 4, Form.ROWS)

    def test_optional_arguments_may_be_missing(self) -> None:
        """What has a default need not be sent."""
        assert [tensor.name for tensor in self.takes.bind((zeros("a", 1),)).inputs] == ["a"]

    def test_a_single_input_without_a_name_is_the_required_one(self) -> None:
        """One input without a name is bound alone."""
        assert self.takes.bind((zeros("", 1),)).inputs[0].name == "a"

    def test_records_share_a_batch_by_names_datatypes_and_shapes(self) -> None:
        """Without a signature everything but the rows must be equal."""
        groups = {
            self.takes.bind(inputs).group
            for inputs in [
                (zeros("a", 1, 2),),
                (zeros("a", 9, 2),),
                (zeros("a", 1, 3),),
                (zeros("a", 1, 2, dtype="f8"),),
                (zeros("a", 1, 2), zeros("b", 1)),
            ]
        }
        assert len(groups) == 4

    @pytest.mark.parametrize("other", [(), (3,)])
    def test_no_axis_and_unequal_rows_are_refused(self, other: tuple[int, ...]) -> None:
        """Without an axis of rows there is nothing to batch."""
        assert refusal(self.takes, zeros("a", 2), zeros("b", *other)).reason is Reason.WRONG_SHAPE
        assert refusal(self.takes, zeros("a")).reason is Reason.WRONG_SHAPE

    @pytest.mark.parametrize("inputs", [(), (zeros("b", 1),), (zeros("a", 1), zeros("c", 1))])
    def test_names_are_checked(self, inputs: tuple[Tensor, ...]) -> None:
        """Required arguments must be there, and no unknown ones."""
        assert refusal(self.takes, *inputs).reason is Reason.WRONG_INPUT

    def test_an_open_model_takes_further_names(self) -> None:
        """Keyword arguments of any name take any input, in a fixed order."""
        takes = Arguments((), (), is_open=True)
        assert [tensor.name for tensor in takes.bind((zeros("z", 1), zeros("y", 1))).inputs] == ["y", "z"]
        assert refusal(takes).message == "the record has no inputs"

    def test_without_batches_tensors_go_as_sent(self) -> None:
        """A model that is not batched takes any shapes, a scalar too."""
        bound = self.takes.bind((zeros("a"), zeros("b", 3)), is_batched=False)
        assert (bound.rows, bound.form) == (1, Form.WHOLE)


SIZES = st.integers(0, 3)


@given(st.lists(SIZES, max_size=3), st.lists(SIZES, max_size=4))
def test_rank_and_sizes_alone_decide(example: list[int], sent: list[int]) -> None:
    """A tensor fits exactly when it is an example, or one axis more in front of one."""
    signature = Signature((TensorSpec("x", "FP32", tuple(example)),))
    tensor = zeros("x", *sent)
    if sent == example:
        assert signature.bind((tensor,)).form is Form.EXAMPLE
    elif sent[1:] == example and sent:
        bound = signature.bind((tensor,))
        assert (bound.form, bound.rows) == (Form.ROWS, sent[0])
    else:
        assert refusal(signature, tensor).reason is Reason.WRONG_SHAPE
