"""The partitions of a member: what is admitted, settled, resolved and committed; and how slices become runs."""

import pytest

from consumer.core.events import Position
from consumer.core.flow import FlowOptions
from consumer.core.intake import NO_MODEL_ID, NO_VALUE, Intake
from consumer.core.partitions import Admitted, Partitions
from consumer.core.types import Run, Slice, TopicPartition

TP = TopicPartition("in", 0)
OPTIONS = FlowOptions(records_max=100, bytes_max=10_000, span_max=200, fetch_records_max=50)


def fetched(offsets: list[int], models: str | list[str | None] | None = "a", partition: TopicPartition = TP) -> Slice:
    """Make a slice whose values name their offsets."""
    return Slice(
        partition=partition,
        offsets=offsets,
        models=models,
        keys=[b"a"] * len(offsets),
        values=[str(offset).encode() for offset in offsets],
        headers=None,
        timestamps_ms=[-1] * len(offsets),
    )


def admitted(partitions: Partitions, offsets: list[int]) -> list[Run]:
    """Admit a slice and split it."""
    part = fetched(offsets)
    found = partitions.admit(part)
    assert found is not None
    return Intake(["a"]).split(found, 0.0)[0]


def assigned(next_offset: int | None = None, metadata: str = "", topic_id: str = "t") -> Partitions:
    """Make partitions with one assigned."""
    partitions = Partitions(OPTIONS, 1000)
    partitions.assign({TP: Position(next_offset, metadata, topic_id)})
    return partitions


def test_what_is_settled_weighs_no_more_and_what_is_resolved_is_committed() -> None:
    """Settling puts the outcome's bytes in the payload's place, resolving frees them and moves the commit."""
    partitions = assigned()
    runs = admitted(partitions, [5, 6, 7])
    assert (partitions.records, partitions.size) == (3, 3)
    assert partitions.commits() == {TP: (5, "")}
    partitions.settle(runs)
    assert (partitions.records, partitions.size) == (0, 6)
    partitions.drop(runs)
    assert (partitions.records, partitions.size) == (0, 3)
    assert partitions.commits() == {TP: (5, "")}
    partitions.resolve(runs)
    assert (partitions.records, partitions.size) == (0, 0)
    assert partitions.commits() == {TP: (8, "")}
    partitions.committed(partitions.commits(), partitions.heads())
    assert partitions.commits() == {}


def test_completed_records_beyond_the_watermark_survive_in_the_metadata() -> None:
    """A successor neither infers nor counts what the map says is done, and its watermark jumps over it."""
    before = assigned()
    runs = admitted(before, [0, 1, 2, 3])
    before.resolve([runs[0].pick([1, 3])])
    next_offset, metadata = before.commits()[TP]
    assert next_offset == 0
    after = assigned(next_offset, metadata)
    again = admitted(after, [0, 1, 2, 3])
    assert [offset for run in again for offset in run.offsets] == [0, 2]
    assert after.records == 2
    after.resolve(again)
    assert after.commits()[TP] == (4, "")


def test_the_map_outlives_a_member_that_fetched_nothing() -> None:
    """A commit made before completed records are fetched again still names them."""
    before = assigned()
    before.resolve([admitted(before, [0, 1, 2, 3])[0].pick([1, 3])])
    committed = before.commits()[TP]
    idle = assigned(*committed)
    assert idle.commits() == {}
    admitted(idle, [0, 1])
    assert idle.commits() == {}


@pytest.mark.parametrize(("metadata", "topic_id"), [("junk", "t"), (None, "another topic of the name")])
def test_metadata_that_is_not_ours_is_told_and_not_believed(metadata: str | None, topic_id: str) -> None:
    """A foreign or outdated map is refused with a reason, and everything is inferred."""
    before = assigned()
    before.resolve([admitted(before, [0, 1])[0].pick([1])])
    told = before.commits()[TP][1] if metadata is None else metadata
    partitions = Partitions(OPTIONS, 1000)
    ((partition, reason),) = partitions.assign({TP: Position(0, told, topic_id)})
    assert partition == TP
    assert reason
    assert partitions.records == 0
    assert [list(run.offsets) for run in admitted(partitions, [0, 1])] == [[0, 1]]


def test_a_revoked_partition_takes_its_records_along() -> None:
    """After a revocation nothing is current, counted or committed, and late outcomes change nothing."""
    partitions = assigned()
    runs = admitted(partitions, [0, 1])
    partitions.revoke([TP])
    assert (partitions.records, partitions.size, partitions.commits()) == (0, 0, {})
    partitions.drop(runs)
    partitions.resolve(runs)
    assert not partitions.is_current(runs[0])
    assert partitions.admit(fetched([2])) is None
    partitions.assign({TP: Position(0)})
    assert not partitions.is_current(runs[0]), "a new assignment is another generation"


def test_offsets_that_go_back_begin_a_new_generation() -> None:
    """A topic that was made anew starts over: what is left of the old one is fenced."""
    partitions = assigned()
    old = admitted(partitions, [50, 51])
    new = admitted(partitions, [0, 1])
    assert not partitions.is_current(old[0])
    assert partitions.is_current(new[0])
    assert partitions.records == 2
    assert partitions.fetch_offsets() == {TP: 2}
    assert partitions.watermarks() == {TP: 0}


def test_records_fetched_twice_are_admitted_once_and_none_is_left_out() -> None:
    """Offsets that are in flight already are dropped, new ones behind them are admitted, older ones stay open."""
    partitions = assigned()
    old = admitted(partitions, [0, 1, 2, 3])
    partitions.resolve([old[0].pick([0])])
    assert partitions.admit(fetched([2, 3])) is None
    assert [list(run.offsets) for run in admitted(partitions, [2, 3, 4, 5])] == [[4, 5]]
    assert partitions.is_current(old[0])
    assert partitions.records == 6
    assert partitions.commits()[TP][0] == 1


def test_a_slice_is_split_by_model_and_relieved_of_what_nobody_can_take() -> None:
    """Runs keep their columns together; records without model, value or known name fail with their reason."""
    part = fetched([0, 1, 2, 3, 4, 5], ["a", "b", "a", None, "stranger", "a"])
    part.values = [b"0", b"1", b"2", b"3", b"4", None]
    found = Admitted(part, assigned()._resolved[TP].generation, range(10, 16), None, 5)
    runs, failed = Intake(["a", "b"]).split(found, 1.5)
    assert [(run.model, list(run.offsets), list(run.positions), list(run.values)) for run in runs] == [
        ("a", [0, 2], [10, 12], [b"0", b"2"]),
        ("b", [1], [11], [b"1"]),
    ]
    reasons = {run.offsets[0]: failure.reason for run, failure in failed}
    assert reasons == {3: NO_MODEL_ID.reason, 4: "unknown-model", 5: NO_VALUE.reason}
    assert sum(run.size for run in runs) + sum(run.size for run, _ in failed) == 5
    assert runs[0].fetched_s == 1.5


def test_an_unknown_model_is_told_by_the_known_ones() -> None:
    """The failure names configured models, never what the sender wrote."""
    part = fetched([0], ["hostile"])
    found = Admitted(part, assigned()._resolved[TP].generation, range(1), None, 1)
    ((_, failure),) = Intake([f"m{i:02}" for i in range(12)]).split(found, 0.0)[1]
    assert "m00, " in failure.message
    assert "hostile" not in failure.message
    assert failure.message.endswith(", ...")
