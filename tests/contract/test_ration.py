"""What a transaction may hold after one that outlived its time."""

from hypothesis import given
from hypothesis import strategies as st

from consumer.core.types import Ticket
from consumer.kafka.handovers import HandOver
from consumer.kafka.ration import Ration
from tests.contract.clients import run_of

TIME_S = 5.0
SIZES = st.lists(st.integers(0, 50), min_size=1, max_size=20)


class Deaf:
    """Hears of no failed record."""

    def suspect(self, handed: HandOver, index: int) -> None:
        """Hear nothing."""

    recalled = suspect

    def park(self, handed: HandOver, index: int, failure: object) -> None:
        """Hear nothing."""

    fail = park


def handed(ticket: int, size: int) -> HandOver:
    """Make a hand-over of one value."""
    return HandOver(Deaf(), Ticket(ticket), "results", None, [run_of([b""])], [None], [b"x" * size], None)


def handovers(sizes: list[int]) -> list[HandOver]:
    """Make hand-overs with rising tickets."""
    return [handed(at + 1, size) for at, size in enumerate(sizes)]


@given(SIZES, st.integers(0, 20))
def test_nothing_waits_before_a_transaction_was_too_slow(sizes: list[int], delivered: int) -> None:
    """Without a failure every hand-over is allowed, and an aborted transaction is made again whole."""
    ration, retained = Ration(TIME_S), handovers(sizes)
    assert ration.allows(handed(99, 10**4), retained, Ticket(delivered))
    assert ration.divide(retained, Ticket(delivered)) == (retained, [])


@given(SIZES, st.integers(0, 20))
def test_what_may_wait_is_halved_at_one_ticket(sizes: list[int], delivered: int) -> None:
    """The next transaction has what the core was told of, and of the rest half the bytes or one hand-over that has any.

    What waits is everything from one ticket on, oldest first, and nothing is lost between the two.
    """
    ration, retained = Ration(TIME_S), handovers(sizes)
    ration.outlived(retained, Ticket(delivered))
    kept, left = ration.divide(retained, Ticket(delivered))
    assert kept + left == retained
    assert all(each.ticket > delivered for each in left)
    fresh = [each for each in kept if each.ticket > delivered]
    half = sum(sizes[delivered:]) // 2
    assert sum(each.size for each in fresh) <= max(half, 1) or sum(each.size > 0 for each in fresh) == 1
    assert fresh or not sizes[delivered:]
    assert not left or not ration.allows(left[0], kept, Ticket(delivered))


def test_a_transaction_that_fails_again_and_again_ends_with_one_hand_over() -> None:
    """Halved each time, it soon holds a single hand-over: there is no size at which it goes on failing but that."""
    ration, retained = Ration(TIME_S), handovers([10] * 64)
    for _ in range(7):
        ration.outlived(retained, Ticket(0))
        retained, _ = ration.divide(retained, Ticket(0))
    assert len(retained) == 1


def test_only_quick_transactions_let_it_grow() -> None:
    """One that took a good part of its time changes nothing; quick ones double it, until there is no limit again."""
    ration, retained = Ration(TIME_S), handovers([10] * 10)
    ration.outlived(retained, Ticket(0))
    ration.committed(TIME_S / 2)
    assert len(ration.divide(retained, Ticket(0))[0]) == 5
    ration.committed(0.01)
    assert len(ration.divide(retained, Ticket(0))[0]) == 10
    assert not ration.allows(handed(99, 10), retained, Ticket(0))
    ration.committed(0.01)
    ration.committed(0.01)
    assert ration.allows(handed(99, 10**4), retained, Ticket(0))
