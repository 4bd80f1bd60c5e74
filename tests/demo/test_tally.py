import numpy as np
import pytest

from consumer.demo.digits import Digits
from consumer.demo.records import plan
from consumer.demo.tally import Tally
from schemas.reasons import Reason

COUNT = 40
DIGITS = Digits(images=np.zeros((COUNT, 8, 8), np.float32), labels=np.arange(COUNT) % 10)


@pytest.fixture(name="tally")
def open_books() -> Tally:
    """Plan forty images, all sent at time 10."""
    sendings = plan(DIGITS.images)
    tally = Tally(sendings, DIGITS)
    for sending in sendings:
        tally.send(sending.id, 10.0)
    return tally


def settle_all(tally: Tally, skip: str = "") -> None:
    """Give every record the outcome that is expected."""
    for sending in list(tally.missing.values()):
        if sending.id == skip:
            continue
        if sending.image is None:
            assert sending.reason is not None
            tally.dead_letter(sending.id, sending.reason, "refused")
        else:
            tally.result(sending.id, int(DIGITS.labels[sending.image]), 8, 10.5)


def test_nothing_is_missing_once_all_is_settled(tally: Tally) -> None:
    """Expected outcomes close every record and leave no problem."""
    settle_all(tally)
    assert not tally.missing
    assert tally.problems == []
    assert tally.duplicates == 0


@pytest.mark.parametrize("lost", ["cnn-7", f"broken-{Reason.NO_VALUE}"])
def test_a_lost_record_is_named(tally: Tally, lost: str) -> None:
    """A record without an outcome stays missing, good or broken."""
    settle_all(tally, skip=lost)
    assert list(tally.missing) == [lost]


def test_a_second_outcome_is_a_duplicate(tally: Tally) -> None:
    """A repeated result counts as a duplicate and in no figure."""
    settle_all(tally)
    tally.result("mlp-3", 3, 8, 11.0)
    assert tally.duplicates == 1
    assert {each.records for each in tally.summaries()} == {COUNT}
    assert tally.problems == []


def test_a_wrong_reason_is_a_problem(tally: Tally) -> None:
    """A dead letter with another reason than its fault's is told, and so is one where a result was expected."""
    tally.dead_letter(f"broken-{Reason.NO_VALUE}", Reason.UNREADABLE, "no bytes")
    tally.dead_letter("cnn-0", Reason.INFERENCE_FAILED, "raised")
    assert len(tally.problems) == 2
    assert all("expected" in problem for problem in tally.problems)


def test_a_result_for_a_broken_record_is_a_problem(tally: Tally) -> None:
    """A broken record that was answered is told."""
    tally.result(f"broken-{Reason.EXPIRED}", 1, 8, 11.0)
    assert len(tally.problems) == 1


def test_an_outcome_of_nothing_is_a_problem(tally: Tally) -> None:
    """An outcome for a record that was never sent is told."""
    tally.result("cnn-4711", 1, 8, 11.0)
    assert tally.problems == ["an outcome for cnn-4711, which was never sent"]


def test_figures_are_those_of_the_results(tally: Tally) -> None:
    """Accuracy counts unseen images alone, the mean batch is over batches, latencies are from send to result."""
    for image in range(COUNT):
        is_unseen = bool(image % 2)
        digit = int(DIGITS.labels[image]) if image % 4 == 1 or not is_unseen else 11
        # Ten batches of 2 rows and five of 4.
        tally.result(f"mlp-{image}", digit, 2 if image < 20 else 4, 10.0 + (image + 1) / 100)
    (summary,) = tally.summaries()
    assert summary.model == "mlp"
    assert summary.records == COUNT
    assert summary.accuracy == pytest.approx(0.5)
    assert summary.batch_rows == pytest.approx(COUNT / 15)
    assert summary.records_per_s == pytest.approx(COUNT / 0.4)
    assert summary.p50_ms == pytest.approx(205)
    assert 390 < summary.p99_ms <= 400
