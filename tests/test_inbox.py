"""What one consumer received: handed over once, found again after a lost read, never forgotten."""

import sys
import threading

import attrs
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
)

from step_redis.codec import Codec
from step_redis.commands import Pending, entry_id
from step_redis.inbox import Inbox
from step_redis.messages import Delivery, received_messages


def messages(**counts):
    """Return messages as they are handed over, by id with their delivery counts."""
    deliveries = [Delivery(id_, [b"n", id_.encode()], count) for id_, count in counts.items()]
    return received_messages("orders", deliveries, Codec())


def deliveries(*numbers, count=1):
    return messages(**{f"{number}-0": count for number in numbers})


def pending(*numbers):
    return [Pending(f"{number}-0", 1) for number in numbers]


def ids(*numbers):
    return [f"{number}-0" for number in numbers]


def held(inbox):
    return [int(delivery["id"].removesuffix("-0")) for delivery in inbox.peek(1_000_000)]


def hand_over(inbox, count=1_000_000):
    batch = inbox.peek(count)
    inbox.drop(batch)
    return [int(delivery["id"].removesuffix("-0")) for delivery in batch]


def unseen(inbox, *numbers):
    return [int(message.id.removesuffix("-0")) for message in inbox.unseen(pending(*numbers))]


def read(inbox, *numbers):
    inbox.read_sent(0)
    inbox.arrived(deliveries(*numbers))


@pytest.fixture
def inbox():
    return Inbox()


# --- Handing over ---------------------------------------------------------------------------


def test_at_first_there_is_nothing(inbox):
    """A new consumer has received nothing and lost nothing."""
    assert not inbox.ready
    assert inbox.peek(10) == []
    assert inbox.lost_after is None


def test_what_arrived_is_handed_over_in_order(inbox):
    """Messages wait in the order in which they came, as they came."""
    read(inbox, 1, 2)
    read(inbox, 3)
    assert inbox.ready
    assert inbox.peek(2) == deliveries(1, 2)
    assert hand_over(inbox) == [1, 2, 3]
    assert not inbox.ready


def test_looking_takes_nothing(inbox):
    """Only what is dropped is gone, and only so much of it."""
    read(inbox, 1, 2, 3)
    assert inbox.peek(2) == inbox.peek(2)
    assert hand_over(inbox, 2) == [1, 2]
    assert held(inbox) == [3]


def test_an_empty_reply_changes_nothing(inbox):
    """A read that ends without messages leaves what is there."""
    read(inbox, 1)
    read(inbox)
    assert held(inbox) == [1]


def test_what_was_not_handed_over_is_put_back_in_front(inbox):
    """An interrupted call leaves its messages to the next, before those that came later."""
    read(inbox, 1, 2, 3)
    batch = inbox.peek(2)
    inbox.drop(batch)
    read(inbox, 4)
    inbox.put_back(batch)
    assert hand_over(inbox) == [1, 2, 3, 4]


@pytest.mark.parametrize("dropped", [True, False])
@pytest.mark.parametrize("times", [1, 2])
def test_putting_back_is_idempotent(inbox, dropped, times):
    """The call may be interrupted before the drop or after it, and even twice."""
    read(inbox, 1, 2, 3)
    batch = inbox.peek(2)
    if dropped:
        inbox.drop(batch)
    for _ in range(times):
        inbox.put_back(batch)
    assert hand_over(inbox) == [1, 2, 3]


def test_putting_back_nothing_changes_nothing(inbox):
    """A call that had nothing puts nothing back."""
    read(inbox, 1)
    inbox.put_back([])
    assert held(inbox) == [1]


# --- Handed over elsewhere ------------------------------------------------------------------


def test_what_another_call_handed_over_is_not_handed_over_again(inbox):
    """``receive_pending`` may return what waits here."""
    read(inbox, 1, 2, 3)
    inbox.handed_elsewhere(ids(2))
    assert hand_over(inbox) == [1, 3]


def test_what_another_call_handed_over_meanwhile_is_taken_out_of_the_reply(inbox):
    """The server delivered it before the other call asked; the reply was still on its way."""
    inbox.read_sent(0)
    inbox.handed_elsewhere(ids(2))
    inbox.arrived(deliveries(1, 2, 3))
    assert hand_over(inbox) == [1, 3]


def test_what_was_handed_over_before_a_read_can_come_again(inbox):
    """Once the reply is in, an id that comes again was delivered again."""
    inbox.read_sent(0)
    inbox.handed_elsewhere(ids(2))
    inbox.arrived([])
    read(inbox, 2)
    assert hand_over(inbox) == [2]


def test_handing_over_elsewhere_between_peek_and_drop_loses_nothing(inbox):
    """Threads do not wait for each other: what is dropped is what was looked at."""
    read(inbox, 1, 2, 3)
    batch = inbox.peek(2)
    inbox.handed_elsewhere(ids(1))
    inbox.drop(batch)
    assert hand_over(inbox) == [3]


def test_any_ids_may_be_handed_over_elsewhere(inbox):
    """Ids from a generator, ids of other consumers, and none at all."""
    inbox.handed_elsewhere(f"{number}-0" for number in (5, 3))
    inbox.handed_elsewhere([])
    read(inbox, 6)
    assert hand_over(inbox) == [6]


def test_a_consumer_that_never_reads_remembers_nothing(inbox):
    """A program that only takes over by idle time can do so for years."""
    for number in range(1, 2001):
        inbox.handed_elsewhere(ids(number))
    assert len(repr(attrs.astuple(inbox))) < 1000


def test_a_consumer_that_reads_remembers_only_what_it_holds(inbox):
    """What was handed over is not remembered."""
    for number in range(1, 2001):
        read(inbox, number)
        inbox.handed_elsewhere(ids(number))
        hand_over(inbox)
    inbox.read_sent(0)
    assert len(repr(attrs.astuple(inbox))) < 1000


# --- Lost reads -----------------------------------------------------------------------------


def test_after_a_lost_read_messages_may_be_above_what_was_received_when_it_was_sent(inbox):
    """A group gives out rising ids: what a lost read took is above all that came before it."""
    read(inbox, 1, 7)
    inbox.read_sent(2)
    inbox.read_lost()
    assert inbox.lost_after == (7, 0)


def test_the_first_read_may_lose_everything(inbox):
    """Where nothing was received, everything pending may have been taken."""
    inbox.read_sent(0)
    inbox.read_lost()
    assert inbox.lost_after == (0, 0)


def test_ids_compare_as_numbers(inbox):
    """10-9 comes after 9-10."""
    inbox.read_sent(0)
    inbox.arrived(messages(**{"9-10": 1, "10-9": 1}))
    inbox.read_sent(0)
    inbox.read_lost()
    assert inbox.lost_after == (10, 9)


def test_what_another_call_handed_over_meanwhile_does_not_hide_what_was_lost(inbox):
    """A read may have taken less than another call handed over while it was under way."""
    read(inbox, 1)
    inbox.read_sent(2)
    inbox.handed_elsewhere(ids(5))
    inbox.read_lost()
    assert inbox.lost_after == (1, 0)
    assert unseen(inbox, 3, 5) == [3]


def test_what_another_call_handed_over_before_is_not_looked_for(inbox):
    """The group had delivered it before the lost read was sent: the read cannot have taken it."""
    inbox.handed_elsewhere(ids(9, 8))
    inbox.read_sent(2)
    inbox.read_lost()
    assert inbox.lost_after == (9, 0)


def test_what_was_received_since_is_not_unseen(inbox):
    """Of the pending messages, only those that never came were taken by the lost read."""
    read(inbox, 1)
    inbox.read_sent(2)
    inbox.read_lost()
    read(inbox, 3)
    inbox.handed_elsewhere(ids(4))
    assert unseen(inbox, 2, 3, 4, 5) == [2, 5]


def test_what_arrives_with_the_next_read_of_the_same_id_is_recovered_once(inbox):
    """What was fetched is handed over once, with the count that the server gives it."""
    inbox.read_sent(2)
    inbox.read_lost()
    fetched = deliveries(1, 2, count=4)
    inbox.recovered(fetched)
    inbox.recovered(fetched)
    assert unseen(inbox, 1, 2, 3) == [3]
    assert inbox.peek(10) == fetched


def test_what_was_handed_over_while_it_was_fetched_is_left_out(inbox):
    """Another call may return it between looking and fetching."""
    inbox.read_sent(2)
    inbox.read_lost()
    assert unseen(inbox, 1, 2) == [1, 2]
    inbox.handed_elsewhere(ids(1))
    inbox.recovered(deliveries(1, 2))
    assert hand_over(inbox) == [2]


def test_several_lost_reads_are_looked_for_from_the_oldest(inbox):
    """The window begins where the first lost read began."""
    read(inbox, 1)
    inbox.read_sent(2)
    inbox.read_lost()
    read(inbox, 5)
    inbox.read_sent(0)
    inbox.read_lost()
    assert inbox.lost_after == (1, 0)
    assert unseen(inbox, 2, 5, 6) == [2, 6]


def test_a_lost_read_is_over_when_it_must_have_ended_on_the_server(inbox):
    """It ends its BLOCK and a second after the server was first seen alive."""
    inbox.read_sent(block_seconds=2)
    inbox.read_lost()
    inbox.searched(asked_at=100.0, answered_at=100.5)
    inbox.searched(asked_at=103.4, answered_at=103.6)
    assert inbox.lost_after == (0, 0)
    inbox.searched(asked_at=103.5, answered_at=103.6)
    assert inbox.lost_after is None


def test_a_search_that_was_asked_too_early_proves_nothing(inbox):
    """However late the answer came, the read may have taken messages after the question."""
    inbox.read_sent(block_seconds=2)
    inbox.read_lost()
    inbox.searched(asked_at=100.0, answered_at=100.5)
    inbox.searched(asked_at=100.6, answered_at=500.0)
    assert inbox.lost_after == (0, 0)


def test_one_search_is_never_enough(inbox):
    """Before the first answer the server may have been paused, and the read with it."""
    inbox.read_sent(block_seconds=0)
    inbox.read_lost()
    inbox.searched(asked_at=1_000_000.0, answered_at=1_000_000.5)
    assert inbox.lost_after == (0, 0)


def test_another_lost_read_starts_the_wait_anew(inbox):
    """The new one has its own BLOCK, and the longest of them counts."""
    inbox.read_sent(block_seconds=2)
    inbox.read_lost()
    inbox.searched(asked_at=100.0, answered_at=100.0)
    inbox.read_sent(block_seconds=0.1)
    inbox.read_lost()
    inbox.searched(asked_at=104.0, answered_at=104.0)
    inbox.searched(asked_at=106.9, answered_at=106.9)
    assert inbox.lost_after == (0, 0)
    inbox.searched(asked_at=107.0, answered_at=107.0)
    assert inbox.lost_after is None


def test_searching_without_a_lost_read_does_nothing(inbox):
    """Whoever looks without need finds all as it was."""
    inbox.searched(asked_at=1.0, answered_at=1.0)
    assert inbox.lost_after is None


def test_a_read_that_was_refused_took_nothing(inbox):
    """An error reply, or no connection, is no lost read: nothing has to be looked for."""
    read(inbox, 1)
    inbox.read_sent(0)
    inbox.read_refused()
    assert inbox.lost_after is None
    assert hand_over(inbox) == [1]


def test_a_refused_read_does_not_end_the_search_for_a_lost_one(inbox):
    """What was lost before is still to be found."""
    read(inbox, 1)
    inbox.read_sent(2)
    inbox.read_lost()
    read(inbox, 3)
    inbox.read_sent(0)
    inbox.read_refused()
    assert inbox.lost_after == (1, 0)
    assert unseen(inbox, 2, 3) == [2]


@pytest.mark.parametrize("end", [lambda inbox: inbox.arrived([]), Inbox.read_refused])
def test_a_consumer_whose_read_has_ended_remembers_nothing(inbox, end):
    """Ids handed over elsewhere matter only while a read may bring them again."""
    inbox.read_sent(0)
    end(inbox)
    for number in range(1, 2001):
        inbox.handed_elsewhere(ids(number))
    assert len(repr(attrs.astuple(inbox))) < 1000


def test_what_waits_survives_a_lost_read(inbox):
    """Losing a read loses nothing that was received."""
    read(inbox, 1)
    inbox.read_sent(2)
    inbox.read_lost()
    assert hand_over(inbox) == [1]


# --- Groups that change ---------------------------------------------------------------------


def test_a_group_that_was_set_back_delivers_again(inbox):
    """Ids at or below what was received before mean that the group begins anew."""
    read(inbox, 1, 2, 3)
    hand_over(inbox)
    read(inbox, 1, 2)
    read(inbox, 3)
    assert hand_over(inbox) == [1, 2, 3]


def test_a_group_that_was_set_back_is_not_filtered(inbox):
    """What another call handed over belongs to the group as it was."""
    read(inbox, 1, 2, 3)
    hand_over(inbox)
    inbox.read_sent(0)
    inbox.handed_elsewhere(ids(2))
    inbox.arrived(deliveries(1, 2, 3))
    assert hand_over(inbox) == [1, 2, 3]


def test_after_a_group_was_set_back_lost_reads_are_looked_for_from_there(inbox):
    """The highest id received counts from the point to which the group was set."""
    read(inbox, 1, 2, 3)
    read(inbox, 1)
    inbox.read_sent(0)
    inbox.read_lost()
    assert inbox.lost_after == (1, 0)


def test_what_waited_when_a_group_was_set_back_does_not_hide_what_is_lost_later(inbox):
    """Handing over older messages says nothing of where the group is."""
    read(inbox, 1, 2, 3)
    read(inbox, 1)
    hand_over(inbox)
    inbox.read_sent(0)
    inbox.read_lost()
    assert inbox.lost_after == (1, 0)


def test_a_lost_read_of_a_group_that_was_set_back_may_have_taken_low_ids(inbox):
    """The group may have been set back before the lost read took its messages."""
    read(inbox, 1, 2, 3)
    hand_over(inbox)
    inbox.read_sent(2)
    inbox.read_lost()
    read(inbox, 2, 3)
    assert inbox.lost_after == (0, 0)
    assert unseen(inbox, 1, 2, 3) == [1]


def test_a_group_that_is_gone_has_nothing_pending(inbox):
    """Nothing is looked for in it; what was received is still handed over."""
    read(inbox, 7, 8)
    inbox.read_sent(2)
    inbox.read_lost()
    inbox.group_is_gone()
    assert hand_over(inbox) == [7, 8]


def test_a_new_group_may_give_out_any_ids(inbox):
    """After a group is gone, its successor may begin with lower ids."""
    read(inbox, 7)
    hand_over(inbox)
    inbox.handed_elsewhere(ids(9))
    inbox.group_is_gone()
    read(inbox, 1, 7, 9)
    assert hand_over(inbox) == [1, 7, 9]
    inbox.read_sent(0)
    inbox.read_lost()
    assert inbox.lost_after == (9, 0)


# --- A model of the server ------------------------------------------------------------------


@attrs.define
class Read:
    """A read on its way: sent, perhaps waiting on the server, perhaps answered."""

    block: float
    count: int
    ends_at: float | None = None
    """When it stops waiting; None while the server has not answered anything since."""
    reply: list[str] | None = None


class ReaderModel(RuleBasedStateMachine):
    """A group on a server, and one consumer of it that loses replies.

    The server gives out ids in rising order: to this consumer's read, to reads of it whose
    connection broke and which still wait there, and to other consumers. The consumer calls the
    inbox in the order in which the reader does. Time passes only when a rule says so.
    """

    other_calls = False

    def __init__(self):
        super().__init__()
        self.inbox = Inbox()
        self.now = 1000.0
        self.last_added = 0
        self.undelivered = []
        self.pending = []
        self.pending_of_others = []
        self.deleted = set()
        self.handed = []
        self.interrupted = []
        self.read = None
        self.lost = []
        self.search = None
        self.asked_elsewhere = None

    # The server.

    @precondition(lambda self: len(self.undelivered) < 5)
    @rule(number=st.integers(1, 4), gap=st.integers(1, 3))
    def publish(self, number, gap):
        for _ in range(number):
            self.last_added += gap
            self.undelivered.append(f"{self.last_added}-0")

    @precondition(lambda self: self.undelivered)
    @rule(number=st.integers(1, 3))
    def another_consumer_reads(self, number):
        taken, self.undelivered = self.undelivered[:number], self.undelivered[number:]
        self.pending_of_others += taken

    def deliver(self, count):
        taken, self.undelivered = self.undelivered[:count], self.undelivered[count:]
        self.pending += taken
        return taken

    @precondition(lambda self: self.pending)
    @rule(data=st.data())
    def an_entry_is_deleted(self, data):
        self.deleted.add(data.draw(st.sampled_from(self.pending)))

    def alive(self):
        """The server answers: reads that wait there began to, or will in less than a second."""
        for read_ in self.lost:
            if read_.ends_at is None:
                read_.ends_at = self.now + read_.block + 0.9

    @precondition(lambda self: self.inbox.lost_after is not None)
    @rule(seconds=st.sampled_from([0.5, 1.0, 2.0, 3.5]))
    def time_passes(self, seconds):
        self.now += seconds
        self.lost = [one for one in self.lost if one.ends_at is None or one.ends_at > self.now]

    # The reader.

    @precondition(lambda self: self.read is None and self.search is None)
    @rule(block=st.sampled_from([0, 0.1, 2.0]), count=st.integers(1, 3))
    def send_a_read(self, block, count):
        self.inbox.read_sent(block)
        self.read = Read(block, count)

    @precondition(lambda self: self.read is not None and self.read.reply is None)
    @rule()
    def the_server_answers_the_read(self):
        self.read.reply = self.deliver(self.read.count)

    @precondition(lambda self: self.read is not None and self.read.reply is not None)
    @rule()
    def the_reply_arrives(self):
        self.alive()
        self.inbox.arrived(messages(**dict.fromkeys(self.read.reply, 1)))
        self.read = None

    @precondition(lambda self: self.read is not None and self.read.reply is None)
    @rule()
    def the_read_is_refused(self):
        self.inbox.read_refused()
        self.read = None

    @precondition(lambda self: self.read is not None)
    @rule(sent=st.booleans())
    def the_connection_breaks(self, sent):
        self.inbox.read_lost()
        if sent and self.read.reply is None:
            self.lost.append(self.read)
        self.read = None

    @precondition(lambda self: self.lost and self.undelivered)
    @rule(data=st.data())
    def a_lost_read_takes_messages(self, data):
        read_ = data.draw(st.sampled_from(self.lost))
        self.deliver(read_.count)
        self.lost.remove(read_)

    @precondition(lambda self: self.read is None and self.search is None)
    @precondition(lambda self: self.inbox.lost_after is not None and not self.inbox.ready)
    @rule()
    def ask_what_is_pending(self):
        after = self.inbox.lost_after
        above = sorted((id_ for id_ in self.pending if entry_id(id_) > after), key=entry_id)
        found = [Pending(id_, 1) for id_ in above]
        self.search = (self.now, found)

    @precondition(lambda self: self.search is not None)
    @rule()
    def learn_what_is_pending(self):
        asked_at, found = self.search
        self.search = None
        self.alive()
        missing = self.inbox.unseen(found)
        self.inbox.recovered(
            messages(**{one.id: one.count for one in missing if one.id not in self.deleted})
        )
        for one in missing:
            if one.id in self.deleted and one.id in self.pending:
                self.pending.remove(one.id)
        if not self.inbox.ready:
            self.inbox.searched(asked_at, self.now)

    @precondition(lambda self: self.inbox.ready)
    @rule(count=st.integers(1, 3), how=st.sampled_from(["whole", "whole", "before", "after"]))
    def hand_over(self, count, how):
        batch = self.inbox.peek(count)
        if how != "before":
            self.inbox.drop(batch)
        if how == "whole":
            self.handed += [delivery["id"] for delivery in batch]
        else:
            self.inbox.put_back(batch)

    @precondition(lambda self: any(id_ in self.pending for id_ in self.handed))
    @rule(data=st.data())
    def acknowledge(self, data):
        mine = [id_ for id_ in self.pending if id_ in self.handed]
        self.pending.remove(data.draw(st.sampled_from(mine)))

    # What must hold at any time.

    def accounted_for(self, id_):
        waiting = [delivery["id"] for delivery in self.inbox.peek(1_000_000)]
        on_its_way = [*((self.read and self.read.reply) or ()), *(self.asked_elsewhere or ())]
        if id_ in self.handed or id_ in waiting or id_ in on_its_way:
            return True
        after = self.inbox.lost_after
        return (
            after is not None
            and entry_id(id_) > after
            and bool(self.inbox.unseen([Pending(id_, 1)]))
        )

    @invariant()
    def nothing_is_lost(self):
        forgotten = [id_ for id_ in self.pending if not self.accounted_for(id_)]
        assert not forgotten

    @invariant()
    def lost_reads_are_looked_for(self):
        assert not self.lost or self.inbox.lost_after is not None

    @invariant()
    def nothing_is_handed_over_twice(self):
        waiting = [delivery["id"] for delivery in self.inbox.peek(1_000_000)]
        everything = waiting if self.other_calls else self.handed + waiting
        assert len(set(everything)) == len(everything)

    def teardown(self):
        """Once the connection holds, everything pending is handed over and the search ends."""
        if self.asked_elsewhere is not None:
            self.inbox.handed_elsewhere(self.asked_elsewhere)
            self.handed += self.asked_elsewhere
        if self.search is not None:
            self.learn_what_is_pending()
        if self.read is not None:
            self.read.reply = self.read.reply or []
            self.the_reply_arrives()
        for _ in range(100):
            self.hand_over(1_000_000, "whole")
            if self.inbox.lost_after is None:
                break
            self.ask_what_is_pending()
            self.learn_what_is_pending()
            self.time_passes(1.0)
        assert self.inbox.lost_after is None
        assert set(self.pending) <= set(self.handed)


class ReaderModelWithOtherCalls(ReaderModel):
    """The same, while other calls of the program return this consumer's pending messages."""

    other_calls = True

    @precondition(lambda self: self.asked_elsewhere is None and self.pending)
    @rule(count=st.integers(1, 3), data=st.data())
    def ask_for_pending_messages(self, count, data):
        start = data.draw(st.integers(0, len(self.pending) - 1))
        self.asked_elsewhere = self.pending[start : start + count]

    @precondition(lambda self: self.asked_elsewhere is not None)
    @rule()
    def get_pending_messages(self):
        self.alive()
        self.inbox.handed_elsewhere(self.asked_elsewhere)
        self.handed += self.asked_elsewhere
        self.asked_elsewhere = None

    @precondition(lambda self: self.asked_elsewhere is None and self.pending_of_others)
    @rule(data=st.data())
    def claim_from_another_consumer(self, data):
        claimed = data.draw(st.sampled_from(self.pending_of_others))
        self.pending_of_others.remove(claimed)
        self.pending.append(claimed)
        self.asked_elsewhere = [claimed]


class TestNothingIsLost(ReaderModel.TestCase):
    """Every message is handed over exactly once, whatever breaks."""

    settings = settings(max_examples=200, stateful_step_count=50, deadline=None)


class TestNothingIsLostBesideOtherCalls(ReaderModelWithOtherCalls.TestCase):
    """Every message is handed over at least once, whatever breaks and whoever else reads."""

    settings = settings(max_examples=200, stateful_step_count=50, deadline=None)


def test_a_read_whose_end_was_not_noted_is_lost(inbox):
    """An interrupt may strike before anything can be noted: then the read counts as lost."""
    inbox.read_sent(2)
    inbox.read_lost()
    assert inbox.lost_after == (0, 0)


def test_a_read_whose_end_was_noted_is_not_lost(inbox):
    """Looking for lost reads after each read finds none that was answered or refused."""
    read(inbox, 1)
    inbox.read_lost()
    inbox.read_sent(2)
    inbox.read_refused()
    inbox.read_lost()
    assert inbox.lost_after is None


def test_threads_change_an_inbox_one_at_a_time(inbox):
    """Calls past the reader's turn and the reader itself lose nothing to each other."""
    over = threading.Event()

    def hand_over_elsewhere():
        while not over.is_set():
            inbox.handed_elsewhere(["1-0"])

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    other = threading.Thread(target=hand_over_elsewhere)
    other.start()
    try:
        got = []
        for number in range(2, 5000, 2):
            read(inbox, number, number + 1)
            got += hand_over(inbox, 1) + hand_over(inbox, 1)
    finally:
        over.set()
        other.join()
        sys.setswitchinterval(before)
    assert got == list(range(2, 5000))
