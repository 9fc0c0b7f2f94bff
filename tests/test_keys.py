"""Names of derived keys: beside their stream, in its Cluster slot."""

import itertools

import pytest
from redis.crc import key_slot

from step_redis import ConfigurationError
from step_redis.keys import GroupKeys, dead_letter_stream, derived_key, redrive_group, same_slot

NAMES = [
    *("orders", "app:eu:orders", "app:{eu}:orders", "{orders}"),
    *("{a}{b}", "Größe", "a b", "x}{y}"),
]


@pytest.mark.parametrize(
    ("stream", "dead"),
    [
        ("orders", "{orders}.dead"),
        ("app:eu:orders", "{app:eu:orders}.dead"),
        ("app:{eu}:orders", "app:{eu}:orders.dead"),
        ("{orders}", "{orders}.dead"),
        ("{a}{b}", "{a}{b}.dead"),
        ("x}{y}", "x}{y}.dead"),
    ],
)
def test_dead_letter_stream(stream, dead):
    """A name without a hash tag becomes one; a name with one keeps it."""
    assert dead_letter_stream(stream) == dead


@pytest.mark.parametrize("stream", NAMES)
def test_every_derived_key_shares_the_slot(stream):
    """Keys beside a stream lie in its slot, whatever the group is called."""
    for group in ("g", "{g}", "}", "{", "a b", "ü"):
        keys = GroupKeys.of(stream, group)
        names = [keys.stream, keys.leases, keys.due, keys.attempts, keys.checkpoint]
        assert keys.stream == stream
        assert len(set(names)) == 5
        assert all(same_slot(stream, name) for name in names)
    assert same_slot(stream, dead_letter_stream(stream))
    assert same_slot(stream, derived_key(dead_letter_stream(stream), "due:g"))


@pytest.mark.parametrize("stream", ["a{b", "a}b", "{}", "a{}b", "{", "}", "{}{a}", "{}a}", "a}b{"])
def test_braces_that_are_no_hash_tag(stream):
    """A name beside which no key can share the slot is refused, and what would do is said."""
    with pytest.raises(ConfigurationError, match="braces that are no hash tag") as caught:
        derived_key(stream, "dead")
    assert repr(stream) in str(caught.value)
    assert "app:{tag}:name" in str(caught.value)


def test_slots_of_the_specification():
    """The slots are those that the Cluster specification gives."""
    assert key_slot(b"123456789") == 0x31C3
    assert same_slot("{user1000}.following", "{user1000}.followers")
    assert same_slot("foo{{bar}}zap", "{bar")
    assert same_slot("foo{bar}{zap}", "bar")
    assert not same_slot("orders", "orders.dead")


def test_groups_for_redriving():
    """Each pair of stream and group has one of its own, and no two share one."""
    pairs = [*itertools.product(["a", "b@a", "a@b", "%40"], ["g", "g@a", "@", "%40", "a b", "ü"])]
    names = {redrive_group(stream, group) for stream, group in pairs}
    assert len(names) == len(pairs)
    assert all(name.startswith("_step:redrive:") for name in names)
