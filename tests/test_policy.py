"""What users decide: delays, retries and options, checked at once; no server."""

import itertools

import attrs
import pytest

from step_redis import ConfigurationError, ConsumerOptions, Exponential, RetryPolicy

NO_JITTER = Exponential(jitter=0)


class OwnError(ValueError):
    pass


# --- Delays ---------------------------------------------------------------------------------


def test_exponential():
    """Delays grow by the factor with each failure, up to the limit."""
    delays = Exponential(first_seconds=0.5, factor=3, limit_seconds=10, jitter=0)
    assert [delays.seconds(failures) for failures in range(1, 6)] == [0.5, 1.5, 4.5, 10, 10]


@pytest.mark.parametrize("failures", [1, 5, 9, 1000])
def test_jitter(failures):
    """A delay varies at random by the jitter, to both sides, and not by more."""
    plain = NO_JITTER.seconds(failures)
    jittered = [Exponential(jitter=0.2).seconds(failures) for _ in range(2000)]
    assert plain * 0.8 <= min(jittered) < plain * 0.85
    assert plain * 1.15 < max(jittered) <= plain * 1.2


@pytest.mark.parametrize("failures", [10**3, 10**4, 10**6])
@pytest.mark.parametrize("factor", [2, 2.0, 1.5, 1])
def test_any_number_of_failures(failures, factor):
    """No number of failures is too large to reckon with."""
    delays = Exponential(first_seconds=1, factor=factor, jitter=0)
    assert delays.seconds(failures) == (1 if factor == 1 else 300)


@pytest.mark.parametrize("first", [0, 0.0])
def test_no_delay_stays_none(first):
    """Nothing grows from nothing."""
    assert Exponential(first_seconds=first, jitter=0).seconds(5000) == 0


@pytest.mark.parametrize("delays", [3, 3.0, [3], (3,), [3, 3.0]])
def test_one_delay(delays):
    """A number is the delay after every failure."""
    policy = RetryPolicy(max_deliveries=None, delays=delays)
    assert [policy.delay_after(failures) for failures in (1, 2, 50)] == [3, 3, 3]


def test_several_delays():
    """Of a sequence the last one counts for all further failures."""
    policy = RetryPolicy(max_deliveries=None, delays=[0, 1, 60])
    assert [policy.delay_after(failures) for failures in range(1, 6)] == [0, 1, 60, 60, 60]


def test_a_sequence_is_copied():
    """A list that is changed later changes nothing."""
    delays = [1, 2]
    policy = RetryPolicy(delays=delays)
    delays[0] = 99
    assert policy.delay_after(1) == 1


# --- Decisions ------------------------------------------------------------------------------


def test_the_last_delivery():
    """After max_deliveries failures there is no retry."""
    policy = RetryPolicy(max_deliveries=3, delays=1)
    assert [policy.delay_after(failures) for failures in (1, 2, 3, 4)] == [1, 1, None, None]
    assert RetryPolicy(max_deliveries=1).delay_after(1) is None


def test_for_ever():
    """max_deliveries=None retries without end."""
    assert RetryPolicy(max_deliveries=None, delays=1).delay_after(10**9) == 1


@pytest.mark.parametrize(
    ("kinds", "error", "is_retried"),
    [
        ((), OwnError(), True),
        ((ValueError,), OwnError(), False),
        ((OwnError,), ValueError(), True),
        ((LookupError, OwnError), OwnError(), False),
        ((BaseException,), KeyError(), False),
        ((ValueError,), None, True),
    ],
)
def test_errors_that_no_retry_mends(kinds, error, is_retried):
    """Classes in non_retryable count with the classes below them."""
    policy = RetryPolicy(non_retryable=kinds, delays=1)
    assert (policy.delay_after(1, error) is not None) is is_retried


def test_lost_deliveries():
    """A limit of their own, or none."""
    policy = RetryPolicy(max_lost_deliveries=2)
    assert [policy.gives_up_on_lost(lost) for lost in range(4)] == [False, False, True, True]
    assert not RetryPolicy(max_lost_deliveries=None).gives_up_on_lost(10**9)


def test_the_defaults():
    """What a user gets who decides nothing: the documented numbers."""
    policy = ConsumerOptions().retry
    assert (policy.max_deliveries, policy.max_lost_deliveries) == (5, 10)
    assert policy.delays == Exponential(1, 2, 300, 0.1)
    options = ConsumerOptions()
    assert (options.concurrency, options.prefetch, options.lease_seconds) == (1, 400, 30)
    assert (options.on_group_lost, options.grace_seconds) == ("replay", 30)


# --- What is refused ------------------------------------------------------------------------

NUMBERS = ["1", True, None, float("nan"), float("inf"), 1e10, [1], b"1"]


def refused(make, field, value):
    """One error, which names the field and shows the value or its type."""
    with pytest.raises(ConfigurationError, match=rf"^{field}\b") as caught:
        make(**{field: value})
    assert isinstance(caught.value, ValueError)
    plain = isinstance(value, (int, float, str, bytes, type(None)))
    assert (repr(value) if plain else type(value).__name__) in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *itertools.product(["first_seconds", "limit_seconds", "jitter"], [*NUMBERS, -0.1]),
        *itertools.product(["factor"], [*NUMBERS, 0.9]),
        ("jitter", 1.1),
    ],
)
def test_exponential_refuses(field, value):
    """Delays that are no numbers or make no sense."""
    refused(Exponential, field, value)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *itertools.product(["max_deliveries", "max_lost_deliveries"], [0, -1, 1.5, True, "5"]),
        *itertools.product(["delays"], ["5", -1, True, None, float("nan"), {1}, object()]),
    ],
)
def test_retry_policy_refuses(field, value):
    """Policies that make no sense."""
    refused(RetryPolicy, field, value)


@pytest.mark.parametrize("delays", [[], ()])
def test_no_delays_at_all(delays):
    """An empty sequence is not the way to say "at once"."""
    with pytest.raises(ConfigurationError, match="delays must not be empty: 0 retries at once"):
        RetryPolicy(delays=delays)


@pytest.mark.parametrize("delays", [[1, -1], [1, "1"], [None], [[1]]])
def test_a_delay_among_several(delays):
    """Each of several delays is checked."""
    with pytest.raises(ConfigurationError, match=r"^delays"):
        RetryPolicy(delays=delays)


@pytest.mark.parametrize(
    "kinds", [ValueError, (5,), ("ValueError",), (int,), (ValueError(),), 5, "ValueError", None]
)
def test_non_retryable_refuses(kinds):
    """It is a tuple of classes of exceptions, and the error says so."""
    with pytest.raises(ConfigurationError, match=r"^non_retryable must"):
        RetryPolicy(non_retryable=kinds)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *itertools.product(["concurrency", "prefetch", "prefetch_bytes"], [0, -1, 1.5, True, None]),
        *itertools.product(["lease_seconds"], [*NUMBERS, 0, 0.9, -1]),
        *itertools.product(["grace_seconds"], [*NUMBERS, -1]),
        *itertools.product(["stuck_seconds"], [*NUMBERS, 0]),
        *itertools.product(
            ["handler_timeout_seconds", "outage_limit_seconds", "foreign_idle_seconds"],
            [0, -1, "1", True, float("nan")],
        ),
        *itertools.product(["name", "dead_letter_stream"], ["", 5, b"x"]),
        *itertools.product(["retry"], [None, 5, "never", NO_JITTER]),
        *itertools.product(["on_group_lost"], ["", "Replay", None, 5, ["replay"]]),
    ],
)
def test_consumer_options_refuse(field, value):
    """Options that cannot work."""
    refused(ConsumerOptions, field, value)


def test_names_that_are_no_unicode():
    """A name with half a character cannot be sent."""
    with pytest.raises(ConfigurationError, match=r"^name is not valid Unicode"):
        ConsumerOptions(name="\udcff")


# --- Value objects --------------------------------------------------------------------------

VALUES = [Exponential(), RetryPolicy(), ConsumerOptions()]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_immutable(value):
    """They cannot be changed; evolve makes a changed copy, which is checked again."""
    field = attrs.fields(type(value))[0].name
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        setattr(value, field, 1)
    with pytest.raises(ConfigurationError):
        attrs.evolve(value, **{field: -1})


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_repr_and_equality(value):
    """They show all that they hold, and are equal if it is."""
    again = eval(repr(value), {kind.__name__: kind for kind in map(type, VALUES)})
    assert again == value
    assert hash(again) == hash(value)


def test_options_are_given_by_name():
    """Options come by name only, so that their order is free."""
    with pytest.raises(TypeError):
        ConsumerOptions("name")
