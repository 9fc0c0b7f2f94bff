"""What is held ready adapts to the speed of handling."""

from step_redis.prefetch import Prefetch


def test_it_begins_small():
    """A consumer that has handled nothing yet holds little."""
    assert Prefetch(4, 100).limit == 4


def test_fast_handling_doubles_it_up_to_the_limit():
    """Messages that are taken soon after they came make room for more."""
    prefetch = Prefetch(1, 10)
    for limit in (2, 4, 8, 10, 10):
        prefetch.taken(0.01)
        prefetch.came()
        assert prefetch.limit == limit


def test_slow_handling_halves_it_down_to_the_least():
    """Messages that had to wait leave room to other consumers; the longest wait counts."""
    prefetch = Prefetch(2, 100)
    prefetch.limit = 10
    for limit in (5, 2, 2):
        prefetch.taken(0.9)
        prefetch.taken(0.01)
        prefetch.came()
        assert prefetch.limit == limit


def test_waits_in_between_and_nothing_taken_leave_it():
    """Neither fast nor slow: it stays; and so it does while nothing is taken at all."""
    prefetch = Prefetch(1, 100)
    prefetch.taken(0.3)
    prefetch.came()
    prefetch.came()
    assert prefetch.limit == 1
