"""Transactional ids that stand in for one another."""

from consumer.kafka.spares import SPARES, Spares


def test_all_begin_with_the_own_id() -> None:
    """One permission for the prefix allows them all, and there are no others."""
    spares = Spares("g-one")
    names = [spares.take() for _ in range(SPARES)]
    assert len(set(names)) == SPARES
    assert all(str(name).startswith("g-one.") for name in names)
    assert spares.take() is None
    assert len(spares) == 0


def test_one_without_an_end_waits_behind_all_others() -> None:
    """An id whose last transaction has ended is taken again at once, another one last."""
    spares = Spares("g-one")
    first = spares.take()
    assert first is not None
    spares.put_back(first, has_ended=True)
    assert spares.take() == first
    spares.put_back(first, has_ended=False)
    taken = [spares.take() for _ in range(SPARES)]
    assert taken[-1] == first
