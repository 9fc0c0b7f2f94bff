"""What processes note beside what users see: what a consumer holds, until when, what is sent.

It looks at the part of the library without I/O, which both flavours share, and changes nothing.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from step_redis import script_calls
from step_redis.deadline import lease_now
from step_redis.keys import GroupKeys
from step_redis.lease import Held, Member, Outcome
from step_redis.ledger import Numbered
from step_redis.messages import Delivery
from torture.journal import Journal


def observe(journal: Journal, membership: type[Any]) -> None:
    """Note from now on what memberships, all of one flavour, do."""
    streams: dict[Member, str] = {}
    _observe_memberships(journal, membership, streams)
    judged: dict[Member, float] = {}
    _observe_leases(journal, streams)
    _observe_judging(judged)
    _observe_holding(journal, streams, judged)
    _observe_scripts(journal)


def _observe_memberships(
    journal: Journal, membership: type[Any], streams: dict[Member, str]
) -> None:
    make, lose, was_lost = membership.__init__, membership.lose, membership.was_lost

    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        make(self, *args, **kwargs)
        streams[self.member] = self.stream

    def note_loss(self: Any, why: str) -> None:
        member = self.member
        if member.name is not None or member.old_names:
            left = member._ends_at - lease_now()
            journal.write("loss", m=self.stream, why=why, left=left)
        lose(self, why)

    def note_lost(self: Any) -> None:
        journal.write("loss", m=self.stream, why="what arrived told", left=0)
        was_lost(self)

    membership.__init__, membership.lose, membership.was_lost = init, note_loss, note_lost


def _observe_leases(journal: Journal, streams: dict[Member, str]) -> None:
    joined, renewed, broke, lose = Member.joined, Member.renewed, Member.broke, Member.lose

    def note_joined(
        self: Member, name: str, sent_at: float, at: float, moved: Iterable[Delivery]
    ) -> list[Held]:
        before = list(self.old_names)
        new = joined(self, name, sent_at, at, moved)
        if self.name == name:
            journal.write("join", m=streams[self], name=name, old=before, ends=self._ends_at)
        return new

    def note_renewed(self: Member, name: str, sent_at: float) -> None:
        renewed(self, name, sent_at)
        if self.name == name:
            journal.write("renew", m=streams[self], ends=self._ends_at)

    def note_broke(self: Member, name: str) -> None:
        if self.name == name:
            journal.write("broke", m=streams[self], name=name)
        broke(self, name)

    def note_lose(self: Member) -> None:
        lose(self)
        journal.write("lose", m=streams[self])

    Member.joined, Member.renewed, Member.broke = note_joined, note_renewed, note_broke
    Member.lose = note_lose


def _observe_judging(judged: dict[Member, float]) -> None:
    """Note when a reply is judged: by then, deliveries in it were accepted."""
    joined, read, took = Member.joined, Member.read, Member.took

    def note_joined(self: Member, name: str, sent_at: float, at: float, moved: Any) -> Any:
        judged[self] = at
        return joined(self, name, sent_at, at, moved)

    def note_read(self: Member, name: str, deliveries: Sequence[Delivery], at: float) -> Any:
        judged[self] = at
        return read(self, name, deliveries, at)

    def note_took(self: Member, name: str, deliveries: Sequence[Delivery], at: float) -> Any:
        judged[self] = at
        return took(self, name, deliveries, at)

    Member.joined, Member.read, Member.took = note_joined, note_read, note_took


def _observe_holding(
    journal: Journal, streams: dict[Member, str], judged: dict[Member, float]
) -> None:
    hold, settled, end = Member._hold, Member.settled, Member._end

    def note_hold(self: Member, deliveries: Iterable[Delivery]) -> list[Held]:
        new = hold(self, deliveries)
        if new:
            rows = [(one.id, one.count) for one in new]
            journal.write("hold", m=streams[self], at=judged[self], rows=rows)
        return new

    def note_settled(self: Member, held: Held) -> None:
        about = {"id": held.id, "n": held.count}
        journal.write("confirm", m=streams[self], **about)
        settled(self, held)

    def note_end(self: Member, held: Held, outcome: Outcome) -> None:
        if held.outcome is None:
            about = {"id": held.id, "n": held.count}
            attempt = held.attempt and held.attempt.name
            journal.write("end", m=streams[self], **about, o=outcome.name, a=attempt)
        end(self, held, outcome)

    def note_settled_all(self: Member, several: Iterable[Held]) -> None:
        for held in several:
            self.settled(held)

    Member._hold, Member.settled, Member._end = note_hold, note_settled, note_end
    Member.settled_all = note_settled_all


def _observe_scripts(journal: Journal) -> None:
    ack, park, copy = script_calls.ack, script_calls.park, script_calls.copy
    leave, read_polled = script_calls.leave, script_calls.read_polled

    def note_ack(keys: GroupKeys, group: str, name: str, ids: Iterable[str], **rest: Any) -> Any:
        ids = list(ids)
        journal.write("send", m=keys.stream, op="ack", ids=ids, name=name)
        return ack(keys, group, name, ids, **rest)

    def note_park(keys: GroupKeys, group: str, name: str, ids: Iterable[str], **rest: Any) -> Any:
        ids = list(ids)
        journal.write("send", m=keys.stream, op="park", ids=ids, name=name)
        return park(keys, group, name, ids, **rest)

    def note_copy(keys: GroupKeys, group: str, name: str, message_id: str, **rest: Any) -> Any:
        about = {"op": rest["target"], "ids": [message_id], "name": name}
        journal.write("send", m=keys.stream, **about)
        return copy(keys, group, name, message_id, **rest)

    def note_leave(keys: GroupKeys, group: str, name: str, started: Iterable[str]) -> Any:
        journal.write("leave", m=keys.stream, name=name)
        return leave(keys, group, name, started)

    def note_polled(reply: Sequence[Any]) -> Any:
        polled = read_polled(reply)
        if polled.parked or polled.removed:
            journal.write("swept", parked=polled.parked, removed=polled.removed)
        return polled

    script_calls.ack, script_calls.park, script_calls.copy = note_ack, note_park, note_copy
    script_calls.leave, script_calls.read_polled = note_leave, note_polled


def observe_asking(journal: Journal) -> None:
    """Note from now on how often it is asked again what came of publishing."""
    call = Numbered.call

    def note_call(self: Numbered) -> script_calls.ScriptCall:
        if self.lost is not None:
            journal.write("asked again")
        return call(self)

    Numbered.call = note_call
