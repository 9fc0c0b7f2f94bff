"""Derived keys lie in the Cluster slot of their stream."""

import pytest
from redis.crc import key_slot

from step_redis import ConfigurationError
from step_redis.keys import (
    GroupKeys,
    dead_letter_stream,
    derived_key,
    redrive_group,
    same_slot,
)


@pytest.mark.parametrize(
    ("stream", "dead"),
    [
        ("orders", "{orders}.dead"),
        ("app:{eu}:orders", "app:{eu}:orders.dead"),
        ("{eu}", "{eu}.dead"),
        ("{a}{b", "{a}{b.dead"),
        ("}{a}x{", "}{a}x{.dead"),
        ("größe", "{größe}.dead"),
    ],
)
def test_a_derived_key_lies_in_the_slot_of_its_stream(stream, dead):
    """A plain name becomes the hash tag, a hash tag is kept."""
    assert dead_letter_stream(stream) == dead
    assert key_slot(stream.encode()) == key_slot(dead.encode())
    assert same_slot(stream, dead)


@pytest.mark.parametrize("stream", ["a{}b", "a{b", "a}b", "{}", "{}{b}"])
def test_braces_that_are_no_hash_tag_are_refused(stream):
    """No key beside such a stream can share its slot: the error says which name could."""
    with pytest.raises(ConfigurationError, match=r"\{tag\}") as failure:
        derived_key(stream, "dead")
    assert repr(stream) in str(failure.value)


def test_keys_of_a_group():
    """Each group has records of its own, all in the slot."""
    keys = GroupKeys.of("orders", "billing")
    assert keys.group == (
        "orders",
        "{orders}.leases:billing",
        "{orders}.due:billing",
        "{orders}.attempts:billing",
    )
    assert keys.checkpoint == "{orders}.checkpoint:billing"
    assert all(same_slot("orders", key) for key in (*keys.group, keys.checkpoint))
    weird = GroupKeys.of("orders", "a{b}c")
    assert all(same_slot("orders", key) for key in (*weird.group, weird.checkpoint))


def test_redrive_groups_are_told_apart():
    """No two groups of streams share one, whatever is in their names."""
    pairs = [("b@c", "a"), ("c", "a@b"), ("c", "a%40b"), ("a", "b"), ("b", "a")]
    assert len({redrive_group(stream, group) for stream, group in pairs}) == len(pairs)


def test_other_slots():
    """Names without a common tag lie in different slots."""
    assert not same_slot("orders", "orders.dead")
