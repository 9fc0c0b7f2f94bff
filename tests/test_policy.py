"""Retry policies and options of consumers: what they decide, what they refuse."""

import attrs
import pytest

from step_redis import ConfigurationError, ConsumerOptions, Exponential, RetryPolicy


class UnmendableError(Exception):
    """An error that no retry mends."""


def test_one_delay():
    """A number is the delay after each failure."""
    policy = RetryPolicy(delays=2.5)
    assert [policy.delay_after(failures) for failures in (1, 2, 4)] == [2.5, 2.5, 2.5]


@pytest.mark.parametrize("delays", [[0, 1, 5], (0, 1, 5)])
def test_several_delays(delays):
    """One after the other; the last counts for all further ones."""
    policy = RetryPolicy(max_deliveries=None, delays=delays)
    assert [policy.delay_after(failures) for failures in (1, 2, 3, 4, 99)] == [0, 1, 5, 5, 5]


def test_exponential_delays():
    """They grow by the factor up to the limit."""
    delays = Exponential(first_seconds=1, factor=3, limit_seconds=20, jitter=0)
    assert [delays.seconds(failures) for failures in (1, 2, 3, 4, 5000)] == [1, 3, 9, 20, 20]
    assert Exponential(first_seconds=0, jitter=0).seconds(5000) == 0


def test_jitter():
    """Messages that failed together do not come back together, nor much too early or late."""
    delays = Exponential(first_seconds=10, jitter=0.1)
    seconds = {delays.seconds(1) for _ in range(200)}
    assert len(seconds) > 150
    assert 9 <= min(seconds) < 9.5
    assert 10.5 < max(seconds) <= 11


def test_the_last_delivery():
    """After it there is no retry; None never gives up."""
    policy = RetryPolicy(max_deliveries=3, delays=0)
    assert [policy.delay_after(failures) for failures in (1, 2, 3, 4)] == [0, 0, None, None]
    assert RetryPolicy(max_deliveries=None, delays=1).delay_after(10_000) == 1


def test_errors_that_no_retry_mends():
    """They, and errors below them, are not retried."""
    policy = RetryPolicy(non_retryable=[LookupError, UnmendableError], delays=1)
    assert policy.delay_after(1, KeyError()) is None
    assert policy.delay_after(1, UnmendableError()) is None
    assert policy.delay_after(1, ValueError()) == 1


def test_lost_deliveries():
    """So many of them give a message up; None never."""
    assert [RetryPolicy(max_lost_deliveries=2).gives_up_on_lost(lost) for lost in (1, 2, 3)] == [
        False,
        True,
        True,
    ]
    assert not RetryPolicy(max_lost_deliveries=None).gives_up_on_lost(10_000)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_deliveries", 0),
        ("max_deliveries", 1.5),
        ("max_deliveries", True),
        ("delays", -1),
        ("delays", "1"),
        ("delays", []),
        ("delays", [1, None]),
        ("delays", float("nan")),
        ("delays", None),
        ("max_lost_deliveries", 0),
        ("non_retryable", ValueError),
        ("non_retryable", [5]),
        ("non_retryable", ["ValueError"]),
        ("non_retryable", 5),
    ],
)
def test_policies_that_cannot_work(name, value):
    """The error names the field."""
    with pytest.raises(ConfigurationError, match=name):
        RetryPolicy(**{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("first_seconds", -1),
        ("factor", 0.5),
        ("limit_seconds", "5"),
        ("jitter", 1.1),
        ("jitter", -0.1),
    ],
)
def test_exponentials_that_cannot_work(name, value):
    """The error names the field."""
    with pytest.raises(ConfigurationError, match=name):
        Exponential(**{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("name", ""),
        ("name", 5),
        ("concurrency", 0),
        ("concurrency", 2.0),
        ("prefetch", 0),
        ("prefetch_bytes", 0),
        ("lease_seconds", 0.5),
        ("lease_seconds", float("inf")),
        ("handler_timeout_seconds", 0),
        ("retry", 5),
        ("dead_letter_stream", ""),
        ("on_group_lost", "sometimes"),
        ("on_group_lost", None),
        ("grace_seconds", -1),
        ("outage_limit_seconds", 0),
        ("foreign_idle_seconds", -5),
        ("stuck_seconds", 0),
    ],
)
def test_options_that_cannot_work(name, value):
    """The error names the field, and shows no more of the value than is safe."""
    with pytest.raises(ConfigurationError, match=name):
        ConsumerOptions(**{name: value})


def test_they_are_values():
    """Equal by value, immutable, changed by making another; they say what they are."""
    assert ConsumerOptions(concurrency=2) == ConsumerOptions(concurrency=2)
    assert hash(RetryPolicy(delays=[1, 2])) == hash(RetryPolicy(delays=(1, 2)))
    options = ConsumerOptions()
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        options.concurrency = 5
    assert attrs.evolve(options, concurrency=5).concurrency == 5
    assert "Exponential(first_seconds=1, factor=2" in repr(options)
