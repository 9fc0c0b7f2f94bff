"""A consumer's membership without a server: names, the lease by its own clock, what it concludes.

That its conclusions are true of a real server, whatever goes wrong, is shown by `model/`.
"""

import pytest

from step_redis.lease import Attempt, Member, Outcome
from step_redis.messages import Delivery

LEASE = 10
FINAL, PARK = Attempt.FINAL, Attempt.PARK
SETTLED, LOST, UNKNOWN = Outcome.SETTLED, Outcome.LOST, Outcome.UNKNOWN


def delivery(number=1, count=1):
    return Delivery(f"{number}-0", [], count)


@pytest.fixture
def member():
    """A member that joined at 0 as `n1`."""
    member = Member("base", LEASE)
    assert member.joined("n1", 0, 0, []) == []
    return member


@pytest.fixture
def held(member):
    """A message that it holds."""
    [held] = member.read("n1", [delivery()], 1)
    return held


def test_names_are_never_used_twice(member):
    """A fresh name is the base and a token of its own."""
    names = {member.fresh_name() for _ in range(1000)}
    assert len(names) == 1000
    assert all(name.startswith("base~") and len(name) == len("base~") + 16 for name in names)


def test_the_lease_counts_from_when_the_renewal_was_sent(member):
    """However late the reply, the lease ends before the server's."""
    member.renewed("n1", 5)
    assert member.is_alive(14.9)
    assert member.accepts("n1", 14.9)
    assert not member.is_alive(15)
    assert not member.accepts("n1", 15)
    assert member.has_expired(15)


def test_a_renewal_under_an_old_name_does_not_count(member):
    """What an old name was granted ended with it."""
    member.broke("n1")
    member.renewed("n1", 5)
    assert not member.is_alive(LEASE)


def test_without_a_lease_nothing_can_expire():
    """Before it joined, and after it lost its lease, a member has none to lose."""
    member = Member("base", LEASE)
    assert not member.has_expired(100)
    assert not member.is_alive(0)


def test_a_late_reply_to_joining_is_no_lease(member):
    """If the lease is over when the reply comes, it was never one."""
    member.lose()
    assert member.joined("n2", 0, LEASE, []) == []
    assert (member.name, member.is_alive(LEASE)) == (None, False)


def test_reads_bring_messages(member, held):
    """What is read is held, and nothing is known of how it will end."""
    assert member.held == {"1-0": held}
    assert (held.attempt, held.outcome, held.started_at) == (None, None, None)


@pytest.mark.parametrize("method", ["read", "took"])
def test_replies_under_an_old_name_do_not_count(member, method):
    """The move to the fresh name brings what such a reply says, or shows that it is not so."""
    member.broke("n1")
    assert getattr(member, method)("n1", [delivery()], 1) == []
    assert member.held == {}


@pytest.mark.parametrize("method", ["read", "took"])
def test_replies_after_the_end_of_the_lease_end_it(member, method):
    """They are pending with a name that must not be renewed any more: nobody would handle them."""
    assert getattr(member, method)("n1", [delivery()], LEASE) is None
    member.renewed("n1", 9)
    assert member.name is None
    assert not member.is_alive(11)


@pytest.mark.parametrize("method", ["read", "took"])
def test_an_id_that_is_held_tells_of_another_group(member, held, method):
    """Then what is held belongs to a group that is no more."""
    assert getattr(member, method)("n1", [delivery(1), delivery(2)], 2) is None
    assert held.outcome is LOST
    assert (member.held, member.name) == ({}, None)


def test_what_was_put_aside_may_come_back_before_the_reply(member, held):
    """It is due at once and was taken again: the reply to putting it aside is still to come."""
    held.attempt = PARK
    [again] = member.took("n1", [delivery(count=2)], 2)
    assert held.outcome is SETTLED
    member.settled(held)
    assert member.held == {"1-0": again}
    assert again.outcome is None


@pytest.mark.parametrize(("attempt", "outcome"), [(None, LOST), (FINAL, UNKNOWN), (PARK, UNKNOWN)])
def test_losing_the_lease(member, held, attempt, outcome):
    """What was not attempted is lost; what was may have been carried out."""
    held.attempt = attempt
    member.lose()
    assert (held.outcome, member.held, member.name) == (outcome, {}, None)


@pytest.mark.parametrize("attempt", [FINAL, PARK])
def test_what_is_not_moved_was_settled(member, held, attempt):
    """After a lost reply, the move shows that the attempt took effect."""
    held.attempt = attempt
    member.broke("n1")
    assert member.joined("n2", 2, 3, []) == []
    assert (held.outcome, member.held, member.name) == (SETTLED, {}, "n2")


@pytest.mark.parametrize("attempt", [None, FINAL, PARK])
def test_what_is_moved_is_held_as_before(member, held, attempt):
    """The attempt did not take effect, and may be made again."""
    held.attempt = attempt
    member.broke("n1")
    assert member.joined("n2", 2, 3, [delivery()]) == []
    assert (held.outcome, held.attempt, member.held) == (None, None, {"1-0": held})


def test_what_is_moved_and_not_known_was_not_seen_before(member, held):
    """The reply that was lost had brought it."""
    member.broke("n1")
    [new] = member.joined("n2", 2, 3, [delivery(1), delivery(2)])
    assert new.id == "2-0"
    assert member.held == {"1-0": held, "2-0": new}


def test_what_was_neither_moved_nor_attempted_is_lost(member, held):
    """Somebody else deleted or took it."""
    member.broke("n1")
    member.joined("n2", 2, 3, [])
    assert held.outcome is LOST


@pytest.mark.parametrize(("attempt", "outcome"), [(PARK, SETTLED), (FINAL, LOST), (None, LOST)])
def test_what_is_moved_with_another_count_is_another_delivery(member, held, attempt, outcome):
    """It was put aside and taken again, both without a reply."""
    held.attempt = attempt
    member.broke("n1")
    [new] = member.joined("n2", 2, 3, [delivery(count=2)])
    assert held.outcome is outcome
    assert member.held == {"1-0": new}


def test_a_confirmation_from_before_the_move_comes_too_late(member, held):
    """It was handed back and taken again, as if it had never been delivered; so it is held."""
    held.attempt = PARK
    member.broke("n1")
    member.joined("n2", 2, 3, [delivery()])
    member.settled(held)
    assert (held.outcome, member.held) == (None, {"1-0": held})


def test_a_confirmation_before_the_move_counts(member, held):
    """A reply under an old name is as true as any."""
    held.attempt = FINAL
    member.broke("n1")
    member.settled(held)
    assert (held.outcome, member.held) == (SETTLED, {})


def test_lost_joins_are_moved_from_too(member):
    """They may have taken effect; so each attempt names all before it."""
    member.broke("n1")
    member.join_was_lost("n2")
    member.join_was_lost("n3")
    assert member.old_names == ["n1", "n2", "n3"]
    member.joined("n4", 2, 3, [])
    assert (member.name, member.old_names) == ("n4", [])


def test_a_first_join_that_is_lost_leaves_nothing():
    """Its name holds nothing, and its lease ends by itself."""
    member = Member("base", LEASE)
    member.join_was_lost("n1")
    assert member.old_names == []


def test_the_old_lease_lives_until_it_moved(member, held):
    """Between names a message may be handled; nothing can be sent."""
    member.broke("n1")
    assert member.is_alive(5)
    assert not member.accepts("n1", 5)
    assert not member.is_alive(LEASE)
    assert member.has_expired(LEASE)


def test_a_move_that_comes_after_all_was_given_up(member, held):
    """What it moved would be handled twice; nobody renews that lease, so others get it."""
    member.broke("n1")
    member.lose()
    assert member.joined("n2", 9, 11, [delivery()]) == []
    assert (member.name, member.held) == (None, {})


def test_a_message_that_was_taken(member, held):
    """It was not pending with this consumer any more."""
    held.attempt = FINAL
    member.was_taken(held)
    assert (held.outcome, member.held) == (LOST, {})


def test_only_the_first_conclusion_counts(member, held):
    """A late reply does not change what was concluded, and touches no later delivery."""
    held.attempt = FINAL
    member.lose()
    member.joined("n2", 2, 3, [])
    [later] = member.read("n2", [delivery()], 4)
    member.settled(held)
    assert held.outcome is UNKNOWN
    assert member.held == {"1-0": later}
